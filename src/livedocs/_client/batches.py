"""Many items as requests of a size that the server takes, and what of a request has to be sent again. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

from livedocs._client import answers, codec
from livedocs._client.values import GrantChange, Item, NewGrant, Result
from livedocs.errors import BadRequest, InvalidDocument, ItemsInterrupted, LivedocsError, UnexpectedAnswer
from livedocs.model import Role

MOST_ITEMS = 1000
# A little below the 16 MiB that the server reads.
MOST_BYTES = 15 * 2**20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An item as it is sent.

    Attributes:
        place: in the caller's order.
        conditional: doing it twice is not as good as once.
        error: why it cannot be sent.
    """

    place: int
    uuid: UUID
    text: bytes = b""
    conditional: bool = False
    error: LivedocsError | None = None


def role_name(role: Role | str | None) -> str | None:
    """A role as the server calls it."""
    return role.label if isinstance(role, Role) else role


def time_text(at: datetime | None) -> str | None:
    """A time as in RFC 3339.

    Raises:
        BadRequest: it has no offset, so that nobody could tell which moment it is.
    """
    if at is not None and at.tzinfo is None:
        raise BadRequest("A time needs its time zone: datetime.now(UTC).", path="expires_at")
    return None if at is None else at.astimezone(UTC).isoformat()


def item_entry(place: int, item: Item) -> Entry:
    """A document as it is sent. One without a UUID gets one here, so that it can be sent again."""
    uuid = item.uuid or uuid4()
    conditional = item.if_match is not None or item.if_none_match is not None
    return _entry(place, uuid, lambda: item_members(replace(item, uuid=uuid)), conditional=conditional)


def _entry(
    place: int, uuid: UUID, members: Callable[[], Mapping[str, Any]], *, conditional: bool = False
) -> Entry:
    try:
        return Entry(place, uuid, codec.dumps(members()), conditional)
    except BadRequest as error:
        return Entry(place, uuid, error=error)
    except TypeError as error:
        return Entry(place, uuid, error=InvalidDocument(str(error)))


def item_members(item: Item) -> dict[str, Any]:
    """The members of an item of a bulk request, without those that say nothing."""
    members: dict[str, Any] = {
        "uuid": None if item.uuid is None else str(item.uuid),
        "document": item.fields,
        "mode": None if item.mode == "replace" else item.mode,
        "if_match": item.if_match,
        "if_none_match": item.if_none_match,
        "grants": [_new_grant(grant) for grant in _grants(item)],
    }
    return {name: value for name, value in members.items() if name == "document" or value}


def _grants(item: Item) -> Iterable[NewGrant]:
    if isinstance(item.grants, Mapping):
        return (NewGrant(subject, role) for subject, role in item.grants.items())
    return item.grants


def _new_grant(grant: NewGrant) -> dict[str, Any]:
    end = time_text(grant.expires_at)
    return {"subject": grant.subject, "role": role_name(grant.role), **({"expires_at": end} if end else {})}


def grant_entry(place: int, change: GrantChange) -> Entry:
    """A change of a grant as it is sent."""
    return _entry(place, change.uuid, lambda: _change_members(change))


def _change_members(change: GrantChange) -> dict[str, Any]:
    end = time_text(change.expires_at)
    members = {"uuid": str(change.uuid), "subject": change.subject, "role": role_name(change.role)}
    return {**members, **({"expires_at": end} if end else {})}


async def each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """The items of either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def batches(entries: AsyncIterable[Entry]) -> AsyncIterator[list[Entry]]:
    """Entries in their order, as many at once as a request may have; one that cannot be sent comes alone.

    Raises:
        ItemsInterrupted: the entries ended in an error of their own; all that came before it have been given.
    """
    batch, size = list[Entry](), 0
    source, broken = aiter(entries), None
    while True:
        try:
            entry = await anext(source)
        except StopAsyncIteration:
            break
        except Exception as error:  # noqa: BLE001 - raised below, as the cause
            broken = error
            break
        if entry.error is not None:
            yield [entry]
            continue
        if batch and (len(batch) == MOST_ITEMS or size + len(entry.text) > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(entry.text) + 1
    if batch:
        yield batch
    if broken is not None:
        raise ItemsInterrupted(repr(broken)) from broken


def body(entries: Sequence[Entry]) -> bytes:
    """The body of a bulk request."""
    return b'{"items":[' + b",".join(entry.text for entry in entries) + b"]}"


def results(entries: Sequence[Entry], answer: bytes) -> list[Result]:
    """The result of each entry.

    Raises:
        UnexpectedAnswer: there is not one for each.
    """
    told = codec.loads(answer)
    listed = told.get("results") if isinstance(told, dict) else None
    if not isinstance(listed, list) or len(listed) != len(entries):
        raise UnexpectedAnswer(200, "not a result for each item")
    return [_result(entry, one) for entry, one in zip(entries, listed, strict=True)]


def _result(entry: Entry, told: Mapping[str, Any]) -> Result:
    status = int(told.get("status", 0))
    error = answers.refusal(told, status) if "code" in told else None
    return Result(entry.uuid, status, told.get("etag"), told.get("subject"), error)


def again(entries: Sequence[Entry], found: Sequence[Result]) -> Iterator[Entry]:
    """The entries to send once more: those that may be taken later, and what came behind one for the same UUID.

    Without the latter an earlier state would be written over a later one. Where a condition stands among the
    entries of a UUID, none of them is sent again unless nothing was done: the condition no longer holds if it was.
    """
    conditional = {entry.uuid for entry in entries if entry.conditional}
    stuck: set[UUID] = set()
    for entry, result in zip(entries, found, strict=True):
        if entry.uuid in stuck:
            yield entry
        elif result.error is not None and answers.passing(result.error):
            if answers.uncertain(result.error) and entry.uuid in conditional:
                continue
            stuck.add(entry.uuid)
            yield entry
