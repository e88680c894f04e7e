"""Pages of others in the browser of somebody who is logged in.

`localhost` on another port is another origin but the same site: SameSite cookies go along, so nothing but the
checks of the server stands between that page and the session. It is what a sibling subdomain is in production.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN_SOCKET = """(url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onopen = () => resolve('open');
  socket.onerror = () => resolve('refused');
})"""
ASK = """async ([url, options]) => {
  try {
    const answer = await fetch(url, { credentials: 'include', ...options });
    return [answer.type, answer.status, await answer.text()];
  } catch (error) {
    return 'blocked';
  }
}"""


@dataclass(frozen=True)
class Place:
    """Where people go: a server of the test's own with the built page."""

    url: str
    hosts: set[str]


@pytest.fixture(scope="module")
def place(start_server, oauth, page_folder):
    server = start_server(oauth.server_port, frontend_dir=page_folder)
    return server, Place(server.url, {f"localhost:{server.port}", f"localhost:{oauth.port}"})


async def metric(server, name):
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(server.metrics_url)).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


class Elsewhere(BaseHTTPRequestHandler):
    """An empty page of somebody else."""

    def do_GET(self):
        page = b"<!doctype html><title>Elsewhere</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="module")
def elsewhere():
    """The port of a server of somebody else's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


async def visit(alice, origin):
    """A page of that origin, in the same browser and session."""
    # What Chromium says of requests that are refused, as they are meant to be.
    alice.tolerated = re.compile(re.escape(origin) + "|Failed to load resource|CORS|WebSocket|ERR_|Sandbox")
    alice.hosts.add(urlsplit(origin).netloc)
    await alice.page.goto(f"{origin}/")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["same site", "another site"])
async def test_a_foreign_page_opens_no_socket_with_the_browsers_cookie(people, place, elsewhere, host):
    server, where = place
    alice = await people("alice", at=where)
    await visit(alice, f"http://{host}:{elsewhere}")
    refused = await metric(server, 'livedocs_handshakes_total{code="forbidden_origin"}')
    live = await metric(server, "livedocs_sockets{")
    assert await alice.page.evaluate(OPEN_SOCKET, server.ws_url) == "refused"
    assert await metric(server, 'livedocs_handshakes_total{code="forbidden_origin"}') == refused + 1
    assert await metric(server, "livedocs_sockets{") <= live
    # A sandboxed frame has the origin `null`, which is nobody's.
    await alice.page.evaluate(
        """(url) => new Promise((resolve) => {
          const frame = document.createElement('iframe');
          frame.sandbox = 'allow-scripts';
          frame.srcdoc = `<script>
            const socket = new WebSocket(${JSON.stringify(url)});
            socket.onopen = () => parent.postMessage('open', '*');
            socket.onerror = () => parent.postMessage('refused', '*');
          </script>`;
          window.onmessage = (event) => { window.nulled = event.data; resolve(); };
          document.body.append(frame);
        })""",
        server.ws_url,
    )
    assert await alice.page.evaluate("window.nulled") == "refused"
    assert await metric(server, 'livedocs_handshakes_total{code="forbidden_origin"}') == refused + 2


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["same site", "another site"])
async def test_a_foreign_page_changes_nothing_and_reads_nothing_in_the_browsers_name(
    people, place, elsewhere, host
):
    server, where = place
    alice = await people("alice", at=where)
    uuid = await alice.create("Mine")
    await visit(alice, f"http://{host}:{elsewhere}")

    async def ask(path, **options):
        return await alice.page.evaluate(ASK, [server.url + path, options])

    simple = {"mode": "no-cors", "headers": {"Content-Type": "text/plain"}}
    refused = await metric(server, 'livedocs_http_requests_total{method="POST",status="403"}')
    for path, body in (("/auth/logout", ""), ("/auth/refresh", ""), ("/v1/docs/notes", '{"title": "Theirs"}')):
        # A simple request is sent, cookie and all. Cross-Origin-Resource-Policy keeps even an opaque answer from
        # the page, so what came of it is asked of the server, below.
        assert await ask(path, method="POST", body=body, **simple) == "blocked"
    # What may not be sent without asking first is not sent.
    proof = {"X-Requested-With": "livedocs"}
    for method, path in (("POST", "/auth/logout"), ("DELETE", f"/v1/docs/notes/{uuid}")):
        assert await ask(path, method=method, headers=proof) == "blocked"
    # Nor can it read what it is sent.
    assert await ask("/v1/me") == "blocked"
    assert await ask("/auth/session") == "blocked"
    # A form, which navigates and needs no script's permission.
    async with alice.page.expect_navigation():
        await alice.page.evaluate(
            """(url) => {
              const form = document.createElement('form');
              Object.assign(form, { method: 'POST', action: url, enctype: 'text/plain' });
              document.body.append(form);
              form.submit();
            }""",
            f"{server.url}/auth/logout",
        )
    same_site = host == "localhost"
    count = await metric(server, 'livedocs_http_requests_total{method="POST",status="403"}') - refused
    # From another site the cookie did not even go along: what needs one is then 401.
    assert count == (4 if same_site else 2)
    await alice.page.goto(f"{server.url}/#{uuid}")
    await alice.shows("live")
    await expect(alice.field("title")).to_contain_text("Mine")
    listed = await alice.page.evaluate("fetch('/v1/me/documents').then((answer) => answer.text())")
    assert uuid in listed
    assert await metric(server, 'livedocs_http_requests_total{method="POST",status="201"}') == 1 + (not same_site)


CALL = """async ([url, options]) => {
  try {
    const answer = await fetch(url, options);
    return { status: answer.status, etag: answer.headers.get('ETag'), text: await answer.text() };
  } catch (error) {
    return { status: 'blocked' };
  }
}"""


@pytest.fixture(scope="module")
def hospitable(start_server, elsewhere):
    """A server that lets in the pages of the other one, by both of its names."""
    return start_server(allowed_origins=f"http://localhost:{elsewhere} http://127.0.0.1:{elsewhere}")


async def test_a_configured_page_of_the_same_site_works_with_the_cookie_and_its_proofs(
    people, place, hospitable, elsewhere
):
    # Cookies are of a host, whatever the port: the login at one server is one at the other.
    alice = await people("alice", at=place[1])
    alice.hosts.add(f"localhost:{hospitable.port}")
    await visit(alice, f"http://localhost:{elsewhere}")

    async def call(path, **options):
        return await alice.page.evaluate(CALL, [hospitable.url + path, {"credentials": "include", **options}])

    assert '"user:alice"' in (await call("/v1/me"))["text"]
    proof = {"X-Requested-With": "sibling", "Content-Type": "application/json"}
    made = await call("/v1/docs/notes", method="POST", headers=proof, body='{"title": "Theirs"}')
    assert made["status"] == 201
    assert made["etag"]
    path = f"/v1/docs/notes/{json.loads(made['text'])['uuid']}"
    changed = await call(path, method="PATCH", headers={**proof, "If-Match": made["etag"]}, body='{"n": 1}')
    assert changed["status"] == 200
    stale = await call(path, method="DELETE", headers={**proof, "If-Match": made["etag"]})
    assert (stale["status"], json.loads(stale["text"])["code"]) == (412, "precondition_failed")
    # The origin alone is not enough, and the page can read why.
    refused = await call("/v1/docs/notes", method="POST", body="{}")
    assert (refused["status"], json.loads(refused["text"])["code"]) == (403, "csrf")
    assert await alice.page.evaluate(OPEN_SOCKET, hospitable.ws_url) == "open"
    # The other server has not been told of that page.
    elsewhere_still = await alice.page.evaluate(CALL, [place[0].url + "/v1/me", {"credentials": "include"}])
    assert elsewhere_still["status"] == "blocked"


async def test_a_configured_page_of_another_site_gets_no_cookie_along_and_works_with_a_token(
    people, place, hospitable, elsewhere
):
    alice = await people("alice", at=place[1])
    alice.hosts.add(f"localhost:{hospitable.port}")
    await visit(alice, f"http://127.0.0.1:{elsewhere}")

    async def call(path, **options):
        return await alice.page.evaluate(CALL, [hospitable.url + path, options])

    refused = await call("/v1/me", credentials="include")
    assert (refused["status"], json.loads(refused["text"])["code"]) == (401, "unauthenticated")
    # Nor a socket: its handshake brings no cookie either.
    assert await alice.page.evaluate(OPEN_SOCKET, hospitable.ws_url) == "refused"
    bearer = {"Authorization": f"Bearer {hospitable.token('alice')}", "Content-Type": "application/json"}
    made = await call("/v1/docs/notes", method="POST", headers=bearer, body='{"title": "Theirs"}')
    assert made["status"] == 201
    path = f"/v1/docs/notes/{json.loads(made['text'])['uuid']}"
    assert (await call(path, method="DELETE", headers={**bearer, "If-Match": made["etag"]}))["status"] == 204
