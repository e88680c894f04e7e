"""Which text may name somebody, and how any other text is shown. Pure.

Two names that look alike must be one name: a control, a mark that turns the direction of writing or a character of
no width lets `user:ada` be somebody else than it seems to be in a list of grants, a log or a terminal (Unicode
Technical Report 36, 2 and 3).
"""

from __future__ import annotations

import re
import unicodedata

MOST = 255
"""Characters of a name; at most 1,020 bytes as UTF-8."""

_ASCII = re.compile(r"[!-~](?:[ -~]*[!-~])?\Z")
_PRINTABLE_ASCII = re.compile(r"[ -~]*\Z")
_SEPARATORS = frozenset({"Zl", "Zp"})


def is_name(text: str) -> bool:
    """Whether the text may name somebody.

    1 to 255 characters in Unicode's composed form (NFC), no white space at the ends, and no character that
    `escaped` would escape.
    """
    if not 1 <= len(text) <= MOST:
        return False
    if text.isascii():
        return _ASCII.match(text) is not None
    return text == text.strip() and not any(map(_hidden, text)) and unicodedata.is_normalized("NFC", text)


def escaped(text: str) -> str:
    r"""The text with an escape (`\u202e`) in place of each character that is not shown as what it is.

    These are controls, formatting (bidirectional marks, characters of no width), surrogates, private use,
    unassigned characters (Unicode's categories C) and the separators of lines and paragraphs.
    """
    if _PRINTABLE_ASCII.match(text):
        return text
    return "".join(_escape(character) if _hidden(character) else character for character in text)


def _hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in _SEPARATORS


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
