"""How a request of many items is cut into transactions, and how many it can take. Without MongoDB."""

from __future__ import annotations

import math
from uuid import UUID

from livedocs.errors import Conflict, Unavailable
from livedocs.store import batches
from livedocs.store.batches import MOST, MOST_BYTES, MOST_GRANTS, Upsert


def item(number, grants=0, size=0):
    return Upsert(UUID(int=number), lambda _state: None, subjects=("user:a",) * grants, bytes=size)


async def settled(items, bad):
    """The results, and the sizes of the transactions that were tried."""
    tried = []

    async def run(batch):
        tried.append(len(batch))
        if any(one.uuid.int in bad for one in batch):
            raise Conflict
        return [one.uuid for one in batch]

    results = await batches._settled(batches._apart(items, MOST), run)
    return results, tried


async def test_a_thousand_bad_items_take_fewer_than_two_transactions_each():
    results, tried = await settled([item(number) for number in range(1000)], set(range(1000)))
    assert [type(result) for result in results] == [Conflict] * 1000
    assert len(tried) == 10 * (2 * MOST - 1)
    assert sum(tried) <= 1000 * (math.ceil(math.log2(MOST)) + 1)


async def test_one_bad_item_is_found_in_a_few_transactions():
    results, tried = await settled([item(number) for number in range(1000)], {77})
    assert [number for number, result in enumerate(results) if isinstance(result, Conflict)] == [77]
    assert len(tried) <= 10 + 2 * math.ceil(math.log2(MOST))


async def test_nothing_further_is_tried_once_mongodb_is_gone():
    async def run(batch):
        raise Unavailable

    tried = [len(one) for one in batches._apart([item(number) for number in range(300)], MOST)]
    assert tried == [MOST] * 3
    results = await batches._settled(iter([[item(1)], [item(2)]]), run)
    assert results[0] is results[1]


def test_a_transaction_is_bounded_in_items_grants_bytes_and_grants_of_the_callers_own():
    assert [len(one) for one in batches._apart([item(n, grants=100) for n in range(12)], MOST)] == [5, 5, 2]
    assert MOST_GRANTS == 500
    large = [item(n, size=MOST_BYTES // 2) for n in range(5)]
    assert [len(one) for one in batches._apart(large, MOST)] == [2, 2, 1]
    # One that is larger than that goes alone.
    assert [len(one) for one in batches._apart([item(n, size=2 * MOST_BYTES) for n in range(3)], MOST)] == [1] * 3
    assert batches._most(("user:a", "tenant:*")) == MOST
    assert batches._most(("group:a",) * 1002) == 4
    assert batches._most(("group:a",) * 10_002) == 1


def test_a_uuid_that_comes_again_waits_for_the_next_transaction():
    assert [len(one) for one in batches._apart([item(1), item(2), item(1), item(1)], MOST)] == [2, 1, 1]
