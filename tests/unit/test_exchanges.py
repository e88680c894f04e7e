"""What surrounds a request: ids, the line at its end, its span. Over small ASGI applications."""

from __future__ import annotations

import asyncio
import json

import pytest

from livedocs import exchange
from livedocs.http.caller import Proxies
from livedocs.http.exchanges import Exchanges
from livedocs.telemetry import Metrics, get_logger

PROXY, STRANGER = "10.0.0.7", "192.0.2.1"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
GIVEN = "req-1234.ABCD_5678"


async def nothing():
    return {"type": "http.disconnect"}


async def hello(scope, receive, send):
    """Finds out its route and its caller, as the real one does."""
    made = exchange.current()
    made.route, made.tenant = "/v1/docs/{collection}/{uuid}", "acme"
    get_logger("livedocs.test").info("inside")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"etag", b'"1"')]})
    await send({"type": "http.response.body", "body": b"hello"})


class Caller:
    """Sends requests to the application around another."""

    def __init__(self, app=hello):
        self.metrics = Metrics()
        self.app = Exchanges(app, self.metrics, Proxies(("10.0.0.0/8",)))

    async def get(self, peer=STRANGER, method="GET", path="/v1/docs/notes/1", **headers):
        """The answer's headers."""
        sent = []

        async def send(message):
            sent.append(message)

        raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"access_token=s3cret",
            "headers": raw,
            "client": (peer, 4711),
        }
        await self.app(scope, nothing, send)
        return dict(sent[0]["headers"]) if sent else None


async def test_every_answer_names_its_request_by_an_id_of_its_own():
    caller = Caller()
    first, second = await caller.get(), await caller.get()
    assert len(first[b"x-request-id"]) == 32
    assert first[b"x-request-id"] != second[b"x-request-id"]
    assert first[b"etag"] == b'"1"'


async def test_an_id_is_taken_from_a_configured_proxy_only():
    caller = Caller()
    assert (await caller.get(PROXY, X_Request_Id=GIVEN))[b"x-request-id"] == GIVEN.encode()
    assert (await caller.get(STRANGER, X_Request_Id=GIVEN))[b"x-request-id"] != GIVEN.encode()


@pytest.mark.parametrize(
    "text", ["", "short", "x" * 129, "two words 12345", 'quote"quote"', "line\nline\nline", "ünïcödé-id"]
)
async def test_an_id_that_could_upset_a_log_is_replaced(text):
    answered = (await Caller().get(PROXY, X_Request_Id=text))[b"x-request-id"].decode()
    assert len(answered) == 32
    assert answered.isalnum()


async def test_lines_carry_the_ids_of_their_request(log):
    lines, caller = log(), Caller()
    await caller.get(PROXY, X_Request_Id=GIVEN, Traceparent=PARENT)
    await caller.get(STRANGER, X_Request_Id=GIVEN, Traceparent=PARENT)
    get_logger("livedocs.test").info("outside")
    inside, ended, inside_other, ended_other, outside = map(json.loads, lines())
    assert [line["request_id"] for line in (inside, ended)] == [GIVEN, GIVEN]
    assert [line["trace_id"] for line in (inside, ended)] == [TRACE, TRACE]
    assert inside_other["request_id"] == ended_other["request_id"] != GIVEN
    # A stranger can neither hide behind somebody else's request nor have one traced.
    assert "trace_id" not in inside_other
    assert "request_id" not in outside


async def test_one_line_says_what_became_of_a_request_and_nothing_secret(log):
    lines = log()
    await Caller().get(PROXY, X_Forwarded_For=STRANGER, Authorization="Bearer s3cret", Cookie="t=s3cret")
    *_, line = lines()
    fields = json.loads(line)
    assert fields["event"] == "request"
    assert (fields["method"], fields["route"], fields["status"]) == ("GET", "/v1/docs/{collection}/{uuid}", 200)
    assert (fields["tenant"], fields["address"]) == ("acme", STRANGER)
    assert 0 <= fields["duration_ms"] < 10_000
    assert "s3cret" not in line
    assert "notes" not in line


async def test_a_request_that_was_never_answered_has_a_line_without_a_status(log):
    async def broken(scope, receive, send):
        raise ConnectionResetError

    lines = log()
    with pytest.raises(ConnectionResetError):
        await Caller(broken).get()
    fields = json.loads(lines()[-1])
    assert (fields["event"], fields["status"], fields["route"]) == ("request", None, None)


async def test_probes_are_only_said_when_everything_is(log):
    async def probe(scope, receive, send):
        exchange.current().route = "/healthz"
        await send({"type": "http.response.start", "status": 200})

    lines = log()
    await Caller(probe).get()
    assert lines() == []
    lines = log(log_level="debug")
    await Caller(probe).get()
    assert json.loads(lines()[0])["route"] == "/healthz"


async def test_requests_at_the_same_time_are_told_apart():
    seen, met = {}, asyncio.Barrier(2)

    async def slow(scope, receive, send):
        made = exchange.current()
        await met.wait()
        seen[scope["path"]] = (made.id, exchange.current().id)
        await send({"type": "http.response.start", "status": 200})

    caller = Caller(slow)
    one, two = await asyncio.gather(caller.get(path="/one"), caller.get(path="/two"))
    assert seen["/one"] == (one[b"x-request-id"].decode(),) * 2
    assert seen["/two"] == (two[b"x-request-id"].decode(),) * 2


async def test_requests_are_timed_by_route_with_labels_that_nobody_can_make_up():
    async def lost(scope, receive, send):
        await send({"type": "http.response.start", "status": 404})

    caller = Caller()
    await caller.get()
    caller.app._app = lost
    await caller.get(method="BREW", path="/made/up")
    count = caller.metrics.registry.get_sample_value
    name = "livedocs_http_request_seconds_count"
    assert count(name, {"method": "GET", "route": "/v1/docs/{collection}/{uuid}"}) == 1
    assert count(name, {"method": "OTHER", "route": "none"}) == 1


async def test_a_websockets_send_stays_the_servers_own():
    """The sockets write to the transport behind it."""
    got = []

    async def send(message):
        raise AssertionError

    async def socket(scope, receive, send):
        got.append(send)

    app = Exchanges(socket, Metrics(), Proxies(()))
    await app({"type": "websocket", "path": "/socket.io", "headers": [], "client": None}, nothing, send)
    assert got == [send]
