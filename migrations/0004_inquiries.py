"""What the server processes ask each other about their sockets, and the answers; both pass by themselves."""

from contextlib import suppress
from typing import Any

from pymongo.database import Database
from pymongo.errors import CollectionInvalid

name = "0004_inquiries"
dependencies = ["0003_audit_search_and_idempotency"]

SECONDS = 60


def upgrade(db: Database[dict[str, Any]]) -> None:
    """Make both with their TTL indexes."""
    for collection in ("inquiries", "answers"):
        with suppress(CollectionInvalid):
            db.create_collection(collection, check_exists=True)
        db[collection].create_index("at", name="expiry", expireAfterSeconds=SECONDS)
    db["answers"].create_index("inquiry", name="by_inquiry")


def downgrade(db: Database[dict[str, Any]]) -> None:
    """Drop both: nobody waits for an answer any more."""
    db.drop_collection("inquiries")
    db.drop_collection("answers")
