"""The one door. Room membership and every document request pass through here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from livedocs.access.principal import Principal
from livedocs.model import Snapshot, Tenant


class SnapshotReader(Protocol):
    """What the gate needs of the store: one round of reads at one cluster time, however many UUIDs."""

    async def read(
        self, tenant: Tenant, uuids: Sequence[UUID], subjects: Sequence[str], with_documents: frozenset[UUID]
    ) -> Snapshot:
        """Grants of those subjects on those UUIDs; documents too for the UUIDs in `with_documents`.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """


class Gate:
    """Answers with what was read; `acl.decide` says what that allows."""

    def __init__(self, reader: SnapshotReader) -> None:
        self._reader = reader

    async def look(
        self, principal: Principal, tenant: Tenant, uuids: Sequence[UUID], with_documents: frozenset[UUID]
    ) -> Snapshot:
        """One consistent look at what the principal holds on those UUIDs.

        Raises:
            Unavailable: MongoDB cannot be read now; nobody is let in.
        """
        return await self._reader.read(tenant, uuids, principal.subjects, with_documents)
