"""The description of both interfaces: `/openapi.json`, `/asyncapi.json`, and `/docs` without other hosts."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from quart import Blueprint, Response, render_template
from quart_schema import Info, OpenAPIProvider, QuartSchema, hide
from werkzeug.routing.rules import Rule

from livedocs import __version__
from livedocs.access.credentials import cookie_name
from livedocs.codec import extjson
from livedocs.config import Settings
from livedocs.errors import LivedocsError
from livedocs.http import asyncapi
from livedocs.http.contract import CONTRACTS, complete
from livedocs.http.public_contract import PUBLIC, complete_public
from livedocs.http.socket_contract import MESSAGES, OPERATIONS, Message
from livedocs.http.socket_schemas import FINAL, GOAWAY, HANDSHAKE, RESYNC, REVOKED

View = TypeVar("View", bound=Callable[..., Any])


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

_CODE = re.compile(r"`([^`]+)`")
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
        for operation in operations.values():
            self._complete(rule, operation, further)
        # The library's own pattern loses the parameter in front of one with a converter.
        return {_VARIABLE.sub(r"{\1}", rule.rule): operations}, components

    def _complete(self, rule: Rule, operation: dict[str, Any], further: str | None) -> None:
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
        if rule.endpoint in CONTRACTS:
            complete(operation, CONTRACTS[rule.endpoint])
        if rule.endpoint in PUBLIC:
            complete_public(operation, PUBLIC[rule.endpoint])


def describe(app: Any, settings: Settings) -> None:
    """Add the descriptions and their pages.

    The library's own stay off: its pages load scripts from other hosts, and its document is made anew for each
    request, in 45 ms in which no event is delivered.
    """
    QuartSchema(
        app,
        openapi_path=None,
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
            "cookie": {"type": "apiKey", "name": cookie_name(settings.secure), "in_": "cookie"},
        },
        security=[{"bearer": []}, {"cookie": []}],
        conversion_preference="pydantic",
        openapi_provider_class=_Provider,
    )
    routes = Blueprint("reference", __name__, template_folder="templates")
    style = (Path(__file__).parent / "templates" / "docs.css").read_text()
    sockets = asyncapi.document(settings)
    sockets_json = extjson.dumps(sockets)

    @cache
    def schema() -> dict[str, Any]:
        made: dict[str, Any] = app.extensions["QUART_SCHEMA"].openapi_provider.schema()
        return made

    @cache
    def openapi() -> bytes:
        return extjson.dumps(schema())

    # When every route is there, and before anybody is.
    app.before_serving(openapi)

    @routes.get("/openapi.json")
    @hide
    async def openapi_document() -> Response:
        """The HTTP interface for programs."""
        return Response(openapi(), content_type="application/json")

    @routes.get("/docs.css")
    @hide
    async def docs_style() -> Response:
        """What the page looks like."""
        return Response(style, content_type="text/css; charset=utf-8")

    @routes.get("/docs")
    @hide
    async def docs() -> Response:
        """The interface for people."""
        page = await render_template(
            "docs.html",
            version=__version__,
            operations=list(_operations(schema())),
            errors=list(_errors(LivedocsError)),
            marked=_marked,
        )
        return Response(page, content_type="text/html; charset=utf-8")

    @routes.get("/asyncapi.json")
    @hide
    async def asyncapi_document() -> Response:
        """The socket protocol for programs."""
        return Response(sockets_json, content_type="application/json")

    @routes.get("/docs/socket")
    @hide
    async def docs_socket() -> Response:
        """The socket protocol for people."""
        page = await render_template(
            "docs_socket.html",
            version=__version__,
            about=sockets["info"]["description"].split("\n\n"),
            marked=_marked,
            schemes=sockets["components"]["securitySchemes"],
            steps=list(_steps()),
            handshake=HANDSHAKE,
            reasons=[("$revoked", REVOKED, ()), ("$resync", RESYNC, ()), ("$goaway", GOAWAY, FINAL)],
        )
        return Response(page, content_type="text/html; charset=utf-8")

    app.register_blueprint(routes)


def _marked(text: str) -> str:
    """Text whose code is between backticks, as HTML."""
    return _CODE.sub(r"<code>\1</code>", html.escape(text))


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


@dataclass(frozen=True, slots=True)
class _Shown:
    """A message as the page shows it."""

    title: str
    summary: str
    examples: list[tuple[str, str]]
    codes: list[str]


@dataclass(frozen=True, slots=True)
class _Step:
    """What a client, or the server, does."""

    by_client: bool
    summary: str
    messages: list[_Shown]
    replies: list[_Shown]


def _steps() -> Iterator[_Step]:
    for operation in OPERATIONS.values():
        yield _Step(
            operation.action == "receive",
            operation.summary,
            [_shown(MESSAGES[name]) for name in operation.messages],
            [_shown(MESSAGES[name]) for name in operation.reply],
        )


def _shown(message: Message) -> _Shown:
    return _Shown(
        message.title,
        message.summary,
        [(shows, json.dumps(payload)) for shows, payload in message.examples.items()],
        sorted({kind.on_socket() for kind in message.errors}),
    )


def _errors(kind: type[LivedocsError]) -> Iterator[type[LivedocsError]]:
    """The tree of errors, each before its children."""
    for child in kind.__subclasses__():
        if child.__module__ == LivedocsError.__module__:
            yield child
            yield from _errors(child)
