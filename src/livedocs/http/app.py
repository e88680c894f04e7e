"""The HTTP interface as a Quart application: what holds for every request, and the routes' places."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from quart import Quart, Response, request
from quart.typing import ResponseTypes
from werkzeug.exceptions import HTTPException

from livedocs import exchange
from livedocs.access.authenticate import Authenticator
from livedocs.access.budgets import BytesInFlight
from livedocs.access.credentials import check_csrf
from livedocs.access.limits import Limits
from livedocs.access.oauth import LoginClient
from livedocs.config import Settings
from livedocs.errors import BadRequest, LivedocsError, Unauthenticated
from livedocs.http import (
    admin,
    admin_tenants,
    auth,
    bodies,
    bulk,
    documents,
    grants,
    health,
    imports,
    me,
    reference,
    static,
    transfers,
)
from livedocs.http.admin_audit import AdminAudit, Note
from livedocs.http.backpressure import paced
from livedocs.http.caller import Caller, set_address, set_caller
from livedocs.http.cors import cors_headers
from livedocs.http.document_turns import DocumentTurns
from livedocs.http.freshness import CheckedQueries, Freshness, set_freshness
from livedocs.http.headers import security_headers
from livedocs.http.probes import Probes
from livedocs.http.problems import Problem, of_http_exception, problem
from livedocs.http.session_queries import NoSessions, SessionQueries
from livedocs.store.audit_log import AuditLog
from livedocs.store.batches import Batches
from livedocs.store.deletions import Deletions
from livedocs.store.documents import Documents
from livedocs.store.grants import Grants
from livedocs.store.idempotency import IdempotencyKeys
from livedocs.store.processes import Processes
from livedocs.store.tenants import Tenants
from livedocs.telemetry import Metrics, get_logger

_log = get_logger(__name__)

# Routes for which nobody is asked who they are. All others are: a new route is closed until it is named here.
_PUBLIC = frozenset({"auth", "health", "static", "reference"})
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_VARIABLE = re.compile(r"<(?:[^:<>]*:)?([^<>]+)>")


def _utc() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with.

    Attributes:
        settings: `public_url`, origins, proxies, limits, the front end's folder.
        metrics: counts the requests.
        authenticator: says who sends a request.
        documents: the store's documents.
        grants: the store's grants.
        batches: the store's writes of many items.
        idempotency: the requests that are to happen once.
        processes: the live server processes and how far each has come.
        registry: the stored tenants, for those who administer them.
        deletions: ends tenants.
        audit: the audit log.
        login: talks to the OAuth provider for browsers.
        bytes_in_flight: how much everybody may have in flight; that of the settings when absent.
        note: takes audit entries of what is refused.
        limits: how much may come; those of the settings when absent.
        sessions: the sockets of all processes.
        probes: what readiness says.
        on_logout: called when somebody has logged out.
        now: the clock, aware UTC.
    """

    settings: Settings
    metrics: Metrics
    authenticator: Authenticator
    documents: Documents
    grants: Grants
    batches: Batches
    idempotency: IdempotencyKeys
    processes: Processes
    registry: Tenants
    deletions: Deletions
    audit: AuditLog
    login: LoginClient
    limits: Limits | None = None
    bytes_in_flight: BytesInFlight | None = None
    note: Note = lambda _actor, _entry: None
    sessions: SessionQueries = field(default_factory=NoSessions)
    probes: Probes = field(default_factory=lambda: Probes({}, {}, clock=time.monotonic))
    on_logout: auth.OnLogout = lambda _token, _login, _tenant: ()
    now: Callable[[], datetime] = _utc


def build(services: Services) -> Quart:
    """The application; it starts and stops nothing."""
    settings = services.settings
    sessions = CheckedQueries(services.sessions)
    # No folder of static files: `static` serves a list of them.
    app = Quart("livedocs.http", static_folder=None)
    # How much of a body is read depends on what it is: see bodies.py.
    app.config["MAX_CONTENT_LENGTH"] = None
    app.config["BODY_TIMEOUT"] = bodies.SECONDS
    # A subject may hold two slashes in a row.
    app.url_map.merge_slashes = False
    refusals = AdminAudit(services.note)
    turns = DocumentTurns(services.metrics)
    _gate(app, services)
    _errors(app, refusals)
    _headers(app, services)
    reference.describe(app, settings)
    app.register_blueprint(health.blueprint(services.probes))
    app.register_blueprint(
        auth.blueprint(settings, services.login, services.authenticator, services.on_logout, now=services.now)
    )
    app.register_blueprint(
        documents.blueprint(services.documents, turns, settings.max_document_bytes, settings.max_shown_elements)
    )
    app.register_blueprint(
        bulk.blueprint(
            services.batches,
            services.documents,
            services.idempotency,
            settings,
            turns=turns,
            refused=refusals.consider,
        )
    )
    app.register_blueprint(
        imports.blueprint(
            services.batches,
            services.documents,
            services.idempotency,
            settings,
            services.metrics,
        )
    )
    app.register_blueprint(
        grants.blueprint(
            services.grants, services.documents, services.processes, sessions, settings.max_grants_per_uuid
        )
    )
    app.register_blueprint(
        transfers.blueprint(services.grants, services.documents, services.processes, settings.max_grants_per_uuid)
    )
    app.register_blueprint(admin_tenants.blueprint(services.registry, services.deletions))
    app.register_blueprint(admin.blueprint(sessions, services.audit))
    app.register_blueprint(me.blueprint(services.grants, services.documents))
    if settings.frontend_dir is not None:
        app.register_blueprint(static.blueprint(settings.frontend_dir))
    budgets = services.bytes_in_flight or BytesInFlight(settings, services.metrics)
    app.asgi_app = paced(app.asgi_app, budgets)  # type: ignore[method-assign, assignment]  # Quart's own way
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
            raise BadRequest("Access tokens are not accepted in the URL; send an Authorization header.")
        address = made.address or request.remote_addr or ""
        set_address(address)
        if _is_preflight() and _cors(settings):
            # A browser asks without the credential that the request itself will have.
            return Response(b"", 204)
        if request.url_rule is None or _is_public():
            return None
        held = list(request.scope["headers"])
        found = await services.authenticator.request(held, address=address)
        if found is None:
            raise Unauthenticated
        principal, tenant, credential = found
        check_csrf(request.method, held, credential, settings.origins)
        limits.caller("requests", principal, tenant)
        made.tenant = tenant.slug
        made.identified()
        who = Caller(principal, tenant, address)
        set_caller(who)
        set_freshness(Freshness(services.authenticator, credential.token, who, settings.introspection_interval))
        return None


def _is_preflight() -> bool:
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def _cors(settings: Settings) -> Mapping[str, str]:
    """What a page of another origin is told about the answer to the present request."""
    return cors_headers(request.headers.getlist("Origin"), settings.origins, preflight=_is_preflight())


def _is_public() -> bool:
    return request.blueprint in _PUBLIC


def _errors(app: Quart, refusals: AdminAudit) -> None:
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
