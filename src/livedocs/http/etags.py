"""Entity tags and the conditions on them (RFC 9110, sections 8.8.3 and 13.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from livedocs.errors import BadRequest, PreconditionFailed
from livedocs.store.shown import version

# With the empty elements of a list before it, which mean nothing (RFC 9110, 5.6.1.2).
_TAG = re.compile(r'[ \t,]*(W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,[ \t,]*|\Z)')

_LONGEST = 2**14

Tags = frozenset[str] | Literal["*"]


def etag(document: Mapping[str, Any]) -> str:
    """The strong entity tag of a stored document.

    Raises:
        DocumentTooLarge: it is beyond what is shown.
    """
    return entity_tag(version(document))


def entity_tag(of: str) -> str:
    """The entity tag of a version of a document (`store.shown.version`)."""
    return f'"{of}"'


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request says the document must be, or must not be; None where it says nothing.

    If-Match compares strongly, so weak tags are left out of it; If-None-Match compares weakly.
    """

    if_match: Tags | None = None
    if_none_match: Tags | None = None

    def check_write(self, document: Mapping[str, Any] | None) -> None:
        """Refuse a write whose conditions do not hold; `document` is the present one.

        Raises:
            PreconditionFailed: they do not.
        """
        if self.if_match is not None and not _matches(self.if_match, document):
            raise PreconditionFailed
        if self.if_none_match is not None and _matches(self.if_none_match, document):
            raise PreconditionFailed("There is a document that If-None-Match excludes.")

    def not_modified(self, document: Mapping[str, Any]) -> bool:
        """Whether a reader has this very document already.

        Raises:
            PreconditionFailed: the If-Match of a read does not hold.
        """
        if self.if_match is not None and not _matches(self.if_match, document):
            raise PreconditionFailed
        return self.if_none_match is not None and _matches(self.if_none_match, document)


def conditions(if_match: str | None, if_none_match: str | None) -> Conditions:
    """The conditions of two header values, each None when the header is absent.

    Raises:
        BadRequest: not a list of entity tags.
    """
    return Conditions(
        None if if_match is None else _tags("If-Match", if_match, weak=False),
        None if if_none_match is None else _tags("If-None-Match", if_none_match, weak=True),
    )


def tagged(tag: str, if_none_match: str) -> bool:
    """Whether an If-None-Match names that entity tag.

    Raises:
        BadRequest: it is not a list of entity tags.
    """
    tags = _tags("If-None-Match", if_none_match, weak=True)
    return tags == "*" or tag in tags


def _matches(tags: Tags, document: Mapping[str, Any] | None) -> bool:
    if document is None:
        return False
    return tags == "*" or etag(document) in tags


def _tags(header: str, value: str, *, weak: bool) -> Tags:
    if len(value) > _LONGEST:
        # A header is no longer; an item of a bulk request could be.
        raise BadRequest(f"{header} must have at most {_LONGEST} characters.", header=header, limit=_LONGEST)
    if value.strip(" \t") == "*":
        return "*"
    tags, at = set(), 0
    while at < len(value):
        found = _TAG.match(value, at)
        if found is None:
            raise BadRequest(f"{header} must be * or a list of entity tags.", header=header)
        if weak or not found[1]:
            tags.add(found[2])
        at = found.end()
    if not value.strip(" \t"):
        raise BadRequest(f"{header} must be * or a list of entity tags.", header=header)
    return frozenset(tags)
