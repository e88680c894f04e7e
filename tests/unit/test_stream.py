"""The supervisor of the change stream, over a server whose answers are written down beforehand."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import AutoReconnect, OperationFailure

from livedocs.changes import cursor, stream
from livedocs.changes.getmore import Answer
from livedocs.changes.reader import BATCH
from livedocs.changes.stream import TRIM, Batch, Opened, Stream
from livedocs.model import Tenant
from livedocs.telemetry import Metrics

NOW = Timestamp(1_000_000, 7)
LOST = OperationFailure("lost", 286)
TOO_LARGE = OperationFailure("large", 10334)
BLIP = AutoReconnect("blip")
IDLE = None


def token(number):
    return f"{cursor.before(Timestamp(1_000_000, number))}2B"


def event(number):
    return RawBSONDocument(bson.encode({"_id": {"_data": token(number)}, "n": number}))


class Opening:
    """One opened change stream: its answers in turn, then silence."""

    def __init__(self, answers):
        self.answers = list(answers)
        self.alive = True
        self.resume_token = None
        self.closed = False

    async def close(self):
        self.closed = True

    async def try_next(self):
        # The server's answer takes a moment unless it lies in the driver's hands already.
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if answer == "end":
            self.alive = False
            return None
        if isinstance(answer, Exception):
            await asyncio.sleep(0)
            raise answer
        if answer is not None:
            self.resume_token = answer["_id"]
        else:
            await asyncio.sleep(0)
        return answer


class Server:
    """A client whose `watch` gives one scripted opening after the other."""

    def __init__(self, *openings):
        self.openings = [opening if isinstance(opening, Exception) else Opening(opening) for opening in openings]
        self.given = list(self.openings)
        self.asked = []
        self.times = 0

    def __getitem__(self, name):
        assert name == "control"
        return self

    async def command(self, _):
        self.times += 1
        return {"cursor": {"atClusterTime": NOW}, "operationTime": Timestamp(NOW.time + 5, 1)}

    async def watch(self, pipeline, **options):
        self.asked.append(options | {"pipeline": pipeline})
        opening = self.given.pop(0) if self.given else Opening([])
        if isinstance(opening, Exception):
            raise opening
        return opening


class Followed:
    def __init__(self, *openings, window=300.0):
        self.server, self.slept = Server(*openings), []
        self.tenants = [Tenant("acme", "acme_db", {"notes": "_id"})]
        self.metrics = Metrics()

        async def sleep(seconds):
            self.slept.append(seconds)

        self.stream = Stream(
            self.server,
            window=window,
            tenants=lambda: self.tenants,
            control="control",
            metrics=self.metrics,
            sleep=sleep,
        )

    async def take(self, count, act=lambda _: None):
        """The next batches and openings; `act` is called with each while the stream waits for it."""
        found = []
        async with aclosing(self.stream.batches()) as batches:
            async for batch in batches:
                found.append(batch)
                act(batch)
                if len(found) == count:
                    break
        return found

    @property
    def starts(self):
        return [
            options.get("start_after") or options.get("start_at_operation_time") for options in self.server.asked
        ]


def numbers(batch):
    return [bson.decode(raw)["n"] for raw in batch.events]


async def test_it_begins_a_window_before_now_and_says_behind_what():
    followed = Followed([event(1), event(2), IDLE], window=300)
    opened, batch = await followed.take(2)
    since = Timestamp(NOW.time - 300, 0)
    assert opened == Opened(cursor.before(since), "start")
    assert followed.starts == [since]
    assert numbers(batch) == [1, 2]
    assert followed.server.asked[0]["full_document_before_change"] == "whenAvailable"


async def test_a_position_is_the_token_while_there_is_more_and_the_whole_cluster_time_when_there_is_not():
    more = Followed([event(number) for number in range(1, BATCH + 2)])
    _, full = await more.take(2)
    assert (len(full.events), full.position) == (BATCH, token(BATCH))
    idle = Followed([event(4), IDLE])
    _, _, batch = await idle.take(3)
    assert batch.position == cursor.after(Timestamp(1_000_000, 4))


async def test_a_stream_that_begins_at_a_time_has_not_seen_that_time_before_something_came(monkeypatch):
    begun = Timestamp(NOW.time - 300, 0)
    # What the server names before it has anything to show: the time it was told to begin at.
    mark = cursor.before(begun) + "2B0429296E04"
    answers = [Answer(1, [], mark), Answer(1, [b""], token(3)), Answer(1, [], token(3))]

    class Scripted:
        async def take(self):
            return answers.pop(0)

        async def aclose(self):
            pass

    async def open_reader(_client, selection):
        assert selection.start_at == begun
        return Scripted()

    monkeypatch.setattr(stream, "open_reader", open_reader)
    _, idle, batch, after = await Followed().take(4)
    assert idle.position == cursor.before(begun)
    assert batch.position == token(3)
    assert after.position == cursor.after(Timestamp(1_000_000, 3))


async def test_everything_that_lies_ready_is_one_batch():
    followed = Followed([event(1), event(2), event(3), IDLE, event(4)])
    _, first, second = await followed.take(3)
    assert [numbers(first), numbers(second)] == [[1, 2, 3], [4]]


async def test_after_an_error_it_goes_on_behind_the_last_event_without_a_gap():
    followed = Followed([event(1), event(2), BLIP], [event(3), IDLE])
    _, first, second = await followed.take(3)
    assert [numbers(first), numbers(second)] == [[1, 2], [3]]
    assert followed.starts[1] == {"_data": token(2)}
    assert len(followed.slept) == 1
    assert followed.server.openings[0].closed


async def test_attempts_are_spaced_further_and_further_until_one_succeeds():
    followed = Followed(*[BLIP] * 8, [event(1), BLIP], [event(2)])
    await followed.take(3)
    assert all(
        later > earlier / 2 for earlier, later in zip(followed.slept[:8], followed.slept[1:8], strict=False)
    )
    assert followed.slept[0] <= 0.2
    assert 2.5 <= followed.slept[7] <= 5
    assert followed.slept[8] <= 0.2


async def test_it_is_connected_only_between_an_answer_and_the_next_error():
    followed = Followed([event(1), IDLE], window=0)
    states = []
    await followed.take(2, lambda _: states.append(followed.stream.connected))
    assert states == [False, True]
    broken = Followed([event(1), BLIP], BLIP)
    broken.stream._sleep = lambda _: asyncio.Event().wait()
    follow = asyncio.create_task(broken.take(5))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not broken.stream.connected
    follow.cancel()
    await asyncio.wait([follow])


async def test_a_lost_history_starts_over_from_now_and_says_so():
    followed = Followed([event(1), LOST], [event(9)])
    opened, _, again, batch = await followed.take(4)
    assert opened.reason == "start"
    assert again == Opened(cursor.after(NOW), "history_lost")
    assert followed.starts[1] == Timestamp(NOW.time, NOW.inc + 1)
    assert numbers(batch) == [9]


async def test_an_oplog_shorter_than_the_window_is_asked_for_less_until_it_fits():
    followed = Followed(LOST, LOST, [event(1)], window=300)
    (opened,) = await followed.take(1)
    assert opened == Opened(cursor.before(Timestamp(NOW.time - 75, 0)), "start")


async def test_an_event_too_large_is_read_without_what_is_large_and_the_rest_comes_back():
    followed = Followed([event(1), TOO_LARGE], [event(2), IDLE], [event(3)])
    batches = await followed.take(4)
    assert [numbers(batch) for batch in batches if isinstance(batch, Batch)] == [[1], [2], [3]]
    assert [list(TRIM) == options["pipeline"][1:] for options in followed.server.asked] == [False, True, False]
    assert {options["full_document_before_change"] for options in followed.server.asked} == {"whenAvailable"}
    assert followed.starts[1:] == [{"_data": token(1)}, {"_data": token(2)}]
    assert not [batch for batch in batches[1:] if isinstance(batch, Opened)]


async def test_an_event_too_large_even_then_is_read_without_images():
    followed = Followed([event(1), TOO_LARGE], TOO_LARGE, [event(2), IDLE], [event(3)])
    batches = await followed.take(4)
    assert [numbers(batch) for batch in batches if isinstance(batch, Batch)] == [[1], [2], [3]]
    images = [options["full_document_before_change"] for options in followed.server.asked]
    assert images == ["whenAvailable", "whenAvailable", None, "whenAvailable"]


async def test_an_event_too_large_whatever_is_left_away_is_passed_and_said():
    followed = Followed([event(1), TOO_LARGE], TOO_LARGE, TOO_LARGE, [event(5)])
    *_, again, batch = await followed.take(4)
    assert again == Opened(cursor.after(NOW), "event_too_large")
    assert numbers(batch) == [5]
    assert followed.server.asked[-1]["full_document_before_change"] == "whenAvailable"
    assert len(followed.server.asked[-1]["pipeline"]) == 1


async def test_told_to_open_again_it_does_so_behind_that_event_with_the_tenants_of_then():
    followed = Followed([event(1), event(2), event(3)], [event(2), event(3)])

    def act(batch):
        if isinstance(batch, Batch) and numbers(batch) == [1, 2, 3]:
            followed.tenants.append(Tenant("new", "new_db", {"x": "_id"}))
            followed.stream.reopen(token(1))

    _, _, again = await followed.take(3, act)
    assert numbers(again) == [2, 3]
    assert followed.starts[1] == {"_data": token(1)}
    assert "new_db" in str(followed.server.asked[1]["pipeline"])


async def test_a_stream_that_ends_without_an_error_is_opened_again():
    followed = Followed([event(1), "end"], [event(2)])
    batches = [batch for batch in await followed.take(3) if isinstance(batch, Batch) and batch.events]
    assert [numbers(batch) for batch in batches] == [[1], [2]]


async def test_silence_is_an_error(clock, settled):
    followed = Followed([event(1)], [event(2)])
    follow = asyncio.create_task(followed.take(3))
    await settled()
    await clock.advance(19)
    assert not follow.done()
    await clock.advance(2)
    *_, batch = await follow
    assert numbers(batch) == [2]


async def test_no_reader_is_left_behind():
    followed = Followed([event(1)])
    await followed.take(2)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert followed.server.openings[0].closed


@pytest.mark.parametrize("failures", [1, 3])
async def test_restarts_are_counted_by_their_cause(failures):
    followed = Followed(*[BLIP] * failures, [event(1)])
    await followed.take(2)
    value = followed.metrics.registry.get_sample_value("livedocs_stream_restarts_total", {"cause": "resume"})
    assert value == failures
