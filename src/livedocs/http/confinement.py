"""As whom a service that is confined to some collections changes grants, which open all collections of a UUID."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from uuid import UUID

from livedocs.access.principal import Principal
from livedocs.http.caller import Caller
from livedocs.store.documents import Documents


async def granting(documents: Documents, who: Caller, uuids: Iterable[UUID]) -> Callable[[UUID], Principal]:
    """As whom the caller changes the grants of each of those UUIDs.

    That is the caller itself, but for a confined service whose scopes would open documents of collections that are
    none of its own: there it is somebody without scopes, who may change grants as an owner, or not at all.

    Raises:
        Unavailable: MongoDB cannot be read now.
    """
    principal, own = who.principal, who.confined_to
    if own is None:
        return lambda _: principal
    wanted, beyond = set(uuids), set[UUID]()
    # Read ahead of the change of grants: a document that another program writes in between finds the grants that
    # are there by then, as it would if it came later.
    for name in who.tenant.collections.keys() - own:
        beyond |= await documents.having(who.tenant, name, wanted)
    unscoped = replace(principal, scopes=frozenset())
    return lambda uuid: unscoped if uuid in beyond else principal
