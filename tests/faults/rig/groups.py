"""Who was in which group when, at the OAuth provider, and what follows from it for a socket. Pure.

A server learns of it when it introspects the token again. So for a while after somebody was taken out of a group
the group still counts, and for a while after they came into it, it may not count yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from rig.recording import Connection, Recording

INTERVALS = 2
"""So many introspection intervals after the removal the group counts no longer (guarantee 7)."""
# Clocks are read on both sides of a call of the provider.
_CALL = 0.1
# While these last nobody can be asked, or nothing is done: what is promised comes that much later.
_OUTAGES = frozenset(
    {
        *("provider_gone", "provider_error_500", "provider_slow", "provider_wrong_shape"),
        *("freeze_server", "stall_reads", "kill_primary", "freeze_primary", "lose_majority", "step_down"),
    }
)


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a socket's user. Times are seconds since the epoch.

    Args:
        recording: for its clock, its introspection interval and its faults.
        connection: the socket.
    """

    recording: Recording
    connection: Connection

    def deadline(self, removed: float) -> float:
        """Until when a group may still count that somebody was taken out of (monotonic seconds)."""
        allowed = INTERVALS * self.recording.interval
        end = removed + allowed
        for fault in sorted(self.recording.faults, key=lambda fault: fault.began):
            if fault.name in _OUTAGES and fault.began <= end and fault.ended >= removed:
                end = max(end, fault.ended + allowed)
        return end

    def possible(self, wall: float) -> frozenset[str]:
        """The subjects that may have counted for an event that was committed then."""
        at = wall - self.recording.epoch
        return self._subjects(
            {
                each.group
                for each in self.connection.memberships
                if each.began - _CALL <= at and (each.ended is None or at <= self.deadline(each.ended))
            }
        )

    def certain(self, begin: float, end: float) -> frozenset[str]:
        """The subjects that have to have counted all the time between these moments."""
        first, last = begin - self.recording.epoch, end - self.recording.epoch
        settled = first - INTERVALS * self.recording.interval
        return self._subjects(
            {
                each.group
                for each in self.connection.memberships
                if (not each.began or each.began <= settled) and (each.ended is None or last < each.ended)
            }
        )

    def lost(self, begin: float, end: float) -> list[float]:
        """When the user was taken out of a group, between these moments at the latest (monotonic seconds)."""
        return [
            each.ended
            for each in self.connection.memberships
            if each.ended is not None and each.ended <= end and self.deadline(each.ended) >= begin
        ]

    def _subjects(self, groups: set[str]) -> frozenset[str]:
        who = self.connection.who
        if not self.connection.memberships:
            return who.subjects
        return frozenset({who.subject, "tenant:*", *(f"group:{name}" for name in groups)})
