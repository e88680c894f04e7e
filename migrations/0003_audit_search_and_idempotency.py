"""Indexes for searching the audit trail; keys of requests that may be sent twice, which pass by themselves."""

from contextlib import suppress
from typing import Any

from pymongo.database import Database
from pymongo.errors import CollectionInvalid

name = "0003_audit_search_and_idempotency"
dependencies = ["0002_guards_and_processes"]

IDEMPOTENCY_SECONDS = 24 * 3600
INDEXES = {
    "by_time": [("tenant", 1), ("at", -1), ("_id", -1)],
    "by_actor": [("tenant", 1), ("actor", 1), ("at", -1), ("_id", -1)],
    "by_subject": [("tenant", 1), ("subject", 1), ("at", -1), ("_id", -1)],
    "by_action": [("tenant", 1), ("action", 1), ("at", -1), ("_id", -1)],
}


def upgrade(db: Database[dict[str, Any]]) -> None:
    """Make them."""
    for index, keys in INDEXES.items():
        db["audit"].create_index(keys, name=index)
    with suppress(CollectionInvalid):
        db.create_collection("idempotency", check_exists=True)
    db["idempotency"].create_index("at", name="expiry", expireAfterSeconds=IDEMPOTENCY_SECONDS)


def downgrade(db: Database[dict[str, Any]]) -> None:
    """Unmake them; a key matters only for a day."""
    for index in INDEXES:
        if index in db["audit"].index_information():
            db["audit"].drop_index(index)
    db.drop_collection("idempotency")
