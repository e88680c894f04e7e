"""Imports that are cut off from their right in the middle: token revoked, out of the group, tenant suspended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Literal
from uuid import UUID, uuid4

from bson import Binary
from pymongo import WriteConcern

from livedocs.model import GrantKey, grant_id
from rig.deployment import HOST, IMPORTING, Deployment, Process
from rig.recording import Import, Recording

Why = Literal["token_revoked", "group_left", "tenant_suspended"]
WHYS: tuple[Why, ...] = ("token_revoked", "group_left", "tenant_suspended")
_GROUP = "importers"
_BATCH = 1000
# Between batches: many of them fall into an interval.
_PAUSE = 0.7
_PATIENCE = 20.0


class Importer:
    """One import that goes on until the server ends it.

    Args:
        why: what takes its right away. Who is in the group merges into a document that the group may write; the
            others create documents.
    """

    def __init__(self, deployment: Deployment, recording: Recording, why: Why, name: str) -> None:
        self._deployment = deployment
        self._recording = recording
        self._why = why
        self._tenant = IMPORTING if why == "tenant_suspended" else "acme"
        self._name = name
        groups = (_GROUP,) if why == "group_left" else ()
        self._token = deployment.provider.token(self._tenant, f"user:{name}", groups=groups)
        self._room: UUID | None = uuid4() if why == "group_left" else None
        self._sent = 0

    async def run(self, process: Process) -> str:
        """Begin, have a batch written, take the right away, go on, and see what the server says. Returns that."""
        if self._room is not None:
            await self._prepare(self._room)
        record = Import(self._name, self._tenant, self._why, time.monotonic())
        reader, writer = await asyncio.open_connection(HOST, process.port)
        answering = asyncio.create_task(reader.read())
        try:
            writer.write(
                (
                    f"POST /v1/docs/notes:import HTTP/1.1\r\nHost: {HOST}:{process.port}\r\n"
                    f"Authorization: Bearer {self._token}\r\nContent-Type: application/x-ndjson\r\n"
                    "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                ).encode()
            )
            await self._send(writer)
            await self._written()
            await self._cut()
            record.cut = time.monotonic()
            # Into the recording only now: before, there was nothing that it could have outlived.
            self._recording.imports.append(record)
            with contextlib.suppress(TimeoutError):
                # A server that refuses each line takes them no faster than it can.
                async with asyncio.timeout(self._recording.interval + _PATIENCE):
                    while not answering.done():
                        await asyncio.sleep(_PAUSE)
                        await self._send(writer)
            record.ended = time.monotonic() if answering.done() else None
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                record.answer = (await answering)[:12].decode("latin-1")
            await self._mend()
        return f"{self._why}: {record.answer}"

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        lines = b"".join(self._line() for _ in range(_BATCH))
        with contextlib.suppress(ConnectionError):
            writer.write(f"{len(lines):x}\r\n".encode() + lines + b"\r\n")
            await writer.drain()

    def _line(self) -> bytes:
        self._sent += 1
        item: dict[str, object] = {"document": {"w": f"{self._name}:{self._sent}"}}
        if self._room is not None:
            item |= {"uuid": str(self._room), "mode": "merge"}
        return json.dumps(item).encode() + b"\n"

    async def _prepare(self, room: UUID) -> None:
        client = self._deployment.client
        majority = WriteConcern("majority")
        key = {"_id": grant_id(GrantKey(self._tenant, room, f"group:{_GROUP}"))}
        acl = client[self._deployment.control].get_collection("acl", write_concern=majority)
        await acl.insert_one({**key, "role": "writer", "granted_by": "user:admin"})
        notes = client[self._deployment.databases[self._tenant]].get_collection("notes", write_concern=majority)
        await notes.insert_one({"_id": Binary.from_uuid(room)})

    async def _written(self) -> None:
        """Wait until something of it can be seen in the database."""
        notes = self._deployment.client[self._deployment.databases[self._tenant]]["notes"]
        async with asyncio.timeout(_PATIENCE):
            while await notes.find_one({"w": {"$regex": f"^{self._name}:"}}) is None:
                await asyncio.sleep(0.05)

    async def _cut(self) -> None:
        provider = self._deployment.provider
        if self._why == "token_revoked":
            provider.revoke(self._token)
        elif self._why == "group_left":
            provider.change(self._token, groups=[])
        else:
            await self._suspend("suspended")

    async def _mend(self) -> None:
        if self._why == "tenant_suspended":
            await self._suspend("active")

    async def _suspend(self, status: str) -> None:
        tenants = self._deployment.client[self._deployment.control].get_collection(
            "tenants", write_concern=WriteConcern("majority")
        )
        await tenants.update_one({"_id": IMPORTING}, {"$set": {"status": status}})
