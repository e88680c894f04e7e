"""Refresh tokens that are being spent; each passes by itself within minutes."""

from contextlib import suppress
from typing import Any

from pymongo.database import Database
from pymongo.errors import CollectionInvalid

name = "0007_renewals"
dependencies = ["0006_keys"]

SECONDS = 300


def upgrade(db: Database[dict[str, Any]]) -> None:
    """Make the collection."""
    with suppress(CollectionInvalid):
        db.create_collection("renewals", check_exists=True)
    db["renewals"].create_index("at", name="expiry", expireAfterSeconds=SECONDS)


def downgrade(db: Database[dict[str, Any]]) -> None:
    """Drop it: what it holds matters for seconds."""
    db.drop_collection("renewals")
