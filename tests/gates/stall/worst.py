"""The worst inputs: hostile JSON of a size, and every place of an example where it can stand. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MIB = 2**20
Shape = Callable[[int], str]


def _repeated(item: str, size: int, separator: str = ",") -> str:
    return separator.join([item] * max(1, size // (len(item) + len(separator))))


def _listed(item: str, size: int) -> str:
    return f"[{_repeated(item, size)}]"


def empty_lists(size: int) -> str:
    """The most containers for the fewest bytes: each `[]` becomes 56 bytes."""
    return _listed("[]", size)


def empty_objects(size: int) -> str:
    return _listed("{}", size)


def nested_objects(size: int) -> str:
    depth = size // 6
    return '{"a":' * depth + "1" + "}" * depth


def nested_lists(size: int) -> str:
    return "[" * (size // 2) + "]" * (size // 2)


def small_towers(size: int) -> str:
    """As deep as is allowed, again and again."""
    tower = '{"a":' * 25 + "[]" + "}" * 25
    return _listed(tower, size)


def names(size: int) -> str:
    """The most names of fields."""
    count = size // 12
    return "{" + ",".join(f'"{number:07x}":1' for number in range(count)) + "}"


def one_name(size: int) -> str:
    """The same name again and again."""
    return "{" + _repeated('"a":[]', size) + "}"


def long_integer(size: int) -> str:
    """Reading it may be quadratic in its digits."""
    return "9" * size


def integers(size: int) -> str:
    """Just too large to be doubles without loss."""
    return _listed("9007199254740993", size)


def fractions(size: int) -> str:
    return _listed("-1.7976931348623157e308", size)


def escapes(size: int) -> str:
    return '"' + "\\u0000" * (size // 6) + '"'


def wide_text(size: int) -> str:
    """Text that takes four bytes a character in memory because of its last one."""
    return '"' + "a" * (size - 6) + "\U0001f600" + '"'


def object_ids(size: int) -> str:
    return _listed('{"$oid":"507f1f77bcf86cd799439011"}', size)


def dates(size: int) -> str:
    return _listed('{"$date":"2026-01-02T03:04:05.678Z"}', size)


def decimals(size: int) -> str:
    return _listed('{"$numberDecimal":"9.999999999999999999999999999999999E+6144"}', size)


def longs(size: int) -> str:
    return _listed('{"$numberLong":"9223372036854775807"}', size)


def binaries(size: int) -> str:
    return _listed('{"$binary":{"base64":"AA==","subType":"04"}}', size)


def bad_extended(size: int) -> str:
    """Each is refused, but only after the others were read."""
    return _listed('{"$date":"2026-99-99"}', size)


SHAPES: Mapping[str, Shape] = {
    shape.__name__: shape
    for shape in (
        empty_lists,
        empty_objects,
        nested_objects,
        nested_lists,
        small_towers,
        names,
        one_name,
        long_integer,
        integers,
        fractions,
        escapes,
        wide_text,
        object_ids,
        dates,
        decimals,
        longs,
        binaries,
        bad_extended,
    )
}


# At the full size; the others are like them, or not linear, and that shows at a quarter of it.
_WORST = frozenset({"empty_lists", "small_towers", "names"})


def _places(example: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every member and item of an example, the first item of a list standing for all."""
    if isinstance(example, dict):
        for name, value in example.items():
            yield (*way, name)
            yield from _places(value, (*way, name))
    elif isinstance(example, list) and example:
        yield (*way, 0)
        yield from _places(example[0], (*way, 0))


def _replaced(example: Any, way: tuple[Any, ...], text: str) -> str:
    """The example as JSON with that text in one place."""
    mark = "\x00here\x00"

    def copy(value: Any, rest: tuple[Any, ...]) -> Any:
        if not rest:
            return mark
        if isinstance(value, dict):
            return {name: copy(item, rest[1:]) if name == rest[0] else item for name, item in value.items()}
        return [copy(value[0], rest[1:]), *value[1:]]

    return json.dumps(copy(example, way)).replace(json.dumps(mark), text)


def _many(example: Any, way: tuple[Any, ...], size: int) -> str:
    """The example with as many copies of a list's first item as fit."""
    value = example
    for step in way[:-1]:
        value = value[step]
    item = json.dumps(value[0], separators=(",", ":"))
    if not way[:-1]:
        return _listed(item, size)
    return _replaced(example, way[:-1], _listed(item, size))


def bodies(example: Any, size: int) -> Iterator[tuple[str, bytes]]:
    """Worst bodies of about that size, by what they are.

    Args:
        example: a body that is taken, as the description has it.
        size: bytes.
    """
    for name, shape in SHAPES.items():
        yield name, shape(size if name in _WORST else size // 4).encode()
    for way in _places(example):
        where = ".".join(map(str, way))
        if way[-1] == 0:
            yield f"many {where}", _many(example, way, size).encode()
        # A small size finds what is not linear.
        for name in ("small_towers", "names"):
            yield f"{name} in {where}", _replaced(example, way, SHAPES[name](size // 8)).encode()


def queries(names_of: list[str], size: int) -> Iterator[str]:
    """Worst query strings of about that size."""
    for name in names_of:
        yield f"{name}=" + "%F0%9F%98%80" * (size // 12)
        yield f"{name}=" + "9" * size
    some = names_of[0] if names_of else "q"
    yield "&".join([f"{some}=1"] * (size // (len(some) + 3)))
    yield "&" * size
    yield "&".join(f"{number:x}=" for number in range(size // 6))


def header_values(size: int) -> Iterator[str]:
    """Worst values of a header of about that size."""
    yield _repeated('"x"', size)
    yield "," * size
    yield " " * size + "x"
    yield "a=; " * (size // 4)
