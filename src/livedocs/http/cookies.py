"""The cookies this server sets: the tokens of a session, and the logins under way. Pure.

All are HttpOnly and bound to this very host (RFC 6265bis, 4.1.3.2). The access token's name is decided in
`access/credentials.py`, which reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote

from livedocs.access.credentials import Headers, cookie_name, cookie_names, login_cookie_name
from livedocs.errors import TokenTooLarge

_MOST_OCTETS = 4096
# RFC 6265, 4.1.1: cookie-octet, without the percent sign, which marks what is quoted.
_PLAIN = "!#$&'()*+-./:<=>?@[]^_`{|}~"


@dataclass(frozen=True, slots=True)
class Cookie:
    """One of our cookies, without its value."""

    name: str
    same_site: Literal["Strict", "Lax"]
    secure: bool

    def setting(self, value: str, *, max_age: int | None) -> str:
        """The Set-Cookie header that sets it; without `max_age` (seconds) it goes with the browser's session.

        Raises:
            TokenTooLarge: name and value exceed the 4,096 octets past which a browser drops a cookie in silence.
        """
        quoted = quote(value, safe=_PLAIN)
        if len(self.name) + len(quoted) > _MOST_OCTETS:
            raise TokenTooLarge(f"The {self.name} cookie would be larger than browsers store.", limit=_MOST_OCTETS)
        age = "" if max_age is None else f"; Max-Age={max_age}"
        return f"{self.name}={quoted}; Path=/{age}; HttpOnly; SameSite={self.same_site}{self._security}"

    def clearing(self) -> str:
        """The Set-Cookie header that deletes it."""
        return f"{self.name}=; Path=/; Max-Age=0; HttpOnly; SameSite={self.same_site}{self._security}"

    @property
    def _security(self) -> str:
        return "; Secure" if self.secure else ""


@dataclass(frozen=True, slots=True)
class Cookies:
    """Their names and attributes.

    Attributes:
        access: the access token.
        refresh: the refresh token.
        session: a random name for the login, the same for all tokens that it gets one after the other.
        secure: whether the browser reaches this server over https.
    """

    access: Cookie
    refresh: Cookie
    session: Cookie
    secure: bool

    @classmethod
    def named(cls, *, secure: bool) -> Cookies:
        """Their names with the `__Host-` prefix and the Secure attribute on https, without on plain http."""
        prefix = "__Host-" if secure else ""
        return cls(
            access=Cookie(cookie_name(secure), "Strict", secure),
            refresh=Cookie(prefix + "livedocs_refresh", "Strict", secure),
            session=Cookie(login_cookie_name(secure), "Strict", secure),
            secure=secure,
        )

    def attempt(self, name: str) -> Cookie:
        """That of one sealed attempt to log in. Lax, because the browser brings it from the provider's site."""
        return Cookie(_attempt_prefix(self.secure) + name, "Lax", self.secure)

    def attempts(self, headers: Headers) -> list[Cookie]:
        """Those of the attempts that a request brings, the oldest first (RFC 6265, 5.4)."""
        prefix = _attempt_prefix(self.secure)
        return [Cookie(name, "Lax", self.secure) for name in cookie_names(headers) if name.startswith(prefix)]


def _attempt_prefix(secure: bool) -> str:  # noqa: FBT001 - the one thing it depends on
    return ("__Host-" if secure else "") + "livedocs_login_"


def value_of(text: str) -> str:
    """A cookie's value as it was before `Cookie.setting` quoted it."""
    return unquote(text)
