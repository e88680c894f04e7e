"""The OAuth clients as Authlib's authorization server asks about them (its `ClientMixin` interface)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from livedocs.demo import people


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client with the URIs it may send people back to."""

    data: people.DemoClient
    secret: str | None = None
    redirect_uris: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Client({self.client_id!r})"  # without the secret

    @property
    def client_id(self) -> str:
        """The client's id."""
        return self.data.client_id

    @property
    def client_metadata(self) -> dict[str, Any]:
        """What Authlib's end-session endpoint looks up by registered name."""
        return {"post_logout_redirect_uris": self.post_logout_redirect_uris}

    def get_client_id(self) -> str:
        """The client's id."""
        return self.data.client_id

    def get_default_redirect_uri(self) -> str | None:
        """The redirect URI of a request that names none: only when there is one to choose from."""
        return self.redirect_uris[0] if len(self.redirect_uris) == 1 else None

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """The scope asked for, every scope of the client when none was, or None when it asks for more."""
        if not scope:
            return " ".join(self.data.scopes)
        asked = dict.fromkeys(scope.split())
        return " ".join(asked) if asked.keys() <= set(self.data.scopes) else None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether it is a registered one, compared as a string (RFC 9700, 2.1)."""
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        """Whether that is the secret."""
        return self.secret is not None and hmac.compare_digest(self.secret.encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        """Confidential clients authenticate everywhere, public ones nowhere."""
        if self.data.confidential:
            return method in {"client_secret_basic", "client_secret_post"}
        return method == "none"

    def check_response_type(self, response_type: str) -> bool:
        """Only the code flow exists here (RFC 9700 ends the implicit one)."""
        return response_type == "code" and self.check_grant_type("authorization_code")

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether the client is registered for the grant."""
        return grant_type in self.data.grant_types


def registry(server_url: str, login_secret: str) -> Mapping[str, Client]:
    """Every client, by id. `server_url` is where the livedocs server of this demo is, on loopback."""
    origins = _origins(server_url)
    login = Client(
        people.LOGIN_CLIENT,
        login_secret,
        redirect_uris=tuple(f"{origin}/auth/callback" for origin in origins),
        post_logout_redirect_uris=tuple(uri for origin in origins for uri in (f"{origin}/", origin)),
    )
    command_line = Client(people.CLI_CLIENT, redirect_uris=(people.CLI_REDIRECT_URI,))
    services = [Client(data, data.secret) for data in people.SERVICE_CLIENTS]
    return {client.client_id: client for client in (login, command_line, *services)}


def _origins(server_url: str) -> tuple[str, ...]:
    """The server's origin under both names of this machine, since people type either."""
    url = urlsplit(server_url)
    port = f":{url.port}" if url.port else ""
    hosts = dict.fromkeys((url.hostname or "localhost", "localhost", "127.0.0.1"))
    return tuple(f"{url.scheme}://{f'[{host}]' if ':' in host else host}{port}" for host in hosts)
