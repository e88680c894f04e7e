"""Whose an event of the stream is, found without decoding it. Pure."""

from __future__ import annotations

import enum
from struct import Struct, error

from livedocs.changes.layout import find_document, namespace
from livedocs.changes.normalise import Registry

_INT32 = Struct("<i").unpack_from
# An element's type and name, and the int32 that a document begins with.
_NS, _KEY = len(b"\x03ns\0") + 4, len(b"\x03documentKey\0") + 4
_DB, _COLL, _ID, _TENANT = b"\x02db\0", b"\x02coll\0", b"\x03_id\0", b"\x02tenant\0"


class Owner(enum.Enum):
    """Whose an event is that is no tenant's."""

    NOBODY = "nobody"
    """Of a database that is not registered."""
    EVERYBODY = "everybody"
    """Of the registry, of all grants at once, or not to be read."""
    PROCESSES = "processes"
    """A question of one server process to the others."""


class Owners:
    """Tells whose events are. For one batch: it remembers what the registry has said.

    Args:
        registry: the tenants.
        control: name of the control database.
    """

    def __init__(self, registry: Registry, control: str) -> None:
        self._registry = registry
        self._control = control
        # By the `ns` of an event; not of the control database, where that is not enough.
        self._known: dict[bytes, str | Owner] = {}

    def of(self, raw: bytes) -> str | Owner:
        """The tenant, by its slug, whose documents or grants the event is about."""
        try:
            place = namespace(raw)
            return self._known.get(place) or self._of(raw, place)
        except (LookupError, ValueError, error):
            return Owner.EVERYBODY

    def _of(self, raw: bytes, place: bytes) -> str | Owner:
        database, behind = _text(place, _NS, _DB)
        if database != self._control:
            tenant = self._registry.by_database(database)
            owner = self._known[place] = Owner.NOBODY if tenant is None else tenant.slug
            return owner
        # Where a database as a whole is gone there is none.
        collection = _text(place, behind, _COLL)[0] if place.startswith(_COLL, behind) else ""
        if collection == "inquiries":
            return Owner.PROCESSES
        return _granting(raw) if collection == "acl" else Owner.EVERYBODY


def _granting(raw: bytes) -> str | Owner:
    """The tenant that the key of a grant begins with. One written by hand may begin with anything."""
    place = find_document(raw, b"documentKey")
    if place is None or not raw.startswith(_ID, place[0] + _KEY):
        return Owner.EVERYBODY
    return _text(raw, place[0] + _KEY + len(_ID) + 4, _TENANT)[0]


def _text(raw: bytes, at: int, lead: bytes) -> tuple[str, int]:
    """The string of the element that begins there, of that type and name, and the byte behind it.

    Raises:
        LookupError, ValueError, struct.error: there is no such element.
    """
    begin = at + len(lead) + 4
    end = begin + _INT32(raw, begin - 4)[0]
    if not raw.startswith(lead, at) or not begin < end <= len(raw):
        msg = "another element"
        raise LookupError(msg)
    return raw[begin : end - 1].decode(), end
