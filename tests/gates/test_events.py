"""Every event that a client may send, with the worst that fits into a message, and sockets that do not read."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest
import pytest_asyncio
from stall.registry import PLAIN, WORST, load, worst
from stall.worst import SHAPES

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 2**20
# The whole message, with its name and number.
MESSAGE = 65536 - 128
UUIDS = 1600
# As `/asyncapi.json` names them; the test below compares.
EVENTS = ["connect", "joinRoom", "leaveRoom", "check", "reauth"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def description(stage):
    return (await stage.request("GET", "/asyncapi.json", None)).json


def message(description, event):
    """The Socket.IO event's name and the examples of its arguments."""
    found = description["components"]["messages"][event]
    return found["name"], [example["payload"] for example in found["examples"]]


async def test_every_event_has_a_worst_case(description):
    received = [name for name, one in description["operations"].items() if one["action"] == "receive"]
    assert sorted(received) == sorted(EVENTS), "name new events in EVENTS, and write a worst case for each"
    load()
    assert [event for event in received if event not in WORST and event not in PLAIN] == []


def made_up(examples, size):
    """The worst arguments: hostile JSON as a whole, and in place of each argument and each of its members."""
    for shape in SHAPES.values():
        yield f"[{shape(size)}]"
    for example in examples:
        for place, argument in enumerate(example if isinstance(example, list) else ()):
            texts = [json.dumps(one) for one in example]
            for name in ("empty_lists", "nested_objects", "names", "escapes", "long_integer"):
                for text in hostile(argument, SHAPES[name](size)):
                    yield "[" + ",".join([*texts[:place], text, *texts[place + 1 :]]) + "]"


def hostile(argument, text):
    """That text in place of an argument, and of each of its members."""
    yield text
    for member in argument if isinstance(argument, dict) else ():
        rest = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in argument.items() if name != member]
        yield "{" + ",".join([*rest, f"{json.dumps(member)}:{text}"]) + "}"


@worst("connect")
@pytest.mark.parametrize("event", EVENTS)
async def test_the_worst_of_an_event(stage, description, event):
    label = f"event {event}: made up from its description"
    await stage.settled()
    async with stage.attack(label):
        if event == "connect":
            for shape in SHAPES.values():
                crowd = await stage.crowd("alice", 1)
                crowd.members[0].send("40" + shape(MESSAGE))
                await crowd.close()
        else:
            name, examples = message(description, event)
            crowd = await stage.crowd("alice", 1)
            for arguments in made_up(examples, MESSAGE - 700):
                text = f'["{name}",{arguments[1:]}'
                if crowd.members[0].closed.is_set():
                    crowd = await stage.crowd("alice", 1)
                await crowd.call_text(text, within=5)
    stage.check(label)


def lists():
    words = [f"{number:x}" for number in range(9_000)]
    return {
        "64 KiB that are no UUIDs": words,
        "64 KiB of empty text": [""] * 21_000,
        "64 KiB of UUIDs": [str(uuid4()) for _ in range(UUIDS)],
        "64 KiB of one UUID": [str(uuid4())] * UUIDS,
        "64 KiB of objects": [{}] * 21_000,
    }


@worst("joinRoom", "leaveRoom")
@pytest.mark.parametrize("event", ["JoinRoom", "LeaveRoom"])
@pytest.mark.parametrize("what", lists())
async def test_lists_of_rooms(stage, event, what):
    label = f"{event}: {what}, 20 times of 5 sockets"
    text = json.dumps([event, lists()[what]], separators=(",", ":"))[:]
    assert len(text) < 65536
    await stage.settled()
    async with stage.attack(label) as attack:
        crowd = await stage.crowd("alice", 5)
        for _ in range(20):
            for member in crowd.members:
                member.send("42" + text)
        answers = await crowd.call("Check", "done", within=30)
        attack.note = answers[0][:50].decode(errors="replace")
    stage.check(label)


@worst("check")
async def test_a_flood_of_echoes_that_nobody_reads(stage):
    label = "Check: 64 KiB, 100 times of 10 sockets that read nothing"
    text = "x" * (MESSAGE - 200)
    await stage.settled()
    async with stage.attack(label):
        crowd = await stage.crowd("alice", 10, deaf=True)
        crowd.stop_reading()
        for _ in range(10):
            for _ in range(10):
                crowd.emit("Check", text)
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
    stage.check(label)


@worst("reauth")
async def test_a_flood_of_new_tokens(stage):
    label = "Reauth: 60 KiB of token, 20 sockets"
    await stage.settled()
    async with stage.attack(label):
        crowd = await stage.crowd("alice", 20)
        await crowd.call("Reauth", {"token": "a." * (MESSAGE // 2 - 100)})
        crowd = await stage.crowd("alice", 20)
        await crowd.call("Reauth", {"token": stage.token("alice") + "=" * 50_000})
    stage.check(label)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def large(stage):
    """100 documents of 1 MiB."""
    return [str(stage.document("user:alice", text="x" * MIB, n=0)) for _ in range(100)]


@worst("joinRoom")
@pytest.mark.parametrize("sockets", [1, 10])
async def test_snapshots_that_nobody_reads(stage, large, sockets):
    label = f"JoinRoom: 100 snapshots of 1 MiB, 3 times of {sockets} sockets that read nothing"
    await stage.settled()
    async with stage.attack(label):
        crowd = await stage.crowd("alice", sockets, deaf=True)
        crowd.stop_reading()
        for _ in range(3):
            crowd.emit("JoinRoom", large, {"snapshot": True})
            await asyncio.sleep(0.5)
        await asyncio.sleep(3)
    stage.check(label)


async def test_snapshots_that_are_read(stage, large):
    label = "JoinRoom: 100 snapshots of 1 MiB, read"
    await stage.settled()
    async with stage.attack(label) as attack:
        crowd = await stage.crowd("alice", 2)
        answers = await crowd.call("JoinRoom", large, {"snapshot": True})
        attack.note = f"{len(answers[0])} {crowd.members[0].bytes >> 20} MiB"
    stage.check(label)


async def test_snapshots_of_many_elements(stage):
    label = "JoinRoom: 100 snapshots of 20,000 elements"
    uuids = [str(stage.document("user:alice", value=list(range(20_000)))) for _ in range(100)]
    await stage.settled()
    async with stage.attack(label) as attack:
        crowd = await stage.crowd("alice", 2)
        await crowd.call("JoinRoom", uuids, {"snapshot": True})
        attack.note = f"{crowd.members[0].bytes >> 20} MiB"
    stage.check(label)


async def test_changes_that_a_peer_does_not_read_while_it_sends_pongs(stage, large):
    label = "changes of 1 MiB, 20 sockets that send pongs and read nothing"
    await stage.settled()
    crowd = await stage.crowd("alice", 20, deaf=True)
    await crowd.call("JoinRoom", large[:20])
    # The history keeps the changes themselves, once, whoever reads them: 40 MiB of its 64.
    async with stage.attack(label, memory=(40 + 64) * MIB):
        crowd.stop_reading()
        for number in range(40):
            await asyncio.to_thread(
                stage.acme.notes.update_one,
                {"_id": stage.uuid(large[number % 20])},
                {"$set": {"text": f"{number}" + "y" * MIB}},
            )
        await asyncio.sleep(1)
    stage.check(label)


async def test_a_large_history_replayed_many_times(stage):
    label = "resume: 20 sockets replay 3,000 changes, 30 MiB"
    uuid = stage.document("user:alice", n=0)
    await stage.settled()
    first = await stage.crowd("alice", 1)
    answer = (await first.call("JoinRoom", [str(uuid)]))[0]
    given = json.loads(answer[answer.index(b"[") :])[0]["joined"][str(uuid)]
    await first.close()
    options = {"since": given["cursor"], **({"ticket": given["ticket"]} if "ticket" in given else {})}
    for number in range(3000):
        await asyncio.to_thread(
            stage.acme.notes.update_one, {"_id": uuid}, {"$set": {"n": number, "text": f"{number}" + "x" * 10_000}}
        )
    await stage.settled(keep=True)
    async with stage.attack(label) as attack:
        crowd = await stage.crowd("alice", 20)
        answers = await crowd.call("JoinRoom", [str(uuid)], options)
        attack.note = answers[0][-60:].decode(errors="replace")
    stage.check(label)


async def test_handshakes_at_the_permitted_rate(stage):
    label = "handshakes with large headers and a made-up token, 200, 20 at once"
    await stage.settled()
    async with stage.attack(label) as attack:
        headers = [
            *(("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")),
            *(("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), ("Authorization", "Bearer " + "a." * 5000)),
        ]
        path = "/socket.io/?EIO=4&transport=websocket"
        replies = []
        for _ in range(10):
            replies += await asyncio.gather(
                *(stage.request("GET", path, None, headers=headers) for _ in range(20))
            )
        attack.note = " ".join(sorted({str(reply.status) for reply in replies}))
    stage.check(label)
