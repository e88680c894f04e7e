"""BSON values as relaxed Extended JSON v2, and back.

One codec for the socket and for HTTP. Encoding is orjson with the mapping as its default hook, so that plain
values never leave C. Differences from `bson.json_util`: integers past 2^53 are `$numberLong`, because a browser's
numbers end there; NaN and infinities are `$numberDouble`, because JSON has none (orjson would write `null`).

Source: https://github.com/mongodb/specifications/blob/master/source/extended-json/extended-json.md
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    json_util,
)
from bson.errors import BSONError

from livedocs.errors import InvalidJson

_SAFE = 2**53
# What a 64-bit integer cannot be: orjson makes a double of a longer one, and its last digits are gone.
_WIDE = float(2**63)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC, as the dates it is taken from
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_NON_STR_KEYS
_REGEX_FLAGS = (
    (re.IGNORECASE, "i"),
    (re.LOCALE, "l"),
    (re.MULTILINE, "m"),
    (re.DOTALL, "s"),
    (re.UNICODE, "u"),
    (re.VERBOSE, "x"),
)


def dumps(value: Any) -> bytes:
    """The value as JSON text, UTF-8, without spaces."""
    try:
        # orjson alone would write NaN as null and 2**60 as a number: look first whether any is there.
        return orjson.dumps(_exact(value), _default, _OPTIONS)
    except orjson.JSONEncodeError as error:
        raise TypeError(str(error)) from error


def loads(text: bytes | str) -> Any:
    """The BSON values of a JSON text. An integer too long for BSON stays one, for the validator to refuse.

    Raises:
        InvalidJson: not JSON, or a `$`-typed value that names no BSON value.
    """
    try:
        plain = orjson.loads(text)
        try:
            return _typed(plain, _WIDE)
        except _WideError:
            # Slower, but it tells 18446744073709551616 from 1.8446744073709552e19.
            return _typed(json.loads(text), math.inf)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"Not valid JSON: {error.msg} at position {error.pos}.") from None
    except RecursionError:
        raise InvalidJson("Nested too deeply.") from None


def plain(text: bytes | str) -> Any:
    """The values of a JSON text as they stand, integers of any length too; `typed` makes BSON values of them.

    Raises:
        InvalidJson: not JSON.
    """
    try:
        found = orjson.loads(text)
        return json.loads(text) if _doubtful(found) else found
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"Not valid JSON: {error.msg} at position {error.pos}.") from None
    except RecursionError:
        raise InvalidJson("Nested too deeply.") from None


def typed(value: Any) -> Any:
    """The BSON values of what `plain` has read.

    Raises:
        InvalidJson: a `$`-typed value that names no BSON value, or nested too deeply.
    """
    try:
        return _typed(value, math.inf)
    except RecursionError:
        raise InvalidJson("Nested too deeply.") from None


def _doubtful(value: Any) -> bool:
    """Whether a number in it may have been an integer too long for orjson."""
    if isinstance(value, dict):
        return any(map(_doubtful, value.values()))
    if isinstance(value, list):
        return any(map(_doubtful, value))
    return type(value) is float and not -_WIDE < value < _WIDE


def _exact(value: Any) -> Any:
    """The value with the numbers JSON cannot carry replaced; the same object when there is none."""
    kind = type(value)
    # What nearly every value is comes first.
    if kind is str or kind is bool:
        return value
    if kind is int or kind is Int64:
        return value if -_SAFE <= value <= _SAFE else {"$numberLong": str(int(value))}
    if kind is dict:
        changed: dict[str, Any] | None = None
        for name, item in value.items():
            new = _exact(item)
            if new is not item:
                changed = changed or {}
                changed[name] = new
        return {**value, **changed} if changed else value
    if kind is list:
        items = [_exact(item) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else items
    if kind is float and not math.isfinite(value):
        return {"$numberDouble": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    # orjson would write a UUID as a bare string, which reads back as one.
    return _binary(Binary.from_uuid(value)) if kind is UUID else value


def _default(value: Any) -> Any:
    encode = _ENCODERS.get(type(value))
    if encode is not None:
        return encode(value)
    if isinstance(value, Mapping):
        return _exact(dict(value))
    for kind, encode in _ENCODERS.items():
        if isinstance(value, kind):
            return encode(value)
    msg = f"no Extended JSON for {type(value).__name__}"
    raise TypeError(msg)


def _date(value: datetime) -> dict[str, Any]:
    # Without a time zone it is UTC, as BSON has it.
    at = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    if at.year < 1970:
        # As the specification has it: text only for the years 1970 to 9999.
        return {"$date": {"$numberLong": str((at - _EPOCH) // timedelta(milliseconds=1))}}
    return {"$date": at.isoformat(timespec="milliseconds" if at.microsecond else "seconds") + "Z"}


def _binary(value: bytes) -> dict[str, Any]:
    subtype = value.subtype if isinstance(value, Binary) else 0
    return {"$binary": {"base64": base64.b64encode(value).decode(), "subType": f"{subtype:02x}"}}


def _regex(pattern: str | bytes, flags: int) -> dict[str, Any]:
    text = pattern.decode() if isinstance(pattern, bytes) else pattern
    options = "".join(letter for flag, letter in _REGEX_FLAGS if flags & flag)
    return {"$regularExpression": {"pattern": text, "options": options}}


def _code(value: Code) -> dict[str, Any]:
    return (
        {"$code": str(value)}
        if value.scope is None
        else {"$code": str(value), "$scope": _exact(dict(value.scope))}
    )


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    ObjectId: lambda value: {"$oid": str(value)},
    datetime: _date,
    DatetimeMS: lambda value: {"$date": {"$numberLong": str(int(value))}},
    Decimal128: lambda value: {"$numberDecimal": str(value)},
    Int64: int,
    Binary: _binary,
    bytes: _binary,
    Timestamp: lambda value: {"$timestamp": {"t": value.time, "i": value.inc}},
    Regex: lambda value: _regex(value.pattern, value.flags),
    re.Pattern: lambda value: _regex(value.pattern, value.flags),
    Code: _code,
    DBRef: lambda value: _exact(dict(value.as_doc())),
    MinKey: lambda _: {"$minKey": 1},
    MaxKey: lambda _: {"$maxKey": 1},
    str: str.__str__,
    int: int,
    float: float,
}

_DECODE = json_util.JSONOptions(
    json_mode=json_util.JSONMode.RELAXED, tz_aware=True, tzinfo=UTC, uuid_representation=4
)


class _WideError(Exception):
    """A number that may have been an integer too long for orjson."""


def _typed(value: Any, doubtful: float) -> Any:
    """Plain JSON with its `$`-typed objects turned into BSON values, the innermost first.

    Raises:
        _WideError: a double that is as large as `doubtful`: it may have been an integer.
    """
    if isinstance(value, list):
        return [_typed(item, doubtful) for item in value]
    if not isinstance(value, dict):
        if type(value) is float and not -doubtful < value < doubtful:
            raise _WideError
        return value
    if any(name.startswith("$") for name in value):
        return _special(value, doubtful)
    return {name: _typed(item, doubtful) for name, item in value.items()}


_TYPES = frozenset(
    (
        *("$oid", "$date", "$numberDecimal", "$numberLong", "$numberInt", "$numberDouble", "$binary", "$uuid"),
        *("$timestamp", "$regularExpression", "$code", "$scope", "$minKey", "$maxKey", "$undefined", "$symbol"),
        "$dbPointer",
    )
)


# json_util takes whatever Python's `int` does: 1.5, true, "1_000".
_WHOLE = re.compile(r"-?[0-9]{1,400}\Z")


def _special(value: dict[str, Any], doubtful: float) -> Any:
    """The BSON value of a `$`-typed object; an object with other `$` names stays for the validator to refuse."""
    inner = {name: _typed(item, doubtful) for name, item in value.items()}
    if not value.keys() <= _TYPES:
        return inner
    for name in ("$numberLong", "$numberInt"):
        if name in inner and not _whole(inner[name]):
            raise InvalidJson(f"Not a value of Extended JSON: {sorted(value)}.")
    try:
        result = json_util.object_hook(inner, _DECODE)
    except (BSONError, ValueError, TypeError, KeyError, OverflowError, ArithmeticError) as error:
        raise InvalidJson(f"Not a value of Extended JSON: {sorted(value)}.") from error
    return result


def _whole(number: Any) -> bool:
    return bool(_WHOLE.match(number)) if isinstance(number, str) else type(number) is int
