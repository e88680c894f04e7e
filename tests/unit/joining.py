"""What tests of joins share: answers read, and a join that stands at one of its awaits."""

from __future__ import annotations

import asyncio

STEPS = ["lock", "before_time", "after_time"]
"""Where a join waits: the socket is busy with another request; it is registered, and the snapshot's time is not
fixed yet; that is fixed, and the reply under way."""


def code(answer, room):
    return answer["refused"][str(room.uuid)]["code"]


async def resynced(client):
    """The body of the one `$resync` that is under way."""
    async with asyncio.timeout(5):
        while not client.outbox.named("$resync"):
            await asyncio.sleep(0)
    (message,) = client.outbox.named("$resync")
    return message[1]


def joined(answer, room):
    return answer["joined"][str(room.uuid)]


class Stopped:
    """A join that stands at one of its awaits. `finish` lets it go on and gives its answer."""

    def __init__(self, stage, step, *rooms, client=None, **options):
        self.stage, self.step = stage, step
        self.client = client or stage.client()
        self.rooms, self.options = rooms, options

    async def __aenter__(self):
        if self.step == "lock":
            await self.client.busy.acquire()
            self.task = self.stage.start_join(self.client, *self.rooms, **self.options)
            await asyncio.sleep(0)
        else:
            self.stop = self.stage.stop_reader(self.step)
            self.task = self.stage.start_join(self.client, *self.rooms, **self.options)
            await self.stop.reached.wait()
        assert not self.task.done()
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.wait([self.task])

    async def finish(self):
        if self.step == "lock":
            self.client.busy.release()
        else:
            self.stop.go()
        await asyncio.wait_for(self.task, 5)
        return self.stage.answer(self.client)
