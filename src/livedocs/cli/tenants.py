"""`livedocs tenant`: who shares this deployment."""

from __future__ import annotations

from typing import Literal, cast

import click

from livedocs.cli.repositories import use
from livedocs.model import CollectionKey, Tenant
from livedocs.store.tenants import Tenants

_KEYS = click.Choice(["_id", "uuid"])


@click.group()
def tenant() -> None:
    """Create, list, suspend and resume tenants; register their collections."""


@tenant.command("list")
def list_() -> None:
    """Every tenant: slug, status, database, collections."""
    for found in use(lambda client, control: Tenants(client, control).all()):
        collections = " ".join(f"{name}:{key}" for name, key in sorted(found.collections.items()))
        click.echo(f"{found.slug:<20} {found.status:<10} {found.database:<24} {collections}")


@tenant.command()
@click.argument("slug")
@click.option("--database", help="The MongoDB database it owns.  [default: livedocs_SLUG]")
@click.option(
    "--collection",
    "collections",
    multiple=True,
    metavar="NAME[:KEY]",
    help="A collection to stream; KEY says where its documents hold their UUID, _id (as without) or uuid.",
)
def create(slug: str, database: str | None, collections: tuple[str, ...]) -> None:
    """Register a tenant and make its collections."""
    keys = dict(_collection(text) for text in collections)
    new = Tenant(slug, database or f"livedocs_{slug.replace('-', '_')}", keys)
    use(lambda client, control: Tenants(client, control).create(new))
    click.echo(f"created {new.slug} in database {new.database}")


def _collection(text: str) -> tuple[str, CollectionKey]:
    name, _, key = text.partition(":")
    if key not in {"", "_id", "uuid"}:
        raise click.BadParameter(f"{text}: the key is _id or uuid", param_hint="--collection")
    return name, cast("CollectionKey", key or "_id")


@tenant.command()
@click.argument("slug")
@click.argument("collection")
@click.option("--key", type=_KEYS, default="uuid", show_default=True, help="Where its documents hold their UUID.")
def register(slug: str, collection: str, key: CollectionKey) -> None:
    """Stream a further collection of the tenant, which may exist already."""
    use(lambda client, control: Tenants(client, control).register(slug, collection, key))
    click.echo(f"registered {collection} of {slug}")


@tenant.command()
@click.argument("slug")
def suspend(slug: str) -> None:
    """Keep the tenant's people and services out."""
    _set_status(slug, "suspended")


@tenant.command()
@click.argument("slug")
def resume(slug: str) -> None:
    """Let them in again."""
    _set_status(slug, "active")


def _set_status(slug: str, status: Literal["active", "suspended"]) -> None:
    use(lambda client, control: Tenants(client, control).set_status(slug, status))
    click.echo(f"{slug} is {status}")
