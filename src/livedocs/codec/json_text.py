"""What a JSON text (RFC 8259) would cost, found out before it is decoded. Pure.

Three bytes make an empty list of 56: a body of 16 MiB was 1.9 GB once decoded. So a text is looked through first,
at C speed, in windows of which none takes longer than 3 ms.

What follows a backslash outside of a string, or a quotation mark without its match, is not understood here as a
decoder would; but that refuses such a text.
"""

from __future__ import annotations

import re

from livedocs.runtime.slices import Steps

Text = bytes | bytearray

_WINDOW = 2**15
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_NOT_COUNTED = bytes(set(range(256)) - set(b",[{"))
# The level of an item: in a list, in an object.
_ITEM = 3


def count(text: Text, most: int) -> Steps[int]:
    """How many elements a text has: its commas and opening brackets outside of strings.

    No text has more values than that and one. The count ends where it exceeds `most`.
    """
    found, inside, rest = 0, False, b""
    for start in range(0, len(text), _WINDOW):
        window, rest = _unescaped(rest + text[start : start + _WINDOW])
        # Every second part is a string.
        parts = window.split(b'"')
        found += len(b"".join(parts[inside::2]).translate(None, _NOT_COUNTED))
        inside ^= not len(parts) % 2
        if found > most:
            break
        yield
    return found


def items(text: Text, most: int) -> Steps[tuple[bytes, list[tuple[int, int]]]]:
    """Where the items of an object with a list of them begin and end, and the text with nothing inside of each.

    An item is an object or a list; other values stay in the text. No more than `most` and one are looked for.
    """
    skeleton, spans = list[bytes](), list[tuple[int, int]]()
    level, begin, done = 0, 0, 0
    inside, rest = False, b""
    for start in range(0, len(text), _WINDOW):
        at = start - len(rest)
        window, rest = _unescaped(rest + text[start : start + _WINDOW])
        parts = window.split(b'"')
        strings = parts[not inside :: 2]
        if _BRACKET.search(b"".join(strings)):
            parts[not inside :: 2] = [bytes(len(part)) for part in strings]
            window = b'"'.join(parts)
        inside ^= not len(parts) % 2
        for bracket in _BRACKET.finditer(window):
            if bracket[0] in b"[{":
                level += 1
                if level == _ITEM:
                    begin = at + bracket.start()
                    skeleton.append(bytes(text[done : begin + 1]))
            else:
                if level == _ITEM:
                    done = at + bracket.start()
                    spans.append((begin, done + 1))
                level -= 1
        if len(spans) > most:
            break
        yield
    skeleton.append(bytes(text[done:] if level < _ITEM else b""))
    return b"".join(skeleton), spans


def _unescaped(window: bytes) -> tuple[bytes, bytes]:
    """The window with something harmless, as long, for each escape; and a backslash that is half of one."""
    if b"\\" not in window:
        return window, b""
    window = _ESCAPE.sub(b"__", window)
    return (window[:-1], b"\\") if window.endswith(b"\\") else (window, b"")
