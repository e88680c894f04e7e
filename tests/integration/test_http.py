from __future__ import annotations

import asyncio
import re
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator

from livedocs.store.connection import connect
from livedocs.store.documents import Documents
from livedocs.store.grants import Grants
from livedocs.store.tenants import Tenants


@pytest.fixture
def alice(api):
    return api.someone("user:alice")


ROUTES = [
    ("GET", "/v1/me"),
    ("GET", "/v1/me/documents"),
    ("POST", "/v1/docs/notes"),
    ("GET", "/v1/docs/notes/00000001-0000-4000-8000-000000000000"),
    ("PUT", "/v1/docs/notes/00000002-0000-4000-8000-000000000000"),
    ("PATCH", "/v1/docs/unknown/00000003-0000-4000-8000-000000000000"),
    ("DELETE", "/v1/docs/notes/nonsense"),
    ("GET", "/v1/grants/00000004-0000-4000-8000-000000000000"),
    ("PUT", "/v1/grants/00000005-0000-4000-8000-000000000000/user:a"),
    ("DELETE", "/v1/grants/x/y"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nobody_gets_anywhere_without_a_credential(api, method, path):
    answer = await api.anybody().request(method, path)
    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="livedocs"'


async def test_every_route_but_the_public_ones_asks_for_a_credential(api):
    """A route that is added later is closed unless somebody opens it on purpose."""
    open_routes = set()
    for rule in api.app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "x", rule.rule)
        for method in rule.methods - {"OPTIONS", "HEAD"}:
            answer = await api.anybody().request(method, path)
            if answer.status != 401 or path.startswith("/auth/"):
                open_routes.add(rule.rule)
    assert {path for path in open_routes if not path.startswith("/auth/")} == {
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/docs.css",
        "/docs/socket",
        "/asyncapi.json",
    }


async def test_a_bad_token_is_told_from_none(api):
    answer = await api.anybody(Authorization="Bearer unknown").get("/v1/me")
    assert (answer.status, answer.code) == (401, "invalid_token")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Authorization": "Bearer a", "Cookie": "livedocs_token=b"}, 400, "multiple_credentials"),
        ({"Cookie": "livedocs_token=a; livedocs_token=b"}, 400, "duplicate_cookie"),
        ({"Authorization": "Bearer " + "x" * 4097}, 400, "token_too_large"),
        ({"Authorization": "Bearer "}, 400, "bad_request"),
        ({"Authorization": "Basic YTpi"}, 401, "unauthenticated"),
    ],
)
async def test_a_malformed_credential_is_said_so(api, headers, status, code):
    answer = await api.anybody(**headers).get("/v1/me")
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize("path", ["/v1/me", "/healthz", "/", "/nowhere", "/auth/session"])
async def test_a_token_in_the_url_is_refused_everywhere(api, path):
    answer = await api.anybody().get(f"{path}?access_token=secret-token")
    assert (answer.status, answer.code) == (400, "bad_request")
    assert b"secret-token" not in answer.body


async def test_with_a_cookie_a_change_needs_proof_that_our_page_sent_it(api, alice):
    token = alice.headers["Authorization"].removeprefix("Bearer ")
    browser = api.anybody(Cookie=f"livedocs_token={token}")
    origin = api.origin
    assert (await browser.get("/v1/me")).status == 200
    for headers in (
        {},
        {"Origin": origin},
        {"X-Requested-With": "livedocs"},
        {"Origin": "https://evil.example", "X-Requested-With": "livedocs"},
        {"Origin": "null", "X-Requested-With": "livedocs"},
    ):
        answer = await browser.post("/v1/docs/notes", {"a": 1}, **headers)
        assert (answer.status, answer.code) == (403, "csrf")
    good = await browser.post("/v1/docs/notes", {"a": 1}, Origin=origin, X_Requested_With="livedocs")
    assert good.status == 201
    # A program has no cookie that somebody else could make it send.
    assert (await alice.post("/v1/docs/notes", {"a": 1}, Origin="https://evil.example")).status == 201


async def test_the_tenant_of_a_token_must_be_registered(api):
    answer = await api.someone(tenant="nowhere").get("/v1/me")
    assert (answer.status, answer.code) == (403, "unknown_tenant")


async def test_the_people_of_a_suspended_tenant_are_kept_out(start_api, mongo, deployment):
    tenants = Tenants(mongo, deployment.control_database)
    await tenants.set_status("globex", "suspended")
    try:
        api = await start_api()
    finally:
        await tenants.set_status("globex", "active")
    answer = await api.someone(tenant="globex").get("/v1/me")
    assert (answer.status, answer.code) == (403, "tenant_suspended")
    assert (await api.someone(tenant="acme").get("/v1/me")).status == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1", "/v1/docs", "/v1/nothing/x", "/v1/docs/notes/", "/docs/../etc"]
)
async def test_an_unknown_path_is_a_problem(api, alice, method, path):
    for who in (api.anybody(), alice):
        answer = await who.request(method, path)
        assert (answer.status, answer.code) == (404, "not_found")


async def test_a_method_that_a_path_does_not_take_is_named_with_those_it_does(alice):
    answer = await alice.delete("/v1/me")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("content_type", "method", "accepted"),
    [
        ("text/plain", "PUT", False),
        ("application/x-www-form-urlencoded", "PUT", False),
        ("application/merge-patch+json", "PUT", False),
        ("application/merge-patch+json", "PATCH", True),
        ("application/json; charset=utf-8", "PATCH", True),
        ("multipart/form-data; boundary=x", "PATCH", False),
        ("", "PUT", False),
    ],
)
async def test_a_body_is_taken_only_as_what_it_is(alice, content_type, method, accepted):
    answer = await alice.request(method, f"/v1/docs/notes/{uuid4()}", b'{"a": 1}', Content_Type=content_type)
    if accepted:
        assert answer.status == 201
    else:
        assert (answer.status, answer.code) == (415, "unsupported_media_type")
        assert "application/json" in answer.json["accepts"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b"[]",
        b'"x"',
        b"1",
        b"null",
        b'{"a": NaN}',
        b'\xff\xfe{"a":1}',
        b'{"a": "\\ud800"}',
        b'{"a": {"$date": "never"}}',
        b'{"a": {"$oid": 1}}',
        b"[" * 100_000,
    ],
)
async def test_what_is_no_json_object_is_said_so(alice, body):
    for method, path in (("POST", "/v1/docs/notes"), ("PATCH", f"/v1/docs/notes/{uuid4()}")):
        answer = await alice.request(method, path, body)
        assert (answer.status, answer.code) == (400, "invalid_json")


async def test_a_body_past_the_limit_is_refused(start_api):
    alice = (await start_api(max_document_bytes=1024)).someone()
    answer = await alice.post("/v1/docs/notes", b'{"a": "' + b"x" * 100_000 + b'"}')
    assert (answer.status, answer.code) == (413, "payload_too_large")


async def test_a_body_that_trickles_in_is_given_up_on(api, alice):
    assert 0 < api.app.config["BODY_TIMEOUT"] <= 60
    api.app.config["BODY_TIMEOUT"] = 0.1
    headers = {**alice.headers, "Content-Type": "application/json"}
    connection = api.app.test_client().request("/v1/docs/notes", method="POST", headers=headers)
    async with asyncio.timeout(10), connection:
        await connection.send(b'{"a": ')
        # The rest does not come.
    assert connection.status_code == 408
    assert connection.headers["Content-Type"] == "application/problem+json"


async def test_an_error_of_ours_says_nothing_about_itself(start_api, caplog):
    class Broken(Documents):
        async def read(self, place, subjects):
            msg = "the password is hunter2"
            raise RuntimeError(msg)

    alice = (await start_api(services={"documents": Broken.__new__(Broken)})).someone()
    answer = await alice.get(f"/v1/docs/notes/{uuid4()}")
    assert (answer.status, answer.code) == (500, "internal")
    assert b"hunter2" not in answer.body
    # Only where to find it.
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]


async def test_without_mongodb_the_answer_is_503_and_says_when_to_come_back(
    start_api, deployment, free_ports, monkeypatch
):
    for part in ("documents", "grants", "transactions"):
        monkeypatch.setattr(f"livedocs.store.{part}._SECONDS", 0.5)
    [port] = free_ports(1)
    settings = deployment.settings(mongodb_uri=f"mongodb://127.0.0.1:{port}")
    client = connect(settings)
    try:
        documents, grants = Documents(client, "x"), Grants(client, "x")
        api = await start_api(services={"documents": documents, "grants": grants})
        alice = api.someone()
        async with asyncio.timeout(60):
            answers = await asyncio.gather(
                alice.get(f"/v1/docs/notes/{uuid4()}"),
                alice.patch(f"/v1/docs/notes/{uuid4()}", {"a": 1}),
                alice.get(f"/v1/grants/{uuid4()}"),
            )
    finally:
        await client.close()
    for answer in answers:
        assert (answer.status, answer.code) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert str(port).encode() not in answer.body


@pytest.mark.parametrize("path", ["/v1/me", "/healthz", "/nowhere", "/docs", "/openapi.json"])
async def test_every_answer_has_the_security_headers(api, alice, path):
    for who in (api.anybody(), alice):
        headers = (await who.get(path)).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        # No host but our own.
        assert set(re.findall(r"\w+://[^ ;]+", policy)) <= {api.origin.replace("http", "ws", 1)}
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "Strict-Transport-Security" not in headers
        assert "Access-Control-Allow-Origin" not in headers


async def test_over_https_the_browser_is_told_to_stay_there(start_api):
    api = await start_api(public_url="https://docs.example")
    headers = (await api.anybody().get("/healthz")).headers
    assert headers["Strict-Transport-Security"].startswith("max-age=")
    assert "wss://docs.example" in headers["Content-Security-Policy"]


async def test_requests_are_counted_with_labels_that_nobody_can_make_up(api, alice):
    await alice.get("/v1/me")
    await alice.request("BREW", "/v1/me")
    await api.anybody().get("/v1/me")
    read = api.metrics.registry.get_sample_value
    name = "livedocs_http_requests_total"
    assert read(name, {"method": "GET", "status": "200"}) == 1
    assert read(name, {"method": "GET", "status": "401"}) == 1
    assert read(name, {"method": "OTHER", "status": "405"}) == 1


async def test_the_description_is_valid_and_names_every_route(api):
    schema = (await api.anybody().get("/openapi.json")).json
    assert schema["openapi"].startswith("3.1")
    paths = {path: set(item) for path, item in schema["paths"].items() if path.startswith("/v1")}
    assert paths == {
        "/v1/docs/{collection}": {"post"},
        "/v1/docs/{collection}:bulk": {"post"},
        "/v1/docs/{collection}:import": {"get", "post"},
        "/v1/docs/{collection}/{uuid}": {"get", "put", "patch", "delete"},
        "/v1/grants:bulk": {"post"},
        "/v1/grants": {"get"},
        "/v1/grants/{uuid}": {"get"},
        "/v1/grants/{uuid}:transfer": {"post"},
        "/v1/grants/{uuid}/explain": {"get"},
        "/v1/grants/{uuid}/{subject}": {"put", "delete"},
        "/v1/admin/tenants": {"get", "post"},
        "/v1/admin/tenants/{slug}": {"get", "delete"},
        "/v1/admin/tenants/{slug}/collections/{collection}": {"put"},
        "/v1/admin/tenants/{slug}/limits": {"put"},
        "/v1/admin/tenants/{slug}/services/{client_id}": {"put", "delete"},
        "/v1/admin/tenants/{slug}:suspend": {"post"},
        "/v1/admin/tenants/{slug}:resume": {"post"},
        "/v1/admin/sessions": {"get", "delete"},
        "/v1/admin/sessions/{sid}": {"delete"},
        "/v1/admin/audit": {"get"},
        "/v1/me": {"get"},
        "/v1/me/documents": {"get"},
    }
    patch = schema["paths"]["/v1/docs/{collection}/{uuid}"]["patch"]
    assert "application/merge-patch+json" in patch["requestBody"]["content"]
    for item in schema["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            assert "application/problem+json" in operation["responses"]["default"]["content"]
    for component in schema["components"]["schemas"].values():
        Draft202012Validator.check_schema(component)


async def test_every_reference_in_the_description_leads_somewhere(api):
    text = (await api.anybody().get("/openapi.json")).body.decode()
    schema = (await api.anybody().get("/openapi.json")).json
    references = set(re.findall(r'"\$ref":\s*"([^"]+)"', text))
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in schema["components"]["schemas"], reference


async def test_the_page_for_people_loads_nothing_from_elsewhere(api):
    answer = await api.anybody().get("/docs")
    assert answer.headers["Content-Type"].startswith("text/html")
    text = answer.body.decode()
    assert not re.findall(r"(?:https?:)?//\w", text)
    assert "<script" not in text
    assert "/v1/docs/{collection}/{uuid}" in text
    assert 'id="invalid_field"' in text
    assert (await api.anybody().get("/docs.css")).headers["Content-Type"].startswith("text/css")


@pytest.fixture
def frontend(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>page</title>")
    (tmp_path / "assets" / "main-Ab3_x9Zq.js").write_text("export {}")
    (tmp_path / "favicon.svg").write_text("<svg/>")
    (tmp_path / ".env").write_text("SECRET=1")
    (tmp_path / "notes.py").write_text("")
    (tmp_path / "leak.txt").symlink_to("/etc/passwd")
    return tmp_path


async def test_the_front_end_is_served_with_the_cache_it_deserves(start_api, frontend):
    anybody = (await start_api(frontend_dir=str(frontend))).anybody()
    page = await anybody.get("/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["Cache-Control"] == "no-cache"
    script = await anybody.get("/assets/main-Ab3_x9Zq.js")
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "immutable" in script.headers["Cache-Control"]
    assert (await anybody.get("/favicon.svg")).headers["Cache-Control"] == "no-cache"
    again = await anybody.get("/", If_None_Match=page.headers["ETag"])
    assert again.status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/.env",
        "/notes.py",
        "/leak.txt",
        "/../pyproject.toml",
        "/assets/..%2f..%2fetc/passwd",
        "/%2e%2e/x",
        "/assets",
        "/assets/",
        "/index.html/..",
        "//etc/passwd",
    ],
)
async def test_nothing_else_of_the_folder_or_around_it_is_served(start_api, frontend, path):
    answer = await (await start_api(frontend_dir=str(frontend))).anybody().get(path)
    assert (answer.status, answer.code) == (404, "not_found")
