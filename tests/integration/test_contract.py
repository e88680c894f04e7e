"""The description of the HTTP interface against a running server: what it says is what is answered."""

from __future__ import annotations

import copy
import json

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from pymongo import MongoClient
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from livedocs.http.contract import CALLER, CONTRACTS


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context, value):
    """Lines: what is made up for text is sent as it is."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# A bounded look: the same examples in each run, so that what fails fails for everybody.
BOUNDED = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# Who has what it takes for most of it: a token each, of the development provider.
CALLERS = {"admin_tenants": "acme-operator", "admin": "ada"}


@pytest.fixture(scope="module")
def description(server):
    return httpx.get(f"{server.url}/openapi.json", trust_env=False).json()


@pytest.fixture(scope="module")
def operations(description):
    """By method and path, with nothing left to a default answer."""
    strict = copy.deepcopy(description)
    for path in strict["paths"].values():
        for operation in path.values():
            operation["responses"].pop("default", None)
            # The token is the test's own; a made-up cookie beside it would be refused at the door.
            operation.pop("security", None)
    strict["components"].pop("securitySchemes")
    strict.pop("security")
    loaded = schemathesis.openapi.from_dict(strict)
    return {found.ok().label: found.ok() for found in loaded.get_all_operations()}


@pytest.fixture(scope="module")
def mine(server):
    """A document of alice's, so that not every UUID is a stranger's."""
    headers = {"Authorization": f"Bearer {server.token('alice')}"}
    made = httpx.post(f"{server.url}/v1/docs/notes", json={"a": 1}, headers=headers, trust_env=False)
    return made.json()["uuid"]


@pytest.fixture(scope="module")
def clean(deployment):
    """Tenants that came to be are ended."""
    yield
    with MongoClient(deployment.uri) as client:
        registry = client[deployment.control_database]["tenants"]
        for tenant in registry.find({"_id": {"$nin": ["acme", "globex"]}}):
            client.drop_database(tenant["database"])
            registry.delete_one({"_id": tenant["_id"]})


def labels():
    """Every operation of the API, by method and path: what the test below is called with."""
    documents, grants, tenants = "/v1/docs/{collection}", "/v1/grants/{uuid}", "/v1/admin/tenants/{slug}"
    return [
        f"POST {documents}",
        *(f"{method} {documents}/{{uuid}}" for method in ("GET", "PUT", "PATCH", "DELETE")),
        f"POST {documents}:bulk",
        f"GET {documents}:import",
        f"POST {documents}:import",
        "POST /v1/grants:bulk",
        "GET /v1/grants",
        f"GET {grants}",
        f"POST {grants}:transfer",
        f"GET {grants}/explain",
        f"PUT {grants}/{{subject}}",
        f"DELETE {grants}/{{subject}}",
        "GET /v1/me",
        "GET /v1/me/documents",
        "GET /v1/admin/tenants",
        "POST /v1/admin/tenants",
        f"GET {tenants}",
        f"DELETE {tenants}",
        f"PUT {tenants}/collections/{{collection}}",
        f"PUT {tenants}/limits",
        f"PUT {tenants}/services/{{client_id}}",
        f"DELETE {tenants}/services/{{client_id}}",
        f"POST {tenants}:suspend",
        f"POST {tenants}:resume",
        "GET /v1/admin/sessions",
        "DELETE /v1/admin/sessions",
        "DELETE /v1/admin/sessions/{sid}",
        "GET /v1/admin/audit",
    ]


def test_the_operations_that_are_tried_are_all_there_are(operations):
    assert sorted(labels()) == sorted(label for label in operations if " /v1/" in label)
    assert len(labels()) == len(CONTRACTS)


@pytest.mark.parametrize("label", labels())
def test_whatever_is_sent_the_answer_is_as_described(server, operations, clean, mine, label):
    operation = operations[label]
    blueprint = "admin_tenants" if "/admin/tenants" in label else "admin" if "/admin/" in label else "documents"
    token = server.token(CALLERS.get(blueprint, "alice"))
    if label.endswith(":transfer"):
        # What is given away is of no more use to the others.
        mine = httpx.post(
            f"{server.url}/v1/docs/notes", json={}, headers={"Authorization": f"Bearer {token}"}, trust_env=False
        ).json()["uuid"]
    answered = []

    @given(case=operation.as_strategy())
    @BOUNDED
    def ask(case):
        if len(answered) % 2 and case.path_parameters:
            known = {"uuid": mine, "collection": "notes", "subject": "user:bob", "slug": "globex"}
            case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
        answer = case.call(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        case.validate_response(answer, checks=CHECKS)
        answered.append(answer.status_code)

    ask()
    if label == "GET /v1/docs/{collection}:import":
        # Only with a key of its header's form is there anything to tell; few are made up.
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "a-key"}
        url = f"{server.url}/v1/docs/notes:import"
        answered.append(httpx.get(url, headers=headers, trust_env=False).status_code)
    # Something was done, too: otherwise only the door would have been tried.
    wanted = {"DELETE /v1/admin/sessions/{sid}": 404}.get(label)
    assert wanted in answered if wanted else min(answered) < 300, answered


@pytest.mark.parametrize("label", [label for label in labels() if "{" in label or label.startswith("POST")])
def test_what_the_description_does_not_allow_is_refused_as_described(server, operations, clean, label):
    token = server.token(CALLERS.get("admin_tenants" if "/admin/tenants" in label else "", "alice"))

    @given(case=operations[label].as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    @BOUNDED
    def ask(case):
        answer = case.call(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        case.validate_response(answer, checks=CHECKS)

    ask()


@pytest.mark.parametrize("label", ["GET /v1/me", "POST /v1/docs/{collection}", "GET /v1/admin/audit"])
def test_without_a_token_the_answer_is_as_described(server, operations, label):
    @given(case=operations[label].as_strategy())
    @BOUNDED
    def ask(case):
        answer = case.call(base_url=server.url, headers={"Authorization": "Bearer nonsense"}, timeout=20)
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code == 401

    ask()


def resolved(description, schema):
    """A validator for a schema of the description."""
    return Draft202012Validator({**schema, "components": description["components"]})


def test_every_example_is_what_its_schema_says(description):
    count = 0
    for path in description["paths"].values():
        for operation in path.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for content in (content for body in bodies for content in body.get("content", {}).values()):
                if "example" in content:
                    resolved(description, content["schema"]).validate(content["example"])
                    count += 1
    assert count > len(CONTRACTS)


def test_every_operation_says_which_codes_it_refuses_with(description):
    for path, methods in description["paths"].items():
        for operation in methods.values():
            if path.startswith("/v1/"):
                assert {"400", "401", "403", "503"} <= operation["responses"].keys()
                text = json.dumps(operation["responses"])
                assert all(f"`{kind.code}`" in text for kind in CALLER)


@pytest.mark.parametrize("path", ["/auth/session", "/healthz", "/readyz"])
@pytest.mark.parametrize("user", [None, "alice"])
def test_what_asks_nobody_who_they_are_answers_as_described(server, description, path, user):
    headers = {"Authorization": f"Bearer {server.token(user)}"} if user else {}
    answer = httpx.get(f"{server.url}{path}", headers=headers, trust_env=False)
    told = description["paths"][path]["get"]["responses"][str(answer.status_code)]
    resolved(description, told["content"]["application/json"]["schema"]).validate(answer.json())


@pytest.mark.parametrize(
    ("method", "path"), [("get", "/auth/callback"), ("post", "/auth/refresh"), ("post", "/auth/logout")]
)
def test_a_login_refuses_as_described(server, description, method, path):
    answer = httpx.request(method, f"{server.url}{path}", trust_env=False)
    told = description["paths"][path][method]["responses"][str(answer.status_code)]
    assert f"`{answer.json()['code']}`" in told["description"]


def test_a_login_begins_as_described(server, description):
    answer = httpx.get(f"{server.url}/auth/login?return_to=/", trust_env=False)
    assert str(answer.status_code) in description["paths"]["/auth/login"]["get"]["responses"]
    assert answer.headers["Location"]


def test_every_operation_is_told_in_full(description):
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["tags"], where
            assert "security" in operation, where
            assert [one["name"] for one in operation["parameters"] if not one.get("description")] == [], where
            bodies = {**operation["responses"], "request": operation.get("requestBody", {})}
            for of, body in bodies.items():
                if of == "request" or of.startswith("2"):
                    for content in body.get("content", {}).values():
                        assert "example" in content, f"{where}: {of}"
            named = [status for status in operation["responses"] if status != "default"]
            assert named, where


@pytest.mark.parametrize(
    ("path", "method", "scope"),
    [
        ("/v1/admin/tenants", "post", "livedocs:platform"),
        ("/v1/admin/audit", "get", "livedocs:admin"),
        ("/v1/me", "get", None),
    ],
)
def test_the_scope_that_an_operation_needs_is_named(description, path, method, scope):
    security = description["paths"][path][method]["security"]
    assert security == [{"bearer": [scope] if scope else []}, {"cookie": [scope] if scope else []}]
