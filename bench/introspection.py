"""A stand-in for the OAuth service: says of the tokens `bench-N` that they are user N's, whoever asks.

`bench-service` is a tenant service's that may write.

Introspection (RFC 7662) is all livedocs asks for here. The development provider would do as well, but issuing
thousands of tokens through its login pages would take longer than the measurement.

    python introspection.py --port 4001
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from urllib.parse import parse_qs

TENANT = "acme"
AUDIENCE = "livedocs"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def answer(token: str) -> dict[str, object]:
    """What the service says of a token."""
    if not token.startswith("bench-"):
        return {"active": False}
    name = token.removeprefix("bench-")
    service = name == "service"
    return {
        "active": True,
        "sub": name,
        "client_id": name if service else "bench-app",
        "aud": AUDIENCE,
        "tenant": TENANT,
        "groups": ["staff"],
        "scope": "livedocs:write" if service else "openid",
        "exp": int(time.time()) + 7200,
    }


class Exchange(asyncio.Protocol):
    """One connection: a request, an answer, and again."""

    def __init__(self) -> None:
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + size:
                return
            body, self._data = self._data[end + 4 : end + 4 + size], self._data[end + 4 + size :]
            token = parse_qs(body.decode()).get("token", [""])[0]
            text = json.dumps(answer(token)).encode()
            if self._transport is not None:
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
                    text
                )
                self._transport.write(head + text)


async def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    server = await asyncio.get_running_loop().create_server(Exchange, "127.0.0.1", options.port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
