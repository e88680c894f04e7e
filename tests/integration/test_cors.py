from __future__ import annotations

import json
from uuid import uuid4

import pytest

SIBLING = "https://notes.docs.example"
PROOF = {"X_Requested_With": "livedocs"}
PREFLIGHT = {
    "Access_Control_Request_Method": "PUT",
    "Access_Control_Request_Headers": "content-type,if-match,x-requested-with",
}
FOREIGN = [
    "https://evil.example",
    "null",
    "*",
    "",
    SIBLING + ".evil.example",
    SIBLING.replace("https", "http"),
    SIBLING + ":8443",
    SIBLING + "/",
    SIBLING.upper(),
]
PATHS = ["/v1/me", "/v1/docs/notes", "/v1/docs/notes:bulk", "/v1/docs/notes:import", "/auth/session", "/nowhere"]


@pytest.fixture
async def api(start_api):
    return await start_api(allowed_origins=SIBLING)


def cors(answer):
    """The headers of the CORS protocol, each as the set of its words."""
    return {
        name.title().removeprefix("Access-Control-"): set(value.split(", "))
        for name, value in answer.headers.items()
        if name.title().startswith("Access-Control-")
    }


@pytest.mark.parametrize("path", PATHS)
async def test_a_configured_origin_is_told_without_a_credential_what_it_may_send(api, path):
    answer = await api.anybody().request("OPTIONS", path, Origin=SIBLING, **PREFLIGHT)
    told = cors(answer)
    assert (answer.status, answer.body) == (204, b"")
    assert told["Allow-Origin"] == {SIBLING}
    assert told["Allow-Credentials"] == {"true"}
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= told["Allow-Methods"]
    assert {"Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Prefer"} <= told[
        "Allow-Headers"
    ]
    assert "X-Requested-With" in told["Allow-Headers"]
    assert told["Max-Age"] == {"600"}
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_origin_is_told_nothing_whatever_it_asks(api, origin):
    alice = api.someone()
    for who, method, more in (
        (api.anybody(), "OPTIONS", PREFLIGHT),
        (alice, "OPTIONS", PREFLIGHT),
        (alice, "GET", {}),
        (api.anybody(), "GET", {}),
    ):
        for path in PATHS:
            answer = await who.request(method, path, Origin=origin, **more)
            assert cors(answer) == {}
            assert "Origin" in answer.headers["Vary"]


async def test_a_configured_origin_reads_the_answer_and_the_headers_that_it_works_with(api):
    alice = api.someone()
    made = await alice.post("/v1/docs/notes", {"a": 1}, Origin=SIBLING)
    told = cors(made)
    assert made.status == 201
    assert told["Allow-Origin"] == {SIBLING}
    assert told["Allow-Credentials"] == {"true"}
    assert {"ETag", "Location", "Retry-After", "Preference-Applied", "Idempotency-Replayed"} <= told[
        "Expose-Headers"
    ]
    assert made.headers["ETag"]
    assert made.headers["Location"]
    # Its answers are still not for embedding, by whomever.
    assert made.headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_no_answer_is_for_everybody(start_api):
    api = await start_api()
    answer = await api.anybody(Origin=api.origin).get("/healthz")
    assert cors(answer)["Allow-Origin"] == {api.origin}
    assert "*" not in "".join(map(str, cors(answer).values()))
    assert cors(await api.anybody().get("/healthz")) == {}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/me", 401),
        ("GET", "/nowhere", 404),
        ("BREW", "/v1/me", 405),
        ("GET", "/v1/me?access_token=x", 400),
        ("GET", "/readyz", 503),
        ("GET", "/auth/callback?state=x", 400),
        ("POST", "/auth/refresh", 401),
    ],
)
async def test_a_refusal_can_be_read_too(start_api, method, path, status):
    api = await start_api(allowed_origins=SIBLING)
    answer = await api.anybody().request(method, path, Origin=SIBLING)
    assert answer.status == status
    assert cors(answer)["Allow-Origin"] == {SIBLING}


async def test_an_error_of_ours_and_one_request_too_many_can_be_read_too(start_api):
    class Broken:
        async def read(self, place, subjects):
            raise RuntimeError

    api = await start_api(
        allowed_origins=SIBLING, services={"documents": Broken()}, limit_burst=20, limit_requests_per_address=0.1
    )
    alice = api.someone()
    answers = [await alice.get(f"/v1/docs/notes/{uuid4()}", Origin=SIBLING) for _ in range(3)]
    assert [answer.status for answer in answers] == [500, 500, 429]
    assert [cors(answer).get("Allow-Origin") for answer in answers] == [{SIBLING}] * 3
    assert "Retry-After" in cors(answers[-1])["Expose-Headers"]


async def test_bulk_writes_and_imports_answer_a_configured_origin_whatever_becomes_of_them(api):
    service = api.service()
    item = json.dumps({"document": {"a": 1}}).encode()
    for path, kind, body, status in (
        ("/v1/docs/notes:bulk", "application/json", b'{"items": [' + item + b"]}", 200),
        ("/v1/docs/notes:bulk", "application/json", b"[]", 400),
        ("/v1/docs/notes:bulk", "text/plain", b"x", 415),
        ("/v1/docs/notes:import", "application/x-ndjson", item + b"\n", 200),
        ("/v1/docs/notes:import", "text/plain", b"x", 415),
        ("/v1/docs/unknown:import", "application/x-ndjson", item, 404),
        ("/v1/grants:bulk", "application/json", b"[]", 400),
    ):
        answer = await service.request("POST", path, body, Content_Type=kind, Origin=SIBLING)
        assert (path, answer.status) == (path, status)
        assert cors(answer)["Allow-Origin"] == {SIBLING}


async def test_a_cookie_from_a_configured_origin_still_needs_both_proofs_and_a_foreign_one_never_has_them(api):
    token = api.someone().headers["Authorization"].removeprefix("Bearer ")
    browser = api.anybody(Cookie=f"livedocs_token={token}")
    for headers in ({"Origin": SIBLING}, PROOF, {"Origin": "https://evil.example", **PROOF}):
        answer = await browser.post("/v1/docs/notes", {"a": 1}, **headers)
        assert (answer.status, answer.code) == (403, "csrf")
        if "Origin" in headers:
            assert (cors(answer) == {}) == (headers["Origin"] != SIBLING)
    assert (await browser.post("/v1/docs/notes", {"a": 1}, Origin=SIBLING, **PROOF)).status == 201


async def test_a_preflight_counts_as_a_request_of_its_address(start_api):
    api = await start_api(allowed_origins=SIBLING, limit_burst=20, limit_requests_per_address=0.1)
    statuses = [
        (await api.anybody().request("OPTIONS", "/v1/me", Origin=SIBLING, **PREFLIGHT)).status for _ in range(3)
    ]
    assert statuses == [204, 204, 429]
