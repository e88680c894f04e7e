"""Guards of transactions and leases of server processes: both pass by themselves.

A guard matters only while a transaction runs that has written it; a lease is as long as it says.
"""

from contextlib import suppress
from typing import Any

from pymongo.database import Database
from pymongo.errors import CollectionInvalid

name = "0002_guards_and_processes"
dependencies = ["0001_tenants_and_grants"]

GUARD_SECONDS = 3600


def upgrade(db: Database[dict[str, Any]]) -> None:
    """Make both with their TTL indexes."""
    for collection in ("guards", "processes"):
        with suppress(CollectionInvalid):
            db.create_collection(collection, check_exists=True)
    db["guards"].create_index("at", name="expiry", expireAfterSeconds=GUARD_SECONDS)
    db["processes"].create_index("expires_at", name="expiry", expireAfterSeconds=0)


def downgrade(db: Database[dict[str, Any]]) -> None:
    """Drop both: nothing in them outlives the processes that wrote it."""
    db.drop_collection("guards")
    db.drop_collection("processes")
