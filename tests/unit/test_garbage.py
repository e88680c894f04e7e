"""What Python's collector looks at in a server, and what it does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def in_a_process(code):
    """What a process prints: freezing what this one has would keep other tests' garbage."""
    script = textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def test_what_has_survived_is_not_looked_at_again_and_young_cycles_are_collected():
    survived, young, collected = in_a_process(
        """
        import gc, weakref
        from livedocs.runtime.garbage import keep_collections_short

        class Thing: pass

        keep_collections_short()
        kept = [Thing() for _ in range(1000)]
        gc.collect(1)
        print(gc.get_freeze_count() >= 1000)
        print(len(gc.get_objects()) < 1000)
        cycle = Thing()
        cycle.itself, gone = cycle, []
        weakref.finalize(cycle, gone.append, 1)
        del cycle
        gc.collect(1)
        print(gone == [1])
        """
    )
    assert (survived, young, collected) == ("True", "True", "True")


def test_what_was_put_aside_is_looked_at_once_it_has_doubled():
    before, after = in_a_process(
        """
        import asyncio, contextlib, gc, weakref
        from livedocs.runtime import garbage

        class Thing: pass

        async def main():
            garbage._OFTEN, garbage._SELDOM, garbage._GROWN_BY = 0.001, 0.005, 100
            garbage.keep_collections_short()
            gone = []
            task = asyncio.create_task(garbage.collect_often())
            await asyncio.sleep(0)
            cycle = Thing()
            cycle.itself = cycle
            weakref.finalize(cycle, gone.append, 1)
            gc.collect(1)
            del cycle
            gc.collect(1)
            print(gone)
            things = [Thing() for _ in range(2 * gc.get_freeze_count())]
            async with asyncio.timeout(30):
                while not gone:
                    await asyncio.sleep(0.001)
            print(gone)
            task.cancel()

        asyncio.run(main())
        """
    )
    assert (before, after) == ("[]", "[1]")


def test_a_read_of_a_socket_maps_no_memory_and_large_blocks_are_given_back():
    """asyncio takes a buffer of 256 KiB for each read, however little comes."""
    faults, kept = in_a_process(
        """
        import resource, socket
        from pathlib import Path
        from livedocs.runtime.garbage import give_back_large_blocks

        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

        give_back_large_blocks()
        here, there = socket.socketpair()
        def read():
            there.send(b"x")
            here.recv(2**18)
        read()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(1000):
            read()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        before = resident()
        blocks = [b"x" * 2**20 for _ in range(50)]
        del blocks
        print(resident() - before)
        """
    )
    assert int(faults) < 100
    assert int(kept) < 5 * 2**20
