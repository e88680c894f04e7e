"""The description of the interface: shapes of bodies, `/openapi.json`, and `/docs` without other hosts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, RootModel
from pydantic.dataclasses import dataclass as model
from quart import Blueprint, Response, current_app, render_template
from quart_schema import Info, OpenAPIProvider, QuartSchema, hide
from werkzeug.routing.rules import Rule

from livedocs import __version__
from livedocs.errors import LivedocsError

View = TypeVar("View", bound=Callable[..., Any])

RoleName = Literal["reader", "writer", "owner"]


class Document(RootModel[dict[str, Any]]):
    """A document: any JSON object, its values in relaxed Extended JSON v2; answers have its `uuid` first."""


class MergePatch(RootModel[dict[str, Any]]):
    """A JSON Merge Patch (RFC 7396)."""


class NoBody(RootModel[None]):
    """Nothing."""


@model(config=ConfigDict(extra="forbid"))
class GrantBody:
    """What a subject is to have."""

    role: RoleName
    expires_at: datetime | None = Field(None, description="When it ends (RFC 3339); without it, it does not.")


@dataclass
class PendingProcess:
    """A live server process that has not applied a change yet."""

    process: str
    host: str
    pid: int


@dataclass
class GrantShown:
    """What a subject has."""

    subject: str
    role: RoleName
    granted_by: str
    granted_at: datetime | None = None
    expires_at: datetime | None = None
    applied: bool | None = None
    pending: list[PendingProcess] | None = None


@dataclass
class Applied:
    """How far a removed grant's end has got, when the request asked to wait for it."""

    uuid: str
    subject: str
    applied: bool
    pending: list[PendingProcess]


@dataclass
class GrantList:
    """Every grant on a UUID."""

    uuid: str
    grants: list[GrantShown]


@dataclass
class Me:
    """The caller."""

    tenant: str
    subject: str
    name: str
    groups: list[str]
    scopes: list[str]
    client_id: str
    expires_at: datetime


@dataclass
class Paging:
    """Which page."""

    cursor: str | None = None
    limit: int | None = None


@dataclass
class MyDocument:
    """A UUID, and what the caller may do with it."""

    uuid: str
    role: RoleName


@dataclass
class MyDocuments:
    """One page."""

    documents: list[MyDocument]
    next: str | None


@dataclass
class Health:
    """Alive."""

    status: Literal["ok"]


@dataclass
class Readiness:
    """Ready."""

    ready: Literal[True]
    checks: dict[str, bool]


def media_type(name: str) -> Callable[[View], View]:
    """Say that a view's body is of that type, beside application/json."""

    def mark(view: View) -> View:
        view.livedocs_media_type = name  # type: ignore[attr-defined]  # a mark, read in _Provider
        return view

    return mark


_PROBLEM = {
    "type": "object",
    "description": "A refusal (RFC 9457); further members say what it is about.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable; what a program goes by."},
    },
}
_CONDITIONS = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
    for name in ("If-Match", "If-None-Match")
]


_VARIABLE = re.compile(r"<(?:[^:<>]*:)?([^<>]+)>")


class _Provider(OpenAPIProvider):
    """The schema, completed by what holds for every route."""

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = super().schema()
        schema["components"]["schemas"]["Problem"] = _PROBLEM
        return schema

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        paths, components = super().build_paths(rule)
        further = getattr(self._app.view_functions[rule.endpoint], "livedocs_media_type", None)
        [operations] = paths.values()
        for method, operation in operations.items():
            self._complete(rule, method, operation, further)
        # The library's own pattern loses the parameter in front of one with a converter.
        return {_VARIABLE.sub(r"{\1}", rule.rule): operations}, components

    def _complete(self, rule: Rule, method: str, operation: dict[str, Any], further: str | None) -> None:
        body = operation.get("requestBody")
        if body is not None:
            body["required"] = True
            if further is not None:
                body["content"] = {further: body["content"]["application/json"], **body["content"]}
        responses = {str(status): response for status, response in operation["responses"].items()}
        if "204" in responses:
            responses["204"] = {"description": "Done."}
        for response in responses.values():
            response["description"] = response["description"] or "Done."
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses["default"] = {"description": "Refused; `code` says why.", "content": problem}
        operation["responses"] = responses
        if rule.endpoint.startswith("documents.") and method != "post":
            operation["parameters"] = [*operation["parameters"], *_CONDITIONS]
        if rule.endpoint.startswith("health."):
            operation["security"] = []


def describe(app: Any) -> None:
    """Add `/openapi.json` and `/docs`. The library's own pages stay off: they load scripts from other hosts."""
    QuartSchema(
        app,
        redoc_ui_path=None,
        scalar_ui_path=None,
        swagger_ui_path=None,
        info=Info(
            title="livedocs",
            version=__version__,
            summary="MongoDB documents, live in the browser, for those who may see them",
        ),
        security_schemes={
            "bearer": {"type": "http", "scheme": "bearer"},
            "cookie": {"type": "apiKey", "name": "livedocs_token", "in_": "cookie"},
        },
        security=[{"bearer": []}, {"cookie": []}],
        conversion_preference="pydantic",
        openapi_provider_class=_Provider,
    )
    routes = Blueprint("reference", __name__, template_folder="templates")
    style = (Path(__file__).parent / "templates" / "docs.css").read_text()

    @routes.get("/docs.css")
    @hide
    async def docs_style() -> Response:
        """What the page looks like."""
        return Response(style, content_type="text/css; charset=utf-8")

    @routes.get("/docs")
    @hide
    async def docs() -> Response:
        """The interface for people."""
        schema = current_app.extensions["QUART_SCHEMA"].openapi_provider.schema()
        page = await render_template(
            "docs.html",
            version=__version__,
            operations=list(_operations(schema)),
            errors=list(_errors(LivedocsError)),
        )
        return Response(page, content_type="text/html; charset=utf-8")

    app.register_blueprint(routes)


@dataclass(frozen=True, slots=True)
class _Operation:
    """A route as the page shows it."""

    method: str
    path: str
    summary: str
    description: str
    statuses: str


def _operations(schema: dict[str, Any]) -> Iterator[_Operation]:
    for path, operations in sorted(schema["paths"].items()):
        for method, operation in operations.items():
            statuses = [status for status in operation["responses"] if status != "default"]
            yield _Operation(
                method.upper(),
                path,
                operation.get("summary", ""),
                operation.get("description", "").strip(),
                ", ".join(statuses),
            )


def _errors(kind: type[LivedocsError]) -> Iterator[type[LivedocsError]]:
    """The tree of errors, each before its children."""
    for child in kind.__subclasses__():
        if child.__module__ == LivedocsError.__module__:
            yield child
            yield from _errors(child)
