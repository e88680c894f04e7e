"""Tenants, grants and the audit trail.

Going back takes away validators, indexes and pre-images; a collection that holds documents is kept.
"""

from contextlib import suppress
from typing import Any

from pymongo.database import Database
from pymongo.errors import CollectionInvalid

name = "0001_tenants_and_grants"
dependencies: list[str] = []

TENANTS = {
    "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", "database", "collections", "status"],
        "properties": {
            "_id": {"bsonType": "string", "pattern": "^[a-z][a-z0-9-]{1,38}$"},
            "database": {"bsonType": "string", "pattern": "^[A-Za-z0-9_-]{1,63}$"},
            "collections": {
                "bsonType": "object",
                "additionalProperties": {
                    "bsonType": "object",
                    "required": ["key"],
                    "properties": {"key": {"enum": ["_id", "uuid"]}},
                },
            },
            "limits": {"bsonType": "object"},
            "status": {"enum": ["active", "suspended"]},
            "created_at": {"bsonType": "date"},
        },
    }
}

# A grant is found by its whole `_id`, and there the order of the fields counts: one that was written by hand in
# another order would be listed but never enforced.
ACL = {
    "$and": [
        {
            "$jsonSchema": {
                "bsonType": "object",
                "required": ["_id", "role"],
                "properties": {
                    "_id": {
                        "bsonType": "object",
                        "required": ["tenant", "uuid", "subject"],
                        "additionalProperties": False,
                        "properties": {
                            "tenant": {"bsonType": "string", "pattern": "^[a-z][a-z0-9-]{1,38}$"},
                            "uuid": {"bsonType": "binData"},
                            "subject": {
                                "bsonType": "string",
                                "pattern": r"^((user|client|group):[^\x00-\x1f\x7f]{1,255}|tenant:\*)$",
                            },
                        },
                    },
                    "role": {"enum": ["reader", "writer", "owner"]},
                    "expires_at": {"bsonType": "date"},
                    "granted_by": {"bsonType": "string"},
                    "granted_at": {"bsonType": "date"},
                },
            }
        },
        {
            "$expr": {
                "$eq": [
                    {"$map": {"input": {"$objectToArray": "$_id"}, "in": "$$this.k"}},
                    ["tenant", "uuid", "subject"],
                ]
            }
        },
    ]
}

AUDIT_SECONDS = 400 * 24 * 3600


def upgrade(db: Database[dict[str, Any]]) -> None:
    """Make the collections, or complete those that are there."""
    make(db, "tenants", validator=TENANTS)
    # Two names that differ in case are one database to MongoDB.
    db["tenants"].create_index("database", name="database", unique=True, collation={"locale": "en", "strength": 2})
    make(db, "acl", validator=ACL, changeStreamPreAndPostImages={"enabled": True})
    db["acl"].create_index([("_id.tenant", 1), ("_id.uuid", 1), ("_id.subject", 1)], name="by_uuid")
    db["acl"].create_index([("_id.tenant", 1), ("_id.subject", 1), ("_id.uuid", 1)], name="by_subject")
    db["acl"].create_index("expires_at", name="expiry", expireAfterSeconds=0)
    make(db, "audit")
    db["audit"].create_index([("tenant", 1), ("uuid", 1), ("at", -1)], name="by_uuid")
    db["audit"].create_index("at", name="expiry", expireAfterSeconds=AUDIT_SECONDS)


def downgrade(db: Database[dict[str, Any]]) -> None:
    """Unmake them, but never a document."""
    unmake(db, "audit")
    unmake(db, "acl", changeStreamPreAndPostImages={"enabled": False})
    unmake(db, "tenants")


def make(db: Database[dict[str, Any]], collection: str, **options: Any) -> None:
    """Create the collection, or give an existing one these options."""
    with suppress(CollectionInvalid):
        db.create_collection(collection, check_exists=True)
    if options:
        db.command({"collMod": collection, **options})


def unmake(db: Database[dict[str, Any]], collection: str, **options: Any) -> None:
    """Drop the collection if it is empty; else take from it what `make` and the indexes gave."""
    if db[collection].find_one({}, {"_id": 1}) is None:
        db.drop_collection(collection)
        return
    db[collection].drop_indexes()
    db.command({"collMod": collection, "validator": {}, **options})
