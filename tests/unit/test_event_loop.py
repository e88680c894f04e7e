"""The order and the length of the turns of the server's event loop."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import time

import pytest

from livedocs.runtime.event_loop import AT_ONCE, TURN, FairEventLoop


def run(main):
    with asyncio.Runner(loop_factory=FairEventLoop) as runner:
        return runner.run(main)


def busy(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_a_socket_is_heard_while_much_is_ready():
    done = []

    async def main():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, lambda: (done.append("heard"), loop.remove_reader(ours)))
        for number in range(20):
            loop.call_soon(lambda number=number: (busy(TURN), done.append(number)))
        theirs.send(b"x")
        await asyncio.sleep(0)
        while len(done) < 21:
            await asyncio.sleep(0)
        ours.close()
        theirs.close()

    run(main())
    assert done.index("heard") <= 2
    assert [one for one in done if one != "heard"] == list(range(20))


def test_of_many_sockets_none_is_forgotten_and_few_are_heard_in_a_turn():
    turns = []

    async def main():
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(3 * AT_ONCE)]
        heard = []
        for number, (ours, theirs) in enumerate(pairs):
            ours.setblocking(False)
            loop.add_reader(ours, heard.append, number)
            theirs.send(b"x")
        # None of them is read: all are ready all the time.
        while len(turns) < 4:
            await asyncio.sleep(0)
            turns.append(sorted(heard))
            heard.clear()
        for ours, theirs in pairs:
            loop.remove_reader(ours)
            ours.close()
            theirs.close()

    run(main())
    turns = [turn for turn in turns if turn]
    assert all(len(turn) <= AT_ONCE for turn in turns)
    assert sorted(number for turn in turns[:3] for number in turn) == list(range(3 * AT_ONCE))


def test_what_is_ready_is_called_in_the_order_in_which_it_was_given():
    done = []

    async def main():
        loop = asyncio.get_running_loop()
        for number in range(1000):
            loop.call_soon(done.append, number)
        while len(done) < 1000:
            await asyncio.sleep(0)

    run(main())
    assert done == list(range(1000))


def test_what_is_cancelled_is_not_called():
    done = []

    async def main():
        handle = asyncio.get_running_loop().call_soon(done.append, 1)
        handle.cancel()
        await asyncio.sleep(0.01)

    run(main())
    assert done == []


def test_each_is_called_in_its_own_context():
    variable = contextvars.ContextVar("variable", default=0)
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        other = contextvars.copy_context()
        other.run(variable.set, 2)
        variable.set(1)
        loop.call_soon(lambda: seen.append(variable.get()))
        loop.call_soon(lambda: seen.append(variable.get()), context=other)
        await asyncio.sleep(0.01)

    run(main())
    assert seen == [1, 2]


def test_what_one_raises_is_told_to_the_handler_and_the_others_are_called():
    told, done = [], []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        loop.call_soon(lambda: 1 / 0)
        loop.call_soon(done.append, 1)
        await asyncio.sleep(0.01)

    run(main())
    assert done == [1]
    assert [type(error) for error in told] == [ZeroDivisionError]


def test_an_exit_ends_the_loop_and_what_was_ready_stays_so():
    done = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(exit_now)
        loop.call_soon(done.append, 1)
        await asyncio.sleep(10)

    def exit_now():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(main())
    # While the loop is closed down.
    assert done == [1]


def test_a_closed_loop_takes_nothing():
    loop = FairEventLoop()
    loop.close()
    with pytest.raises(RuntimeError):
        loop.call_soon(print)


def test_threads_timers_and_subprocesses_are_heard():
    async def main():
        assert await asyncio.to_thread(lambda: 1) == 1
        async with asyncio.timeout(5):
            process = await asyncio.create_subprocess_exec("true")
            assert await process.wait() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()

    run(main())
