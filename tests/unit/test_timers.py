from __future__ import annotations

from livedocs.live.timers import TimerWheel


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Thing:
    def __init__(self, again: float | None = None) -> None:
        self.again = again
        self.ticks = 0

    def tick(self) -> float | None:
        self.ticks += 1
        return self.again


def wheel() -> tuple[TimerWheel, Clock]:
    clock = Clock()
    return TimerWheel(resolution=0.25, clock=clock), clock


def run(turning: TimerWheel, clock: Clock, seconds: float) -> None:
    for _ in range(int(seconds / 0.25)):
        clock.now += 0.25
        turning.turn()


def test_a_thing_is_ticked_when_it_is_due_and_not_before():
    turning, clock = wheel()
    thing = Thing()
    turning.put(thing, 2)
    run(turning, clock, 1.5)
    assert thing.ticks == 0
    run(turning, clock, 1)
    assert thing.ticks == 1
    run(turning, clock, 5)
    assert thing.ticks == 1


def test_a_tick_says_when_to_come_again():
    turning, clock = wheel()
    thing = Thing(again=1)
    turning.put(thing, 1)
    run(turning, clock, 10)
    assert 8 <= thing.ticks <= 10


def test_putting_it_again_replaces_and_taking_it_ends():
    turning, clock = wheel()
    put_off, taken = Thing(), Thing()
    turning.put(put_off, 1)
    turning.put(taken, 1)
    turning.put(put_off, 3)
    turning.take(taken)
    run(turning, clock, 2)
    assert (put_off.ticks, taken.ticks) == (0, 0)
    run(turning, clock, 2)
    assert (put_off.ticks, taken.ticks) == (1, 0)


def test_one_that_takes_another_of_the_same_turn_away_is_obeyed():
    turning, clock = wheel()
    things = []

    class Taker(Thing):
        def tick(self) -> float | None:
            for thing in things:
                turning.take(thing)
            return super().tick()

    things += [Taker(), Taker()]
    for thing in things:
        turning.put(thing, 1)
    run(turning, clock, 2)
    assert sorted(thing.ticks for thing in things) == [0, 1]


def test_after_a_stall_everything_overdue_is_ticked_once():
    turning, clock = wheel()
    things = [Thing() for _ in range(10)]
    for number, thing in enumerate(things):
        turning.put(thing, number)
    clock.now += 60
    turning.turn()
    assert [thing.ticks for thing in things] == [1] * 10
