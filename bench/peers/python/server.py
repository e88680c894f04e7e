"""The tutorial's design on python-socketio as it comes: no authentication, `emit` as the library has it.

    python server.py --port 4000 --uri mongodb://... --database acme --collection test --driver pymongo

`--driver motor` reads the change stream through Motor instead of PyMongo's own asyncio API.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from typing import Any

import socketio
from bson import Int64
from hypercorn.asyncio import serve
from hypercorn.config import Config


def plain(value: Any) -> Any:
    """What JSON can carry."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Int64):
        return int(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def handlers() -> socketio.AsyncServer:
    """A Socket.IO server whose clients join rooms."""
    sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")

    @sio.event
    async def JoinRoom(sid: str, uuids: list[str]) -> None:  # noqa: N802 - the event's name
        for uuid in uuids:
            await sio.enter_room(sid, uuid)

    @sio.event
    async def LeaveRoom(sid: str, uuids: list[str]) -> None:  # noqa: N802 - the event's name
        for uuid in uuids:
            await sio.leave_room(sid, uuid)

    @sio.event
    async def Check(sid: str, message: Any) -> None:  # noqa: N802 - the event's name
        await sio.emit("Check", message, to=sid)

    return sio


def connect(driver: str, uri: str) -> Any:
    """A client of that driver."""
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 - only one of the two is measured

        return AsyncIOMotorClient(uri, uuidRepresentation="standard")
    from pymongo import AsyncMongoClient  # noqa: PLC0415

    return AsyncMongoClient(uri, uuidRepresentation="standard")


async def follow(sio: socketio.AsyncServer, stream: Any) -> None:
    """Every change to its room."""
    async for change in stream:
        document = change.get("fullDocument")
        if not document or "uuid" not in document:
            continue
        uuid = str(document["uuid"])
        is_update = change["operationType"] == "update"
        data = change["updateDescription"]["updatedFields"] if is_update else document
        await sio.emit(change["ns"]["coll"], {**plain(data), "uuid": uuid}, room=uuid)


async def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    for name in ("port", "uri", "database"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--collection", default="test")
    parser.add_argument("--driver", choices=("pymongo", "motor"), default="pymongo")
    options = parser.parse_args()
    sio = handlers()
    client = connect(options.driver, options.uri)
    opened = client[options.database][options.collection].watch(full_document="updateLookup")
    stream = opened if options.driver == "motor" else await opened
    # Opens it: what is written once the port answers is not missed.
    await stream.try_next()
    config = Config()
    config.bind = [f"127.0.0.1:{options.port}"]
    config.backlog = 4096
    config.errorlog = logging.getLogger("hypercorn.error")
    following = asyncio.create_task(follow(sio, stream))
    serving = asyncio.create_task(serve(socketio.ASGIApp(sio), config))
    await asyncio.wait({following, serving}, return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    asyncio.run(main())
