"""The HTTP interface as a Quart application: what holds for every request, and the routes' places."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from quart import Quart, Request, Response, request
from quart.typing import ResponseTypes
from werkzeug.exceptions import HTTPException

from livedocs import exchange
from livedocs.access.authenticate import Authenticator
from livedocs.access.credentials import check_csrf
from livedocs.access.limits import Limits
from livedocs.access.oauth import LoginClient
from livedocs.config import Settings
from livedocs.errors import BadRequest, LivedocsError, Unauthenticated
from livedocs.http import (
    admin,
    admin_tenants,
    auth,
    bulk,
    documents,
    grants,
    health,
    imports,
    me,
    pages,
    reference,
    transfers,
)
from livedocs.http.caller import Caller, client_address, set_caller
from livedocs.http.cors import cors_headers
from livedocs.http.headers import security_headers
from livedocs.http.health import Probes
from livedocs.http.pacing import paced
from livedocs.http.problems import Problem, of_http_exception, problem
from livedocs.http.refusals import Note, Refusals
from livedocs.http.roster import NoRoster, Roster
from livedocs.store.batches import Batches
from livedocs.store.deletions import Deletions
from livedocs.store.documents import Documents
from livedocs.store.grants import Grants
from livedocs.store.processes import Processes
from livedocs.store.replays import Replays
from livedocs.store.tenants import TenantDirectory, Tenants
from livedocs.store.trail import Trail
from livedocs.telemetry import Metrics, get_logger

_log = get_logger(__name__)

# Routes for which nobody is asked who they are. All others are: a new route is closed until it is named here.
_PUBLIC = frozenset({"auth", "health", "pages", "reference"})
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
# JSON is longer than the BSON it stands for: every number, date and binary is text.
_JSON_PER_BSON = 3
_BODY_SECONDS = 20
_VARIABLE = re.compile(r"<(?:[^:<>]*:)?([^<>]+)>")


def _utc() -> datetime:
    return datetime.now(UTC)


class _Request(Request):
    """A request whose body may be larger where many items come at once."""

    def __init__(self, *args: Any, max_content_length: int | None = None, **options: Any) -> None:
        path = str(args[2] if len(args) > 2 else options["path"])
        if path.endswith(":import"):
            # Read as it comes, and never held as a whole: see pacing.py.
            max_content_length = None
        if max_content_length is not None and path.endswith(":bulk"):
            max_content_length = max(max_content_length, bulk.MAX_BYTES)
        super().__init__(*args, max_content_length=max_content_length, **options)


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with.

    Attributes:
        settings: `public_url`, origins, proxies, limits, the front end's folder.
        metrics: counts the requests.
        authenticator: says who sends a request.
        tenants: the tenants in memory.
        documents: the store's documents.
        grants: the store's grants.
        batches: the store's writes of many items.
        replays: the requests that are to happen once.
        processes: the live server processes and how far each has come.
        registry: the stored tenants, for those who administer them.
        deletions: ends tenants.
        trail: the audit trail.
        login: talks to the OAuth provider for browsers.
        note: takes audit entries of what is refused.
        limits: how much may come; those of the settings when absent.
        roster: the sockets of all processes.
        probes: what readiness asks.
        on_logout: called when somebody has logged out.
        now: the clock, aware UTC.
    """

    settings: Settings
    metrics: Metrics
    authenticator: Authenticator
    tenants: TenantDirectory
    documents: Documents
    grants: Grants
    batches: Batches
    replays: Replays
    processes: Processes
    registry: Tenants
    deletions: Deletions
    trail: Trail
    login: LoginClient
    limits: Limits | None = None
    note: Note = lambda _actor, _entry: None
    roster: Roster = field(default_factory=NoRoster)
    probes: Probes = field(default_factory=dict)
    on_logout: auth.OnLogout = lambda _token, _login, _tenant: ()
    now: Callable[[], datetime] = _utc


def build(services: Services) -> Quart:
    """The application; it starts and stops nothing."""
    settings = services.settings
    # No folder of static files: `pages` serves a list of them.
    app = Quart("livedocs.http", static_folder=None)
    app.request_class = _Request
    app.config["MAX_CONTENT_LENGTH"] = _JSON_PER_BSON * settings.max_document_bytes + 65536
    app.config["BODY_TIMEOUT"] = _BODY_SECONDS
    # A subject may hold two slashes in a row.
    app.url_map.merge_slashes = False
    refusals = Refusals(services.note)
    _gate(app, services)
    _errors(app, refusals)
    _headers(app, services)
    reference.describe(app, settings)
    app.register_blueprint(health.blueprint(services.probes))
    app.register_blueprint(
        auth.blueprint(settings, services.login, services.authenticator, services.on_logout, now=services.now)
    )
    app.register_blueprint(documents.blueprint(services.documents, settings.max_document_bytes))
    app.register_blueprint(
        bulk.blueprint(
            services.batches,
            services.documents,
            services.replays,
            settings.max_document_bytes,
            refusals.consider,
        )
    )
    app.register_blueprint(
        imports.blueprint(
            services.batches,
            services.documents,
            services.replays,
            settings.max_document_bytes,
            services.tenants,
        )
    )
    app.register_blueprint(
        grants.blueprint(services.grants, services.documents, services.processes, services.roster)
    )
    app.register_blueprint(transfers.blueprint(services.grants, services.documents, services.processes))
    app.register_blueprint(admin_tenants.blueprint(services.registry, services.deletions))
    app.register_blueprint(admin.blueprint(services.roster, services.trail))
    app.register_blueprint(me.blueprint(services.grants, services.documents))
    if settings.frontend_dir is not None:
        app.register_blueprint(pages.blueprint(settings.frontend_dir))
    app.asgi_app = paced(app.asgi_app, ":import")  # type: ignore[method-assign, assignment]  # Quart's own way
    return app


def _gate(app: Quart, services: Services) -> None:
    """Nobody gets to a view that is not public without saying who they are."""
    settings = services.settings
    limits = services.limits or Limits(settings, services.metrics, clock=time.monotonic)

    @app.before_request
    async def authenticate() -> ResponseTypes | None:
        made = exchange.current()
        made.route = _route()
        if "access_token" in request.args:
            # It would stay in the logs of every proxy on the way (RFC 9700, 4.3.2).
            raise BadRequest("An access token does not belong into the URL.")
        address = client_address(
            request.remote_addr or "", request.headers.getlist("X-Forwarded-For"), settings.trusted_proxies
        )
        if request.blueprint != "health":
            # Before anything is done for it, such as asking the OAuth service about its token.
            limits.address("requests", address)
        if _is_preflight() and _cors(settings):
            # A browser asks without the credential that the request itself will have.
            return Response(b"", 204)
        if request.url_rule is None or _is_public():
            return None
        held = list(request.scope["headers"])
        found = await services.authenticator.request(held)
        if found is None:
            raise Unauthenticated
        principal, tenant, credential = found
        check_csrf(request.method, held, credential, settings.origins)
        limits.caller("requests", principal, tenant)
        made.tenant = tenant.slug
        set_caller(Caller(principal, tenant, address))
        return None


def _is_preflight() -> bool:
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def _cors(settings: Settings) -> Mapping[str, str]:
    """What a page of another origin is told about the answer to the present request."""
    return cors_headers(request.headers.getlist("Origin"), settings.origins, preflight=_is_preflight())


def _is_public() -> bool:
    return request.blueprint in _PUBLIC


def _errors(app: Quart, refusals: Refusals) -> None:
    """Every refusal is a problem body; those of administrators are audited."""

    async def refused(error: LivedocsError) -> ResponseTypes:
        refusals.consider(error)
        return _response(problem(error))

    async def by_framework(error: HTTPException) -> ResponseTypes | HTTPException:
        answer = of_http_exception(error)
        return error if answer is None else _response(answer)

    async def broken(error: Exception) -> ResponseTypes:
        _log.error("request_failed", method=request.method, route=_route(), exc_info=error)
        # What went wrong is for the log: it may hold anything. The id leads there.
        return _response(problem(LivedocsError(), request_id=exchange.current().id))

    app.register_error_handler(LivedocsError, refused)
    app.register_error_handler(HTTPException, by_framework)
    app.register_error_handler(Exception, broken)


def _headers(app: Quart, services: Services) -> None:
    """Every answer has the security headers, and is counted."""
    always = security_headers(services.settings.public_url)

    @app.after_request
    async def finish(response: ResponseTypes) -> ResponseTypes:
        for name, value in always.items():
            response.headers.setdefault(name, value)
        response.headers.update(_cors(services.settings))
        # A cache must not give one origin's answer to another.
        response.vary.add("Origin")
        # Labels from a closed set: a method is whatever a client makes up.
        method = request.method if request.method in _METHODS else "OTHER"
        services.metrics.requests.labels(method, str(response.status_code)).inc()
        return response


def _response(answer: Problem) -> Response:
    return Response(answer.body, answer.status, answer.headers)


def _route() -> str:
    """The pattern of the path as the documentation writes it; empty when there is no such path."""
    return _VARIABLE.sub(r"{\1}", request.url_rule.rule) if request.url_rule is not None else ""
