"""Every answer an introspection service can give (RFC 7662), right and wrong."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from datetime import timedelta
from urllib.parse import parse_qs

import httpx
import pytest

from livedocs.access.introspection import token_id
from livedocs.access.principal import Principal
from livedocs.errors import AuthUnavailable, InvalidToken

TOKEN = "a-token"


async def refusal(introspector, token=TOKEN):
    with pytest.raises(InvalidToken) as caught:
        await introspector.principal(token)
    return caught.value.data["reason"]


def count(metrics, result):
    return metrics.registry.get_sample_value("livedocs_introspections_total", {"result": result}) or 0


async def test_an_active_token_names_its_principal(introspector, introspection, active, clock):
    introspection.respond(json=active())
    assert await introspector.principal(TOKEN) == Principal(
        tenant="acme",
        subject="user:alice",
        name="Alice",
        groups=frozenset({"staff", "editors"}),
        scopes=frozenset({"openid", "livedocs:write"}),
        expires_at=clock() + timedelta(seconds=300),
        client_id="livedocs",
        token_id=token_id(TOKEN),
    )


async def test_the_question_is_a_form_posted_with_form_encoded_basic_credentials(
    introspector, introspection, active
):
    introspection.respond(json=active())
    await introspector.principal(TOKEN)
    request = introspection.calls.last.request
    scheme, _, pair = request.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(pair).decode() == "livedocs:s3cret%3Awith%2Fodd+%C3%BC"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.content.decode()) == {"token": [TOKEN], "token_type_hint": ["access_token"]}
    assert TOKEN not in str(request.url)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"active": False}, "inactive"),
        ({"exp": None}, "exp"),
        ({"exp": "2100-01-01"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"exp": 1}, "expired"),
        ({"nbf": 4_000_000_000}, "nbf"),
        ({"nbf": "now"}, "nbf"),
        ({"iss": "https://id.example"}, "issuer"),
        ({"iss": "https://id.example/realm/"}, "issuer"),
        ({"iss": ["https://id.example/realm"]}, "issuer"),
        ({"aud": None}, "audience"),
        ({"aud": "another"}, "audience"),
        ({"aud": "livedocs-too"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ["another", "third"]}, "audience"),
        ({"aud": {"livedocs": True}}, "audience"),
        ({"tenant": None}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "acme\n"}, "tenant"),
        ({"tenant": ["acme"]}, "tenant"),
        ({"tenant": {"$ne": ""}}, "tenant"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": 7}, "subject"),
        ({"sub": "a\x00b"}, "subject"),
        ({"groups": ""}, "groups"),
        ({"groups": {"staff": True}}, "groups"),
        ({"groups": ["staff", 7]}, "groups"),
        ({"groups": ["staff", ""]}, "groups"),
        ({"scope": ["livedocs:admin", 7]}, "scope"),
        ({"scope": {"livedocs:admin": True}}, "scope"),
        ({"scp": 7}, "scope"),
        ({"roles": [["livedocs:admin"]]}, "scope"),
        ({"token_type": "DPoP"}, "token_type"),
        ({"token_type": "refresh_token"}, "token_type"),
        # A refresh token, which some services introspect as well and call a bearer token.
        ({"token_use": "refresh_token"}, "token_type"),
        ({"token_use": "id"}, "token_type"),
        ({"token_use": 7}, "token_type"),
        ({"token_use": ["access"]}, "token_type"),
        ({"typ": "Refresh"}, "token_type"),
        ({"typ": "Offline"}, "token_type"),
        ({"typ": "ID"}, "token_type"),
    ],
)
async def test_an_answer_that_is_not_a_clear_yes_for_us_is_a_no(
    introspector, introspection, active, changes, reason
):
    introspection.respond(json=active(**changes))
    assert await refusal(introspector) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": None},
        {"nbf": None},
        {"groups": None},
        {"scope": None},
        {"scp": None, "roles": None, "token_type": None, "token_use": None, "typ": None, "cnf": None},
        {"aud": ["another", "livedocs"]},
        {"token_type": "bearer"},
        {"token_use": "access_token"},
        {"token_use": "access"},
        {"typ": "Bearer"},
        {"username": None, "name": None},
    ],
)
async def test_members_that_may_be_absent_or_differ_in_form_do_no_harm(
    introspector, introspection, active, changes
):
    introspection.respond(json=active(**changes))
    assert (await introspector.principal(TOKEN)).subject == "user:alice"


async def test_a_clock_a_little_behind_takes_a_token_of_this_second(introspector, introspection, active, clock):
    introspection.respond(json=active(nbf=clock.stamp(2)))
    assert await introspector.principal(TOKEN)


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"sub": "acme-service", "client_id": "acme-service"}, "client:acme-service"),
        ({"sub": None, "username": None, "client_id": "acme-service"}, "client:acme-service"),
        ({"sub": None, "username": "acme-service", "client_id": "acme-service"}, "client:acme-service"),
        ({"sub": "acme-service", "client_id": "livedocs"}, "user:acme-service"),
        ({"sub": "alice", "client_id": "livedocs-cli"}, "user:alice"),
        ({"sub": "livedocs", "client_id": "livedocs"}, "user:livedocs"),
        ({"sub": "alice", "client_id": None}, "user:alice"),
    ],
)
async def test_a_service_and_a_user_of_one_name_are_different_subjects(
    introspector, introspection, active, changes, subject
):
    introspection.respond(json=active(**changes))
    assert (await introspector.principal(TOKEN)).subject == subject


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, {"sub": 7}),
        ({}, {"sub": ["alice"]}),
        ({}, {"sub": None, "username": "Alice"}),
        ({"oauth_subject_claim": "email"}, {"sub": "alice"}),
        ({"oauth_subject_claim": "email"}, {"sub": "alice", "email": 7}),
        ({"oauth_subject_claim": "email"}, {"sub": None, "username": None, "email": {"address": "alice"}}),
    ],
    ids=[
        "a-number",
        "a-list",
        "a-user-name-alone",
        "without-the-claim",
        "a-number-in-the-claim",
        "an-object-in-the-claim",
    ],
)
async def test_a_user_who_is_named_in_another_way_than_expected_is_not_taken_for_the_client(
    start_introspector, introspection, active, settings, changes
):
    introspection.respond(json=active(client_id="acme-service", **changes))
    assert await refusal(start_introspector(**settings)) == "subject"


PROVIDERS = {
    "keycloak": {
        "sub": "4b1c4f0e-9a8d-4f7b-8d1e-2a3b4c5d6e7f",
        "username": "service-account-crm",
        "preferred_username": "service-account-crm",
        "azp": "crm",
    },
    "auth0": {
        "sub": "crm@clients",
        "gty": "client-credentials",
        "azp": "crm",
        "client_id": None,
        "username": None,
    },
    "entra": {"sub": "0a1b", "oid": "0a1b", "idtyp": "app", "appid": "crm", "client_id": None, "username": None},
    "zitadel": {"sub": "171234567890123456", "username": "crm"},
}


@pytest.mark.parametrize("shape", PROVIDERS)
async def test_a_token_without_a_person_behind_it_is_its_clients(introspector, introspection, active, shape):
    introspection.respond(json=active(**{"client_id": "crm", "name": None, "username": None, **PROVIDERS[shape]}))
    principal = await introspector.principal(TOKEN)
    assert (principal.subject, principal.client_id, principal.is_service) == ("client:crm", "crm", True)


@pytest.mark.parametrize("shape", PROVIDERS)
async def test_whoever_logs_in_through_this_server_is_a_person_whatever_else_is_said(
    introspector, introspection, active, shape
):
    said = {**PROVIDERS[shape], "client_id": "livedocs"}
    introspection.respond(json=active(**said))
    assert (await introspector.principal(TOKEN)).subject == f"user:{said['sub']}"


async def test_how_to_tell_a_program_is_a_setting(start_introspector, introspection, active):
    introspector = start_introspector(oauth_service_claims=("actor.kind=bot-{client_id}",))
    introspection.respond(json=active(sub="9", client_id="crm", gty="client-credentials"))
    assert (await introspector.principal(TOKEN)).subject == "user:9"
    introspection.respond(json=active(sub="9", client_id="crm", actor={"kind": "bot-crm"}))
    assert (await introspector.principal(TOKEN, fresh=True)).subject == "client:crm"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"groups": "staff"}, {"groups": {"staff"}}),
        ({"scope": ["a", "b"]}, {"scopes": {"a", "b"}}),
        ({"scope": None, "scp": "a b"}, {"scopes": {"a", "b"}}),
        ({"scope": None, "scp": ["a"], "roles": ["b"]}, {"scopes": {"a", "b"}}),
        ({"client_id": None, "azp": "crm"}, {"client_id": "crm"}),
        ({"client_id": None, "appid": "crm"}, {"client_id": "crm"}),
        ({"client_id": None, "cid": "crm"}, {"client_id": "crm"}),
        ({"client_id": "one", "azp": "other"}, {"client_id": "one"}),
        ({"tenant": 7}, {"tenant": "7"}),
        ({"tenant": "0f8b0c1e-7d3a-4b8e-9a5e-0c1d2e3f4a5b"}, {"tenant": "0f8b0c1e-7d3a-4b8e-9a5e-0c1d2e3f4a5b"}),
        ({"tenant": "org_2x9"}, {"tenant": "org_2x9"}),
    ],
)
async def test_what_providers_write_in_another_form_means_the_same(
    introspector, introspection, active, changes, found
):
    introspection.respond(json=active(**changes))
    principal = await introspector.principal(TOKEN)
    assert {name: getattr(principal, name) for name in found} == found


async def test_a_refused_token_leaves_one_line_with_the_claim_and_the_reason(
    start_introspector, introspection, active, capsys
):
    introspector = start_introspector(oauth_groups_claim="realm.roles")
    introspection.respond(json=active(realm={"roles": 7}))
    assert await refusal(introspector) == "groups"
    [line] = [line for line in capsys.readouterr().out.splitlines() if "token_refused" in line]
    assert "groups" in line
    assert "realm.roles" in line
    assert TOKEN not in line


async def test_claims_are_found_where_the_settings_say(start_introspector, introspection, active):
    introspector = start_introspector(
        oauth_tenant_claim="https://acme.example/tenant",
        oauth_groups_claim="realm_access.roles",
        oauth_subject_claim="username",
    )
    introspection.respond(
        json=active(
            tenant=None,
            groups=None,
            username="alice@acme",
            realm_access={"roles": ["staff"]},
            **{"https://acme.example/tenant": "acme"},
        )
    )
    principal = await introspector.principal(TOKEN)
    assert (principal.tenant, principal.subject, principal.groups) == ("acme", "user:alice@acme", {"staff"})


USELESS = {
    "500": httpx.Response(500),
    "500 with a yes": httpx.Response(500, json={"active": True}),
    "502 as a page": httpx.Response(502, text="<h1>Bad gateway</h1>"),
    "429": httpx.Response(429, json={"active": False}),
    "400": httpx.Response(400, json={"error": "invalid_request"}),
    "404": httpx.Response(404, json={"active": False}),
    "elsewhere": httpx.Response(302, headers={"Location": "https://evil.example/"}),
    "204": httpx.Response(204),
    "empty": httpx.Response(200, text=""),
    "not JSON": httpx.Response(200, text="active"),
    "half a JSON": httpx.Response(200, text='{"active": true'),
    "not UTF-8": httpx.Response(200, content=b"\xff\xfe"),
    "too deep": httpx.Response(200, content=b"[" * 50_000),
    "a list": httpx.Response(200, json=["active"]),
    "a string": httpx.Response(200, json="active"),
    "null": httpx.Response(200, json=None),
    "nothing in it": httpx.Response(200, json={}),
    "active is a word": httpx.Response(200, json={"active": "true"}),
    "active is 1": httpx.Response(200, json={"active": 1}),
    "active is null": httpx.Response(200, json={"active": None}),
    "active is a list": httpx.Response(200, json={"active": [True]}),
    "huge": httpx.Response(200, content=b'{"active": false, "x": "' + b"y" * 2**20 + b'"}'),
    "compressed": httpx.Response(200, stream=httpx.ByteStream(b"whatever"), headers={"Content-Encoding": "gzip"}),
    "refused": httpx.ConnectError("refused"),
    "no connection in time": httpx.ConnectTimeout("slow"),
    "no answer in time": httpx.ReadTimeout("slow"),
    "cut off": httpx.ReadError("reset"),
    "not HTTP": httpx.RemoteProtocolError("garbage"),
    "all connections busy": httpx.PoolTimeout("crowded"),
}


@pytest.mark.parametrize("answer", USELESS.values(), ids=USELESS.keys())
async def test_no_usable_answer_means_unavailable_and_is_not_remembered(
    introspector, introspection, active, answer
):
    introspection.side_effect = [answer, httpx.Response(200, json=active())]
    with pytest.raises(AuthUnavailable) as caught:
        await introspector.principal(TOKEN)
    assert caught.value.retry_after is not None
    assert await introspector.principal(TOKEN)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_provider_that_does_not_know_us_is_our_misconfiguration(
    introspector, introspection, metrics, capsys, status
):
    introspection.respond(status, json={"error": "invalid_client"})
    with pytest.raises(AuthUnavailable):
        await introspector.principal(TOKEN)
    assert count(metrics, "misconfigured") == 1
    said = capsys.readouterr().out
    assert "introspection_misconfigured" in said
    assert "s3cret" not in said
    assert TOKEN not in said


async def test_a_provider_that_never_ends_its_answer_is_cut_off(introspector, provider):
    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b"{"
            await asyncio.Event().wait()

    provider.post("https://id.example/realm/introspect").mock(return_value=httpx.Response(200, stream=Drip()))
    with pytest.raises(AuthUnavailable):
        await asyncio.wait_for(introspector.principal(TOKEN), 5)


@pytest.mark.parametrize("token", ["", "two words", "Bearer x", "tökén", "a\nb", "x" * 4097, "a;b"])
async def test_what_cannot_be_a_token_is_refused_without_asking(introspector, introspection, token):
    with pytest.raises(InvalidToken):
        await introspector.principal(token)
    assert not introspection.called


# Memory


async def test_a_yes_is_used_again_for_as_long_as_the_settings_say(introspector, introspection, active, clock):
    introspection.respond(json=active())
    for _ in range(3):
        await introspector.principal(TOKEN)
    clock.forward(29.9)
    await introspector.principal(TOKEN)
    assert introspection.call_count == 1
    clock.forward(0.1)
    await introspector.principal(TOKEN)
    assert introspection.call_count == 2


async def test_a_slow_answer_counts_from_when_it_was_asked_for(introspector, introspection, active, clock):
    held = Held(introspection, *(httpx.Response(200, json=active()) for _ in range(2)))
    caller = asyncio.create_task(introspector.principal(TOKEN))
    await asyncio.wait_for(held.asked.wait(), 5)
    clock.forward(20)
    held.answer.set()
    await caller
    clock.forward(10)
    await introspector.principal(TOKEN)
    assert introspection.call_count == 2


async def test_a_yes_is_never_used_past_exp(introspector, introspection, active, clock):
    introspection.respond(json=active(exp=clock.stamp(5)))
    await introspector.principal(TOKEN)
    clock.forward(4.999)
    await introspector.principal(TOKEN)
    assert introspection.call_count == 1
    clock.forward(0.001)
    # The provider still says yes: its clock is behind.
    assert await refusal(introspector) == "expired"


async def test_a_no_is_used_again_but_not_for_long(introspector, introspection, active, clock):
    introspection.side_effect = [
        httpx.Response(200, json={"active": False}),
        httpx.Response(200, json=active()),
    ]
    assert await refusal(introspector) == "inactive"
    clock.forward(9.9)
    assert await refusal(introspector) == "inactive"
    assert introspection.call_count == 1
    clock.forward(0.1)
    assert await introspector.principal(TOKEN)


async def test_without_a_cache_time_every_request_asks(start_introspector, introspection, active):
    introspector = start_introspector(introspection_cache=0)
    introspection.respond(json=active())
    await introspector.principal(TOKEN)
    await introspector.principal(TOKEN)
    assert introspection.call_count == 2


async def test_fresh_asks_again_and_its_no_replaces_the_remembered_yes(introspector, introspection, active):
    introspection.side_effect = [
        httpx.Response(200, json=active()),
        httpx.Response(200, json={"active": False}),
    ]
    await introspector.principal(TOKEN)
    with pytest.raises(InvalidToken):
        await introspector.principal(TOKEN, fresh=True)
    assert await refusal(introspector) == "inactive"
    assert introspection.call_count == 2


async def test_a_yes_outlives_an_outage_only_within_its_time(introspector, introspection, active, clock):
    introspection.side_effect = [
        httpx.Response(200, json=active()),
        httpx.ConnectError("gone"),
        httpx.ConnectError("gone"),
    ]
    await introspector.principal(TOKEN)
    with pytest.raises(AuthUnavailable):
        await introspector.principal(TOKEN, fresh=True)
    assert await introspector.principal(TOKEN)
    clock.forward(30)
    with pytest.raises(AuthUnavailable):
        await introspector.principal(TOKEN)


async def test_made_up_tokens_push_out_no_good_one(start_introspector, introspection, active, monkeypatch):
    monkeypatch.setattr("livedocs.access.introspection._REMEMBERED", 10)
    introspector = start_introspector()
    introspection.side_effect = lambda request: httpx.Response(
        200, json=active() if b"token=a-token&" in request.content else {"active": False}
    )
    await introspector.principal(TOKEN)
    for number in range(50):
        await refusal(introspector, f"made-up-{number}")
    calls = introspection.call_count
    await introspector.principal(TOKEN)
    assert introspection.call_count == calls


async def test_a_flood_of_made_up_tokens_leaves_connections_to_ask_about_those_of_live_sockets(
    start_introspector, introspection, active
):
    # The last ones of the flood wait for a second, the first ones would be given up on after two.
    introspector = start_introspector(oauth_timeout=2)
    asked, flying, most, go_on = asyncio.Event(), 0, 0, asyncio.Event()

    async def answer(request):
        nonlocal flying, most
        if parse_qs(request.content.decode())["token"] == ["a-live-one"]:
            return httpx.Response(200, json=active())
        flying += 1
        most = max(most, flying)
        asked.set()
        await go_on.wait()
        flying -= 1
        return httpx.Response(200, json={"active": False})

    introspection.mock(side_effect=answer)
    flood = [
        asyncio.create_task(introspector.principal(f"made-up-{number}", address=f"192.0.2.{number % 20}"))
        for number in range(100)
    ]
    await asyncio.wait_for(asked.wait(), 5)
    assert (await introspector.principal("a-live-one", fresh=True)).subject == "user:alice"
    # Those in the air are refused, those that had no turn in time are told to come back.
    await asyncio.wait(flood[-1:], timeout=5)
    go_on.set()
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    assert most == 40
    assert Counter(type(outcome) for outcome in outcomes) == {InvalidToken: 40, AuthUnavailable: 60}


async def test_a_thousand_made_up_tokens_leave_a_bounded_memory(start_introspector, introspection, monkeypatch):
    monkeypatch.setattr("livedocs.access.introspection._REMEMBERED", 10)
    introspector = start_introspector()
    introspection.respond(json={"active": False})
    for number in range(100):
        await refusal(introspector, f"made-up-{number}")
    assert len(introspector._refusals) == 10


async def test_the_token_itself_is_kept_nowhere(introspector, introspection, active):
    introspection.respond(json=active())
    principal = await introspector.principal(TOKEN)
    assert TOKEN not in repr(principal)
    assert TOKEN not in repr(introspector._principals._values)
    assert principal.token_id == token_id(TOKEN)


# One call at a time


class Held:
    """A provider that answers when it is told to."""

    def __init__(self, route, *answers):
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self._answers = list(answers)
        route.side_effect = self._reply

    async def _reply(self, _request):
        self.asked.set()
        await self.answer.wait()
        return self._answers.pop(0)


@pytest.mark.parametrize("fresh", [False, True])
async def test_callers_with_one_token_share_one_call(introspector, introspection, active, fresh):
    held = Held(introspection, httpx.Response(200, json=active()))
    callers = [asyncio.create_task(introspector.principal(TOKEN, fresh=fresh)) for _ in range(50)]
    await asyncio.wait_for(held.asked.wait(), 5)
    held.answer.set()
    principals = await asyncio.gather(*callers)
    assert introspection.call_count == 1
    assert len(set(principals)) == 1


async def test_callers_share_a_failure_too(introspector, introspection):
    held = Held(introspection, httpx.Response(500))
    callers = [asyncio.create_task(introspector.principal(TOKEN)) for _ in range(20)]
    await asyncio.wait_for(held.asked.wait(), 5)
    held.answer.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert introspection.call_count == 1
    assert {type(outcome) for outcome in outcomes} == {AuthUnavailable}


async def test_different_tokens_do_not_wait_for_each_other(introspector, introspection, active):
    held = Held(introspection, httpx.Response(200, json=active()), httpx.Response(200, json=active()))
    callers = [asyncio.create_task(introspector.principal(token)) for token in ("one", "two")]
    await asyncio.wait_for(held.asked.wait(), 5)
    held.answer.set()
    await asyncio.gather(*callers)
    assert introspection.call_count == 2


async def test_a_caller_that_gives_up_does_not_take_the_answer_from_the_others(
    introspector, introspection, active
):
    held = Held(introspection, httpx.Response(200, json=active()))
    leaver, stayer = (asyncio.create_task(introspector.principal(TOKEN)) for _ in range(2))
    await asyncio.wait_for(held.asked.wait(), 5)
    leaver.cancel()
    held.answer.set()
    assert (await stayer).subject == "user:alice"
    assert introspection.call_count == 1
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_a_logged_out_token_is_of_no_use_although_the_service_never_heard_of_it(
    introspector, introspection, active, clock
):
    introspection.respond(json=active(exp=clock.stamp(7 * 86400)))
    await introspector.principal(TOKEN)
    introspector.forget(token_id(TOKEN))
    clock.forward(2 * 86400)
    for options in ({}, {"fresh": True}):
        with pytest.raises(InvalidToken) as refused:
            await introspector.principal(TOKEN, **options)
        assert refused.value.data["reason"] == "ended"
    assert introspection.call_count == 1
    assert await introspector.principal("another")


async def test_an_answer_from_before_a_logout_lets_nobody_in_after_it(introspector, introspection, active):
    held = Held(introspection, httpx.Response(200, json=active()), httpx.Response(200, json={"active": False}))
    handshake = asyncio.create_task(introspector.principal(TOKEN))
    await asyncio.wait_for(held.asked.wait(), 5)
    introspector.forget(token_id(TOKEN))
    held.answer.set()
    with pytest.raises(InvalidToken):
        await handshake
    assert await refusal(introspector) == "ended"


async def test_closing_ends_the_calls_in_the_air(start_introspector, introspection, active):
    introspector = start_introspector()
    held = Held(introspection, httpx.Response(200, json=active()))
    caller = asyncio.create_task(introspector.principal(TOKEN))
    await asyncio.wait_for(held.asked.wait(), 5)
    await introspector.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller


# The circuit breaker


async def test_a_failing_provider_is_left_alone_then_tried_once_then_used_again(
    introspector, introspection, active, clock
):
    introspection.respond(500)
    for number in range(5):
        with pytest.raises(AuthUnavailable):
            await introspector.principal(f"token-{number}")
    assert introspection.call_count == 3
    clock.forward(1)
    held = Held(introspection, httpx.Response(200, json=active()))
    trial = asyncio.create_task(introspector.principal("trial"))
    await asyncio.wait_for(held.asked.wait(), 5)
    with pytest.raises(AuthUnavailable) as caught:
        await introspector.principal("meanwhile")
    assert 0 < caught.value.retry_after <= 1
    held.answer.set()
    assert await trial
    introspection.side_effect = None
    introspection.respond(json=active())
    assert await introspector.principal("afterwards")


async def test_a_failed_trial_shuts_the_door_again_for_longer(introspector, introspection, clock):
    introspection.respond(500)
    for number in range(3):
        with pytest.raises(AuthUnavailable):
            await introspector.principal(f"token-{number}")
    clock.forward(1)
    for rest in (1.9, 0.1):
        with pytest.raises(AuthUnavailable):
            await introspector.principal("trial")
        clock.forward(rest)
    assert introspection.call_count == 4
    with pytest.raises(AuthUnavailable):
        await introspector.principal("trial")
    assert introspection.call_count == 5


async def test_odd_tokens_that_a_provider_answers_with_400_shut_out_nobody_else(
    introspector, introspection, active
):
    introspection.respond(400, json={"error": "invalid_request"})
    for number in range(10):
        with pytest.raises(AuthUnavailable):
            await introspector.principal(f"odd-{number}")
    introspection.respond(json=active())
    assert await introspector.principal(TOKEN)


async def test_an_inactive_token_is_an_answer_not_a_failure(introspector, introspection):
    introspection.respond(json={"active": False})
    for number in range(10):
        await refusal(introspector, f"token-{number}")
    assert introspection.call_count == 10


# Readiness and figures


async def test_ready_when_the_provider_answers_our_own_credentials(introspector, introspection, clock):
    introspection.respond(json={"active": False})
    assert await introspector.reachable()
    assert await introspector.reachable()
    assert introspection.call_count == 1
    introspection.respond(401)
    clock.forward(5)
    assert not await introspector.reachable()


async def test_readiness_checks_share_one_call(introspector, introspection):
    introspection.respond(json={"active": False})
    assert all(await asyncio.gather(*(introspector.reachable() for _ in range(10))))
    assert introspection.call_count == 1


async def test_calls_are_counted_by_result_and_timed(introspector, introspection, active, metrics):
    introspection.side_effect = [
        httpx.Response(200, json=active()),
        httpx.Response(200, json={"active": False}),
        httpx.Response(200, json=active(aud="x")),
        httpx.ConnectError("gone"),
    ]
    asked = (introspector.principal(f"token-{number}") for number in range(4))
    outcomes = [(await asyncio.gather(one, return_exceptions=True))[0] for one in asked]
    assert [type(outcome) for outcome in outcomes] == [Principal, InvalidToken, InvalidToken, AuthUnavailable]
    assert [count(metrics, result) for result in ("active", "inactive", "audience", "connection")] == [1] * 4
    assert metrics.registry.get_sample_value("livedocs_introspection_seconds_count") == 4
