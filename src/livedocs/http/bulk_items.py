"""The items of a bulk request or an import, decoded one by one: one that costs too much is refused alone. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import orjson

from livedocs.access.budgets import Hold
from livedocs.codec import extjson, json_text
from livedocs.errors import BadRequest, InvalidDocument, InvalidJson, LivedocsError, PayloadTooLarge, TooManyBytes
from livedocs.http import bulk_rules as rules
from livedocs.http.bodies import Limit, decoding, document_limit
from livedocs.http.written import writing
from livedocs.model import CollectionKey, parse_uuid
from livedocs.runtime.slices import Steps
from livedocs.store.batches import MOST

MAX_BYTES = 16 * 2**20
"""Most bytes of a bulk request's body."""

MAX_ELEMENTS = 1_000_000
"""Most elements of a bulk request's body."""

BATCH_BYTES = 2**20
"""Bytes of JSON after which a batch of items is written."""

BATCH_ELEMENTS = 100_000
"""Elements after which a batch of items is written: MongoDB's driver encodes them in one go."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a document may be.

    Attributes:
        bytes: as BSON.
        elements: fields and items of arrays, at every level together.
        key: of the collection it is for.
    """

    bytes: int
    elements: int
    key: CollectionKey


WHOLE = Limit(MAX_BYTES, MAX_ELEMENTS)

Item = TypeVar("Item", rules.UpsertItem, rules.GrantItem)


Text = bytes | bytearray | None
"""The JSON of an item; None for what is no object."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that are decoded and written together.

    Attributes:
        first: the number of the first one.
        texts: theirs.
    """

    first: int
    texts: Sequence[Text]


class _Spans(Sequence[Text]):
    """Parts of a body, cut out of it when they are looked at: a bulk request is in memory once."""

    def __init__(self, body: bytearray, spans: Sequence[tuple[int, int] | None]) -> None:
        self._body = body
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, place: Any) -> Any:
        span = self._spans[place]
        return None if span is None else self._body[slice(*span)]


class Load:
    """What a batch weighs so far."""

    def __init__(self) -> None:
        self._items = self._bytes = self._elements = 0

    def takes(self, text: Text) -> Steps[bool]:
        """Whether a further item fits in; if not, it is the first of the next batch."""
        size = len(text or b"")
        elements = yield from json_text.count(text or b"", BATCH_ELEMENTS)
        fits = (
            self._items < MOST
            and self._bytes + size <= BATCH_BYTES
            and self._elements + elements <= BATCH_ELEMENTS
        )
        if not self._items or fits:
            self._items, self._bytes, self._elements = (
                self._items + 1,
                self._bytes + size,
                self._elements + elements,
            )
            return True
        self._items, self._bytes, self._elements = 1, size, elements
        return False

    @property
    def full(self) -> bool:
        """Whether nothing fits in any more."""
        return self._items >= MOST or self._bytes >= BATCH_BYTES or self._elements >= BATCH_ELEMENTS

    def begin(self) -> None:
        """The next batch."""
        self._items = self._bytes = self._elements = 0


def batches(body: bytearray) -> Steps[list[Batch]]:
    """The items of the body of a bulk request, in batches that a transaction and the memory can hold.

    Raises:
        PayloadTooLarge: more than `MAX_ELEMENTS` elements.
        InvalidJson, BadRequest: there is no list of items to be had.
    """
    found = yield from json_text.count(body, MAX_ELEMENTS)
    if found > MAX_ELEMENTS:
        raise PayloadTooLarge(
            f"A bulk request has at most {MAX_ELEMENTS} elements: commas and opening brackets outside of strings.",
            limit=MAX_ELEMENTS,
        )
    spans = yield from _spans(body)
    made, load, first = list[Batch](), Load(), 0
    for place, text in enumerate(_Spans(body, spans)):
        if not (yield from load.takes(text)):
            made.append(Batch(first, _Spans(body, spans[first:place])))
            first = place
    return [*made, Batch(first, _Spans(body, spans[first:]))]


def _spans(body: bytearray) -> Steps[list[tuple[int, int] | None]]:
    """Where each item is; None for what is no object."""
    skeleton, found = yield from json_text.items(body, rules.MOST)
    if len(found) > rules.MOST:
        # More than are taken, or the beginning of them is none.
        rules.items_of({"items": found})
    # An item has a comma and a bracket there; whatever else has hundreds of thousands takes long to be refused.
    if (yield from json_text.count(skeleton, 3 * rules.MOST)) > 3 * rules.MOST:
        raise BadRequest(f"The body must be an object with one member, a list of 1 to {rules.MOST} items.")
    items = rules.items_of((yield from extjson.loading(skeleton)))
    if sum(isinstance(item, dict | list) for item in items) != len(found):
        raise InvalidJson('The body must be an object with one member, "items", a list.')
    inside = iter(found)
    spans = [next(inside) if isinstance(item, dict | list) else None for item in items]
    return [span if isinstance(item, dict) else None for item, span in zip(items, spans, strict=True)]


def upserts(
    batch: Batch, now: datetime, bounds: Bounds, seed: str | None, hold: Hold
) -> Steps[list[rules.UpsertItem | rules.Refused]]:
    """The documents of a batch that are to be written.

    With a `seed` those without a UUID get one that follows from it and from their place, so that the same request
    sent again writes the same documents.

    Raises:
        TooManyBytes: the caller, or its tenant, has too much in flight.
    """
    limit = document_limit(bounds.bytes, bounds.elements)

    def parse(item: Any, place: int) -> Steps[rules.UpsertItem]:
        document = item.get("document")
        if not isinstance(document, dict):
            raise InvalidDocument("Each item needs the member `document`, an object.", path="document")
        sent = yield from writing(document, bounds.key, max_bytes=bounds.bytes, max_elements=bounds.elements)
        yield
        return rules.parse_upsert({**item, "document": sent}, now, rules.spare(seed, place))

    return (yield from _all_parsed(batch, limit, hold, parse))


def lines(
    batch: Batch, now: datetime, bounds: Bounds, seed: str | None, hold: Hold
) -> Steps[list[rules.UpsertItem | rules.Refused | None]]:
    """`upserts` for the lines of an import, of which blank ones are None."""
    # A file's byte order mark (RFC 8259, 8.1, lets us pass over it).
    texts = [
        text if text is None or batch.first or place else text.removeprefix(codecs.BOM_UTF8)
        for place, text in enumerate(batch.texts)
    ]
    parsed = yield from upserts(Batch(batch.first, texts), now, bounds, seed, hold)
    return [item if (text or b"").strip() else None for item, text in zip(parsed, texts, strict=True)]


def grants(batch: Batch, now: datetime, hold: Hold) -> Steps[list[rules.GrantItem | rules.Refused]]:
    """The grants of a batch."""

    def parse(item: Any, _place: int) -> Steps[rules.GrantItem]:
        yield
        return rules.parse_grant(item, now)

    return (yield from _all_parsed(batch, _GRANT, hold, parse))


_GRANT = Limit(8192, 100)


def _all_parsed(
    batch: Batch, limit: Limit, hold: Hold, parse: Callable[[Any, int], Steps[Item]]
) -> Steps[list[Item | rules.Refused]]:
    parsed = []
    for place, text in enumerate(batch.texts, batch.first):
        parsed.append((yield from _parsed(text, place, limit, hold, parse)))
    return parsed


def _parsed(
    text: Text,
    place: int,
    limit: Limit,
    hold: Hold,
    parse: Callable[[Any, int], Steps[Item]],
) -> Steps[Item | rules.Refused]:
    """The item, or why it is refused: what is wrong with it is no matter of the others."""
    item: Any = None
    try:
        if text is None:
            raise InvalidJson("Each item must be a JSON object.")
        if len(text) > limit.bytes:
            raise limit.error(f"Each item must be at most {limit.bytes} bytes.", limit=limit.bytes)
        item = yield from decoding(text, limit, hold, documents=_documents)
        if not isinstance(item, dict):
            raise InvalidJson("Each item must be a JSON object.")
        return (yield from parse(item, place))
    except TooManyBytes:
        raise
    except PayloadTooLarge as error:
        # Not decoded, or only to see that it is too large.
        return rules.Refused(error, _uuid(item))
    except LivedocsError as error:
        return rules.Refused(error, _uuid(item) if item is not None else _bare_uuid(text))


def _documents(item: Any) -> Iterable[Any]:
    """The item, and the document in it."""
    return (item, item.get("document")) if isinstance(item, dict) else ()


def _bare_uuid(text: Text) -> UUID | None:
    """That of an item of which something is no Extended JSON."""
    try:
        return _uuid(orjson.loads(text or b""))
    except orjson.JSONDecodeError:
        return None


def _uuid(item: Any) -> UUID | None:
    """That of an item that is refused, as far as it can be read."""
    try:
        return parse_uuid(item.get("uuid")) if isinstance(item, Mapping) else None
    except LivedocsError:
        return None
