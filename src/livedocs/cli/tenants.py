"""`livedocs tenant`: who shares this deployment."""

from __future__ import annotations

from typing import Literal, cast

import click

from livedocs.cli.repositories import ACTOR, as_json, dry_run, json_line, use
from livedocs.model import CollectionKey, Tenant
from livedocs.store.deletions import Deletions, Loss
from livedocs.store.tenants import Tenants

_MOST = 10_000
_KEYS = click.Choice(["_id", "uuid"])


@click.group()
def tenant() -> None:
    """Create, list, limit, suspend, resume and delete tenants; register their collections."""


@tenant.command("list")
@as_json
def list_(*, as_json: bool) -> None:
    """Every tenant: slug, status, database, collections."""
    for found in use(lambda client, control: Tenants(client, control).all()):
        if as_json:
            json_line(
                {
                    "slug": found.slug,
                    "status": found.status,
                    "database": found.database,
                    "collections": dict(found.collections),
                    "limits": dict(found.limits),
                }
            )
            continue
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
    use(lambda client, control: Tenants(client, control).create(new, ACTOR))
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
    use(lambda client, control: Tenants(client, control).register(slug, collection, key, ACTOR))
    unkeyed = use(lambda client, control: Tenants(client, control).unkeyed(slug, collection, most=_MOST))
    click.echo(f"registered {collection} of {slug}")
    if unkeyed:
        click.echo(
            f"{unkeyed}{' or more' if unkeyed == _MOST else ''} documents have no UUID and are not streamed"
        )


@tenant.command()
@click.argument("slug")
@click.argument("limits", nargs=-1, metavar="[NAME=NUMBER]...")
def limits(slug: str, limits: tuple[str, ...]) -> None:
    """Put these limits in place of the tenant's present ones; without any, the server's settings alone hold."""
    given = dict(_limit(text) for text in limits)
    use(lambda client, control: Tenants(client, control).set_limits(slug, given, ACTOR))
    click.echo(f"{slug} has {len(given)} limits of its own")


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not (number.isascii() and number.isdigit()):
        raise click.BadParameter(f"{text}: a limit is NAME=NUMBER", param_hint="LIMITS")
    return name, int(number)


@tenant.command()
@click.argument("slug")
@dry_run
def suspend(slug: str, *, dry_run: bool) -> None:
    """Keep the tenant's people and services out; who is in leaves at once."""
    if dry_run:
        found = use(lambda client, control: Tenants(client, control).get(slug))
        if found is None:
            raise click.ClickException(f"There is no tenant of this slug. (slug {slug})")
        click.echo(f"{slug} is {found.status} and would be suspended")
        return
    _set_status(slug, "suspended")


@tenant.command()
@click.argument("slug")
def resume(slug: str) -> None:
    """Let them in again."""
    _set_status(slug, "active")


def _set_status(slug: str, status: Literal["active", "suspended"]) -> None:
    use(lambda client, control: Tenants(client, control).set_status(slug, status, ACTOR))
    click.echo(f"{slug} is {status}")


@tenant.command()
@click.argument("slug")
@click.option("--drop", is_flag=True, help="Drop its registered collections, too. Without: its documents stay.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run
def delete(slug: str, *, drop: bool, yes: bool, dry_run: bool) -> None:
    """Suspend the tenant, say what would be gone, ask, and delete it. Declining leaves it suspended."""
    if dry_run:
        _say_loss(slug, use(lambda client, control: Deletions(client, control).loss(slug, drop=drop)))
        return
    asked = use(lambda client, control: Deletions(client, control).ask(slug, drop=drop, actor=ACTOR))
    _say_loss(slug, asked.loss)
    if not yes:
        click.confirm(f"{slug} is suspended now. Delete it?", abort=True)
    use(lambda client, control: Deletions(client, control).carry_out(slug, asked.code, ACTOR))
    click.echo(f"deleted {slug}")


def _say_loss(slug: str, loss: Loss) -> None:
    fate = "would be dropped" if loss.drop else "would stay"
    for name, count in sorted(loss.documents.items()):
        click.echo(f"{name} of {slug}: {count} documents {fate}")
    click.echo(f"{loss.grants} grants would be gone")
