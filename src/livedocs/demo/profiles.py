"""Tokens as known OAuth services shape them, for whoever wants to see how a server takes them. Pure.

What they say of whom is that of the friendly shape; the names and forms of the claims are the service's, from its
manual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

Claims = dict[str, Any]


def _keycloak(claims: Claims, client_id: str, *, service: bool) -> Claims:
    username = f"service-account-{client_id}" if service else claims["sub"]
    return {**claims, "sub": _uuid(claims), "azp": client_id, "username": username, "preferred_username": username}


def _auth0(claims: Claims, client_id: str, *, service: bool) -> Claims:
    if service:
        who = {"sub": f"{client_id}@clients", "gty": "client-credentials"}
    else:
        who = {"sub": f"auth0|{claims['sub']}"}
    return {**_without(claims, "client_id", "username"), "azp": client_id, **who}


def _entra(claims: Claims, client_id: str, *, service: bool) -> Claims:
    scopes = str(claims.get("scope") or "").split()
    rights = {"idtyp": "app", "roles": scopes} if service else {"idtyp": "user", "scp": " ".join(scopes)}
    named = {"sub": _uuid(claims), "oid": _uuid(claims), "appid": client_id}
    return {**_without(claims, "client_id", "username", "scope"), **named, **rights}


def _zitadel(claims: Claims, client_id: str, *, service: bool) -> Claims:
    number = str(10**17 + uuid5(NAMESPACE_URL, str(claims["sub"])).int % 10**17)
    return {**claims, "sub": number, "client_id": client_id, **({"username": client_id} if service else {})}


def _uuid(claims: Claims) -> str:
    return str(uuid5(NAMESPACE_URL, str(claims["sub"])))


def _without(claims: Claims, *names: str) -> Claims:
    return {name: value for name, value in claims.items() if name not in names}


PROFILES: Final[Mapping[str, Callable[..., Claims]]] = {
    "friendly": lambda claims, _client_id, service: claims,  # noqa: ARG005 - as it is
    "keycloak": _keycloak,
    "auth0": _auth0,
    "entra": _entra,
    "zitadel": _zitadel,
}


def shaped(profile: str, claims: Claims, client_id: str, *, service: bool) -> Claims:
    """The claims of a token, or of an introspection answer, as that OAuth service writes them.

    Args:
        profile: one of `PROFILES`.
        claims: in the friendly shape.
        client_id: the client that the token is issued to.
        service: whether it is the client's own, with nobody behind it.

    Raises:
        KeyError: there is no such profile.
    """
    return PROFILES[profile](claims, client_id, service=service)
