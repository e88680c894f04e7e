"""Whatever is asked for, its address is counted before anything is done."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from livedocs import front
from livedocs.access.limits import PROBES, Limits
from livedocs.app import Server
from livedocs.http.admission import Admission
from livedocs.telemetry import Metrics

ODD = [
    ("GET", "/nowhere"),
    ("BREW", "/v1/me"),
    ("GET", "/v1/me?access_token=x"),
    ("GET", "/socket.io/"),
    ("GET", "/socket.io"),
    ("POST", "/socket.io/?EIO=4&transport=polling"),
    ("GET", "/socket.io/x"),
    ("OPTIONS", "/v1/me"),
    ("OPTIONS", "/nowhere"),
    ("OPTIONS", "*"),
    ("HEAD", "/"),
    ("GET", "//"),
    ("GET", "/%00"),
    ("GET", "/assets/index.js"),
]


def raw(method, path, *headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


def routes(description):
    """Every path and method of the interface's own description."""
    for path, methods in description.items():
        for method in methods:
            yield method.upper(), re.sub(r"{[^}]+}", "x", path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A built page."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "assets").mkdir()
    (folder / "assets" / "index.js").write_text("")
    return folder


@pytest.fixture(scope="module")
def strict(start_server, page):
    """A server that takes one request of an address, and then none for a long time."""
    return start_server(limit_burst=1, limit_requests_per_address=0.001, frontend_dir=page)


async def statuses(server, dial, requests, source):
    found = {}
    for number, (method, path) in enumerate(requests):
        answer = await (await dial(raw(method, path), at=server, source=source)).rest()
        found[number, method, path] = int(answer.split()[1]), answer
    return found


async def test_no_path_and_no_method_is_left_out(strict, dial):
    async with httpx.AsyncClient(trust_env=False) as client:
        # From another address, whose one request this is.
        description = (await client.get(f"{strict.url}/openapi.json")).json()["paths"]
    told = list(routes(description))
    assert len(told) > 30
    source = "127.0.0.7"
    assert (await (await dial(raw("GET", "/nowhere"), at=strict, source=source)).rest()).startswith(
        b"HTTP/1.1 404 "
    )
    asked = [*told, *ODD]
    found = await statuses(strict, dial, asked, source)
    probes = {"/healthz", "/readyz"}
    for (_, method, path), (status, answer) in found.items():
        if path in probes:
            assert status == 200, path
        else:
            assert status == 429, (method, path)
            assert b"retry-after: " in answer.lower()
            assert method == "HEAD" or b"requests per address" in answer


async def test_a_refusal_has_the_headers_of_every_answer_and_a_page_may_read_it(strict, dial):
    source = "127.0.0.8"
    request = raw("GET", "/v1/me", f"Origin: {strict.url}")
    answers = [await (await dial(request, at=strict, source=source)).rest() for _ in range(2)]
    assert answers[1].startswith(b"HTTP/1.1 429 ")

    def names(answer):
        head = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        return {line.partition(b":")[0].lower() for line in head} - {b"www-authenticate", b"retry-after"}

    assert names(answers[1]) >= names(answers[0])
    assert f"access-control-allow-origin: {strict.url}".encode() in answers[1].lower()


async def test_the_metrics_listener_is_limited_by_address(deployment):
    async def metrics(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    sent = []

    async def send(message):
        sent.append(message)

    limits = Limits(deployment.settings(), Metrics(), clock=lambda: 0.0)
    app = front.http_only(metrics, limits)
    for address in ("10.0.0.1", "10.0.0.2"):
        sent.clear()
        for _ in range(int(PROBES.burst) + 1):
            await app({"type": "http", "client": (address, 1)}, None, send)
        told = [message["status"] for message in sent if message["type"] == "http.response.start"]
        assert told == [200] * int(PROBES.burst) + [429]


def test_admission_stands_around_everything(deployment):
    """What is served is the exchange around it, and nothing is inside of that but what it admits."""

    async def wired():
        server = Server(deployment.settings())
        inner = server.asgi._app
        await server._client.close()
        await server._stream_client.close()
        return inner

    assert isinstance(asyncio.run(wired()), Admission)
