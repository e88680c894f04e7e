"""Answers about sockets are bounded before they are written: one of 16 MB would end whoever writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import bson
import pytest
from bson.objectid import ObjectId

from livedocs.model import Role
from livedocs.store.inquiries import MOST_BYTES, Answer, Inquiries, Listing, Session

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def inquiries(mongo, deployment):
    return Inquiries(mongo, deployment.control_database)


@pytest.fixture
async def stored(control):
    async def sizes(inquiry):
        found = await control["answers"].find({"inquiry": inquiry}).to_list()
        return [len(bson.encode(one, codec_options=control.codec_options)) for one in found]

    return sizes


def session(number, rooms=100):
    return Session(
        f"{number:032x}",
        "user:" + "s" * 200,
        "n" * 200,
        "c" * 256,
        "192.0.2.1",
        1000.0 + number,
        NOW,
        rooms,
        {uuid4(): Role.READER for _ in range(rooms)},
    )


async def test_an_answer_that_fits_comes_as_it_was_given(inquiries):
    inquiry, given = ObjectId(), Answer((session(1), session(2, 0)), 2, 5, frozenset({"b", "a"}))
    await inquiries.answer(inquiry, "me", given)
    assert await inquiries.answers(inquiry, ()) == {"me": given}
    await inquiries.close(inquiry)
    assert await inquiries.answers(inquiry, ()) == {}


async def test_sessions_beyond_its_bytes_are_left_away_from_the_last_on_and_it_says_so(inquiries, stored):
    inquiry = ObjectId()
    sessions = tuple(session(number) for number in range(2000))
    await inquiries.answer(inquiry, "me", Answer(sessions, 2000))
    [size] = await stored(inquiry)
    assert MOST_BYTES / 2 < size < 1.2 * MOST_BYTES
    answer = (await inquiries.answers(inquiry, ()))["me"]
    assert (answer.complete, answer.matching) == (False, 2000)
    assert answer.sessions == sessions[: len(answer.sessions)]
    await inquiries.close(inquiry)


async def test_groups_beyond_its_bytes_are_left_away_and_it_says_so(inquiries, stored):
    inquiry, groups = ObjectId(), frozenset(f"{number:06d}" + "g" * 200 for number in range(100_000))
    await inquiries.answer(inquiry, "me", Answer(groups=groups))
    [size] = await stored(inquiry)
    assert size < 1.2 * MOST_BYTES
    answer = (await inquiries.answers(inquiry, ()))["me"]
    assert not answer.complete
    assert answer.groups < groups
    await inquiries.close(inquiry)


async def test_an_answer_that_cannot_be_read_is_none_and_the_others_are_read(inquiries, control):
    inquiry = await inquiries.ask("me", Listing("acme"))
    await control["answers"].insert_one(
        {"at": NOW, "inquiry": inquiry, "process": "odd", "answer": {"sessions": 1}}
    )
    await inquiries.answer(inquiry, "you", Answer(matching=3))
    assert await inquiries.answers(inquiry, ()) == {"you": Answer(matching=3)}
    await inquiries.close(inquiry)


async def test_a_process_of_an_earlier_version_reads_an_answer_and_is_read(inquiries, control):
    inquiry = ObjectId()
    await inquiries.answer(inquiry, "me", Answer((session(1),), 1))
    found = await control["answers"].find_one({"inquiry": inquiry})
    assert found["answer"]["sessions"][0]["groups"] == []
    del found["answer"]["complete"], found["answer"]["scopes"], found["_id"]
    found["answer"]["sessions"][0]["groups"] = ["staff"]
    await control["answers"].insert_one(found | {"process": "old"})
    old = (await inquiries.answers(inquiry, ("me",)))["old"]
    assert (old.complete, old.scopes) == (True, frozenset())
    await inquiries.close(inquiry)
