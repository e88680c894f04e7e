"""The one door. Room membership and every document request pass through here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from livedocs.access.principal import Principal
from livedocs.access.rounds import Rounds, SnapshotReader
from livedocs.model import Look, Snapshot, Tenant


class Gate:
    """Answers with what was read; `acl.decide` says what that allows."""

    def __init__(self, reader: SnapshotReader) -> None:
        self._rounds = Rounds(reader)

    async def look(
        self, principal: Principal, tenant: Tenant, uuids: Sequence[UUID], with_documents: frozenset[UUID]
    ) -> Snapshot:
        """One consistent look at what the principal holds on those UUIDs, of a time after this was called.

        Raises:
            Unavailable: MongoDB cannot be read now; nobody is let in.
        """
        return await self._rounds.look(tenant, Look(tuple(uuids), principal.subjects, with_documents))

    async def aclose(self) -> None:
        """End what is under way."""
        await self._rounds.aclose()
