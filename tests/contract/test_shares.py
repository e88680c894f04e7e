"""The connections to a slow provider are shared by address: a flood from one keeps nobody else out."""

from __future__ import annotations

import asyncio
from collections import Counter
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
import pytest

from livedocs.access.issuer import _STRANGERS, _STRANGERS_PER_ADDRESS, Issuer
from livedocs.access.oauth import LoginClient
from livedocs.errors import AuthUnavailable, InvalidToken

FLOODER = "203.0.113.66"
ELSEWHERE = [f"198.51.100.{number}" for number in range(11)]


class Slow:
    """A provider that answers when it is told to; `waiting` are the tokens it has been asked about meanwhile."""

    def __init__(self, route, active):
        self._active = active
        self.waiting = []
        self.most = 0
        self.changed = asyncio.Event()
        self._go_on = asyncio.Event()
        self._open = False
        route.side_effect = self._answer

    async def _answer(self, request):
        form = parse_qs(request.content.decode())
        token = next(form[name][0] for name in ("token", "refresh_token", "code") if name in form)
        self.waiting.append(token)
        self.most = max(self.most, len(self.waiting))
        self.changed.set()
        if not self._open:
            await self._go_on.wait()
        self.waiting.remove(token)
        if token.startswith("made-up"):
            return httpx.Response(200, json={"active": False})
        return httpx.Response(200, json=self._active(sub=token))

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def answer(self):
        self._open = True
        self._go_on.set()


@pytest.fixture
def slow(introspection, active):
    return Slow(introspection, active)


@pytest.fixture
def patient(start_introspector):
    return start_introspector(oauth_timeout=30)


def flood(introspector, count=420, address=FLOODER):
    return [
        asyncio.create_task(introspector.principal(f"made-up-{uuid4()}", address=address)) for _ in range(count)
    ]


async def end(*tasks):
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_flood_of_made_up_tokens_from_one_address_keeps_no_newcomer_from_elsewhere_waiting(patient, slow):
    flooding = flood(patient)
    await slow.until(lambda: len(slow.waiting) == _STRANGERS_PER_ADDRESS)
    newcomers = [
        asyncio.create_task(patient.principal(f"person-{number}", address=address))
        for number, address in enumerate(ELSEWHERE)
    ]
    # All of them are being asked about, although nobody has been answered yet.
    await slow.until(lambda: sum(token.startswith("person") for token in slow.waiting) == len(ELSEWHERE))
    assert Counter(token.partition("-")[0] for token in slow.waiting)["made"] == _STRANGERS_PER_ADDRESS
    slow.answer()
    found = await asyncio.gather(*newcomers)
    assert [one.subject for one in found] == [f"user:person-{number}" for number in range(len(ELSEWHERE))]
    assert {type(one) for one in await asyncio.gather(*flooding, return_exceptions=True)} == {InvalidToken}


async def test_floods_from_many_addresses_leave_every_newcomer_a_turn(patient, slow):
    flooding = [task for number in range(8) for task in flood(patient, 60, f"203.0.113.{number}")]
    await slow.until(lambda: len(slow.waiting) == _STRANGERS)
    newcomer = asyncio.create_task(patient.principal("person-1", address=ELSEWHERE[0]))
    slow.answer()
    assert (await newcomer).subject == "user:person-1"
    assert slow.most == _STRANGERS
    await end(*flooding)


async def test_one_network_of_ipv6_is_one_address(patient, slow):
    flooding = [task for number in range(40) for task in flood(patient, 1, f"2001:db8::{number:x}")]
    await slow.until(lambda: len(slow.waiting) == _STRANGERS_PER_ADDRESS)
    newcomer = asyncio.create_task(patient.principal("person-1", address="2001:db8:1::1"))
    await slow.until(lambda: "person-1" in slow.waiting)
    assert len(slow.waiting) == _STRANGERS_PER_ADDRESS + 1
    await end(*flooding, newcomer)


async def test_live_sessions_are_checked_while_made_up_tokens_come_by_reauth(patient, slow):
    """Of a `Reauth` the token is asked about afresh, and nobody has vouched for it all the same."""
    reauths = [
        asyncio.create_task(patient.principal(f"made-up-{number}", fresh=True, address=FLOODER))
        for number in range(200)
    ]
    await slow.until(lambda: len(slow.waiting) == _STRANGERS_PER_ADDRESS)
    check = asyncio.create_task(patient.principal("person-1", fresh=True))
    await slow.until(lambda: "person-1" in slow.waiting)
    assert len(slow.waiting) == _STRANGERS_PER_ADDRESS + 1
    await end(*reauths, check)


async def test_more_than_may_wait_for_one_address_are_refused_at_once(patient, slow, metrics):
    flooding = flood(patient, 600)
    done, _ = await asyncio.wait(flooding, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert {type(task.exception()) for task in done} == {AuthUnavailable}
    crowded = metrics.registry.get_sample_value("livedocs_introspections_total", {"result": "crowded"})
    assert crowded is not None
    await end(*flooding)


@pytest.fixture
async def login(configure, clock, provider):
    discovered = {
        "issuer": "https://id.example/realm",
        "token_endpoint": "https://id.example/realm/token",
        "revocation_endpoint": "https://id.example/realm/revoke",
    }
    provider.get("https://id.example/realm/.well-known/openid-configuration").respond(json=discovered)
    issuer = Issuer(configure(oauth_timeout=30), now=clock)
    client = LoginClient(configure(oauth_timeout=30), issuer, now=clock)
    yield client
    await client.aclose()
    await issuer.aclose()


@pytest.mark.parametrize("what", ["refresh", "revoke"])
async def test_made_up_refresh_tokens_and_logouts_have_their_addresss_share_and_no_more(
    login, provider, active, what
):
    endpoint = "token" if what == "refresh" else "revoke"
    slow = Slow(provider.post(f"https://id.example/realm/{endpoint}"), active)

    def call(number, address):
        token = f"made-up-{number}"
        if what == "refresh":
            return asyncio.create_task(login.refresh(token, address=address))
        return asyncio.create_task(login.revoke({"refresh_token": token}, address=address))

    flooding = [call(number, FLOODER) for number in range(100)]
    await slow.until(lambda: len(slow.waiting) == _STRANGERS_PER_ADDRESS)
    others = [call(1000 + number, address) for number, address in enumerate(ELSEWHERE)]
    await slow.until(lambda: len(slow.waiting) == _STRANGERS_PER_ADDRESS + len(ELSEWHERE))
    await end(*flooding, *others)
