"""BSON scalars as relaxed Extended JSON, written from their bytes as fast as Python can.

A document may hold a hundred thousand values of the kind that costs most. Each is written at once, without a value
of Python in between, and given to orjson as a finished piece of text.

Source: https://github.com/mongodb/specifications/blob/master/source/extended-json/extended-json.md
"""

from __future__ import annotations

import struct
from binascii import b2a_base64
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import compress, product
from typing import Any

from orjson import Fragment
from orjson import dumps as _dumps

# What a browser's numbers carry exactly.
SAFE = 2**53
OLD_BINARY = 2

_INT32, _INT64 = struct.Struct("<i").unpack_from, struct.Struct("<q").unpack_from
_DOUBLE, _TIMESTAMP = struct.Struct("<d").unpack_from, struct.Struct("<II").unpack_from
_DECIMAL = struct.Struct("<QQ").unpack_from

# As the specification has it: text only for the years 1970 to 9999.
_LAST_DATE = 253_402_300_799_999
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC, as the dates made from it
MILLISECOND = timedelta(milliseconds=1)

_NAN, _INFINITY, _MINUS_INFINITY = (
    Fragment(b'{"$numberDouble":"%b"}' % name) for name in (b"NaN", b"Infinity", b"-Infinity")
)
_MINIMUM, _MAXIMUM = Fragment(b'{"$minKey":1}'), Fragment(b'{"$maxKey":1}')
_SUBTYPES = [b'","subType":"%02x"}}' % subtype for subtype in range(256)]
_REGEX_OPTIONS = b"ilmsux"
# How a regular expression ends, by its options.
_OPTIONS = {
    options: b',"options":"%b"}}' % options
    for options in (bytes(compress(_REGEX_OPTIONS, chosen)) for chosen in product((0, 1), repeat=6))
}

# Bits of the upper half of a Decimal128, and its largest coefficient.
_DECIMAL_SIGN, _DECIMAL_OTHER = 1 << 63, 0x6000000000000000
_DECIMAL_NAN, _DECIMAL_INFINITY = 0x7C00000000000000, 0x7800000000000000
_DECIMAL_BIAS, _DECIMAL_UPPER = 6176, (1 << 49) - 1
_DECIMAL_MOST = 10**34 - 1


def object_id(raw: bytes, begin: int, end: int) -> Fragment:
    """An ObjectId, from its 12 bytes."""
    return Fragment(f'{{"$oid":"{raw[begin:end].hex()}"}}')


def double(raw: bytes, begin: int, _: int) -> float | Fragment:
    """A double; JSON has no NaN and no infinities, and orjson would write null."""
    (value,) = _DOUBLE(raw, begin)
    return value if value - value == 0 else inexact(value)


def inexact(value: float) -> Fragment:
    """NaN or an infinity."""
    if value != value:  # noqa: PLR0124 - NaN
        return _NAN
    return _INFINITY if value > 0 else _MINUS_INFINITY


def int64(raw: bytes, begin: int, _: int) -> int | Fragment:
    """A 64-bit integer."""
    (value,) = _INT64(raw, begin)
    return value if -SAFE <= value <= SAFE else number_long(value)


def number_long(value: int) -> Fragment:
    """An integer that a browser's numbers do not carry."""
    return Fragment(f'{{"$numberLong":"{value}"}}')


def date(raw: bytes, begin: int, _: int) -> Fragment:
    """A date, from its milliseconds."""
    (milliseconds,) = _INT64(raw, begin)
    if 0 <= milliseconds <= _LAST_DATE:
        return date_text(_EPOCH + milliseconds * MILLISECOND)
    return date_number(milliseconds)


def date_text(at: datetime) -> Fragment:
    """A date of the years 1970 to 9999, which has no time zone: UTC."""
    # `isoformat` takes six times as long. orjson writes six digits of a second, or none.
    text = _dumps(at)
    return Fragment(b'{"$date":%bZ"}' % text[: -4 if at.microsecond else -1])


def date_number(milliseconds: int) -> Fragment:
    """A date that is not written as text."""
    return Fragment(f'{{"$date":{{"$numberLong":"{milliseconds}"}}}}')


def timestamp(raw: bytes, begin: int, _: int) -> Fragment:
    """A timestamp, its increment first."""
    increment, time = _TIMESTAMP(raw, begin)
    return Fragment(f'{{"$timestamp":{{"t":{time},"i":{increment}}}}}')


def binary(data: bytes, subtype: int) -> Fragment:
    """A Binary of any subtype."""
    return Fragment(b'{"$binary":{"base64":"' + b2a_base64(data, newline=False) + _SUBTYPES[subtype])


def _binary(raw: bytes, begin: int, end: int) -> Fragment:
    subtype = raw[begin + 4]
    data = raw[begin + 5 : end]
    if subtype == OLD_BINARY and len(data) >= 4 and _INT32(data, 0)[0] == len(data) - 4:
        data = data[4:]
    return binary(data, subtype)


def regular_expression(pattern: str, options: bytes) -> Fragment:
    """A regular expression; of its options those that there are, in order."""
    end = _OPTIONS.get(options) or _OPTIONS[bytes(one for one in _REGEX_OPTIONS if one in options)]
    return Fragment(b'{"$regularExpression":{"pattern":' + _dumps(pattern) + end)


def _regex(raw: bytes, begin: int, end: int) -> Fragment:
    pattern, _, options = raw[begin : end - 1].partition(b"\0")
    return regular_expression(pattern.decode("utf-8", "replace"), options)


def code(text: str) -> Fragment:
    """Code without a scope."""
    return Fragment(b'{"$code":' + _dumps(text) + b"}")


def decimal(raw: bytes, begin: int, _: int) -> Fragment:
    """A Decimal128, from its 16 bytes; PyMongo takes ten times as long."""
    coefficient, high = _DECIMAL(raw, begin)
    sign = "-" if high & _DECIMAL_SIGN else ""
    if high & _DECIMAL_OTHER == _DECIMAL_OTHER:
        if high & _DECIMAL_NAN == _DECIMAL_NAN:
            return Fragment('{"$numberDecimal":"NaN"}')
        if high & _DECIMAL_INFINITY == _DECIMAL_INFINITY:
            return Fragment(f'{{"$numberDecimal":"{sign}Infinity"}}')
        # A coefficient that is too long by its form already is nought.
        coefficient, exponent = 0, (high >> 47 & 0x3FFF) - _DECIMAL_BIAS
    else:
        exponent = (high >> 49 & 0x3FFF) - _DECIMAL_BIAS
        if upper := high & _DECIMAL_UPPER:
            coefficient |= upper << 64
            if coefficient > _DECIMAL_MOST:
                coefficient = 0
    return Fragment(f'{{"$numberDecimal":"{sign}{_scientific(str(coefficient), exponent)}"}}')


def _scientific(digits: str, exponent: int) -> str:
    """As `to-scientific-string` of the General Decimal Arithmetic Specification has it."""
    if not exponent:
        return digits
    point = len(digits) + exponent
    if exponent > 0 or point <= -6:
        # Faster than the format `+d`.
        power = f"E+{point - 1}" if point > 0 else f"E{point - 1}"
        return f"{digits[0]}.{digits[1:]}{power}" if len(digits) > 1 else digits + power
    return f"{digits[:point]}.{digits[point:]}" if point > 0 else f"0.{'0' * -point}{digits}"


def string(raw: bytes, begin: int, end: int) -> str:
    """Text with its length in front; what is no UTF-8 is replaced."""
    return raw[begin + 4 : end - 1].decode("utf-8", "replace")


# By BSON type.
SCALARS: dict[int, Callable[[bytes, int, int], Any]] = {
    0x01: double,
    0x02: string,
    0x05: _binary,
    0x06: lambda *_: None,
    0x07: object_id,
    0x08: lambda raw, begin, _: raw[begin] != 0,
    0x09: date,
    0x0A: lambda *_: None,
    0x0B: _regex,
    # What took a DBRef's place before there were any.
    0x0C: lambda raw, begin, end: {
        "$ref": string(raw, begin, end - 12),
        "$id": object_id(raw, end - 12, end),
    },
    0x0D: lambda raw, begin, end: code(string(raw, begin, end)),
    0x0E: string,
    0x10: lambda raw, begin, _: _INT32(raw, begin)[0],
    0x11: timestamp,
    0x12: int64,
    0x13: decimal,
    0x7F: lambda *_: _MAXIMUM,
    0xFF: lambda *_: _MINIMUM,
}
