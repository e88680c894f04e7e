"""The tests' OAuth service on a port of this machine, for programs that run as processes of their own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from livedocs.testing.oauth import OAuth

_HOST = "127.0.0.1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An idle connection is closed by then, so that no thread waits for ever.
    timeout = 60
    oauth: OAuth

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.oauth.answer(self.command, self.path, headers, body)
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = _serve  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it that
        """Requests carry tokens: nothing is logged."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Connections that are kept alive have a thread each; nobody waits for them at the end.
    block_on_close = False


@contextlib.contextmanager
def serving(tenant: str) -> Iterator[OAuth]:
    """The service, on a free port.

    Args:
        tenant: of identities that are given by their name alone.
    """

    class Handler(_Handler):
        """That of this server."""

    with _Server((_HOST, 0), Handler) as server:
        oauth = Handler.oauth = OAuth(f"http://{_HOST}:{server.server_port}", tenant)
        thread = threading.Thread(
            target=server.serve_forever, name="livedocs-oauth", kwargs={"poll_interval": 0.05}
        )
        thread.start()
        try:
            yield oauth
        finally:
            server.shutdown()
            thread.join()
