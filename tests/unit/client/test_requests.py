"""Requests that are tried again where that is safe, and nowhere else; no server, no waiting."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from livedocs.client import Client, GrantChange, Item, Retries
from livedocs.errors import (
    Conflict,
    InvalidToken,
    ItemsInterrupted,
    LivedocsError,
    NotFound,
    RateLimited,
    ServerUnreachable,
    TokenUnavailable,
    Unavailable,
)

NOW = Retries(first=0.0)
UUID_ = UUID("01234567-89ab-4cde-8f01-23456789abcd")
ETAG = '"e"'


def problem(code, status, **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=sent, json={"code": code, "detail": "Why."})


def lost(kind):
    def answer(request):
        raise kind("lost", request=request)

    return answer


BUSY = problem("unavailable", 503)
LOST = lost(httpx.ReadError)
NOT_SENT = lost(httpx.ConnectError)
OK = httpx.Response(200, headers={"ETag": ETAG}, json={"uuid": str(UUID_), "n": 1})
MADE = httpx.Response(201, headers={"ETag": ETAG, "Location": f"/v1/docs/notes/{UUID_}"}, json={"n": 1})
GONE = httpx.Response(204)


@pytest.fixture
def server():
    """`server(answer, ...)` gives a client whose requests are answered one by one; `.requests` has them."""

    def of(*script, token="a token", retries=NOW):  # noqa: S107
        left = list(script)

        async def answer(request):
            await request.aread()
            client.requests.append(request)
            one = left.pop(0)
            return one(request) if callable(one) else one

        client = Client("http://server", token, retries=retries, transport=httpx.MockTransport(answer))
        client.requests = []
        client.left = left
        return client

    return of


CALLS = {
    "create": lambda docs: docs.create("notes", {"n": 1}),
    "get": lambda docs: docs.get("notes", UUID_),
    "replace": lambda docs: docs.replace("notes", UUID_, {"n": 1}),
    "merge": lambda docs: docs.merge("notes", UUID_, {"n": 1}),
}
CONDITIONAL = {
    "replace": lambda docs: docs.replace("notes", UUID_, {"n": 1}, if_match=ETAG),
    "merge": lambda docs: docs.merge("notes", UUID_, {"n": 1}, if_none_match="*"),
    "delete": lambda docs: docs.delete("notes", UUID_, if_match=ETAG),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("trouble", [BUSY, LOST, NOT_SENT], ids=["busy", "lost", "not sent"])
async def test_what_can_be_repeated_is(server, call, trouble):
    client = server(trouble, trouble, MADE if call == "create" else OK)
    document = await CALLS[call](client.documents)
    assert document.uuid == UUID_
    assert len(client.requests) == 3


@pytest.mark.parametrize("call", CONDITIONAL)
@pytest.mark.parametrize("trouble", [BUSY, LOST], ids=["busy", "lost"])
async def test_what_may_have_been_done_under_a_condition_is_not_repeated(server, call, trouble):
    client = server(trouble, GONE)
    with pytest.raises((Unavailable, ServerUnreachable)):
        await CONDITIONAL[call](client.documents)
    assert len(client.requests) == 1


@pytest.mark.parametrize("call", CONDITIONAL)
@pytest.mark.parametrize(
    "trouble",
    [NOT_SENT, problem("rate_limited", 429), problem("auth_unavailable", 503)],
    ids=["not sent", "rate limited", "no introspection"],
)
async def test_what_was_not_done_is_repeated_with_its_condition(server, call, trouble):
    client = server(trouble, OK)
    await CONDITIONAL[call](client.documents)
    assert len(client.requests) == 2


async def test_every_try_of_a_creation_has_the_same_key_and_every_creation_its_own(server):
    client = server(LOST, MADE, MADE)
    await client.documents.create("notes", {"n": 1})
    await client.documents.create("notes", {"n": 1})
    first, second, third = (request.headers["Idempotency-Key"] for request in client.requests)
    assert first == second
    assert second != third


async def test_a_deletion_that_may_have_happened_has_when_nothing_is_there(server):
    client = server(LOST, problem("not_found", 404))
    await client.documents.delete("notes", UUID_)
    client = server(problem("not_found", 404))
    with pytest.raises(NotFound):
        await client.documents.delete("notes", UUID_)
    client = server(NOT_SENT, problem("not_found", 404))
    with pytest.raises(NotFound):
        await client.documents.delete("notes", UUID_)
    client = server(LOST, problem("not_found", 404))
    assert await client.grants.delete(UUID_, "user:alice") is None


async def test_after_the_last_try_its_error_is_raised(server):
    client = server(*[BUSY] * 3, retries=Retries(attempts=3, first=0))
    with pytest.raises(Unavailable):
        await client.documents.get("notes", UUID_)
    assert client.left == []


async def test_a_refusal_is_not_repeated(server):
    client = server(problem("conflict", 409), MADE)
    with pytest.raises(Conflict):
        await client.documents.create("notes", {})


async def test_what_the_server_asks_to_wait_is_waited_and_no_more_than_patience(monkeypatch, server):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr("livedocs._client.requests.asyncio.sleep", sleep)
    retries = Retries(first=1.0, dice=lambda: 1.0)
    limited = problem("rate_limited", 429, Retry_After="7")
    client = server(limited, limited, OK, retries=retries)
    await client.documents.get("notes", UUID_)
    assert waits == [8.0, 9.0]
    client = server(problem("rate_limited", 429, Retry_After="61"), OK, retries=retries)
    with pytest.raises(RateLimited) as caught:
        await client.documents.get("notes", UUID_)
    assert caught.value.retry_after == 61


def test_waits_grow_up_to_a_limit_and_are_left_to_chance():
    most = Retries(first=1.0, longest=5.0, dice=lambda: 1.0)
    assert [most.backoff(failures) for failures in (1, 2, 3, 4, 1000)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    least = Retries(first=1.0, longest=5.0, dice=lambda: 0.0)
    assert least.backoff(1) == pytest.approx(0.1)


async def test_a_refused_token_is_replaced_once(server):
    given = []

    class Source:
        async def token(self, *, refused=None):
            given.append(refused)
            return f"after {refused}"

    refused = problem("invalid_token", 401)
    client = server(refused, OK, token=Source())
    await client.documents.get("notes", UUID_)
    assert [request.headers["Authorization"] for request in client.requests] == [
        "Bearer after None",
        "Bearer after after None",
    ]
    client = server(refused, refused, OK, token=Source())
    with pytest.raises(InvalidToken):
        await client.documents.get("notes", UUID_)
    client = server(refused, OK, token="always the same")
    with pytest.raises(InvalidToken):
        await client.documents.get("notes", UUID_)


class Renewed:
    """Another token each time one is refused."""

    async def token(self, *, refused=None):
        return f"after {refused}"


async def test_items_that_can_be_begun_anew_are_imported_with_another_token(server):
    done = httpx.Response(200, json={"lines": 3, "succeeded": 3, "failed": 0, "errors": []})
    client = server(problem("invalid_token", 401), done, token=Renewed())
    await client.import_documents("notes", [Item({"n": number}) for number in range(3)])
    first, second = (request.content for request in client.requests)
    assert first == second
    assert first.count(b"\n") == 3


async def test_items_that_are_gone_are_not_imported_without_those_that_were_sent_already(server):
    done = httpx.Response(200, json={"lines": 0, "succeeded": 0, "failed": 0, "errors": []})
    client = server(problem("invalid_token", 401), done, token=Renewed())
    with pytest.raises(InvalidToken):
        await client.import_documents("notes", (Item({"n": number}) for number in range(3)))
    assert len(client.requests) == 1


async def test_items_that_end_in_an_error_leave_the_results_of_those_before_it(server):
    def told(request):
        items = json.loads(request.content)["items"]
        return httpx.Response(200, json={"results": [{"uuid": item["uuid"], "status": 201} for item in items]})

    broken = RuntimeError("the file ends here")
    given = [Item({"n": number}, uuid4()) for number in range(1003)]
    given[1001] = Item({"n": object()}, uuid4())

    def items():
        yield from given
        raise broken

    async def later():
        for item in items():
            yield item

    for kind in (items, later):
        client = server(told, told)
        with pytest.raises(ItemsInterrupted) as caught:
            await client.documents.bulk("notes", kind())
        assert caught.value.__cause__ is broken
        assert [result.uuid for result in caught.value.results] == [item.uuid for item in given]
        failed = [number for number, result in enumerate(caught.value.results) if result.error is not None]
        assert failed == [1001]
        assert sum(len(json.loads(request.content)["items"]) for request in client.requests) == 1002


async def test_grants_that_end_in_an_error_leave_the_results_of_those_before_it(server):
    def changes():
        yield GrantChange(UUID_, "user:bob", "reader")
        raise KeyError("carol")

    client = server(httpx.Response(200, json={"results": [{"uuid": str(UUID_), "status": 201}]}))
    with pytest.raises(ItemsInterrupted, match="carol") as caught:
        await client.grants.bulk(changes())
    assert [result.status for result in caught.value.results] == [201]


async def test_a_token_that_cannot_be_had_is_an_error_of_the_client(server):
    def token():
        raise RuntimeError("no")

    client = server(token=token)
    with pytest.raises(TokenUnavailable, match="no"):
        await client.documents.get("notes", UUID_)


# -- bulk --


def items_of(request):
    return json.loads(request.content)["items"]


def results(*codes):
    """A result for each item of the request; None is success."""

    def answer(request):
        told = [
            {"uuid": item["uuid"], "status": 200} if code is None else {"status": 503, "code": code, "detail": ""}
            for item, code in zip(items_of(request), codes, strict=True)
        ]
        return httpx.Response(200, json={"results": told})

    return answer


def done(request):
    return results(*[None] * len(items_of(request)))(request)


async def test_only_what_failed_for_the_moment_is_sent_again(server):
    client = server(results(None, "unavailable", "forbidden"), done)
    found = await client.documents.bulk("notes", [Item({"n": number}) for number in range(3)])
    assert [item["document"]["n"] for item in items_of(client.requests[1])] == [1]
    assert [result.error and result.error.code for result in found] == [None, None, "forbidden"]
    assert found[1].uuid == UUID(items_of(client.requests[0])[1]["uuid"])


async def test_what_comes_behind_a_failure_of_the_same_document_is_sent_again_after_it(server):
    """Or an earlier state would be written over a later one."""
    other = uuid4()
    client = server(results("unavailable", None, None), done)
    await client.documents.bulk("notes", [Item({"n": 1}, UUID_), Item({"n": 2}, other), Item({"n": 3}, UUID_)])
    assert [item["document"]["n"] for item in items_of(client.requests[1])] == [1, 3]


async def test_an_item_with_a_condition_is_not_sent_again_when_it_may_have_been_written(server):
    client = server(results("unavailable", "unavailable"), done)
    found = await client.documents.bulk("notes", [Item({"n": 1}, if_none_match="*"), Item({"n": 2})])
    assert [item["document"]["n"] for item in items_of(client.requests[1])] == [2]
    assert [result.error and result.error.code for result in found] == ["unavailable", None]
    client = server(LOST, done)
    found = await client.documents.bulk("notes", [Item({"n": 1}, if_none_match="*"), Item({"n": 2})])
    assert [result.error and result.error.code for result in found] == ["unreachable", None]
    client = server(NOT_SENT, done)
    found = await client.documents.bulk("notes", [Item({"n": 1}, if_none_match="*"), Item({"n": 2})])
    assert [result.error for result in found] == [None, None]


async def test_batches_have_a_thousand_items_at_most_and_fit_into_a_request(server):
    client = server(done, done, done)
    await client.documents.bulk("notes", (Item({"n": number}) for number in range(2001)))
    assert [len(items_of(request)) for request in client.requests] == [1000, 1000, 1]
    client = server(done, done)
    await client.documents.bulk("notes", [Item({"text": "x" * 6 * 2**20}) for _ in range(3)])
    assert [len(items_of(request)) for request in client.requests] == [2, 1]
    assert max(len(request.content) for request in client.requests) < 16 * 2**20


async def test_what_comes_behind_a_request_that_failed_is_not_sent_and_says_why(server):
    client = server(done, problem("forbidden", 403))
    found = await client.documents.bulk("notes", [Item({"n": number}) for number in range(2500)])
    assert [result.error and result.error.code for result in found] == [None] * 1000 + ["forbidden"] * 1500
    client = server(*[LOST] * 2, retries=Retries(attempts=2, first=0))
    found = await client.documents.bulk("notes", [Item({"n": 1}), Item({"n": 2})])
    assert [result.error.code for result in found] == ["unreachable"] * 2
    assert [result.status for result in found] == [0, 0]


async def test_an_item_too_large_for_a_request_is_its_own_loss_alone(server):
    client = server(problem("payload_too_large", 413), done)
    found = await client.documents.bulk("notes", [Item({"text": "x" * 15 * 2**20}), Item({"n": 1})])
    assert [result.error and result.error.code for result in found] == ["payload_too_large", None]


async def test_an_answer_without_a_result_for_each_item_is_none(server):
    client = server(httpx.Response(200, json={"results": []}))
    (found,) = await client.grants.bulk([GrantChange(UUID_, "user:alice", "reader")])
    assert found.error.code == "unexpected_answer"


async def test_one_that_is_refused_raises_where_there_is_only_one(server):
    client = server(results("forbidden"))
    with pytest.raises(LivedocsError, match="forbidden"):
        await client.documents.upsert("notes", UUID_, {})


# -- imports --


async def test_an_import_without_a_second_way_through_is_not_begun_anew(server):
    client = server(LOST)
    with pytest.raises(ServerUnreachable):
        await client.import_documents("notes", (Item({"n": number}) for number in range(3)))
    assert len(client.requests) == 1


async def test_an_import_goes_on_behind_what_the_server_has(server):
    position = httpx.Response(200, json={"lines": 2})
    end = httpx.Response(200, json={"lines": 3, "succeeded": 1, "failed": 0, "errors": []})
    client = server(LOST, position, end)
    found = await client.import_documents("notes", [Item({"n": number}) for number in range(3)])
    first, _, second = client.requests
    assert first.content.count(b"\n") == 3
    assert [json.loads(line)["document"] for line in second.content.splitlines()] == [{"n": 2}]
    assert second.url.params["first"] == "2"
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert (found.lines, found.succeeded) == (3, 1)


async def test_a_named_import_asks_first_where_to_go_on(server):
    position = httpx.Response(200, json={"lines": 3})
    end = httpx.Response(200, json={"lines": 3, "succeeded": 0, "failed": 0, "errors": []})
    client = server(position, end)
    await client.import_documents("notes", [Item({"n": number}) for number in range(3)], key="orders of May")
    assert [request.method for request in client.requests] == ["GET", "POST"]
    assert client.requests[1].content == b""


def test_the_defaults_wait_no_longer_than_said():
    assert timedelta(seconds=sum(Retries(dice=lambda: 1.0).backoff(n) for n in range(1, 5))).seconds <= 3
