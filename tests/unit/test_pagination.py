from __future__ import annotations

import pytest

from livedocs.errors import BadRequest
from livedocs.http.pagination import page_limit


@pytest.mark.parametrize(("text", "limit"), [(None, 100), ("1", 1), ("500", 500), ("007", 7)])
def test_a_page_is_as_long_as_is_asked_for(text, limit):
    assert page_limit(text) == limit


@pytest.mark.parametrize("text", ["", "0", "501", "-1", "1e2", " 5", "\u0661", "1" * 5000, "000000500000"])
def test_no_page_is_longer_than_the_longest(text):
    with pytest.raises(BadRequest):
        page_limit(text)
