"""The keys that cursors and tickets are sealed with; the first process that needs one makes it."""

from contextlib import suppress
from typing import Any

from pymongo.database import Database
from pymongo.errors import CollectionInvalid

name = "0006_keys"
dependencies = ["0005_owners"]

KEYS = {
    "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", "begins", "made", "secret"],
        "properties": {
            "_id": {"bsonType": ["int", "long"], "minimum": 0},
            "begins": {"bsonType": ["int", "long"], "minimum": 0},
            "made": {"bsonType": ["int", "long"], "minimum": 0},
            "secret": {"bsonType": "binData"},
        },
    }
}


def upgrade(db: Database[dict[str, Any]]) -> None:
    """Make the collection."""
    with suppress(CollectionInvalid):
        db.create_collection("keys", check_exists=True)
    db.command({"collMod": "keys", "validator": KEYS})


def downgrade(db: Database[dict[str, Any]]) -> None:
    """Drop it: nothing but cursors and tickets rests on a key, and an older server has other cursors."""
    db.drop_collection("keys")
