from __future__ import annotations

from uuid import UUID

import pytest

from livedocs.errors import BadRequest, InvalidSubject
from livedocs.model import parse_grant, parse_stored_subject, parse_subject
from livedocs.names import escaped, is_name

HIDDEN = [
    "a\x85b",
    "a\x9bb",
    "a\x00b",
    "a\nb",
    "a\x7fb",
    "a\u200eb",
    "a\u200fb",
    "a\u202eb",
    "a\u2066b",
    "a\u2069b",
    "a\u200bb",
    "a\u200db",
    "a\ufeffb",
    "a\u00adb",
    "a\u2028b",
    "a\u2029b",
    "a\ud800b",
    "a\ue000b",
    "a\ufdd0b",
    "a\uffffb",
    "a\U000e0001b",
    "a\U0010ffffb",
]
ENDS = [" a", "a ", "\u00a0a", "a\u3000", " ", "\t"]
GOOD = ["a", "a b", "ünï code", "日本 語", "🐟", "50% off", "a/b//c", "x" * 255, "€" * 255]


@pytest.mark.parametrize("name", GOOD)
def test_a_name_is_visible_text(name):
    assert is_name(name)
    assert parse_subject(f"user:{name}") == f"user:{name}"


@pytest.mark.parametrize("name", ["", "x" * 256, *ENDS, *HIDDEN, "e\u0301"], ids=ascii)
def test_what_is_not_shown_as_what_it_is_names_nobody(name):
    assert not is_name(name)
    for kind in ("user", "client", "group"):
        with pytest.raises(InvalidSubject):
            parse_subject(f"{kind}:{name}")


@pytest.mark.parametrize("subject", ["tenant:*", "user:tenant:*"])
def test_everyone_is_a_subject_of_its_own(subject):
    assert parse_subject(subject) == subject


@pytest.mark.parametrize("subject", ["tenant:a", "role:a", "user", ":a", "USER:a", None, 1, b"user:a", ["user:a"]])
def test_what_is_no_subject_is_refused(subject):
    for parse in (parse_subject, parse_stored_subject):
        with pytest.raises(InvalidSubject):
            parse(subject)


def test_a_grant_from_before_names_were_held_to_this_is_not_lost():
    for name in ("a\u202eb", " a ", "e\u0301", "a\x85"):
        subject = f"user:{name}"
        key = {"tenant": "acme", "uuid": UUID(int=1), "subject": subject}
        assert parse_grant({"_id": key, "role": "reader"}).key.subject == subject
        assert parse_stored_subject(subject) == subject


@pytest.mark.parametrize("text", HIDDEN, ids=ascii)
def test_an_error_repeats_no_character_that_a_terminal_would_carry_out(text):
    told = BadRequest(value=text, path=[text]).data
    shown = told["value"]
    assert told["path"] == [shown]
    assert (
        shown == f"a\\{'U' if ord(text[1]) > 0xFFFF else 'u'}{ord(text[1]):0{8 if ord(text[1]) > 0xFFFF else 4}x}b"
    )
    assert shown.isascii()


def test_visible_text_is_shown_as_it_is():
    assert escaped("ünï 🐟 e\u0301 ~") == "ünï 🐟 e\u0301 ~"
