"""The path from a real mongod to the listener keeps its promises whichever way the stream is read."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient

from livedocs.changes import reader
from livedocs.changes.event import DocumentChange, GrantChange
from livedocs.changes.feed import Feed
from livedocs.changes.history import History
from livedocs.changes.progress import Progress
from livedocs.changes.resolver import Resolver
from livedocs.changes.stream import Stream
from livedocs.demo.replicaset import ReplicaSet
from livedocs.model import GrantKey, Tenant, grant_id
from livedocs.store.lookups import Lookups
from livedocs.telemetry import Metrics

WITHIN = 20.0
ACME = Tenant("acme", "acme_db", {"notes": "_id", "test": "uuid"})


class Listener:
    def __init__(self):
        self.heard, self.gaps = [], []

    def change(self, change):
        self.heard.append(change)

    def gone(self, change):
        self.gaps.append("gone")

    def gap(self, reason):
        self.gaps.append(reason)


class Registry:
    def __init__(self):
        self.tenants = [ACME]

    def by_database(self, database):
        return next((tenant for tenant in self.tenants if tenant.database == database), None)


class Followed:
    """A feed on a real server, and what its listener has heard."""

    def __init__(self, client, raw):
        self.client = client
        self.listener, self.registry, self.metrics = Listener(), Registry(), Metrics()
        self.history = History(window=300, max_bytes=2**24)
        self.joining = None
        stream = Stream(
            raw, window=60, tenants=lambda: self.registry.tenants, control="control", metrics=self.metrics
        )
        self.progress = Progress(self.history, stream, self.metrics)
        self.feed = Feed(
            stream,
            Resolver(Lookups(client)),
            self.history,
            self.listener,
            progress=self.progress,
            registry=self.registry,
            control="control",
            tenants_changed=self.tenants_changed,
            cover=self.cover,
            metrics=self.metrics,
        )

    async def cover(self, at):
        """Every key is known."""

    async def tenants_changed(self):
        joining, self.joining = self.joining, None
        if joining is not None:
            self.registry.tenants.append(joining)
        return joining is not None

    async def caught_up(self):
        """Everything that was committed before this has gone through."""
        reply = await self.client["control"].command("ping")
        await self.progress.passed(reply["operationTime"])


@pytest.fixture
def own_mongod(tmp_path, free_ports):
    with ReplicaSet(tmp_path, free_ports(1), parameters={"enableTestCommands": "1"}) as replica_set:
        yield replica_set


@asynccontextmanager
async def following(uri):
    async with (
        AsyncMongoClient(uri, uuidRepresentation="standard", tz_aware=True, w="majority") as client,
        AsyncMongoClient(uri, document_class=RawBSONDocument, appname="reader") as raw,
    ):
        followed = Followed(client, raw)
        task = asyncio.create_task(followed.feed.run())
        try:
            async with asyncio.timeout(WITHIN):
                await followed.progress.opened()
                yield followed
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.parametrize("tested", [reader.TESTED, ("0.",)], ids=["direct", "driver"])
async def test_grants_and_documents_keep_one_order_without_a_gap_across_errors(own_mongod, monkeypatch, tested):
    monkeypatch.setattr(reader, "TESTED", tested)
    uuid = uuid4()
    identifier = grant_id(GrantKey("acme", uuid, "user:bob"))
    async with following(own_mongod.uri) as followed:
        notes, acl = followed.client["acme_db"]["notes"], followed.client["control"]["acl"]
        data = {"failCommands": ["getMore"], "appName": "reader", "errorCode": 43, "closeConnection": False}
        for n in range(60):
            if n % 20 == 10:
                mode = {"times": 2}
                await followed.client["admin"].command(
                    {
                        "configureFailPoint": "failCommand",
                        "mode": mode,
                        "data": {**data, "closeConnection": n == 30},
                    }
                )
            if n % 3 == 1:
                await acl.update_one({"_id": identifier}, {"$set": {"role": "reader"}}, upsert=True)
            elif n % 3 == 2:
                await acl.delete_one({"_id": identifier})
            else:
                await notes.replace_one({"_id": uuid}, {"n": n}, upsert=True)
        await followed.caught_up()
    heard = followed.listener.heard
    kinds = [DocumentChange, GrantChange, GrantChange]
    assert [type(change) for change in heard] == [kinds[n % 3] for n in range(60)]
    assert [change.grant is not None for change in heard if isinstance(change, GrantChange)] == [True, False] * 20
    assert [change.token for change in heard] == sorted({change.token for change in heard})
    assert followed.listener.gaps == []


@pytest.mark.parametrize("tested", [reader.TESTED, ("0.",)], ids=["direct", "driver"])
async def test_a_transaction_stays_together_and_a_new_tenant_is_followed_from_its_registration(
    own_mongod, monkeypatch, tested
):
    monkeypatch.setattr(reader, "TESTED", tested)
    async with following(own_mongod.uri) as followed:
        client, uuids = followed.client, [uuid4() for _ in range(5)]
        await client["acme_db"].create_collection("notes")
        async with client.start_session() as session, await session.start_transaction():
            for uuid in uuids:
                await client["acme_db"]["notes"].insert_one({"_id": uuid}, session=session)
        followed.joining = Tenant("globex", "globex_db", {"notes": "_id"})
        await client["control"]["tenants"].insert_one({"_id": "globex"})
        await client["globex_db"]["notes"].insert_many([{"_id": uuid4(), "n": n} for n in range(1500)])
        await followed.caught_up()
    heard = followed.listener.heard
    together, rest = heard[:5], heard[5:]
    assert [change.room.uuid for change in together] == uuids
    assert len({change.txn for change in together}) == 1
    assert len({change.at for change in together}) == 1
    assert [change.room.tenant for change in rest] == ["globex"] * 1500
    assert len({change.token for change in rest}) == 1500
    assert followed.listener.gaps == []
