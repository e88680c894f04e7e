"""Bulk requests: batch by batch, what failed for the moment again, a result for each item at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence

from livedocs._client import answers, batches
from livedocs._client.answers import Failure
from livedocs._client.batches import Entry
from livedocs._client.requests import Request, Requests
from livedocs._client.retries import Retries
from livedocs._client.values import Result
from livedocs.errors import ClientError, ItemsInterrupted, LivedocsError, PayloadTooLarge

_JSON = {"Content-Type": "application/json"}


class Bulk:
    """Sends entries to a bulk path."""

    def __init__(self, requests: Requests, retries: Retries) -> None:
        self._requests = requests
        self._retries = retries

    async def send(self, path: str, entries: AsyncIterable[Entry]) -> list[Result]:
        """The result of each entry, in their order. An error stays with the items it befell.

        A request that is refused as a whole, or that nobody answers, is the result of each of its items; what
        comes behind it is not sent, and has the same result.

        Raises:
            ItemsInterrupted: the entries themselves ended in an error; it has the results up to there.
        """
        found: dict[int, Result] = {}
        broken: Failure | None = None
        try:
            async for batch in batches.batches(entries):
                if batch[0].error is not None:
                    found.update(_all(batch, batch[0].error))
                elif broken is not None:
                    found.update(_all(batch, broken))
                else:
                    broken = await self._batch(path, batch, found)
        except ItemsInterrupted as interrupted:
            interrupted.results = _in_order(found)
            raise
        return _in_order(found)

    async def _batch(self, path: str, batch: Sequence[Entry], found: dict[int, Result]) -> Failure | None:
        """The error with which a request failed as a whole at last, if it says something about the next ones."""
        waiting, failures = batch, 0
        while True:
            error = await self._once(path, waiting, found)
            failures += 1
            results = [found[entry.place] for entry in waiting]
            waiting = list(batches.again(waiting, results))
            passing = (one.error for one in results if one.error is not None and answers.passing(one.error))
            worst = max(passing, key=lambda one: answers.wait_of(one) or 0.0, default=None)
            wait = self._retries.wait(worst, failures, repeatable=True) if worst is not None and waiting else None
            if wait is None:
                return None if isinstance(error, PayloadTooLarge) else error
            await asyncio.sleep(wait)

    async def _once(self, path: str, entries: Sequence[Entry], found: dict[int, Result]) -> Failure | None:
        """One request; with an error when it failed as a whole."""
        request = Request("POST", path, _JSON, batches.body(entries))
        try:
            answer = await self._requests.once(request)
            results = batches.results(entries, answer.body)
        except (LivedocsError, ClientError) as error:
            found.update(_all(entries, error))
            return error
        found.update(zip((entry.place for entry in entries), results, strict=True))
        return None


def _in_order(found: dict[int, Result]) -> list[Result]:
    return [found[place] for place in sorted(found)]


def _all(entries: Sequence[Entry], error: Failure) -> dict[int, Result]:
    status = error.status if isinstance(error, LivedocsError) else 0
    return {entry.place: Result(entry.uuid, status, error=error) for entry in entries}
