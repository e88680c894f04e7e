"""The AsyncAPI document: right by the specification's own schema, and the same as the code it describes."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from livedocs import config, errors
from livedocs.http import asyncapi, socket_schemas
from livedocs.http.socket_contract import MESSAGES, OPERATIONS
from livedocs.live import client as live_client
from livedocs.live.calls import Calls

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "livedocs"
SPECIFICATION = ROOT / "tests/clients/node/node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"


def settings(public_url="http://localhost:8000"):
    return config.Settings(
        public_url=public_url,
        mongodb_uri="mongodb://localhost",
        oauth_issuer="http://localhost:8001",
        oauth_client_id="livedocs",
        oauth_client_secret="secret",
        oauth_audience="livedocs",
    )


@pytest.fixture(scope="module")
def document():
    return json.loads(json.dumps(asyncapi.document(settings())))


def validator(document, schema):
    return Draft7Validator({"$ref": f"#/components/schemas/{schema}", "components": document["components"]})


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def target(document, reference):
    found = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


# -- by the specification --


def test_it_is_what_the_specification_says(document):
    official = Draft7Validator(json.loads(SPECIFICATION.read_text()))
    assert [f"{list(fault.path)}: {fault.message}" for fault in official.iter_errors(document)] == []


def test_the_specifications_schema_would_see_a_fault(document):
    official = Draft7Validator(json.loads(SPECIFICATION.read_text()))
    for wrong in ({"asyncapi": "2.6.0"}, {"operations": {"x": {"action": "publish"}}}, {"channel": {}}):
        assert not official.is_valid(document | wrong)


def test_every_reference_leads_somewhere_and_nothing_is_left_over(document):
    found = set(references(document))
    for reference in found:
        target(document, reference)
    for kind, names in document["components"].items():
        assert {name for name in names if f"#/components/{kind}/{name}" not in found} == set(), kind
    for name, channel in document["channels"].items():
        assert {one for one in channel["messages"] if f"#/channels/{name}/messages/{one}" not in found} == set()


def test_an_operations_messages_are_of_its_channel(document):
    for operation in document["operations"].values():
        for part in (operation, operation.get("reply", operation)):
            assert all(one["$ref"].startswith(part["channel"]["$ref"] + "/messages/") for one in part["messages"])


@pytest.mark.parametrize("name", MESSAGES)
def test_the_examples_of_a_message_are_of_its_schema(document, name):
    examples = document["components"]["messages"][name]["examples"]
    assert examples
    for example in examples:
        validator(document, MESSAGES[name].schema).validate(example["payload"])


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_message_is_one_and_only_one_of_those_that_its_operation_names(document, name):
    operation = OPERATIONS[name]
    for names in (operation.messages, operation.reply):
        for one in names:
            for payload in MESSAGES[one].examples.values():
                fits = [other for other in names if validator(document, MESSAGES[other].schema).is_valid(payload)]
                assert fits == [one]


@pytest.mark.parametrize(
    "schema", [name for name in socket_schemas.COMPONENTS if name not in {"Check", "CheckAck"}]
)
def test_a_schema_refuses_what_is_nothing_of_the_kind(document, schema):
    assert not validator(document, schema).is_valid([{"nonsense": 1}, 2, 3])


# -- by the code --


def calls_of(*folders):
    """Every call in these folders of the package: its function's name, and the call."""
    for folder in folders:
        for path in (SOURCE / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    function = node.func
                    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                    yield name, node


def texts(node):
    """The texts that an expression may be: those of a choice are both."""
    return {
        part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def given(names, *folders):
    """The texts that calls of these functions are given, at once or by a timer."""
    found = set()
    for name, call in calls_of(*folders):
        handed_on = {one.attr for one in call.args if isinstance(one, ast.Attribute)}
        if name in names or handed_on & names:
            for argument in call.args:
                if isinstance(argument, ast.Constant | ast.IfExp):
                    found |= texts(argument)
    return found


def events_sent():
    """The server's own events, each with the calls that make its frame."""
    found = {}
    for name, call in calls_of("live"):
        if name == "event" and call.args and isinstance(call.args[0], ast.Constant):
            found.setdefault(call.args[0].value, []).append(call)
    return found


def test_clients_may_send_the_events_that_are_answered_and_no_other():
    received = {
        MESSAGES[name].event
        for operation in OPERATIONS.values()
        if operation.action == "receive"
        for name in operation.messages
    }
    parts = dict.fromkeys(inspect.signature(Calls).parameters)
    assert received - {None} == set(Calls(**parts)._handlers)


def test_the_server_sends_the_events_that_it_makes_frames_of_and_no_other():
    sent = {
        MESSAGES[name].event
        for operation in OPERATIONS.values()
        if operation.action == "send"
        for name in operation.messages
    }
    assert sent - {None} == set(events_sent())


def test_the_members_of_a_servers_event_are_those_that_it_is_made_with(document):
    for name, calls in events_sent().items():
        if name == "Check":
            continue
        [schema] = [message.schema for message in MESSAGES.values() if message.event == name]
        [body] = document["components"]["schemas"][schema]["items"]
        made = {
            key.value
            for call in calls
            for part in call.args[1:]
            if isinstance(part, ast.Dict)
            for key in part.keys
            if key is not None
        }
        assert made <= body["properties"].keys(), name


def test_every_reason_to_close_a_socket_is_named():
    closed = given({"close", "_close"}, "live", "") | given({"close"}, "cluster", "")
    for call in events_sent()["$goaway"]:
        for part in ast.walk(call):
            if isinstance(part, ast.Dict):
                closed |= {
                    value.value
                    for key, value in zip(part.keys, part.values, strict=True)
                    if key.value == "reason" and isinstance(value, ast.Constant)
                }
    assert closed == set(socket_schemas.GOAWAY)


def test_every_reason_to_leave_a_room_is_named():
    # By `settle`, `evict` is handed on what its own callers say.
    assert given({"evict", "settle"}, "live") == set(socket_schemas.REVOKED)


def test_every_reason_for_a_resync_is_named():
    named = given({"resync", "_resync", "gap", "_Missed"}, "live", "changes")
    source = "".join(path.read_text() for folder in ("live", "changes") for path in (SOURCE / folder).glob("*.py"))
    assert named <= set(socket_schemas.RESYNC)
    assert {reason for reason in socket_schemas.RESYNC if f'"{reason}"' not in source} == set()


def test_what_is_final_is_what_the_socket_takes_for_final():
    assert socket_schemas.FINAL == live_client.FINAL
    assert set(socket_schemas.GOAWAY) >= socket_schemas.FINAL


def test_every_error_that_sockets_know_is_among_those_they_may_be_refused_with():
    refusals = (socket_schemas.HANDSHAKE, socket_schemas.CONNECT, socket_schemas.JOIN)
    refusals += (socket_schemas.LEAVE, socket_schemas.CALL, socket_schemas.REAUTH)
    known = set()
    for path in (SOURCE / "live").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == errors.__name__:
                known |= {getattr(errors, alias.name) for alias in node.names}
    assert known - {errors.LivedocsError} <= {kind for kinds in refusals for kind in kinds}


def test_the_codes_of_a_message_are_those_of_its_schema(document):
    for name, message in MESSAGES.items():
        if message.errors:
            schema = json.dumps(document["components"]["schemas"][message.schema])
            if name != "checkAck":
                assert all(f'"{kind.on_socket()}"' in schema for kind in message.errors), name


# -- by the settings --


@pytest.mark.parametrize(
    ("public_url", "host", "protocol", "cookie"),
    [
        ("http://localhost:8000", "localhost:8000", "ws", "livedocs_token"),
        ("https://docs.example.com", "docs.example.com", "wss", "__Host-livedocs_token"),
    ],
)
def test_it_names_the_server_as_browsers_reach_it(public_url, host, protocol, cookie):
    described = asyncapi.document(settings(public_url))
    server = described["servers"]["this"]
    assert (server["host"], server["protocol"]) == (host, protocol)
    assert described["components"]["securitySchemes"]["cookie"]["name"] == cookie
    assert [one["$ref"].rpartition("/")[2] for one in server["security"]] == ["cookie", "bearer", "auth"]


def test_a_refused_handshake_is_told_by_its_status():
    refusals = asyncapi.document(settings())["servers"]["this"]["x-refusals"]
    assert refusals["401"] == ["unauthenticated"]
    assert refusals["503"] == ["auth_unavailable", "too_many_connections"]
    assert list(refusals) == sorted(refusals)
