"""The provider's memory where two requests at once have both read the same thing before either acts."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from livedocs.demo.oauth.records import AccessToken, Code, Standing
from livedocs.demo.oauth.state import State, digest, new_login


@pytest.fixture
def state(tmp_path):
    state = State(tmp_path / "provider.sqlite3")
    yield state
    state.close()


@pytest.fixture
def login(state):
    login = new_login("alice", "livedocs", "openid", 900)
    state.add_login(login)
    return login


def test_of_two_that_found_a_code_unused_the_first_uses_it(state, login):
    state.add_code(Code(digest("code"), login, "", "c" * 43, None, time.time() + 60))
    first, second = state.code("code"), state.code("code")
    assert (first.used, second.used) == (False, False)
    assert (state.use_code(first), state.use_code(second)) == (True, False)
    assert state.code("code").used


def test_of_two_that_found_a_refresh_token_unrotated_the_first_rotates_it(state, login):
    state.add_refresh_token("refresh", login.id)
    first, second = state.refresh_token("refresh"), state.refresh_token("refresh")
    assert (first.rotated, second.rotated) == (False, False)
    assert (state.rotate(first), state.rotate(second)) == (True, False)
    assert state.refresh_token("refresh").rotated


def test_a_token_saved_after_its_login_has_ended_is_revoked(state, login):
    state.end_login(login.id)
    now = int(time.time())
    state.add_access_token(AccessToken("jti", "livedocs", "openid", now, now + 60, "alice", login.id))
    assert state.access_token("jti").is_revoked()


def test_what_is_over_is_forgotten_at_the_next_start_and_the_rest_kept(tmp_path, state, login):
    now = int(time.time())
    state.add_access_token(AccessToken("old", "livedocs", "openid", now - 9, now - 5, "alice", login.id))
    kept = new_login("bob", "livedocs", "openid", 900)
    state.add_login(kept)
    state.add_refresh_token("refresh", kept.id)
    again = State(tmp_path / "provider.sqlite3")
    assert again.access_token("old") is None
    assert again.login(login.id) is None
    assert again.refresh_token("refresh").login == kept
    again.close()


def test_a_changed_person_stays_changed_until_the_reset(state):
    alice = state.standing("alice")
    changed = Standing(replace(alice.person, groups=("board",)), disabled=True)
    state.set_standing(changed)
    assert state.standing("alice") == changed
    state.reset_standing("alice")
    assert state.standing("alice") == alice
    assert state.standing("nobody") is None
