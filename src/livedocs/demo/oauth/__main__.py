"""`python -m livedocs.demo.oauth`: run the development provider on this machine."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

import click
from werkzeug.serving import WSGIRequestHandler, make_server

from livedocs.config import is_loopback
from livedocs.demo.oauth.app import create_app
from livedocs.demo.oauth.client_secret import client_secret
from livedocs.demo.oauth.clients import registry
from livedocs.demo.oauth.keys import SigningKey
from livedocs.demo.oauth.server import Server
from livedocs.demo.oauth.state import State

_BACKLOG: Final = 128
_log = logging.getLogger("livedocs.demo.oauth")


class _Handler(WSGIRequestHandler):
    timeout = 30  # for a peer that connects and says nothing

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        """Log without the query: id tokens travel there."""
        _log.info("%s %s %s", self.command, urlsplit(self.path).path, getattr(code, "value", code))

    def log_error(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """A peer that went away is no news."""
        _log.debug(format, *args)


def _loopback_url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or not is_loopback(url.hostname or ""):
        raise click.BadParameter("is not a URL on this machine")
    return value


def _loopback_host(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not is_loopback(value):
        raise click.BadParameter("the development provider asks for no passwords: loopback addresses only")
    return value


def _refuse_production() -> None:
    public = os.environ.get("LIVEDOCS_PUBLIC_URL", "")
    if public and not is_loopback(urlsplit(public).hostname or ""):
        raise click.ClickException(
            "LIVEDOCS_PUBLIC_URL is not on this machine: the development provider lets anybody in and is for demos"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise click.ClickException(f"port {port} is in use; choose another with --port") from None
        raise click.ClickException(f"cannot listen on port {port}: {error.strerror}") from None


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End the server loop, once: Ctrl-C and the demo's own SIGTERM come together, and the end must not be cut."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0 takes a free one.")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option(
    "--server-url",
    default="http://localhost:8000",
    show_default=True,
    callback=_loopback_url,
    help="Where the livedocs server is that people log in to.",
)
@click.option("--host", default="127.0.0.1", show_default=True, callback=_loopback_host)
def main(port: int, data_dir: Path, server_url: str, host: str) -> None:
    """Run the development OAuth provider until SIGINT or SIGTERM."""
    _refuse_production()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("authlib").setLevel(logging.WARNING)  # it writes tokens at the debug level
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    with contextlib.suppress(KeyboardInterrupt), _listen(host, port) as listener:
        port = listener.getsockname()[1]
        state = State(data_dir / "provider.sqlite3")
        try:
            key = SigningKey(json.loads(state.secret("key", lambda: json.dumps(SigningKey.generate()))))
            clients = registry(server_url, client_secret(data_dir))
            issuer = f"http://localhost:{port}"
            app = create_app(Server(issuer, key, state, clients))
            web = make_server(host, port, app, threaded=True, request_handler=_Handler, fd=listener.fileno())
            listener.close()
            click.echo(f"development provider ready on {issuer}")
            web.serve_forever()  # returns on KeyboardInterrupt, with its socket closed
        finally:
            state.close()


if __name__ == "__main__":
    main()
