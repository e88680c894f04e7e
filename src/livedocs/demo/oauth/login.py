"""The login page: who are you? Without a session every login asks, so that two windows can be two people."""

from __future__ import annotations

import secrets
from typing import Any, Final

from authlib.oauth2.rfc6749 import OAuth2Error
from authlib.oauth2.rfc9207 import IssuerParameter
from flask import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from livedocs.demo import people
from livedocs.demo.oauth.pages import message, page
from livedocs.demo.oauth.server import Server
from livedocs.demo.people import Person

_PAGE_SECONDS: Final = 3600


class Issuer(IssuerParameter):  # type: ignore[misc]  # Authlib ships no types
    """`iss` in the authorization response (RFC 9207), against mix-up between providers."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    def get_issuer(self) -> str:
        """The issuer."""
        return self._issuer


class LoginPage:
    """The authorization endpoint (RFC 6749, 3.1)."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._issuer = Issuer(server.issuer)
        # A form counts only if it came from a page made here for the same request. Another site can make a browser
        # send a form, but it cannot read this page, so nobody is logged in without having seen it.
        self._pages = URLSafeTimedSerializer(server.state.secret("pages", secrets.token_hex), salt="login page")

    def answer(self, request: Request) -> Response:
        """The page that asks, or the way back to the application."""
        try:
            grant = self._server.get_consent_grant()
        except OAuth2Error as error:
            return self._refused(error)
        except ValueError:  # Authlib will not quote the request's characters, and says so this way
            return message("This login cannot go on", "The request is malformed.", 400)
        if request.method == "POST":
            return self._chosen(request, grant)
        return self._ask(grant, request.args.get("login_hint", ""), request.query_string.decode())

    def _refused(self, error: OAuth2Error) -> Response:
        """Back to the application where it is known for sure (RFC 6749, 4.1.2.1), else a page."""
        if not error.redirect_uri:
            return message("This login cannot go on", error.get_error_description() or error.error, 400)
        response: Response = self._server.handle_error_response(None, error)
        self._issuer.add_issuer_parameter(self._server, response)
        return response

    def _ask(self, grant: Any, hint: str, query: str) -> Response:
        everyone = [standing for person in people.PEOPLE if (standing := self._server.state.standing(person.name))]
        titles = {tenant.slug: tenant.title for tenant in people.TENANTS}
        slugs = dict.fromkeys([*titles, *(standing.person.tenant for standing in everyone)])
        return page(
            "login.html",
            200,
            client=grant.request.client.data.title,
            scopes=[people.SCOPES[name] for name in grant.request.scope.split()],
            tenants=[
                (slug, titles.get(slug, slug), [one for one in everyone if one.person.tenant == slug])
                for slug in slugs
            ],
            hint=hint,
            page=self._pages.dumps(query),
        )

    def _chosen(self, request: Request, grant: Any) -> Response:
        try:
            made_for = self._pages.loads(request.form.get("page", ""), max_age=_PAGE_SECONDS)
        except BadSignature:
            made_for = None
        if made_for != request.query_string.decode():
            return message("This page is too old", "Go back to the application and log in again.", 400)
        if "cancel" in request.form:
            return self._back(grant, None)
        standing = self._server.state.standing(request.form.get("user", ""))
        if standing is None:
            return message("There is no such user", "Go back and choose another.", 400)
        if standing.disabled:
            return message(f"{standing.person.title} is disabled", "Go back and choose somebody else.", 403)
        return self._back(grant, standing.person)

    def _back(self, grant: Any, person: Person | None) -> Response:
        response: Response = self._server.create_authorization_response(grant_user=person, grant=grant)
        return response
