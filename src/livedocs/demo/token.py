"""`livedocs token`: an access token of the development provider, by the flow an application would use."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import secrets
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import httpx

from livedocs.demo import people

_TIMEOUT: Final = 10.0
_PAGE_FIELD: Final = re.compile(r'<input type="hidden" name="page" value="([^"]*)">')


_PORT_FILE: Final = "oauth-port"


def note_port(folder: Path, port: int) -> None:
    """Leave word in a demo's data folder of where its provider listens."""
    (folder / _PORT_FILE).write_text(f"{port}\n")


def port_of(folder: Path) -> int:
    """Where the provider of the demo with that data folder listens; 8001 if it has left no word."""
    try:
        return int((folder / _PORT_FILE).read_text())
    except (OSError, ValueError):
        return 8001


class TokenError(Exception):
    """No token, and why, for the person at the command line."""


def fetch_token(
    *, user: str, tenant: str, scope: str | None = None, ttl: int | None = None, oauth_port: int = 8001
) -> str:
    """An access token of a person, or of a service when `user` names a service client.

    Args:
        user: name of a person or id of a service client of the demo.
        tenant: the tenant that must be theirs.
        scope: scopes separated by spaces; None for every scope that they may have.
        ttl: lifetime in seconds; None for the provider's default.
        oauth_port: where the provider listens on this machine.

    Raises:
        TokenError: the name, tenant, scope or lifetime is wrong, or the provider does not answer.
    """
    if ttl is not None and ttl not in people.TTL_SECONDS:
        raise TokenError(f"--ttl is a number of seconds from 1 to {people.TTL_SECONDS[-1]}")
    client = people.service(user)
    if client is None and people.person(user) is None:
        names = [*(one.name for one in people.PEOPLE), *(one.client_id for one in people.SERVICE_CLIENTS)]
        raise TokenError(f"there is no user {user!r} in the demo; there are {', '.join(names)}")
    options = {} if ttl is None else {"ttl": str(ttl)}
    if scope:
        options["scope"] = scope
    try:
        # Without the environment's proxies: they would be handed a token meant for this machine.
        with httpx.Client(base_url=f"http://localhost:{oauth_port}", timeout=_TIMEOUT, trust_env=False) as http:
            answer = _as_service(http, client, options) if client else _as_person(http, user, options)
    except httpx.TransportError as error:
        raise TokenError(
            f"the development provider does not answer on port {oauth_port}; start it with `livedocs demo`"
        ) from error
    return _checked(answer, user, tenant, scope)


def _as_service(http: httpx.Client, client: people.DemoClient, options: dict[str, str]) -> dict[str, Any]:
    """Client credentials (RFC 6749, 4.4)."""
    return _token(
        http.post(
            "/token",
            data={"grant_type": "client_credentials", **options},
            auth=(client.client_id, client.secret or ""),
        )
    )


def _as_person(http: httpx.Client, user: str, options: dict[str, str]) -> dict[str, Any]:
    """Authorization code with PKCE (RFC 6749, 4.1; RFC 7636), choosing the person on the login page."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        "response_type": "code",
        "client_id": people.CLI_CLIENT.client_id,
        "redirect_uri": people.CLI_REDIRECT_URI,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        **options,
    }
    page = http.get("/authorize", params=query)
    if page.status_code == 302:
        _code(page, state)  # it never asks who we are when the request itself is refused
    field = _PAGE_FIELD.search(page.text)
    if page.status_code != 200 or field is None:
        raise TokenError("what answers there is not the development provider")
    choice = {"page": html.unescape(field[1]), "user": user}
    code = _code(http.post("/authorize", params=query, data=choice), state)
    return _token(
        http.post(
            "/token",
            data={
                "grant_type": "authorization_code",
                "client_id": people.CLI_CLIENT.client_id,
                "redirect_uri": people.CLI_REDIRECT_URI,
                "code": code,
                "code_verifier": verifier,
            },
        )
    )


def _code(response: httpx.Response, state: str) -> str:
    """The code in the redirect back to us."""
    if response.status_code == 403:
        raise TokenError("this user is disabled")
    answer = dict(parse_qsl(urlsplit(response.headers.get("location", "")).query))
    if "error" in answer:
        raise TokenError(_reason(answer))
    if "code" not in answer or answer.get("state") != state:
        raise TokenError(f"the login failed with status {response.status_code}")
    return str(answer["code"])


def _token(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise TokenError("what answers there is not the development provider")
    if response.status_code != 200 or not isinstance(answer.get("access_token"), str):
        raise TokenError(_reason(answer))
    return answer


def _reason(answer: dict[str, Any]) -> str:
    if answer.get("error") == "invalid_scope":
        return "this user may not have that scope"
    return f"the provider refuses: {answer.get('error_description') or answer.get('error')}"


def _checked(answer: dict[str, Any], user: str, tenant: str, scope: str | None) -> str:
    """The token, if it is what was asked for: a provider grants less than that without a word (RFC 6749, 3.3)."""
    token: str = answer["access_token"]
    missing = set((scope or "").split()) - set(answer.get("scope", "").split())
    if missing:
        raise TokenError(f"{user} may not have the scope {' '.join(sorted(missing))}")
    payload = token.split(".")[1]
    actual = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))).get("tenant")
    if actual != tenant:
        raise TokenError(f"{user} belongs to tenant {actual}, not {tenant}")
    return token
