"""`/dev/*`: what a test may do to the provider. Documented in `docs/development-provider.md`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NoReturn

from flask import Blueprint, Response, abort, jsonify, make_response, request

from livedocs.demo.oauth.endpoints import access_token
from livedocs.demo.oauth.faults import Fault, Faults, Kind
from livedocs.demo.oauth.records import Standing
from livedocs.demo.oauth.server import Server
from livedocs.demo.profiles import PROFILES
from livedocs.model import SLUG

_MOST_DELAY: Final = 120.0
_MOST_COUNT: Final = 10_000


def controls(server: Server, faults: Faults) -> Blueprint:
    """The development controls of a provider."""
    blueprint = Blueprint("dev", __name__, url_prefix="/dev")
    # A page of another origin can neither send this content type nor these methods without asking first, and it
    # is never told yes: so no web page can work the controls.
    blueprint.before_request(_refuse_forms)

    @blueprint.post("/revoke")
    def revoke() -> Response:
        return jsonify({"revoked": _revoke(server, _body({"token", "user", "client"}))})

    @blueprint.get("/users/<name>")
    def show(name: str) -> Response:
        return jsonify(_shown(_standing(server, name)))

    @blueprint.post("/users/<name>")
    def change(name: str) -> Response:
        changed = _changed(_standing(server, name), _body({"groups", "tenant", "disabled"}))
        server.state.set_standing(changed)
        return jsonify(_shown(changed))

    @blueprint.delete("/users/<name>")
    def reset_user(name: str) -> Response:
        _standing(server, name)
        server.state.reset_standing(name)
        return jsonify(_shown(_standing(server, name)))

    @blueprint.post("/profile")
    def set_profile() -> Response:
        asked = _body({"profile"}).get("profile")
        if not isinstance(asked, str) or asked not in PROFILES:
            _refuse(f"profile is one of {', '.join(PROFILES)}")
        server.profile = asked
        return jsonify({"profile": server.profile})

    @blueprint.get("/faults")
    def show_faults() -> Response:
        return jsonify(faults.report())

    @blueprint.post("/faults")
    def set_fault() -> Response:
        faults.set(_fault(_body({"introspection", "count", "delay"})))
        return jsonify(faults.report())

    @blueprint.delete("/faults")
    def reset_faults() -> Response:
        faults.set(None)
        return jsonify(faults.report())

    return blueprint


def _refuse_forms() -> None:
    if request.method == "POST" and request.mimetype != "application/json":
        _refuse("send application/json", 415)


def _refuse(problem: str, status: int = 400) -> NoReturn:
    abort(make_response(jsonify({"error": problem}), status))


def _body(fields: set[str]) -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not body or not body.keys() <= fields:
        _refuse(f"send a JSON object with some of {', '.join(sorted(fields))}")
    return dict(body)


def _standing(server: Server, name: str) -> Standing:
    standing = server.state.standing(name)
    if standing is None:
        abort(make_response(jsonify({"error": "there is no such user"}), 404))
    return standing


def _shown(standing: Standing) -> dict[str, Any]:
    person = standing.person
    return {
        "name": person.name,
        "tenant": person.tenant,
        "groups": list(person.groups),
        "scopes": list(person.scopes),
        "disabled": standing.disabled,
    }


def _changed(standing: Standing, body: dict[str, Any]) -> Standing:
    groups = body.get("groups", list(standing.person.groups))
    tenant = body.get("tenant", standing.person.tenant)
    disabled = body.get("disabled", standing.disabled)
    if not isinstance(groups, list) or not all(isinstance(group, str) and group for group in groups):
        _refuse("groups is a list of names")
    if not isinstance(tenant, str) or not SLUG.match(tenant):
        _refuse("tenant is the slug of a tenant")
    if not isinstance(disabled, bool):
        _refuse("disabled is true or false")
    return Standing(replace(standing.person, groups=tuple(groups), tenant=tenant), disabled)


def _revoke(server: Server, body: dict[str, Any]) -> int:
    if len(body) != 1 or not all(isinstance(value, str) for value in body.values()):
        _refuse("name one token, user or client")
    ways: dict[str, Callable[[str], int]] = {
        "token": lambda token: _revoke_token(server, token),
        "user": lambda name: server.state.revoke_all(person=_standing(server, name).person.name),
        "client": lambda client_id: server.state.revoke_all(client_id=client_id),
    }
    ((kind, value),) = body.items()
    return ways[kind](value)


def _revoke_token(server: Server, text: str) -> int:
    if token := access_token(server, text):
        server.state.revoke_access_token(token.jti)
        return int(not token.is_revoked() and not token.is_expired())
    if refresh := server.state.refresh_token(text):
        server.state.end_login(refresh.login.id)
        return int(refresh.is_usable())
    return 0


def _fault(body: dict[str, Any]) -> Fault:
    kind, count, delay = body.get("introspection"), body.get("count"), body.get("delay", 0)
    if not isinstance(kind, str) or kind not in {*Kind}:
        _refuse(f"introspection is one of {', '.join(Kind)}")
    if count is not None and (type(count) is not int or not 1 <= count <= _MOST_COUNT):
        _refuse(f"count is a number of calls from 1 to {_MOST_COUNT}")
    if type(delay) not in {int, float} or not 0 <= delay <= _MOST_DELAY:
        _refuse(f"delay is a number of seconds from 0 to {_MOST_DELAY:.0f}")
    if kind == Kind.SLOW and not delay:
        _refuse("slow needs a delay")
    return Fault(Kind(kind), count, float(delay))
