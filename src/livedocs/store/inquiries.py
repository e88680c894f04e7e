"""What one server process asks all others about their sockets, and what they answer, in the control database.

A process sees an inquiry in its change stream, so nobody polls for one that is not there. Nothing is stored about
sockets unless somebody asks, and that is deleted when the answers are in; a TTL index takes the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import bson
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient

from livedocs.errors import Unavailable
from livedocs.model import Role
from livedocs.store.connection import ANSWERS, INQUIRIES, MongoDocument
from livedocs.store.failures import translated
from livedocs.telemetry import get_logger

log = get_logger(__name__)

_SECONDS = 3.0
# Bytes of the sessions, and of the groups, in one answer. MongoDB takes a document of 16 MB at most, and whoever
# asks holds the answers of all processes at once.
MOST_BYTES = 2**20
# Sessions that are encoded before whatever else is waiting gets its turn.
_SLICE = 20

Place = tuple[int, str]
"""Where a socket stands among all of them: they are in the order of their coming, by the microsecond."""


def place(since: float, sid: str) -> Place:
    """The place of a socket that connected then."""
    return int(since * 1e6), sid


@dataclass(frozen=True, slots=True)
class Session:
    """A socket as it was when somebody asked.

    Attributes:
        sid: its id among all sockets; no credential.
        name: of the subject, for people to read.
        client_id: the OAuth client its token was issued to.
        since: when it connected, seconds since the epoch.
        expires_at: when its token ends, aware UTC.
        room_count: the rooms it is in; `rooms` has those of them that were asked for, with its role in each.
    """

    sid: str
    subject: str
    name: str
    client_id: str
    address: str
    since: float
    expires_at: datetime
    room_count: int
    rooms: Mapping[UUID, Role]

    @property
    def place(self) -> Place:
        """Where it stands among all sockets: they are in the order of their coming."""
        return place(self.since, self.sid)


@dataclass(frozen=True, slots=True)
class Listing:
    """Asks who is connected. Of one subject, of those in the room of `uuid`, or of both, where they are not None.

    `after` is the place behind which the list goes on.
    """

    tenant: str
    subject: str | None = None
    uuid: UUID | None = None
    after: Place | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Holders:
    """Asks who is in a room because of what a subject, as grants name it, may see. `limit` of them are listed."""

    tenant: str
    uuid: UUID
    subject: str
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Disconnection:
    """Has sockets disconnected for good: the one of an id, or all of a subject."""

    tenant: str
    sid: str | None = None
    subject: str | None = None


Question = Listing | Holders | Disconnection


@dataclass(frozen=True, slots=True)
class Logout:
    """Says that somebody has logged out; nobody answers.

    Attributes:
        token_id: of the login's last token, its SHA-256.
        login: which login of a browser that was, as a SHA-256; None when it did not say.
    """

    tenant: str
    token_id: str
    login: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process says of its own sockets.

    Attributes:
        sessions: the first of those that were asked for, or that were disconnected, in the order of their coming.
        matching: how many there are, those left away included.
        in_room: of `Holders`, the sockets in the room, whoever they are.
        groups: of `Holders`, those that the sockets of the subject have; None when it has none here.
        complete: false where sessions were left away, those behind the last one, or groups, since the answer would
            have been too large.
        scopes: of `Holders`, the scopes of this server that the sockets of the subject have.
    """

    sessions: tuple[Session, ...] = ()
    matching: int = 0
    in_room: int = 0
    groups: frozenset[str] | None = None
    complete: bool = True
    scopes: frozenset[str] = frozenset()


class Inquiries:
    """The questions that are open, and the answers so far."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._inquiries = client[control_database][INQUIRIES]
        self._answers = client[control_database][ANSWERS]
        self._options: CodecOptions[MongoDocument] = self._answers.codec_options
        # Decoded one at a time: those of many processes together would hold everybody up.
        self._raw = self._answers.with_options(codec_options=CodecOptions(document_class=RawBSONDocument))

    async def ask(self, process_id: str, question: Question | Logout) -> ObjectId:
        """Put a question, or a piece of news, to every process. Returns the inquiry's id.

        Raises:
            Unavailable: MongoDB cannot be written now; the question may have been put all the same.
        """
        inquiry = ObjectId()
        with translated(seconds=_SECONDS):
            # By MongoDB's clock, as the TTL index is.
            await self._inquiries.update_one(
                {"_id": inquiry},
                [{"$set": {"at": "$$NOW", "by": process_id, "question": {"$literal": _stored(question)}}}],
                upsert=True,
            )
        return inquiry

    async def answer(self, inquiry: ObjectId, process_id: str, answer: Answer) -> None:
        """Answer for a process, as far as the answer fits.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """
        given = await self._given(answer)
        fields = {"at": "$$NOW", "inquiry": inquiry, "process": process_id, "answer": {"$literal": given}}
        with translated(seconds=_SECONDS):
            await self._answers.update_one({"_id": ObjectId()}, [{"$set": fields}], upsert=True)

    async def answers(self, inquiry: ObjectId, known: Collection[str]) -> dict[str, Answer]:
        """The answers so far by process, without those that are known; one that cannot be read is none.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            found = await self._raw.find({"inquiry": inquiry, "process": {"$nin": list(known)}}).to_list()
        answers: dict[str, Answer] = {}
        for raw in found:
            try:
                one = bson.decode(raw.raw, self._options)
                answers[one["process"]] = _taken(one["answer"])
            except (BSONError, LookupError, TypeError, ValueError, AttributeError):
                log.exception("session_answer_unreadable")
            await asyncio.sleep(0)
        return answers

    async def _given(self, answer: Answer) -> MongoDocument:
        """An answer as it is stored. Encodes the sessions in slices, until there is no more room."""
        left, sessions = MOST_BYTES, []
        for number, one in enumerate(answer.sessions, 1):
            encoded = bson.encode(_given(one), codec_options=self._options)
            left -= len(encoded)
            if left < 0:
                break
            sessions.append(RawBSONDocument(encoded))
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        groups = None if answer.groups is None else _fitting(answer.groups)
        everything = len(sessions) == len(answer.sessions) and len(groups or ()) == len(answer.groups or ())
        return {
            "sessions": sessions,
            "matching": answer.matching,
            "in_room": answer.in_room,
            "groups": groups,
            "scopes": _fitting(answer.scopes),
            "complete": answer.complete and everything,
        }

    async def close(self, inquiry: ObjectId) -> None:
        """Nobody waits for it any more. What cannot be deleted now passes by itself."""
        with suppress(Unavailable), translated(seconds=_SECONDS):
            await self._inquiries.delete_one({"_id": inquiry})
            await self._answers.delete_many({"inquiry": inquiry})


def parse_question(stored: Any) -> Question | Logout | None:
    """What a stored inquiry says; None when this version knows none like it, or it is not well formed."""
    match stored:
        case {"kind": "logout", "tenant": str(tenant), "token_id": str(token_id), "login": str() | None as login}:
            return Logout(tenant, token_id, login)
        case {
            "kind": "listing",
            "tenant": str(tenant),
            "subject": str() | None as subject,
            "uuid": UUID() | None as uuid,
            "after": [int(), str()] | None as after,
            "limit": int(limit),
        } if limit > 0:
            return Listing(tenant, subject, uuid, tuple(after) if after is not None else None, limit)
        case {
            "kind": "holders",
            "tenant": str(tenant),
            "uuid": UUID() as uuid,
            "subject": str(subject),
            "limit": int(limit),
        } if limit > 0:
            return Holders(tenant, uuid, subject, limit)
        case {"kind": "disconnection", "tenant": str(tenant), "sid": str(sid), "subject": None}:
            return Disconnection(tenant, sid=sid)
        case {"kind": "disconnection", "tenant": str(tenant), "sid": None, "subject": str(subject)}:
            return Disconnection(tenant, subject=subject)
        case _:
            return None


def _stored(question: Question | Logout) -> MongoDocument:
    asked: MongoDocument
    match question:
        case Logout(tenant, token_id, login):
            kind, asked = "logout", {"token_id": token_id, "login": login}
        case Listing(tenant, subject, uuid, after, limit):
            kind = "listing"
            asked = {"subject": subject, "uuid": uuid, "after": list(after) if after else None, "limit": limit}
        case Holders(tenant, uuid, subject, limit):
            kind, asked = "holders", {"uuid": uuid, "subject": subject, "limit": limit}
        case Disconnection(tenant, sid, subject):
            kind, asked = "disconnection", {"sid": sid, "subject": subject}
    return {"kind": kind, "tenant": tenant, **asked}


def _given(one: Session) -> MongoDocument:
    return {
        "sid": one.sid,
        "subject": one.subject,
        "name": one.name,
        # A process of an earlier version, which may have asked, looks for them.
        "groups": [],
        "client_id": one.client_id,
        "address": one.address,
        "since": one.since,
        "expires_at": one.expires_at,
        "room_count": one.room_count,
        "rooms": [{"uuid": uuid, "role": role.label} for uuid, role in one.rooms.items()],
    }


def _fitting(names: Collection[str]) -> list[str]:
    """As many of the names, the first of them, as there is room for."""
    left, fitting = MOST_BYTES, []
    for name in sorted(names):
        left -= len(name.encode()) + 16
        if left < 0:
            break
        fitting.append(name)
    return fitting


def _taken(stored: Mapping[str, Any]) -> Answer:
    sessions = tuple(
        Session(
            **{name: one[name] for name in _AS_STORED},
            rooms={room["uuid"]: role for room in one["rooms"] if (role := Role.parse(room["role"])) is not None},
        )
        for one in stored["sessions"]
    )
    groups = frozenset(stored["groups"]) if stored["groups"] is not None else None
    # A process of an earlier version says neither.
    complete, scopes = stored.get("complete", True), frozenset(stored.get("scopes", ()))
    return Answer(sessions, stored["matching"], stored["in_room"], groups, complete, scopes)


_AS_STORED = ("sid", "subject", "name", "client_id", "address", "since", "expires_at", "room_count")
