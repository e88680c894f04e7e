"""ops/nginx/nginx.conf, run by nginx, in front of a server that shows what arrives."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import httpx
import pytest
import websockets
from hypercorn.asyncio import serve
from hypercorn.config import Config

from livedocs import exchange

NGINX = Path(__file__).parents[3] / "ops" / "nginx" / "nginx.conf"


async def mirror(scope, receive, send):
    """Answers an HTTP request with its headers; opens a WebSocket and sends back what comes."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "http":
        lines = [f"{name.decode()}: {value.decode()}" for name, value in scope["headers"]]
        headers = [(b"content-type", b"text/plain"), (b"etag", b'"a"')]
        sizes = dict(scope["headers"]).get(b"x-cookies", b"").split()
        headers += [
            (b"set-cookie", f"c{number}=".encode() + b"t" * int(size)) for number, size in enumerate(sizes)
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": "\n".join(lines).encode()})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


@pytest.fixture
async def proxy(start_proxy, free_ports):
    """The proxy in front of two mirrors, one where the server is and one where the provider is."""
    config, stop = Config(), asyncio.Event()
    server, provider = free_ports(2)
    config.bind = [f"127.0.0.1:{server}", f"127.0.0.1:{provider}"]
    config.graceful_timeout = 0.1
    task = asyncio.create_task(serve(mirror, config, shutdown_trigger=stop.wait))
    proxy = await asyncio.to_thread(start_proxy, server, provider)
    yield proxy
    await asyncio.to_thread(proxy.stop)
    stop.set()
    await task


async def headers_seen(url, *, verify=True, **sent):
    async with httpx.AsyncClient(verify=verify, trust_env=False) as client:
        answer = await client.get(url, headers=sent)
    assert answer.status_code == 200
    return answer, dict(line.split(": ", 1) for line in answer.text.splitlines())


async def test_the_server_learns_who_asked_and_how(proxy):
    answer, seen = await headers_seen(f"{proxy.url}/v1/me", verify=proxy.tls())
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert seen["host"] == f"localhost:{proxy.port}"
    assert answer.headers["server"] == "nginx"


async def test_what_a_client_claims_about_itself_does_not_pass(proxy):
    forged = {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=10.0.0.1",
        "X-Request-Id": "somebody-elses",
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    _, seen = await headers_seen(f"{proxy.url}/", verify=proxy.tls(), **forged)
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert "x-forwarded-host" not in seen
    assert "forwarded" not in seen
    assert "traceparent" not in seen
    assert exchange.id_from(seen["x-request-id"]) == seen["x-request-id"] != forged["X-Request-Id"]


async def test_an_entity_tag_stays_strong_for_a_client_that_takes_compressed_answers(proxy):
    answer, seen = await headers_seen(
        f"{proxy.url}/v1/docs/notes/x", verify=proxy.tls(), **{"Accept-Encoding": "gzip"}
    )
    assert seen["accept-encoding"] == "gzip"
    assert "content-encoding" not in answer.headers
    assert answer.headers["etag"] == '"a"'


async def test_a_websocket_passes(proxy):
    url = f"wss://localhost:{proxy.port}/socket.io/?EIO=4&transport=websocket"
    async with websockets.connect(url, ssl=proxy.tls(), proxy=None) as socket_:
        await socket_.send("40")
        assert await asyncio.wait_for(socket_.recv(), 10) == "40"


async def test_the_certificate_is_for_this_machine_and_trusted_by_nobody_else(proxy):
    for name in ("localhost", "127.0.0.1"):
        await headers_seen(f"https://{name}:{proxy.port}/", verify=proxy.tls())
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        await headers_seen(f"{proxy.url}/")


def handshake(proxy, context):
    with (
        socket.create_connection(("127.0.0.1", proxy.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        return wrapped.version()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_newer_are_taken(proxy, version):
    context = proxy.tls()
    context.minimum_version = context.maximum_version = version
    assert await asyncio.to_thread(handshake, proxy, context) == version.name.replace("_", ".")


async def test_tls_1_1_is_refused_by_the_proxy(proxy):
    context = proxy.tls()
    # So that this side would speak it: no policy of this machine is what refuses.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        await asyncio.to_thread(handshake, proxy, context)
    # Said, and not left to what the TLS library of a build refuses by itself.
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in NGINX.read_text()


async def test_the_provider_is_reached_under_its_own_name_over_plain_http(proxy):
    _, seen = await headers_seen(f"http://localhost:{proxy.provider_port}/authorize")
    assert seen["host"] == f"localhost:{proxy.provider_port}"


async def test_a_query_is_not_logged(proxy):
    await headers_seen(f"{proxy.url}/auth/callback?code=a-secret-code", verify=proxy.tls())
    assert "/auth/callback" in proxy.log.read_text()
    assert "a-secret-code" not in proxy.log.read_text()


@pytest.mark.parametrize("sizes", [(1640, 1640), (4090, 4090, 4090)])
async def test_cookies_of_the_largest_tokens_pass_both_ways(proxy, sizes):
    cookies = "; ".join(f"c{number}=" + "t" * size for number, size in enumerate(sizes))
    sent = {"X-Cookies": " ".join(map(str, sizes)), "Cookie": cookies}
    answer, seen = await headers_seen(f"{proxy.url}/auth/callback", verify=proxy.tls(), **sent)
    assert [len(cookie) for cookie in answer.headers.get_list("set-cookie")] == [size + 3 for size in sizes]
    assert seen["cookie"] == cookies
