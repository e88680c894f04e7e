"""What a service and an administrator do all day: documents of two tenants, grants over HTTP and past it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import httpx
from bson import Binary, ObjectId
from pymongo import WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_preferences import ReadPreference

from livedocs.model import GrantKey, grant_id
from rig.deployment import HOST, Deployment
from rig.recording import Recording, Write

Outcome = Literal["done", "nothing", "unknown"]
_MAJORITY = WriteConcern("majority")
# Faster and less sure: after the primary is killed such a write may be rolled back, and then nobody may see it.
_ONE = WriteConcern(1)


class Writer:
    """One service that writes documents of one tenant, with a driver and nothing else."""

    def __init__(
        self,
        deployment: Deployment,
        recording: Recording,
        *,
        tenant: str,
        rooms: Sequence[UUID],
        rng: random.Random,
        name: str,
    ) -> None:
        self._client = deployment.client
        self._control = deployment.control
        self._database = deployment.client[deployment.databases[tenant]]
        self._recording = recording
        self._tenant = tenant
        self._rooms = rooms
        self._rng = rng
        self._name = name
        self._numbers = itertools.count()
        # Documents of the collection keyed by `uuid` that may exist.
        self._ids: list[ObjectId] = []

    async def run(self, stop: asyncio.Event, rate: float) -> None:
        """Write until told to stop, about `rate` times a second."""
        while not stop.is_set():
            await self.write()
            await asyncio.sleep(self._rng.expovariate(rate))

    async def write(self) -> None:
        """One write, or one transaction of a few."""
        if self._rng.random() < 0.08:
            await self._transaction()
            return
        concern = _ONE if self._rng.random() < 0.2 else _MAJORITY
        await self._noted([self._choose(concern, None)])

    def _marker(self) -> str:
        return f"{self._name}:{next(self._numbers)}"

    def _fields(self, marker: str) -> dict[str, Any]:
        rng = self._rng
        return {
            "w": marker,
            "tenant": self._tenant,
            "n": rng.randrange(1000),
            "big": rng.randrange(2**50),
            "at": datetime.now(UTC).replace(microsecond=0),
            "deep": {"a": rng.randrange(10), "b": {"c": rng.choice("xyz")}},
            "list": [rng.randrange(10) for _ in range(rng.randrange(1, 6))],
            "text": "é" * rng.randrange(1, 60),
        }

    def _update(self, marker: str) -> Any:
        rng = self._rng
        base = {"w": marker, "n": rng.randrange(1000)}
        return rng.choice(
            [
                {"$set": base},
                {"$set": {**base, "deep.b.c": rng.choice("xyz")}, "$unset": {"extra": 1}},
                {"$set": {**base, "extra": rng.randrange(9)}, "$push": {"list": rng.randrange(10)}},
                [{"$set": {**base, "list": {"$slice": ["$list", 2]}}}],
            ]
        )

    def _choose(self, concern: WriteConcern, session: AsyncClientSession | None) -> _Attempt:
        room = self._rng.choice(self._rooms)
        if self._rng.random() < 0.5:
            return self._keyed_by_id(room, concern, session)
        return self._keyed_by_uuid(room, concern, session)

    def _keyed_by_id(self, room: UUID, concern: WriteConcern, session: AsyncClientSession | None) -> _Attempt:
        notes = (
            self._database["notes"].with_options(write_concern=concern) if not session else self._database["notes"]
        )
        key, marker = Binary.from_uuid(room), self._marker()
        return _Attempt(
            notes,
            {"_id": key},
            marker=marker,
            fields=self._fields(marker),
            update=self._update(marker),
            op=self._op(),
            session=session,
        )

    def _keyed_by_uuid(self, room: UUID, concern: WriteConcern, session: AsyncClientSession | None) -> _Attempt:
        test = (
            self._database["test"].with_options(write_concern=concern) if not session else self._database["test"]
        )
        op, marker = self._op(), self._marker()
        if op == "insert" or len(self._ids) < 6:
            op = "insert"
            identity = ObjectId()
            self._ids = [*self._ids[-20:], identity]
        else:
            identity = self._rng.choice(self._ids)
        fields = {"uuid": Binary.from_uuid(room), **self._fields(marker)}
        update = self._update(marker)
        if self._rng.random() < 0.15:
            # It moves to another room, or out of all of them.
            update = {"$set": {"w": marker, "uuid": Binary.from_uuid(room)}}
            if self._rng.random() < 0.2:
                update = {"$set": {"w": marker}, "$unset": {"uuid": 1}}
        return _Attempt(
            test, {"_id": identity}, marker=marker, fields=fields, update=update, op=op, session=session
        )

    def _op(self) -> str:
        return self._rng.choices(["insert", "update", "replace", "delete"], [3, 6, 2, 1])[0]

    async def _transaction(self) -> None:
        """Several documents at once; now and then a grant ends in the middle of it."""
        attempts: list[_Attempt] = []

        async def body(session: AsyncClientSession) -> None:
            attempts[:] = [self._choose(_MAJORITY, session) for _ in range(self._rng.randrange(2, 5))]
            middle = self._rng.randrange(len(attempts))
            for index, attempt in enumerate(attempts):
                if index == middle and self._rng.random() < 0.2:
                    grants = self._client[self._control]["acl"]
                    await grants.delete_one(
                        {"_id.tenant": self._tenant, "_id.uuid": Binary.from_uuid(self._rng.choice(self._rooms))},
                        session=session,
                    )
                await attempt.run()

        began = time.monotonic()
        outcome: Outcome = "unknown"
        try:
            async with self._client.start_session() as session, asyncio.timeout(8):
                await session.with_transaction(body, write_concern=_MAJORITY, max_commit_time_ms=3000)
                outcome = "done"
        except (DuplicateKeyError, BulkWriteError):
            outcome = "nothing"
        except OperationFailure as error:
            outcome = "unknown" if error.has_error_label("UnknownTransactionCommitResult") else "nothing"
        except (PyMongoError, TimeoutError):
            pass
        for attempt in attempts:
            if attempt.op != "delete":
                known: Outcome = outcome
                if outcome == "done" and not attempt.changed:
                    known = "nothing"
                self._note(began, attempt, known)

    async def _noted(self, attempts: list[_Attempt]) -> None:
        for attempt in attempts:
            began = time.monotonic()
            outcome: Outcome
            try:
                async with asyncio.timeout(8):
                    await attempt.run()
                outcome = "done" if attempt.changed else "nothing"
                if attempt.is_weak and attempt.changed:
                    outcome = "unknown"
            except DuplicateKeyError:
                outcome = "nothing"
            except (PyMongoError, TimeoutError):
                outcome = "unknown"
            self._note(began, attempt, outcome)

    def _note(self, at: float, attempt: _Attempt, outcome: Outcome) -> None:
        if attempt.op == "delete":
            marker = repr(attempt.filter["_id"] if attempt.name == "test" else attempt.filter["_id"].as_uuid())
        else:
            marker = attempt.marker
        self._recording.writes.append(Write(at, self._tenant, attempt.name, attempt.op, marker, outcome))


class _Attempt:
    """One write of one document."""

    def __init__(
        self,
        collection: AsyncCollection[dict[str, Any]],
        query: dict[str, Any],
        *,
        marker: str,
        fields: dict[str, Any],
        update: Any,
        op: str,
        session: AsyncClientSession | None,
    ) -> None:
        self._collection = collection
        self.filter = query
        self.marker = marker
        self._fields = fields
        self._update = update
        self.op = op
        self._session = session
        self.changed = False

    @property
    def name(self) -> str:
        return self._collection.name

    @property
    def is_weak(self) -> bool:
        return self._session is None and self._collection.write_concern == _ONE

    async def run(self) -> None:
        """Do it; `changed` says whether there was anything to do."""
        collection, session = self._collection, self._session
        self.changed = False
        if self.op == "insert":
            await collection.insert_one({**self.filter, **self._fields}, session=session)
            self.changed = True
        elif self.op == "update":
            query = (
                self.filter if not isinstance(self._update, list) else {**self.filter, "list": {"$type": "array"}}
            )
            if isinstance(self._update, dict) and "deep.b.c" in self._update.get("$set", {}):
                query = {**query, "deep.b": {"$exists": True}}
            result = await collection.update_one(query, self._update, session=session)
            self.changed = result.modified_count > 0
        elif self.op == "replace":
            result = await collection.replace_one(self.filter, self._fields, upsert=True, session=session)
            self.changed = True
        else:
            deleted = await collection.delete_one(self.filter, session=session)
            self.changed = deleted.deleted_count > 0


class Granter:
    """An administrator of one tenant: over HTTP with a token, and straight in MongoDB as a script would."""

    def __init__(
        self,
        deployment: Deployment,
        recording: Recording,
        *,
        tenant: str,
        rooms: Sequence[UUID],
        subjects: Sequence[str],
        rng: random.Random,
    ) -> None:
        self._deployment = deployment
        self._recording = recording
        self._tenant = tenant
        self._rooms = rooms
        self._subjects = subjects
        self._rng = rng
        self._acl = deployment.client[deployment.control].get_collection(
            "acl", write_concern=_MAJORITY, read_preference=ReadPreference.PRIMARY
        )
        token = deployment.provider.token(tenant, "user:admin", scope="livedocs:admin")
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=httpx.Timeout(6)
        )

    async def grant_all(self, share: float) -> None:
        """Begin with grants of that share of everyone on everything."""
        documents = [
            self._document(room, subject, "reader", None)
            for room in self._rooms
            for subject in self._subjects
            if self._rng.random() < share
        ]
        if documents:
            await self._acl.insert_many(documents)

    async def run(self, stop: asyncio.Event, rate: float) -> None:
        """Change grants until told to stop."""
        try:
            while not stop.is_set():
                await self.change()
                await asyncio.sleep(self._rng.expovariate(rate))
        finally:
            await self._http.aclose()

    def _document(self, room: UUID, subject: str, role: str, ends: datetime | None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "_id": grant_id(GrantKey(self._tenant, room, subject)),
            "role": role,
            "granted_by": "user:admin",
            "granted_at": _now(),
        }
        return document if ends is None else {**document, "expires_at": ends}

    async def change(self) -> None:
        """Give, take, raise, lower or limit one grant."""
        rng = self._rng
        room, subject = rng.choice(self._rooms), rng.choice(self._subjects)
        act = rng.choices(["give", "take", "limit", "end"], [5, 4, 2, 1])[0]
        role = rng.choice(["reader", "writer", "owner"])
        ends = None
        if act == "limit":
            ends = _now() + timedelta(milliseconds=rng.randrange(200, 4000))
        began = time.monotonic()
        outcome: Outcome
        try:
            async with asyncio.timeout(8):
                if act == "end" or rng.random() < 0.5:
                    outcome = await self._straight(act, room, subject, role, ends)
                else:
                    outcome = await self._over_http(act, room, subject, role, ends)
        except (PyMongoError, TimeoutError, httpx.HTTPError):
            outcome = "unknown"
        self._recording.grants.append(Write(began, self._tenant, "acl", act, f"{room}/{subject}", outcome))

    async def _straight(self, act: str, room: UUID, subject: str, role: str, ends: datetime | None) -> Outcome:
        key = {"_id": grant_id(GrantKey(self._tenant, room, subject))}
        if act == "take":
            return "done" if (await self._acl.delete_one(key)).deleted_count else "nothing"
        if act == "end":
            past = {"$set": {"expires_at": _now() - timedelta(seconds=1)}}
            return "done" if (await self._acl.update_one(key, past)).modified_count else "nothing"
        if self._rng.random() < 0.5:
            await self._acl.replace_one(key, self._document(room, subject, role, ends), upsert=True)
        else:
            change: dict[str, Any] = {"$set": {"role": role, "granted_by": "user:admin"}}
            if ends is None:
                change["$unset"] = {"expires_at": 1}
            else:
                change["$set"]["expires_at"] = ends
            await self._acl.update_one(key, change, upsert=True)
        return "done"

    async def _over_http(self, act: str, room: UUID, subject: str, role: str, ends: datetime | None) -> Outcome:
        process = self._rng.choice(self._deployment.processes)
        url = f"http://{HOST}:{process.port}/v1/grants/{room}/{subject}"
        if act == "take":
            answer = await self._http.delete(url)
        else:
            body = {"role": role} if ends is None else {"role": role, "expires_at": ends.isoformat()}
            answer = await self._http.put(url, json=body)
        if answer.status_code < 300:
            return "done"
        return "unknown" if answer.status_code >= 500 else "nothing"


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
