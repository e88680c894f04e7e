"""`livedocs tenant`: who shares this deployment."""

from __future__ import annotations

from typing import BinaryIO, Literal, cast

import click

from livedocs.cli.repositories import ACTOR, as_json, dry_run, json_line, listed, use
from livedocs.codec import extjson
from livedocs.errors import InvalidJson
from livedocs.model import CollectionKey, Tenant
from livedocs.names import escaped
from livedocs.store.deletions import Deletions, Loss
from livedocs.store.inspection import meaning
from livedocs.store.preparation import JsonSchema
from livedocs.store.tenants import Tenants

_KEYS = click.Choice(["_id", "uuid"])


@click.group()
def tenant() -> None:
    """Create, list, name, limit, suspend, resume and delete tenants; register collections, confine services."""


def _members(found: Tenant) -> dict[str, object]:
    return {
        "slug": found.slug,
        "status": found.status,
        "database": found.database,
        "collections": dict(found.collections),
        "limits": dict(found.limits),
        "services": {client_id: sorted(names) for client_id, names in found.services.items()},
        "aliases": sorted(found.aliases),
    }


@tenant.command("list")
@as_json
def list_(*, as_json: bool) -> None:
    """List the tenants: slug, status, database, collections."""
    tenants = use(lambda client, control: Tenants(client, control).all())
    listed(len(tenants), "tenants", as_json=as_json)
    for found in tenants:
        if as_json:
            json_line(_members(found))
            continue
        collections = " ".join(f"{name}:{key}" for name, key in sorted(found.collections.items()))
        click.echo(f"{found.slug:<20} {found.status:<10} {found.database:<24} {collections}")


@tenant.command()
@click.argument("slug")
@as_json
def show(slug: str, *, as_json: bool) -> None:
    """Show a tenant: status, database, collections, limits, confined services."""
    found = _known(slug)
    if as_json:
        json_line(_members(found))
        return
    click.echo(f"{'status':<12}{found.status}")
    click.echo(f"{'database':<12}{found.database}")
    if found.created_at is not None:
        click.echo(f"{'created':<12}{found.created_at.isoformat(timespec='seconds')}")
    for name, key in sorted(found.collections.items()):
        click.echo(f"{'collection':<12}{name:<24} {key}")
    for name in sorted(found.aliases):
        click.echo(f"{'alias':<12}{escaped(name)}")
    for name, limit in sorted(found.limits.items()):
        click.echo(f"{'limit':<12}{name:<24} {limit}")
    for client_id, names in sorted(found.services.items()):
        click.echo(f"{'service':<12}{client_id:<24} {' '.join(sorted(names)) or 'nothing'}")


def _known(slug: str) -> Tenant:
    found = use(lambda client, control: Tenants(client, control).get(slug))
    if found is None:
        raise click.ClickException(f"There is no tenant with this slug. (slug {slug})")
    return found


@tenant.command()
@click.argument("slug")
@click.option("--database", help="The MongoDB database it owns.  [default: livedocs_SLUG]")
@click.option(
    "--collection",
    "collections",
    multiple=True,
    metavar="NAME[:KEY]",
    help="A collection to stream; KEY is the field that holds a document's UUID: _id (default) or uuid.",
)
def create(slug: str, database: str | None, collections: tuple[str, ...]) -> None:
    """Register a tenant and make its collections."""
    keys = dict(_collection(text) for text in collections)
    new = Tenant(slug, database or f"livedocs_{slug.replace('-', '_')}", keys)
    use(lambda client, control: Tenants(client, control).create(new, ACTOR))
    click.echo(f"created {new.slug} in database {new.database}")


def _schema(_context: click.Context, _parameter: click.Parameter, file: BinaryIO | None) -> JsonSchema | None:
    if file is None:
        return None
    try:
        schema = extjson.loads(file.read())
    except InvalidJson as error:
        raise click.BadParameter(error.detail) from None
    if not isinstance(schema, dict):
        raise click.BadParameter("A JSON Schema is an object.")
    return schema


def _collection(text: str) -> tuple[str, CollectionKey]:
    name, _, key = text.partition(":")
    if key not in {"", "_id", "uuid"}:
        raise click.BadParameter(f"{text}: the key is _id or uuid", param_hint="--collection")
    return name, cast("CollectionKey", key or "_id")


@tenant.command()
@click.argument("slug")
@click.argument("collection")
@click.option("--key", type=_KEYS, default="uuid", show_default=True, help="Field that holds a document's UUID.")
@click.option(
    "--schema",
    type=click.File("rb"),
    callback=_schema,
    help="File with a JSON Schema that MongoDB validates every write against.  [default: unchanged]",
)
def register(slug: str, collection: str, key: CollectionKey, schema: JsonSchema | None) -> None:
    """Stream a further collection of the tenant, which may exist already.

    Prints how many documents are not streamed, and what they hold in place of a UUID: a BSON type as $type names
    it, with the subtype for 16 bytes of binary data. Where looking at all takes longer than 5 seconds, a random
    sample is counted.
    """
    use(lambda client, control: Tenants(client, control).register(slug, collection, key, ACTOR, schema))
    report = use(lambda client, control: Tenants(client, control).inspect(slug, collection))
    click.echo(f"registered {collection} of {slug}")
    if report.not_streamed:
        click.echo(f"{report.without_uuid} documents have no UUID (Binary subtype 4) and are not streamed:")
    for found, count in report.not_streamed.items():
        meant = meaning(found)
        click.echo(f"  {count:>9}  {found}{f' ({meant})' if meant else ''}")
    if not report.complete:
        click.echo(
            f"looking at all takes too long: these are the numbers of a sample of {report.examined} documents"
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
@click.argument("aliases", nargs=-1, metavar="[NAME]...")
def alias(slug: str, aliases: tuple[str, ...]) -> None:
    """Take these names in tokens for the tenant, in place of its present aliases; without any, its slug alone.

    For an OAuth service that names tenants by an id of its own: org_2x9, a GUID, a number.
    """
    use(lambda client, control: Tenants(client, control).set_aliases(slug, set(aliases), ACTOR))
    click.echo(f"{slug} has {len(set(aliases))} aliases")


@tenant.command()
@click.argument("slug")
@click.argument("client_id")
@click.argument("collections", nargs=-1, metavar="[COLLECTION]...")
def confine(slug: str, client_id: str, collections: tuple[str, ...]) -> None:
    """Confine a service of the tenant, by its client id, to these collections; without any, to none at all."""
    use(lambda client, control: Tenants(client, control).confine(slug, client_id, collections, ACTOR))
    click.echo(f"{client_id} of {slug} is confined to {' '.join(sorted(set(collections))) or 'nothing'}")


@tenant.command()
@click.argument("slug")
@click.argument("client_id")
def release(slug: str, client_id: str) -> None:
    """Let a service of the tenant touch every collection again."""
    use(lambda client, control: Tenants(client, control).release(slug, client_id, ACTOR))
    click.echo(f"{client_id} of {slug} is not confined")


@tenant.command()
@click.argument("slug")
@dry_run
def suspend(slug: str, *, dry_run: bool) -> None:
    """Keep the tenant's people and services out; who is in leaves at once."""
    if dry_run:
        click.echo(f"{slug} is {_known(slug).status} and would be suspended")
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
@click.option(
    "--drop", is_flag=True, help="Also drop the tenant's registered collections; otherwise its documents stay."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
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
