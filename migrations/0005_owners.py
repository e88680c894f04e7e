"""An index of the owners of each UUID, those without an end first: whether there is another one is one look."""

from typing import Any

from pymongo.database import Database

name = "0005_owners"
dependencies = ["0004_inquiries"]

INDEX = "owners"


def upgrade(db: Database[dict[str, Any]]) -> None:
    """Make the index."""
    db["acl"].create_index(
        [("_id.tenant", 1), ("_id.uuid", 1), ("expires_at", 1)],
        name=INDEX,
        partialFilterExpression={"role": "owner"},
    )


def downgrade(db: Database[dict[str, Any]]) -> None:
    """Drop it."""
    if INDEX in db["acl"].index_information():
        db["acl"].drop_index(INDEX)
