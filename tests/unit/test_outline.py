"""Events past some size: only what tells the room is decoded, and what is beyond the bounds is never shown."""

from __future__ import annotations

from uuid import uuid4

import bson
import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from tests.unit.test_feed import event

from livedocs.changes import outline
from livedocs.changes.normalise import place, read
from livedocs.changes.outline import without_image
from livedocs.changes.updates import ambiguous
from livedocs.codec import bsonwalk
from livedocs.codec.bsondecode import CODEC, decode
from livedocs.live.payload import payload
from livedocs.model import ShownBounds, Tenant
from livedocs.presentation import is_clearly_shown, is_heavy, is_too_large

ACME = Tenant("acme", "acme_db", {"notes": "_id", "test": "uuid"})
BOUNDS = ShownBounds(bytes=200_000, elements=20_000)
FILL = "x" * 30_000


class Registry:
    def by_database(self, database):
        return ACME if database == "acme_db" else None


def changes(raw, bounds=BOUNDS):
    item = read(raw, Registry(), "control", bounds)
    return place(item, item.uuid if item.settled else item.uuid_before, item.uuid_before)


def update(uuid, fields, *, removed=(), before=None, collection="notes", own=None):
    description = {"updatedFields": fields, "removedFields": list(removed), "truncatedArrays": []}
    more = {} if before is None else {"fullDocumentBeforeChange": before}
    return event(1, "update", collection, documentKey={"_id": own or uuid}, updateDescription=description, **more)


@pytest.fixture(params=[False, True], ids=["whole", "outlined"])
def way(request, monkeypatch):
    """Read the same events as small and as large ones."""
    if request.param:
        monkeypatch.setattr("livedocs.changes.normalise._SMALL", 0)


@pytest.mark.parametrize("key", ["notes", "test"])
def test_an_event_is_told_alike_whether_it_is_decoded_as_a_whole_or_not(way, key):
    uuid, other, own = uuid4(), uuid4(), ObjectId()
    document_id = uuid if key == "notes" else own
    whole = {"_id": document_id, "a": {"b.c": 1}, **({} if key == "notes" else {"uuid": uuid})}
    [insert] = changes(event(1, "insert", key, documentKey={"_id": document_id}, fullDocument=whole))
    assert (insert.room.uuid, insert.op, insert.withheld) == (uuid, "insert", None)
    data, meta = payload(insert, "c")
    assert (data["a"], meta["op"]) == ({"b.c": 1}, "insert")
    [odd] = changes(update(uuid, {"a.b.c": 1}, before=whole, collection=key, own=document_id))
    assert (odd.withheld, odd.raw) == ("ambiguous_path", b"")
    if key == "test":
        left, entered = changes(update(other, {"uuid": other}, before=whole, collection=key, own=own))
        assert (left.room.uuid, left.op, entered.room.uuid, entered.op) == (uuid, "delete", other, "insert")
        assert decode(entered.whole) == {**whole, "uuid": other}
    [gone] = changes(event(1, "delete", key, documentKey={"_id": document_id}, fullDocumentBeforeChange=whole))
    assert (gone.room.uuid, gone.op, gone.raw) == (uuid, "delete", b"")


def test_a_pre_image_is_not_kept(way):
    uuid = uuid4()
    raw = update(uuid, {"n": 1}, before={"_id": uuid, "secret": FILL})
    [change] = changes(raw)
    assert change.withheld is None
    assert (len(raw) > 30_000, len(change.raw) < 500, change.size < 5000) == (True, True, True)
    assert payload(change, "c")[0] == {"uuid": str(uuid), "n": 1}
    kept = bson.decode(raw, CODEC)
    image = bson.encode(kept.pop("fullDocumentBeforeChange"), codec_options=CODEC)
    assert without_image(raw) == (bson.encode(kept, codec_options=CODEC), image)


def test_the_name_of_a_pre_image_inside_a_document_is_no_pre_image():
    raw = event(1, documentKey={"_id": 1}, fullDocument={"fullDocumentBeforeChange": {"a": 1}, "b": "x"})
    assert without_image(raw) == (raw, None)


@pytest.mark.parametrize(
    "fields", [{"text": "x" * 200_000}, {"items": [None] * 20_001}, {"a": {"b": [[]] * 20_000}}]
)
def test_what_is_beyond_the_bounds_is_placed_and_never_decoded(fields, monkeypatch):
    def decoded(raw):
        assert len(raw) < 2000
        return decode(raw)

    monkeypatch.setattr(outline, "decode", decoded)
    uuid, own = uuid4(), ObjectId()
    for raw in (
        event(1, documentKey={"_id": uuid}, fullDocument={"_id": uuid, **fields}),
        event(1, "replace", "test", documentKey={"_id": own}, fullDocument={"_id": own, "uuid": uuid, **fields}),
        update(uuid, fields, before={"_id": uuid}),
        update(uuid, {"uuid": uuid, **fields}, collection="test", own=own),
    ):
        [change] = changes(raw)
        assert (change.room.uuid, change.withheld, change.raw) == (uuid, "document_too_large", b"")


def test_the_bounds_themselves_are_shown():
    uuid = uuid4()
    [change] = changes(event(1, documentKey={"_id": uuid}, fullDocument={"_id": uuid, "items": [None] * 19_998}))
    assert change.withheld is None
    assert change.heavy


def test_a_uuid_that_an_enormous_update_takes_away_or_gives_is_seen():
    own, uuid, filling = ObjectId(), uuid4(), {str(n): n for n in range(20_001)}
    removed = read(update(uuid, filling, removed=["uuid"], collection="test", own=own), Registry(), "c", BOUNDS)
    assert (removed.uuid, removed.settled) == (None, True)
    given = read(update(uuid, {**filling, "uuid": uuid}, collection="test", own=own), Registry(), "c", BOUNDS)
    assert (given.uuid, given.settled) == (uuid, True)
    neither = read(update(uuid, filling, removed=["uuids"], collection="test", own=own), Registry(), "c", BOUNDS)
    assert (neither.uuid, neither.settled) == (None, False)


def test_a_document_that_hides_its_uuid_among_too_many_fields_is_not_guessed_at(monkeypatch):
    monkeypatch.setattr(outline, "_MOST_FIELDS", 100)
    own = ObjectId()
    hidden = {"_id": own, **{str(n): n or FILL for n in range(200)}, "uuid": uuid4()}
    with pytest.raises(LookupError):
        read(event(1, collection="test", documentKey={"_id": own}, fullDocument=hidden), Registry(), "c", BOUNDS)


def test_an_id_of_many_bytes_is_not_decoded_and_still_tells_documents_apart():
    ids = [{"a": "x" * 50_000, "n": number} for number in range(2)]
    raws = [event(1, collection="test", documentKey={"_id": own}, fullDocument={"_id": own}) for own in ids]
    items = [read(raw, Registry(), "c", BOUNDS) for raw in raws]
    assert [item.document_id for item in items] == [None, None]
    assert len({outline.document_id(raw) for raw in raws}) == 2


def test_paths_and_names_in_thousands_are_judged_in_no_time(deadline):
    """Each path was compared with each name: 30,000 of both took minutes."""
    before = {"a": {**{f"n{n}": n for n in range(30_000)}, **{f"d.{n}": n for n in range(30_000)}}}
    paths = {f"a.n{n}": 1 for n in range(30_000)}
    with deadline(1.0):
        assert not ambiguous({"updatedFields": paths}, before)
        assert ambiguous({"updatedFields": {**paths, "a.d.7": 1}}, before)
        assert ambiguous({"updatedFields": {"a" + "." * 100_000: 1}}, before)


def test_elements_are_counted_exactly_where_it_matters():
    for value, count in (([], 1), ([1, 2], 3), ({"a": {"b": [None]}}, 4), (bson.Code("f", {"a": 1}), 2)):
        raw = bson.encode({"x": value})
        assert not bsonwalk.has_more_elements(raw, count)
        assert bsonwalk.has_more_elements(raw, count - 1)
        assert bsonwalk.most_elements(raw) >= count
    zeros = bson.encode({"x": b"\0" * 50_000})
    assert not is_clearly_shown(zeros, ShownBounds(elements=100))
    assert not is_too_large(zeros, ShownBounds(elements=100))
    assert is_heavy(zeros)


def test_an_old_document_of_raw_bson_is_walked_as_it_is():
    raw = bson.encode({"a": RawBSONDocument(bson.encode({"uuid": 1})), "uuid": 2})
    place = bsonwalk.find(raw, b"uuid")
    assert raw[place.begin : place.end] == b"\2\0\0\0"


@pytest.mark.parametrize("op", ["insert", "replace", "update"])
def test_an_event_without_its_document_breaks_off_its_room_where_the_id_tells_it(way, op):
    """Left away because the event was larger than MongoDB sends."""
    uuid = uuid4()
    [change] = changes(event(1, op, "notes", documentKey={"_id": uuid}))
    assert (change.room.uuid, change.op, change.withheld, change.raw) == (uuid, op, "event_too_large", b"")
    with pytest.raises(LookupError):
        read(event(1, op, "test", documentKey={"_id": ObjectId()}), Registry(), "c", BOUNDS)
