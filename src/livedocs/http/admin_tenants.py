"""The routes of the platform's administrators: the tenants themselves. All of it works without a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_request, document_response, tag

from livedocs.errors import BadRequest, Conflict, NotFound
from livedocs.http.admin_shapes import (
    CollectionBody,
    DeletionAsked,
    DeletionDone,
    DeletionQuery,
    Limits,
    NewTenant,
    Registered,
    ServiceCollections,
    TenantPage,
    TenantShown,
)
from livedocs.http.bodies import json_answer, read_object
from livedocs.http.caller import Caller, caller
from livedocs.http.pagination import page_limit
from livedocs.http.shapes import Paging
from livedocs.http.times import rfc3339
from livedocs.model import CollectionKey, Tenant
from livedocs.store.deletions import Deletions, Loss
from livedocs.store.preparation import JsonSchema
from livedocs.store.tenants import Tenants, validate_limits

PLATFORM_SCOPE = "livedocs:platform"
"""Its holder administers every tenant of the deployment."""


def blueprint(tenants: Tenants, deletions: Deletions) -> Blueprint:
    """The routes under `/v1/admin/tenants`."""
    routes = Blueprint("admin_tenants", __name__, url_prefix="/v1/admin/tenants")
    _registry(routes, tenants)
    _settings(routes, tenants)
    _services(routes, tenants)
    _life(routes, tenants, deletions)
    return routes


def _registry(routes: Blueprint, tenants: Tenants) -> None:
    @routes.get("")
    @tag(["tenants"])
    @document_querystring(Paging)
    @document_response(TenantPage)
    async def list_tenants() -> Response:
        """Every tenant of the deployment, by slug. Needs the scope `livedocs:platform`, as all of these do."""
        _platform()
        limit, after = page_limit(request.args.get("limit")), request.args.get("cursor", "")
        found = [tenant for tenant in await tenants.all() if tenant.slug > after]
        rest = found[limit - 1].slug if len(found) > limit else None
        return json_answer({"tenants": [shown(tenant) for tenant in found[:limit]], "next": rest})

    @routes.post("")
    @tag(["tenants"])
    @document_request(NewTenant)
    @document_response(TenantShown, 201)
    async def create_tenant() -> Response:
        """Register a tenant; its collections are made where they do not exist. The stream takes it in at once."""
        who = _platform()
        new, schemas = parse_new(await read_object())
        await tenants.create(new, who.actor, schemas)
        location = {"Location": f"/v1/admin/tenants/{new.slug}"}
        return json_answer(shown(await _read(tenants, new.slug)), 201, location)

    @routes.get("/<slug>")
    @tag(["tenants"])
    @document_response(TenantShown)
    async def read_tenant(slug: str) -> Response:
        """A tenant."""
        _platform()
        return json_answer(shown(await _read(tenants, slug)))


def _settings(routes: Blueprint, tenants: Tenants) -> None:
    @routes.put("/<slug>/collections/<collection>")
    @tag(["tenants"])
    @document_request(CollectionBody)
    @document_response(Registered)
    async def register_collection(slug: str, collection: str) -> Response:
        """Stream a further collection, which may exist already: indexes and pre-images are made where needed.

        With `json_schema` MongoDB holds every later write to it; without, a validator that is there stays.
        Documents without a UUID (Binary subtype 4) in the key are not streamed. `without_uuid` says how many there
        are, `not_streamed` what they hold instead: a BSON type as `$type` names it, with the subtype for 16 bytes
        of binary data (`binData 3` is a legacy UUID), or `missing`. All documents are looked at, for up to 5
        seconds; if that is not enough, `complete` is false and the numbers are those of a random sample of
        `examined` documents.
        """
        who = _platform()
        key, schema = _collection(await read_object())
        await tenants.register(slug, collection, key, who.actor, schema)
        report = await tenants.inspect(slug, collection)
        members = {
            "without_uuid": report.without_uuid,
            "not_streamed": report.not_streamed,
            "examined": report.examined,
            "complete": report.complete,
        }
        return json_answer({"collection": collection, "key": key, **members})

    @routes.put("/<slug>/limits")
    @tag(["tenants"])
    @document_request(Limits)
    @document_response(TenantShown)
    async def set_limits(slug: str) -> Response:
        """Put limits in place of the tenant's present ones; they count at once.

        Each stands in place of the server's setting of that name, which is described there; `max_document_bytes`
        only tightens it. A limit that is left out is the server's again.
        """
        who = _platform()
        await tenants.set_limits(slug, await read_object(), who.actor)
        return json_answer(shown(await _read(tenants, slug)))


def _services(routes: Blueprint, tenants: Tenants) -> None:
    # A client id may hold a slash: the server has decoded the path before it is taken apart.
    path = "/<slug>/services/<path:client_id>"

    @routes.put(path)
    @tag(["tenants"])
    @document_request(ServiceCollections)
    @document_response(TenantShown)
    async def confine_service(slug: str, client_id: str) -> Response:
        """Confine a service of the tenant to some of its collections; its sockets come back under the new rule.

        It reads, writes and streams no others, and its scopes set grants only where all documents of a UUID lie in
        its collections. An empty list leaves it none.
        """
        who = _platform()
        names = _only(await read_object(), {"collections"}).get("collections")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadRequest("`collections` must be a list of collection names.", path="collections")
        await tenants.confine(slug, client_id, names, who.actor)
        return json_answer(shown(await _read(tenants, slug)))

    @routes.delete(path)
    @tag(["tenants"])
    @document_response(TenantShown)
    async def release_service(slug: str, client_id: str) -> Response:
        """Let a service touch every collection of the tenant again; fine for one that was not confined."""
        who = _platform()
        await tenants.release(slug, client_id, who.actor)
        return json_answer(shown(await _read(tenants, slug)))


def _life(routes: Blueprint, tenants: Tenants, deletions: Deletions) -> None:
    @routes.post("/<slug>:suspend")
    @tag(["tenants"])
    @document_response(TenantShown)
    async def suspend_tenant(slug: str) -> Response:
        """Keep the tenant's people and services out; who is in leaves at once."""
        return await _set_status(tenants, slug, "suspended")

    @routes.post("/<slug>:resume")
    @tag(["tenants"])
    @document_response(TenantShown)
    async def resume_tenant(slug: str) -> Response:
        """Let them in again. A deletion that was asked for is forgotten."""
        return await _set_status(tenants, slug, "active")

    @routes.delete("/<slug>")
    @tag(["tenants"])
    @document_querystring(DeletionQuery)
    @document_response(DeletionDone, 200)
    @document_response(DeletionAsked, 202)
    async def delete_tenant(slug: str) -> Response:
        """Delete a tenant, in two steps.

        The first request suspends it and answers 202 with a `code` and with what would be lost; the second brings
        the code as `confirm` within 15 minutes. The tenant's grants go, and with `data=drop` in the first request
        the documents of its registered collections; with `data=keep`, as without, they stay in the database.
        """
        who = _platform()
        _not_own(who, slug)
        code, data = request.args.get("confirm"), request.args.get("data", "keep")
        if data not in {"keep", "drop"}:
            raise BadRequest("`data` must be `keep` or `drop`.", data=data)
        if code is not None:
            return json_answer({"slug": slug, **_loss(await deletions.carry_out(slug, code, who.actor))})
        asked = await deletions.ask(slug, drop=data == "drop", actor=who.actor)
        members = {"slug": slug, "code": asked.code, "expires_at": rfc3339(asked.expires_at), **_loss(asked.loss)}
        return json_answer(members, 202)


async def _read(tenants: Tenants, slug: str) -> Tenant:
    tenant = await tenants.get(slug)
    if tenant is None:
        raise NotFound("There is no tenant with this slug.", slug=slug)
    return tenant


async def _set_status(tenants: Tenants, slug: str, status: Literal["active", "suspended"]) -> Response:
    who = _platform()
    if status == "suspended":
        _not_own(who, slug)
    await tenants.set_status(slug, status, who.actor)
    return json_answer(shown(await _read(tenants, slug)))


def _platform() -> Caller:
    who = caller()
    # Whoever is confined could free itself.
    who.require_unconfined(PLATFORM_SCOPE)
    return who


def _not_own(who: Caller, slug: str) -> None:
    """Whoever suspended the tenant of their own token could not take it back."""
    if who.tenant.slug == slug:
        raise Conflict("This is the tenant of your own token; you would lock yourself out.", slug=slug)


def parse_new(body: Mapping[str, Any]) -> tuple[Tenant, dict[str, JsonSchema]]:
    """The tenant that a body describes, and its collections' schemas. Pure; the store checks the names.

    Raises:
        BadRequest: it does not describe one.
    """
    members = _only(body, {"slug", "database", "collections", "limits"})
    slug, collections = members.get("slug"), members.get("collections", {})
    database = members.get("database")
    if not isinstance(slug, str):
        raise BadRequest("`slug` must be a string.", path="slug")
    if database is None:
        database = f"livedocs_{slug.replace('-', '_')}"
    if not isinstance(database, str):
        raise BadRequest("`database` must be a string.", path="database")
    if not isinstance(collections, Mapping):
        raise BadRequest("`collections` must be an object: by name, each collection's `key`.", path="collections")
    limits = members.get("limits", {})
    if not isinstance(limits, Mapping):
        raise BadRequest("`limits` must be an object.", path="limits")
    validate_limits(limits)
    parsed = {name: _collection(options) for name, options in collections.items()}
    schemas = {name: schema for name, (_, schema) in parsed.items() if schema is not None}
    return Tenant(slug, database, {name: key for name, (key, _) in parsed.items()}, limits=dict(limits)), schemas


def _collection(options: object) -> tuple[CollectionKey, JsonSchema | None]:
    members = _only(options, {"key", "json_schema"}, what="A collection")
    schema = members.get("json_schema")
    if schema is not None and not isinstance(schema, Mapping):
        raise BadRequest(
            "`json_schema` must be an object: a JSON Schema as MongoDB accepts it.", path="json_schema"
        )
    return _key(members.get("key")), schema


def _key(key: object) -> CollectionKey:
    if key not in get_args(CollectionKey):
        raise BadRequest("A collection's `key` must be `_id` or `uuid`.", path="key")
    return cast("CollectionKey", key)


def _only(body: object, known: set[str], *, what: str = "The body") -> Mapping[str, Any]:
    if not isinstance(body, Mapping):
        raise BadRequest(f"{what} must be a JSON object with {', '.join(sorted(known))}.")
    unknown = sorted(set(body) - known)
    if unknown:
        raise BadRequest(f"Unknown member; expected one of: {', '.join(sorted(known))}.", path=unknown[0])
    return body


def shown(tenant: Tenant) -> dict[str, Any]:
    """A tenant as answers show it."""
    members: dict[str, Any] = {
        "slug": tenant.slug,
        "status": tenant.status,
        "database": tenant.database,
        "collections": {name: {"key": key} for name, key in sorted(tenant.collections.items())},
        "limits": dict(tenant.limits),
        "services": {
            client_id: {"collections": sorted(names)} for client_id, names in sorted(tenant.services.items())
        },
    }
    if tenant.created_at is not None:
        members["created_at"] = rfc3339(tenant.created_at)
    return members


def _loss(loss: Loss) -> dict[str, Any]:
    return {"data": "drop" if loss.drop else "keep", "documents": loss.documents, "grants": loss.grants}
