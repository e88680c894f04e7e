"""Spans as a collector gets them: OTLP over HTTP, from a real server."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from livedocs.demo.mongod import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = "from-the-proxy-1234"


class Collector:
    """Takes spans as an OpenTelemetry collector does (OTLP specification, OTLP/HTTP)."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.spans: list[Span] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.take(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {
                attribute.value.string_value
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            }
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def trace(self, of: str) -> list[Span]:
        """The spans of one trace, once its `of` has come."""
        wait_until(lambda: any(span.name == of for span in self.spans), 10, of)
        [trace_id, *_] = [span.trace_id for span in self.spans if span.name == of]
        return [span for span in self.spans if span.trace_id == trace_id]


def attributes(span: Span) -> dict[str, Any]:
    return {
        attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value"))
        for attribute in span.attributes
    }


def named(spans: list[Span], name: str) -> Span:
    found = [span for span in spans if span.name == name]
    assert found, f"no {name} among {[span.name for span in spans]}"
    return found[0]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def server(start_server, oauth, collector):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield start_server(
            oauth.server_port, traces="otlp", introspection_cache=0, trusted_proxies="127.0.0.1", log_level="info"
        )


def lines(server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


async def test_a_request_is_a_span_with_what_it_asked_of_others_inside(server, api, collector):
    alice = api("alice")
    uuid = (await alice.post("/v1/docs/notes", json={"title": "s3cret"})).json()["uuid"]
    answer = await alice.get(
        f"/v1/docs/notes/{uuid}", headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": GIVEN}
    )
    assert answer.status_code == 200
    name = "GET /v1/docs/{collection}/{uuid}"
    spans = collector.trace(name)
    request = named(spans, name)
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.kind == Span.SPAN_KIND_SERVER
    noted = attributes(request)
    assert (noted["http.request.method"], noted["http.response.status_code"]) == ("GET", 200)
    assert (noted["http.route"], noted["livedocs.tenant"]) == ("/v1/docs/{collection}/{uuid}", "acme")
    assert noted["livedocs.request.id"] == GIVEN == answer.headers["X-Request-Id"]
    asked = named(spans, "introspection")
    assert asked.parent_span_id == request.span_id
    assert asked.kind == Span.SPAN_KIND_CLIENT
    commands = [span for span in spans if "db.system.name" in attributes(span)]
    assert {span.parent_span_id for span in commands} == {request.span_id}
    assert "notes" in {attributes(span).get("db.collection.name") for span in commands}
    assert collector.services == {"livedocs"}
    [ended] = [line for line in lines(server) if line.get("request_id") == GIVEN]
    assert (ended["event"], ended["trace_id"], ended["status"]) == ("request", TRACE, 200)


async def test_a_handshake_and_a_join_are_traces_of_their_own(server, open_peer, collector, grant, acme):
    uuid = uuid4()
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid, "title": "s3cret"})
    alice = await open_peer("alice")
    await alice.call("JoinRoom", [str(uuid), str(uuid4())], {"snapshot": True})
    joined = collector.trace("JoinRoom")
    join = named(joined, "JoinRoom")
    assert attributes(join) == {"livedocs.tenant": "acme", "livedocs.rooms": 2, "livedocs.rooms.refused": 1}
    assert not join.parent_span_id
    assert {attributes(span)["db.collection.name"] for span in joined if span is not join} >= {"acl", "notes"}
    handshake = collector.trace("GET /socket.io")
    assert named(handshake, "introspection").parent_span_id == named(handshake, "GET /socket.io").span_id
    assert named(handshake, "GET /socket.io").trace_id != join.trace_id


async def test_events_that_come_together_are_a_span(open_peer, collector, acme, grant):
    uuid = uuid4()
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid, "title": "s3cret"})
    batch = named(collector.trace("change batch"), "change batch")
    assert attributes(batch)["livedocs.events"] >= 1


async def test_a_refused_handshake_says_by_what_code(server, collector):
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        answer = await client.get(
            "/socket.io/?EIO=4&transport=websocket",
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
                "Authorization": "Bearer nonsense",
                "X-Request-Id": "refused-handshake",
            },
        )
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (401, "refused-handshake")
    wait_until(
        lambda: "unauthenticated" in str(collector.spans) or "invalid_token" in str(collector.spans), 10, "it"
    )
    [refused] = [span for span in collector.spans if attributes(span).get("error.type") == "invalid_token"]
    assert refused.name == "GET /socket.io"
    assert refused.status.code == Status.STATUS_CODE_UNSET
    [ended] = [line for line in lines(server) if line.get("request_id") == "refused-handshake"]
    assert (ended["event"], ended["status"], ended["route"]) == ("request", 401, "/socket.io")


async def test_no_span_and_no_line_holds_a_secret(server, api, open_peer, collector):
    token = server.token("alice")
    await api("alice").get("/v1/docs/notes/nonsense")
    await (await open_peer("alice")).call("JoinRoom", [str(uuid4())])
    collector.trace("JoinRoom")
    sent, said = b"".join(collector.bodies), server.log.read_text()
    for secret in (token, "s3cret", server.deployment.oauth.secret):
        assert secret.encode() not in sent
        assert secret not in said


async def test_the_end_of_a_socket_is_one_line_with_its_ids(server, open_peer, grant):
    alice = await open_peer("alice", headers={"X-Request-Id": "socket-of-alice"})
    await alice.socket.send("4[[[")
    await alice.until(alice.closed.is_set)

    def of_socket():
        return [line for line in lines(server) if line.get("request_id") == "socket-of-alice"]

    wait_until(lambda: any(line["event"] == "request" for line in of_socket()), 10, "the line")
    broke, ended = of_socket()
    assert broke["socket"] == ended["socket"]
    assert len(ended["socket"]) == 32
    assert (ended["route"], ended["status"], ended["tenant"]) == ("/socket.io", 101, "acme")
    assert ended["reason"] == "protocol_error"


def test_a_server_whose_collector_is_gone_works_and_stops_in_order(start_server, free_ports):
    [port] = free_ports(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        # Longer than a server may take to stop.
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        patch.setenv("NO_PROXY", "127.0.0.1")
        server = start_server(traces="otlp")
    assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
    server.stop()
