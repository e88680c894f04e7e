"""The poisons: documents as bytes, and what each of them has to look like. Nothing here encodes or decodes BSON.

What MongoDB itself refuses to store is not among them: a string without its final NUL, a boolean of 2, a length
that does not fit, more than 180 levels.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Any


def element(kind: int, value: bytes, name: bytes) -> bytes:
    return bytes((kind,)) + name + b"\0" + value


def document(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def text(value: bytes) -> bytes:
    return struct.pack("<i", len(value) + 1) + value + b"\0"


def binary(subtype: int, data: bytes) -> bytes:
    return struct.pack("<iB", len(data), subtype) + data


def scoped(code: bytes, scope: bytes) -> bytes:
    return struct.pack("<i", 4 + len(text(code)) + len(scope)) + text(code) + scope


@dataclass(frozen=True)
class Poison:
    """Some fields, and how they are shown.

    Attributes:
        settable: whether an update can set them by name; MongoDB takes no path that is empty or has a dollar.
    """

    name: str
    elements: tuple[bytes, ...]
    shown: dict[str, Any]
    settable: bool = True


def _poison(name: str, *fields: tuple[int, bytes, Any], settable: bool = True) -> Poison:
    named = [(f"f{number}", *field) for number, field in enumerate(fields)]
    return Poison(
        name,
        tuple(element(kind, value, field.encode()) for field, kind, value, _ in named),
        {field: shown for field, _, _, shown in named},
        settable,
    )


def _binary(subtype: int, data: bytes, content: bytes | None = None) -> tuple[int, bytes, Any]:
    shown = base64.b64encode(data if content is None else content).decode()
    return 5, binary(subtype, data), {"$binary": {"base64": shown, "subType": f"{subtype:02x}"}}


_LENGTHS = (b"", b"abc", b"\xff\xff\xff\xff", b"\x10\0\0\0abc", b"x" * 15, b"x" * 16, b"x" * 17)


def _dbref(*members: tuple[int, bytes, bytes], shown: Any) -> tuple[int, bytes, Any]:
    return 3, document(*(element(kind, value, name) for name, kind, value in _order(members))), shown


def _order(members: tuple[tuple[int, bytes, bytes], ...]) -> list[tuple[bytes, int, bytes]]:
    return [(name, kind, value) for kind, value, name in members]


def _nested(depth: int, kind: int) -> tuple[bytes, Any]:
    raw, shown = document(), {} if kind != 4 else []
    inner: Any = shown
    for _ in range(depth):
        if kind == 15:
            raw = document(element(15, scoped(b"f", raw), b"0"))
            inner = {"0": {"$code": "f", "$scope": inner}}
        else:
            raw = document(element(kind, raw, b"0"))
            inner = {"0": inner} if kind == 3 else [inner]
    return raw, inner


def _deep(depth: int, kind: int) -> tuple[int, bytes, Any]:
    raw, shown = _nested(depth, kind)
    return (3 if kind == 15 else kind), raw, shown


_ONE, _NULL = struct.pack("<i", 1), b""

POISONS = (
    *(
        _poison(f"binaries of subtype {subtype}", *(_binary(subtype, data) for data in _LENGTHS))
        for subtype in (0, 1, 3, 5, 6, 7, 8, 9, 128)
    ),
    _poison(
        "binaries of subtype 2", *(_binary(2, data) for data in _LENGTHS), _binary(2, b"\x03\0\0\0abc", b"abc")
    ),
    _poison("binaries of subtype 4", *(_binary(4, data) for data in _LENGTHS)),
    _poison(
        "DBRefs",
        _dbref((2, text(b"c"), b"$ref"), (0x10, _ONE, b"$id"), shown={"$ref": "c", "$id": 1}),
        _dbref((0x10, _ONE, b"$ref"), (10, _NULL, b"$id"), shown={"$ref": 1, "$id": None}),
        _dbref((10, _NULL, b"$ref"), (4, document(), b"$id"), shown={"$ref": None, "$id": []}),
        _dbref(
            (2, text(b"c"), b"$ref"),
            (3, document(element(2, text(b"c"), b"$ref"), element(0x10, _ONE, b"$id")), b"$id"),
            (0x10, _ONE, b"$db"),
            (0x10, _ONE, b"more"),
            shown={"$ref": "c", "$id": {"$ref": "c", "$id": 1}, "$db": 1, "more": 1},
        ),
    ),
    _poison(
        "code",
        (13, text(b"f\0\xff"), {"$code": "f\0\ufffd"}),
        (15, scoped(b"f", document()), {"$code": "f", "$scope": {}}),
        (
            15,
            scoped(b"f", document(element(2, text(b"c"), b"$ref"), element(0x10, _ONE, b"$id"))),
            {"$code": "f", "$scope": {"$ref": "c", "$id": 1}},
        ),
    ),
    _poison(
        "texts",
        (2, text(b"a\0b"), "a\0b"),
        (2, text(b"\xff\xfe"), "\ufffd\ufffd"),
        (2, text(b"\xed\xa0\x80"), "\ufffd\ufffd\ufffd"),
        (14, text(b"symbol\xff"), "symbol\ufffd"),
        (11, b"a(\0imsx\0", {"$regularExpression": {"pattern": "a(", "options": "imsx"}}),
        (11, b"\xff\0\0", {"$regularExpression": {"pattern": "\ufffd", "options": ""}}),
    ),
    _poison(
        "numbers",
        (1, struct.pack("<d", float("nan")), {"$numberDouble": "NaN"}),
        (1, struct.pack("<d", float("-inf")), {"$numberDouble": "-Infinity"}),
        (0x12, struct.pack("<q", 2**63 - 1), {"$numberLong": str(2**63 - 1)}),
        (0x13, bytes(15) + b"\x7c", {"$numberDecimal": "NaN"}),
        (0x13, bytes(15) + b"\x7e", {"$numberDecimal": "NaN"}),
        (0x13, bytes(15) + b"\xf8", {"$numberDecimal": "-Infinity"}),
    ),
    _poison(
        "times",
        (9, struct.pack("<q", 2**63 - 1), {"$date": {"$numberLong": str(2**63 - 1)}}),
        (9, struct.pack("<q", -(2**63)), {"$date": {"$numberLong": str(-(2**63))}}),
        (9, struct.pack("<q", 253402300800000), {"$date": {"$numberLong": "253402300800000"}}),
        (9, struct.pack("<q", 0), {"$date": "1970-01-01T00:00:00Z"}),
        (0x11, struct.pack("<II", 2**32 - 1, 2**32 - 1), {"$timestamp": {"t": 2**32 - 1, "i": 2**32 - 1}}),
    ),
    _poison(
        "deprecated and extreme",
        (6, b"", None),
        (12, text(b"db.c") + bytes(12), {"$ref": "db.c", "$id": {"$oid": "0" * 24}}),
        (0xFF, b"", {"$minKey": 1}),
        (0x7F, b"", {"$maxKey": 1}),
    ),
    _poison("documents 100 deep", _deep(100, 3)),
    _poison("arrays 100 deep", _deep(100, 4)),
    _poison("scopes 80 deep", _deep(80, 15)),
    _poison("documents 170 deep", _deep(170, 3)),
    Poison(
        "names",
        (
            element(0x10, _ONE, b""),
            element(0x10, _ONE, b"a.b"),
            element(0x10, _ONE, b".."),
            element(0x10, _ONE, b"\xff"),
            element(0x10, _ONE, b"__proto__"),
            element(3, document(element(0x10, _ONE, b"$set"), element(0x10, _ONE, b"a.$")), b"dollars"),
            element(3, document(element(0x10, _ONE, b""), element(0x10, _ONE, b"")), b"twice"),
        ),
        {
            "dollars": {"$set": 1, "a.$": 1},
            "": 1,
            "a.b": 1,
            "..": 1,
            "\ufffd": 1,
            "__proto__": 1,
            "twice": {"": 1},
        },
        settable=False,
    ),
    Poison(
        "a document that is a DBRef itself",
        (element(2, text(b"c"), b"$ref"), element(0x10, _ONE, b"$id"), element(0x10, _ONE, b"more")),
        {"$ref": "c", "$id": 1, "more": 1},
        settable=False,
    ),
    Poison(
        "names twice",
        (element(0x10, _ONE, b"a"), element(2, text(b"x"), b"a")),
        {"a": "x"},
        settable=False,
    ),
    Poison(
        "a document that looks like an event",
        (
            element(3, document(element(0x10, _ONE, b"uuid")), b"fullDocument"),
            element(3, document(element(0x10, _ONE, b"uuid")), b"fullDocumentBeforeChange"),
            element(3, document(element(0x10, _ONE, b"uuid")), b"updateDescription"),
        ),
        {name: {"uuid": 1} for name in ("fullDocument", "fullDocumentBeforeChange", "updateDescription")},
    ),
)
