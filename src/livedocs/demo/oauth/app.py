"""The provider as a WSGI application: one page for people, endpoints for programs."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from authlib.integrations.flask_oauth2 import current_token
from flask import Flask, Response, jsonify, make_response, request

from livedocs.config import is_loopback
from livedocs.demo.oauth import endpoints, grants
from livedocs.demo.oauth.controls import controls
from livedocs.demo.oauth.faults import Faults, Kind
from livedocs.demo.oauth.login import Issuer, LoginPage
from livedocs.demo.oauth.metadata import metadata
from livedocs.demo.oauth.pages import message, secure
from livedocs.demo.oauth.server import Server

_LARGEST_BODY: Final = 64 * 1024
# Endpoints whose parameters belong into the body: addresses end up in logs and histories.
_BODY_ONLY: Final = frozenset({"/token", "/introspect", "/revoke"})


def create_app(server: Server) -> Flask:
    """The application of one provider."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = _LARGEST_BODY
    server.register_extension(Issuer(server.issuer))
    grants.register(server)
    endpoints.register(server)
    faults = Faults()

    app.before_request(_refuse_foreign_hosts)
    app.before_request(_refuse_parameters_in_address)
    app.after_request(secure)
    _add_pages(app, server)
    _add_token_endpoints(app, server, faults)
    _add_reading_endpoints(app, server)
    app.register_blueprint(controls(server, faults))
    return app


def _add_pages(app: Flask, server: Server) -> None:
    login = LoginPage(server)

    @app.route("/authorize", methods=["GET", "POST"])
    def authorize() -> Response:
        return login.answer(request)

    @app.route("/logout", methods=["GET", "POST"])
    def logout() -> Response:
        try:
            response: Response | None = server.create_endpoint_response("end_session")
        except ValueError:  # Authlib will not quote the request's characters, and says so this way
            return message("This logout cannot go on", "The request is malformed.", 400)
        return response or message("You are logged out", "You can close this window.", 200)

    @app.get("/")
    def home() -> Response:
        return message("livedocs development provider", "It runs. Log in from the application.", 200)


def _add_token_endpoints(app: Flask, server: Server, faults: Faults) -> None:
    @app.post("/token")
    def token() -> Response:
        response: Response = server.create_token_response()
        return response

    @app.post("/introspect")
    def introspect() -> Response:
        kind = faults.take()
        answer: Response = server.create_endpoint_response("introspection")
        return answer if kind in {None, Kind.SLOW} else _wrong(kind)

    @app.post("/revoke")
    def revoke() -> Response:
        response: Response = server.create_endpoint_response("revocation")
        return response


def _add_reading_endpoints(app: Flask, server: Server) -> None:
    bearer = endpoints.bearer_check(server)

    @app.route("/userinfo", methods=["GET", "POST"])
    @bearer("openid")  # type: ignore[untyped-decorator]  # Authlib ships no types
    def userinfo() -> Response:
        token = current_token
        standing = server.state.standing(token.person)
        if standing is None or standing.disabled:
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            return make_response(jsonify({"error": "invalid_token"}), 401, challenge)
        return jsonify(grants.user_info(standing.person, token.scope))

    @app.get("/jwks")
    def jwks() -> Response:
        return jsonify(server.key.jwks())

    @app.get("/.well-known/openid-configuration")
    @app.get("/.well-known/oauth-authorization-server")
    def discovery() -> Response:
        return jsonify(metadata(server.issuer))


def _wrong(kind: Kind | None) -> Response:
    """An introspection answer as a broken provider gives it."""
    match kind:
        case Kind.SHAPE:
            return jsonify({"active": "true", "sub": 7, "exp": "tomorrow"})
        case Kind.LIST:
            return jsonify([{"active": True}])
        case Kind.TEXT:
            return Response("<!doctype html><title>Maintenance</title>", mimetype="text/html")
        case _:
            return Response('{"error": "server_error"}', status=500, mimetype="application/json")


def _refuse_foreign_hosts() -> Response | None:
    """Refuse a name that only points to this machine: DNS rebinding would make any page same-origin with us."""
    if is_loopback(urlsplit(f"//{request.host}").hostname or ""):
        return None
    return Response("Only localhost is served here.\n", status=421, mimetype="text/plain")


def _refuse_parameters_in_address() -> Response | None:
    if request.path in _BODY_ONLY and request.query_string:
        refusal = {"error": "invalid_request", "error_description": "Parameters belong into the body"}
        return make_response(jsonify(refusal), 400)
    return None
