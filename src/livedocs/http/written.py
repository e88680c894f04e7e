"""A document, or a merge patch, as a client sends it: under the names it is shown with, and with what names it.

Whatever a reader is shown can be sent back: `uuid` and `_id` where they are the document's own, `$uuid` for a
field `uuid` that is not the key, and names that nobody may choose but that another program has stored. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from livedocs.errors import InvalidField, InvalidUuid
from livedocs.model import CollectionKey, parse_uuid
from livedocs.presentation import OWN_UUID
from livedocs.runtime.slices import Steps
from livedocs.store.merge import same
from livedocs.store.validation import Doubt, validating

_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Written:
    """What a client has sent.

    Attributes:
        fields: what is to be stored, under the names it has there.
        uuid: what it calls its own UUID, if it does.
        id: what it calls its `_id`, if it does.
        doubts: names that are refused unless the stored document has the same value there.
    """

    fields: dict[str, Any]
    uuid: Any = _ABSENT
    id: Any = _ABSENT
    doubts: tuple[Doubt, ...] = ()

    def of(self, uuid: UUID) -> Written:
        """The same; refused where it says that it is another's.

        Raises:
            InvalidField: its `uuid` is not that one.
        """
        if self.uuid is _ABSENT:
            return self
        try:
            own = parse_uuid(self.uuid) == uuid
        except InvalidUuid:
            own = False
        if not own:
            raise InvalidField(f"`uuid` cannot be changed; that of this document is {uuid}.", path="uuid")
        return self

    def given(self) -> UUID | None:
        """The UUID that a document to be made is to have, if it says so.

        Raises:
            InvalidUuid: what it says is none.
        """
        return None if self.uuid is _ABSENT or self.uuid is None else parse_uuid(self.uuid)

    def check(self, current: Mapping[str, Any] | None, *, patch: bool = False) -> None:
        """Refuse what the present document does not have already.

        Args:
            current: the present document, or None; of one that is not shown, only the `_id` is known.
            patch: whether null stands for removal.

        Raises:
            InvalidField: another `_id`, or a name that nobody may choose.
        """
        if self.id is not _ABSENT and (current is None or not same(current.get("_id"), self.id)):
            raise InvalidField("`_id` is set by the server; leave it out.", path="_id")
        for doubt in self.doubts:
            sent, stored = _at(self.fields, doubt.path), _at(current, doubt.path)
            if stored is _ABSENT or (patch and _removes(sent)) or not same(stored, sent):
                raise doubt.error


def _removes(patch: Any) -> bool:
    """Whether a merge patch takes something away: a null that is in no array (RFC 7396, 2)."""
    return patch is None or (isinstance(patch, Mapping) and any(map(_removes, patch.values())))


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        if isinstance(value, Mapping):
            value = value.get(name, _ABSENT)
        elif isinstance(value, list) and isinstance(name, int) and name < len(value):
            value = value[name]
        else:
            return _ABSENT
    return value


def writing(sent: dict[str, Any], key: CollectionKey, *, max_bytes: int, max_elements: int) -> Steps[Written]:
    """What a client has sent, checked as far as that can be done without the present document; in steps.

    Args:
        sent: decoded, of BSON values; used up.
        key: the collection's.
        max_bytes: most bytes as BSON.
        max_elements: most fields and items of arrays.

    Raises:
        LivedocsError: those of `validation.validating`.
    """
    uuid = sent.pop("uuid", _ABSENT)
    identifier = sent.pop("_id", _ABSENT)
    if identifier is not _ABSENT and key == "_id":
        raise InvalidField("This field name is reserved for the server.", path="_id")
    if key == "_id" and OWN_UUID in sent:
        sent = {("uuid" if name == OWN_UUID else name): value for name, value in sent.items()}
    yield
    doubts: list[Doubt] = []
    yield from validating(sent, max_bytes=max_bytes, max_elements=max_elements, doubts=doubts)
    return Written(sent, uuid, identifier, tuple(doubts))
