from __future__ import annotations

from datetime import UTC, datetime, timedelta

from livedocs.access.breaker import Breaker

START = datetime(2030, 1, 1, tzinfo=UTC)


def after(seconds):
    return START + timedelta(seconds=seconds)


def opened(**options):
    breaker = Breaker(limit=3, rest=1.0, longest=3.0, jitter=lambda _low, high: high, **options)
    for _ in range(3):
        breaker.failed(START)
    return breaker


def test_it_opens_after_failures_in_a_row_only():
    breaker = Breaker(limit=3)
    for _ in range(5):
        breaker.failed(START)
        breaker.failed(START)
        breaker.succeeded()
    assert breaker.allows(START)
    assert breaker.wait(START) == 0
    for _ in range(3):
        breaker.failed(START)
    assert not breaker.allows(START)


def test_while_open_it_says_how_long_to_wait():
    breaker = opened()
    assert breaker.wait(after(0.25)) == 0.75


def test_after_the_rest_one_call_tries_for_all():
    breaker = opened()
    assert [breaker.allows(after(1)) for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert all(breaker.allows(after(1)) for _ in range(3))


def test_each_failed_trial_doubles_the_rest_up_to_the_longest():
    breaker = opened()
    at, rests = 1.0, []
    for _ in range(4):
        assert breaker.allows(after(at))
        breaker.failed(after(at))
        rests.append(breaker.wait(after(at)))
        at += rests[-1]
    assert rests == [2.0, 3.0, 3.0, 3.0]


def test_calls_that_began_before_it_opened_do_not_lengthen_the_rest():
    breaker = opened()
    for _ in range(50):
        breaker.failed(after(0.5))
    assert breaker.wait(after(0.5)) == 0.5


def test_a_trial_that_never_reports_back_does_not_shut_the_door_for_ever():
    breaker = opened()
    assert breaker.allows(after(1))
    assert not breaker.allows(after(1.9))
    assert breaker.allows(after(2))


def test_the_rest_is_jittered_so_that_processes_do_not_come_back_together():
    asked = []
    breaker = Breaker(limit=1, rest=2.0, jitter=lambda low, high: asked.append((low, high)) or low)
    breaker.failed(START)
    assert asked == [(0.5, 1.0)]
    assert breaker.wait(START) == 1.0
