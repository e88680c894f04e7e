"""What a JSON text costs is known before it is decoded, and where a bulk request's items are."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from livedocs.codec import json_text
from livedocs.runtime.slices import at_once


def elements(value: Any) -> int:
    """By the book: a container counts one, and one for each of its values but the first."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(0, len(value) - 1) + sum(map(elements, inner))


def made_up(dice: random.Random, level: int = 0) -> Any:
    kind = dice.randrange(8 if level < 5 else 5)
    if kind < 5:
        return (1, -2.5, None, 'a"\\[]{},é\u2028' * dice.randrange(3), "x\\\\")[kind]
    if kind < 7:
        return [made_up(dice, level + 1) for _ in range(dice.randrange(5))]
    return {f'"k]\\{number}': made_up(dice, level + 1) for number in range(dice.randrange(5))}


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64, 2**15])
def test_elements_and_items_are_found_whatever_strings_hold_and_wherever_windows_end(monkeypatch, window):
    monkeypatch.setattr(json_text, "_WINDOW", window)
    dice = random.Random(window)  # noqa: S311 - the same texts each time
    for _ in range(100):
        items = [made_up(dice) for _ in range(dice.randrange(6))]
        text = json.dumps({"items": items}, ensure_ascii=dice.random() < 0.5).encode()
        assert at_once(json_text.count(text, len(text))) == elements({"items": items})
        skeleton, spans = at_once(json_text.items(text, 100))
        inside = [item for item in items if isinstance(item, dict | list)]
        assert [json.loads(text[begin:end]) for begin, end in spans] == inside
        shown = [type(item)() if isinstance(item, dict | list) else item for item in items]
        assert json.loads(skeleton) == {"items": shown}


@pytest.mark.parametrize("part", [b"[],", b'"",', b'\\"', b'{"a":', b"\\\\", b"x"])
def test_counting_ends_where_it_is_enough_and_rests_on_the_way(part):
    text = part * (2**20 // len(part))
    counting = json_text.count(text, 1000)
    steps = 0
    while True:
        try:
            next(counting)
        except StopIteration as end:
            found = end.value
            break
        steps += 1
    assert found > 1000 or steps == 32


def test_no_more_items_are_looked_for_than_are_taken():
    body = b'{"items":[' + b",".join([b"{}"] * 2_000_000) + b"]}"
    _, spans = at_once(json_text.items(body, 1000))
    assert 1000 < len(spans) < 20_000
