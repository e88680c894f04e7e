from __future__ import annotations

import secrets

import pytest
from pymongo.errors import DuplicateKeyError

from livedocs.errors import BadRequest, Conflict, NotFound, UnsuitableCollection
from livedocs.model import Tenant
from livedocs.store.tenants import TenantDirectory, Tenants


@pytest.fixture
def tenants(mongo, deployment):
    return Tenants(mongo, deployment.control_database)


@pytest.fixture
async def new(mongo, deployment):
    """Makes a tenant of a new name, not yet created; its database is dropped at the end."""
    made = []

    def make(collections=None, **changes):
        name = secrets.token_hex(4)
        tenant = Tenant(
            changes.get("slug", f"t-{name}"),
            changes.get("database", f"{deployment.control_database}_{name}"),
            collections or {"notes": "_id", "things": "uuid"},
        )
        made.append(tenant)
        return tenant

    yield make
    for tenant in made:
        if tenant.database.startswith(deployment.control_database + "_") and "acme" not in tenant.database:
            await mongo.drop_database(tenant.database)


async def options(mongo, tenant, collection):
    found = await (await mongo[tenant.database].list_collections(filter={"name": collection})).to_list()
    return found[0]["options"]


async def test_a_new_tenant_has_what_its_stream_and_its_transactions_need(tenants, new, mongo):
    tenant = new()
    await tenants.create(tenant)
    stored = await tenants.get(tenant.slug)
    assert (stored.database, stored.collections, stored.active) == (tenant.database, tenant.collections, True)
    assert stored.created_at is not None
    assert (await options(mongo, tenant, "things"))["changeStreamPreAndPostImages"] == {"enabled": True}
    assert "changeStreamPreAndPostImages" not in await options(mongo, tenant, "notes")
    assert "uuid_1" in await mongo[tenant.database]["things"].index_information()
    assert list(await mongo[tenant.database]["notes"].index_information()) == ["_id_"]


async def test_a_collection_that_exists_is_made_ready_and_keeps_its_documents(tenants, new, mongo):
    tenant = new()
    await tenants.create(tenant)
    existing = mongo[tenant.database]["old.orders"]
    await existing.insert_one({"_id": 1})
    await existing.create_index("uuid", unique=True, sparse=True)
    for _ in range(2):
        await tenants.register(tenant.slug, "old.orders", "uuid")
    assert (await tenants.get(tenant.slug)).collections == {**tenant.collections, "old.orders": "uuid"}
    assert (await options(mongo, tenant, "old.orders"))["changeStreamPreAndPostImages"] == {"enabled": True}
    assert await existing.count_documents({}) == 1


async def test_a_collection_is_not_registered_with_another_key(tenants, new):
    tenant = new()
    await tenants.create(tenant)
    with pytest.raises(Conflict):
        await tenants.register(tenant.slug, "notes", "uuid")


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("view", {"viewOn": "notes", "pipeline": []}),
        ("timeseries", {"timeseries": {"timeField": "at"}}),
        ("capped", {"capped": True, "size": 4096}),
    ],
)
async def test_what_cannot_be_streamed_cannot_be_registered(tenants, new, mongo, reason, options):
    tenant = new()
    await tenants.create(tenant)
    await mongo[tenant.database].command({"create": "seen", **options})
    for key in ("_id", "uuid"):
        with pytest.raises(UnsuitableCollection) as refused:
            await tenants.register(tenant.slug, "seen", key)
        assert refused.value.data == {"collection": "seen", "reason": reason}
    assert "seen" not in (await tenants.get(tenant.slug)).collections


async def test_a_tenant_is_not_made_with_what_cannot_be_streamed(tenants, new, mongo):
    tenant = new({"seen": "_id"})
    await mongo[tenant.database].command({"create": "seen", "capped": True, "size": 4096})
    with pytest.raises(UnsuitableCollection):
        await tenants.create(tenant)
    assert await tenants.get(tenant.slug) is None


async def test_a_collection_of_mongodbs_own_is_not_registered(tenants, new):
    with pytest.raises(UnsuitableCollection) as refused:
        await tenants.create(new({"system.users": "_id"}))
    assert refused.value.data["reason"] == "system"


async def test_a_slug_is_given_once(tenants, new):
    tenant = new()
    await tenants.create(tenant)
    with pytest.raises(Conflict):
        await tenants.create(new(slug=tenant.slug))


@pytest.mark.parametrize("change", [str, str.upper])
async def test_a_database_is_given_once_whatever_its_case(tenants, new, change):
    tenant = new()
    await tenants.create(tenant)
    with pytest.raises(Conflict):
        await tenants.create(new(database=change(tenant.database)))


async def test_a_database_is_given_once_even_past_this_code(tenants, new, control):
    tenant = new()
    await tenants.create(tenant)
    with pytest.raises(DuplicateKeyError):
        await control["tenants"].insert_one(
            {"_id": "other", "database": tenant.database.upper(), "collections": {}, "status": "active"}
        )


@pytest.mark.parametrize("slug", ["", "a", "A-b", "1ab", "a_b", "a" * 40, "a.b", "a\n"])
async def test_a_slug_is_what_fits_into_a_url(tenants, new, slug):
    with pytest.raises(BadRequest):
        await tenants.create(new(slug=slug))


@pytest.mark.parametrize(
    "database", ["", "admin", "local", "config", "Config", "a.b", "a b", "a$b", "a/b", "x" * 64]
)
async def test_a_database_is_never_one_of_mongodbs_own(tenants, new, database):
    with pytest.raises(BadRequest):
        await tenants.create(new(database=database))


async def test_a_database_is_never_the_control_database(tenants, new, deployment):
    for name in (deployment.control_database, deployment.control_database.upper()):
        with pytest.raises(BadRequest):
            await tenants.create(new(database=name))


@pytest.mark.parametrize("collection", ["", "$cmd", "a$b", "a\0b", "1a", "connect", "disconnect", "Check"])
async def test_a_collections_name_can_be_an_events_name(tenants, new, collection):
    with pytest.raises(BadRequest):
        await tenants.create(new({collection: "_id"}))


async def test_a_key_is_one_of_two_fields(tenants, new):
    with pytest.raises(BadRequest):
        await tenants.create(new({"notes": "name"}))


async def test_the_directory_is_a_copy_that_knows_when_it_changed(tenants, new):
    tenant = new()
    directory = TenantDirectory(tenants)
    assert await directory.refresh()
    await tenants.create(tenant)
    assert directory.get(tenant.slug) is None
    assert await directory.refresh()
    assert not await directory.refresh()
    assert directory.get(tenant.slug).database == tenant.database
    assert directory.by_database(tenant.database).slug == tenant.slug
    assert tenant.slug in {known.slug for known in directory.all()}
    await tenants.set_status(tenant.slug, "suspended")
    assert await directory.refresh()
    assert not directory.get(tenant.slug).active


async def test_a_tenant_that_is_not_there_is_said_so(tenants):
    assert await tenants.get("nobody") is None
    with pytest.raises(NotFound):
        await tenants.set_status("nobody", "active")
    with pytest.raises(NotFound):
        await tenants.register("nobody", "notes", "_id")


async def test_a_tenant_that_makes_no_sense_is_left_out_and_harms_no_other(tenants, new, control):
    tenant = new()
    await tenants.create(tenant)
    broken = {"_id": "broken", "database": "x_broken", "collections": {"a": {"key": "b"}}, "status": "active"}
    await control.command({"insert": "tenants", "documents": [broken], "bypassDocumentValidation": True})
    try:
        slugs = [known.slug for known in await tenants.all()]
    finally:
        await control["tenants"].delete_one({"_id": "broken"})
    assert tenant.slug in slugs
    assert "broken" not in slugs
