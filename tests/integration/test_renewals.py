"""Refresh tokens that are spent once, by one of several processes: in memory, and in the control database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from livedocs import config
from livedocs.access.renewals import WINDOW, OwnRenewals, seal, unseal
from livedocs.errors import Unavailable
from livedocs.model import Renewal
from livedocs.store.connection import connect
from livedocs.store.renewals import SharedRenewals

PATIENCE = timedelta(seconds=1)
SHORT = timedelta(milliseconds=300)


class Clock:
    """Real time, moved ahead by a test."""

    ahead = timedelta()

    def __call__(self):
        return datetime.now(UTC) + self.ahead


@pytest.fixture
async def client(deployment):
    made = connect(config.load({}, **deployment.settings().model_dump()))
    yield made
    await made.close()


@pytest.fixture(params=["of one process", "of all processes"])
def renewals(request, client, deployment):
    if request.param == "of one process":
        return OwnRenewals(now=Clock(), patience=PATIENCE)
    return SharedRenewals(client, deployment.control_database, window=WINDOW, patience=PATIENCE)


@pytest.fixture
def token(request):
    return request.node.name


async def test_one_has_it_and_the_others_get_what_came_of_it(renewals, token):
    claims = await asyncio.gather(*(renewals.claim(token, f"tab {number}") for number in range(12)))
    assert len({claim.by for claim in claims}) == 1
    winner = claims[0].by
    assert await renewals.settle(token, winner, b"sealed") == Renewal(winner, b"sealed")
    assert await renewals.claim(token, "late") == Renewal(winner, b"sealed")
    assert await renewals.get(token) == Renewal(winner, b"sealed")


async def test_what_is_given_up_another_may_try(renewals, token):
    assert (await renewals.claim(token, "one")).by == "one"
    await renewals.give_up(token, "two")
    assert (await renewals.claim(token, "two")).by == "one"
    await renewals.give_up(token, "one")
    assert (await renewals.claim(token, "two")).by == "two"


async def test_whoever_has_died_over_it_is_waited_for_no_longer(renewals, token):
    await renewals.claim(token, "dead")
    await asyncio.sleep(PATIENCE.total_seconds() + 0.2)
    assert (await renewals.claim(token, "heir")).by == "heir"
    # Back from the dead, it spoils nothing.
    assert (await renewals.settle(token, "dead", b"late")).renewed is None
    assert (await renewals.get(token)).renewed is None


async def test_a_session_that_is_over_is_nobodys_and_what_comes_late_is_still_told(renewals, token):
    await renewals.claim(token, "one")
    assert await renewals.end(token) == Renewal("one", over=True)
    assert (await renewals.settle(token, "one", b"sealed")).over
    assert await renewals.end(token) == Renewal("one", b"sealed", over=True)
    await asyncio.sleep(PATIENCE.total_seconds() + 0.2)
    assert (await renewals.claim(token, "two")).by != "two"


async def test_a_session_that_nobody_was_renewing_can_end(renewals, token):
    assert await renewals.end(token) == Renewal(over=True)
    assert (await renewals.claim(token, "one")) == Renewal(over=True)


async def test_after_the_window_the_provider_decides_what_a_spent_token_is_worth(client, deployment, token):
    shared = SharedRenewals(client, deployment.control_database, window=SHORT, patience=PATIENCE)
    await shared.claim(token, "one")
    await shared.settle(token, "one", b"sealed")
    await asyncio.sleep(SHORT.total_seconds() + 0.2)
    assert await shared.claim(token, "two") == Renewal("two")
    clock = Clock()
    own = OwnRenewals(now=clock, patience=PATIENCE)
    await own.claim(token, "one")
    await own.settle(token, "one", b"sealed")
    clock.ahead = WINDOW
    assert await own.claim(token, "two") == Renewal("two")


async def test_without_mongodb_nobody_spends_anything(client, deployment, token):
    shared = SharedRenewals(client, deployment.control_database, window=WINDOW, patience=PATIENCE)
    await client.close()
    with pytest.raises(Unavailable):
        await shared.claim(token, "one")


async def test_the_database_forgets_them_and_holds_nothing_that_opens_a_session(client, deployment, token):
    shared = SharedRenewals(client, deployment.control_database, window=WINDOW, patience=PATIENCE)
    await shared.claim(token, "one")
    await shared.settle(token, "one", seal(b"the-access-token", "the-refresh-token"))
    collection = client[deployment.control_database]["renewals"]
    indexes = await (await collection.list_indexes()).to_list()
    assert {index.get("expireAfterSeconds") for index in indexes} == {None, 300}
    stored = await collection.find_one({"_id": token})
    assert isinstance(stored["at"], datetime)
    assert b"the-access-token" not in stored["renewed"]
    assert unseal(stored["renewed"], "the-refresh-token") == b"the-access-token"
    assert unseal(stored["renewed"], "another") is None
