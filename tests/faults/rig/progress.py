"""How far each process is known to have come, from what its clients heard. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from rig.recording import Connection, Delivered, Told


def server(process: str) -> str:
    """The server of a process that is one of several workers; any other process is its own."""
    return process.partition("#")[0]


class Progress:
    """How far each process is known to have followed the stream: the highest event it had written by a time."""

    def __init__(self, connections: Iterable[Connection]) -> None:
        self._marks: dict[str, list[tuple[float, str]]] = {}
        self.resyncs: dict[str, list[float]] = {}
        for connection in connections:
            for entry in connection.entries:
                # One for `access` concerns nobody else.
                if isinstance(entry, Told) and entry.name == "$resync" and entry.body.get("reason") != "access":
                    self.resyncs.setdefault(server(connection.process), []).append(entry.at)
                if isinstance(entry, Delivered):
                    mark = (entry.at, str(entry.meta.get("id", "")))
                    self._marks.setdefault(connection.process, []).append(mark)
        for marks in self._marks.values():
            marks.sort()
            highest = ""
            for index, (at, token) in enumerate(marks):
                highest = max(highest, token)
                marks[index] = (at, highest)

    def by(self, process: str, at: float) -> str:
        """The position that process had certainly passed at that time."""
        marks = self._marks.get(process, [])
        low, high = 0, len(marks)
        while low < high:
            middle = (low + high) // 2
            if marks[middle][0] < at:
                low = middle + 1
            else:
                high = middle
        return marks[low - 1][1] if low else ""
