"""Logging in and out in a browser. The tokens stay in HttpOnly cookies; no answer ever repeats one."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Any
from urllib.parse import urlencode, urlsplit

from quart import Blueprint, Response, after_this_request, jsonify, redirect, request
from quart.typing import ResponseTypes

from livedocs.access.authenticate import Authenticator
from livedocs.access.credentials import (
    Credential,
    Headers,
    check_csrf,
    from_headers,
    login_id,
    read_cookie,
    well_formed,
)
from livedocs.access.introspection import token_id
from livedocs.access.login_state import LIFETIME, login_state_name
from livedocs.access.oauth import Hint, LoginClient, LoginDeclined, Tokens, by_hint
from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import (
    AuthUnavailable,
    Forbidden,
    InvalidToken,
    LivedocsError,
    LoginFailed,
    MultipleCredentials,
    TokenTooLarge,
    Unauthenticated,
)
from livedocs.http.caller import address
from livedocs.http.cookies import Cookies, value_of

OnLogout = Callable[[str | None, str | None, str | None], Iterable[str]]
"""Called when somebody has logged out, with the id of the token and of the login, as far as they are known, and
with the tenant where the token was good. Closes the sockets of both; returns the ids of the tokens they held."""

# How long before its end a token should be renewed; half of what is left when that is less.
_LEAD = timedelta(seconds=60)
_PARAMETERS = ("code", "state", "iss", "error")
# Of one browser, at a time: each has a cookie, which goes along with every request.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the views work with."""

    settings: Settings
    login: LoginClient
    authenticator: Authenticator
    on_logout: OnLogout
    now: Callable[[], datetime]
    cookies: Cookies


def blueprint(
    settings: Settings,
    login: LoginClient,
    authenticator: Authenticator,
    on_logout: OnLogout,
    *,
    now: Callable[[], datetime],
) -> Blueprint:
    """The routes under `/auth`.

    Args:
        settings: `public_url` and the origins.
        login: talks to the provider.
        authenticator: says whom a token speaks for.
        on_logout: closes the sockets of somebody who has logged out.
        now: the clock, aware UTC.
    """
    parts = _Parts(settings, login, authenticator, on_logout, now, Cookies.named(secure=settings.secure))
    routes = Blueprint("auth", __name__, url_prefix="/auth")

    @routes.get("/login")
    async def begin() -> ResponseTypes:
        """Send the browser to the login service; `return_to` is the local path to show afterwards."""
        return await _for_people(_begin(parts))

    @routes.get("/callback")
    async def finish() -> ResponseTypes:
        """Take the browser back from the login service and keep its tokens in cookies."""
        return await _for_people(_finish(parts))

    @routes.post("/refresh")
    async def refresh() -> ResponseTypes:
        """Renew the session; both cookies are set anew."""
        return await _refresh(parts)

    @routes.post("/logout")
    async def logout() -> ResponseTypes:
        """End the session here and at the login service."""
        return await _logout(parts)

    @routes.get("/session")
    async def session() -> ResponseTypes:
        """Who is logged in, and when to renew the session."""
        return await _session(parts)

    @routes.after_request
    async def never_stored(response: ResponseTypes) -> ResponseTypes:
        response.headers["Cache-Control"] = "no-store"
        return response

    return routes


async def _begin(parts: _Parts) -> ResponseTypes:
    elsewhere = _public_login(parts.settings)
    if elsewhere is not None:
        return redirect(elsewhere, 303)
    begun = await parts.login.begin(request.args.get("return_to"))
    response = redirect(begun.url, 303)
    for given_up in parts.cookies.attempts(_headers())[: 1 - _ATTEMPTS]:
        response.headers.add("Set-Cookie", given_up.clearing())
    attempt = parts.cookies.attempt(begun.name)
    lifetime = int(LIFETIME.total_seconds())
    response.headers.add("Set-Cookie", attempt.setting(begun.sealed, max_age=lifetime))
    return response


def _public_login(settings: Settings) -> str | None:
    """This same page on the public origin, when the browser came by another name of ours.

    The provider sends it back to the public origin, where a cookie set under the other name would be missing.
    """
    origin = f"{request.scheme}://{request.host}"
    if origin == settings.public_origin or origin not in settings.allowed_origins:
        return None
    query = request.query_string.decode("ascii", "replace")
    return f"{settings.public_origin}{request.path}{'?' + query if query else ''}"


async def _finish(parts: _Parts) -> ResponseTypes:
    answer = {}
    for name in _PARAMETERS:
        given = request.args.getlist(name)
        if len(given) > 1:
            raise LoginFailed("A parameter came twice.", reason="parameters")  # RFC 6749, 3.1
        if given:
            answer[name] = given[0]
    attempt = parts.cookies.attempt(login_state_name(answer.get("state", "")))
    # Whatever comes of it, this attempt is over; those of other tabs are not.
    _send_cookies(attempt.clearing())
    try:
        tokens, return_to = await parts.login.finish(answer, _cookie(attempt.name), address=address())
    except LoginDeclined as declined:
        if _wants_page():
            return redirect(_explained(declined), 303)
        raise LoginFailed("The login service did not log you in.", reason=declined.reason) from None
    try:
        # Tried here, so that a token of no use is told once instead of as a login that never holds.
        principal, _ = await parts.authenticator.token(tokens.access_token, fresh=True)
        _send_cookies(*_session_cookies(parts, tokens, principal), _new_login(parts))
    except InvalidToken as error:
        raise LoginFailed(
            "The login service issued a token that this server cannot accept.",
            reason="token",
            claim=error.data.get("reason"),
        ) from error
    # Strict cookies do not go along on this very redirect, as the chain began on another site; they do with
    # whatever the page then asks for.
    return redirect(return_to, 303)


def _explained(declined: LoginDeclined) -> str:
    """The page that the login was to lead to, told in its query why nobody is logged in."""
    to = urlsplit(declined.return_to)
    query = "&".join(part for part in (to.query, urlencode({"login_error": declined.reason})) if part)
    return to._replace(query=query).geturl()


async def _refresh(parts: _Parts) -> ResponseTypes:
    headers = _headers()
    spent = _refresh_cookie(parts)
    if spent is None:
        raise Unauthenticated
    check_csrf(request.method, headers, Credential(spent, "cookie"), parts.settings.origins)
    if any(name.lower() == b"authorization" for name, _ in headers):
        raise MultipleCredentials
    try:
        tokens = await parts.login.refresh(spent, address=address())
        try:
            principal, _ = await parts.authenticator.token(tokens.access_token, fresh=True)
        except AuthUnavailable:
            await parts.login.check_session(spent, tokens.refresh_token)
            # The old refresh token is spent: without the new one the session would be lost.
            _send_cookies(*_session_cookies(parts, tokens, None))
            raise
        # Another tab may have logged out meanwhile: these cookies would log the browser in again.
        await parts.login.check_session(spent, tokens.refresh_token)
        _send_cookies(*_session_cookies(parts, tokens, principal))
    except (InvalidToken, Forbidden, TokenTooLarge):
        _send_cookies(*_no_session(parts))
        raise
    if not _cookie(parts.cookies.session.name):
        # A login from before there was this cookie.
        _send_cookies(_new_login(parts))
    return jsonify(_session_body(principal, parts.now(), can_refresh=tokens.refresh_token is not None))


async def _logout(parts: _Parts) -> ResponseTypes:
    # Needs no session: whoever asks to be logged out is, with whatever cookies are there.
    check_csrf(request.method, _headers(), Credential("", "cookie"), parts.settings.origins)
    attempts = [attempt.clearing() for attempt in parts.cookies.attempts(_headers())]
    _send_cookies(*_no_session(parts), *attempts)
    tokens: dict[Hint, str] = {}
    access = _cookie(parts.cookies.access.name)
    if access:
        tokens["access_token"] = access
    refresh = _refresh_cookie(parts)
    if refresh:
        tokens["refresh_token"] = refresh
    login = login_id(_headers(), secure=parts.settings.secure)
    successors: list[Tokens] = []
    made_up, tenant = await _known(parts, access)
    try:
        # First: from here on no other tab's refresh of this session succeeds.
        successors = await parts.login.end(refresh) if refresh else []
        await parts.login.revoke(tokens, address=address())
        for renewed in successors:
            await parts.login.revoke(by_hint(renewed), address=address())
    finally:
        # Also when the browser has gone meanwhile and this request is cancelled.
        spent = token_id(access) if access else None
        ended = {token_id(renewed.access_token) for renewed in successors}
        # Sockets may still hold tokens from before the last refresh: they are of the same login, and end with it.
        ended |= {*([spent] if spent and not made_up else ()), *parts.on_logout(spent, login, tenant)}
        for one in ended:
            parts.authenticator.forget(one)
    return jsonify({"post_logout_redirect": await parts.login.post_logout_redirect()})


async def _known(parts: _Parts, access: str | None) -> tuple[bool, str | None]:
    """Whether a token may be made up, and its tenant if it is good.

    Nobody makes all processes look for one that is not known to be good. Nor is one remembered as ended that is
    known to be bad: a flood of those would push out the tokens that are good but for somebody's logout.
    """
    if not access or not well_formed(access):
        return True, None
    try:
        principal, _ = await parts.authenticator.token(access, address=address())
    except InvalidToken:
        return True, None
    except LivedocsError:
        return False, None
    return False, principal.tenant


async def _session(parts: _Parts) -> ResponseTypes:
    can_refresh = bool(_cookie(parts.cookies.refresh.name))
    try:
        credential = from_headers(_headers(), secure=parts.settings.secure)
        known = (
            await parts.authenticator.token(credential.token, address=address())
            if credential is not None
            else None
        )
    except InvalidToken:
        known = None
    if known is None:
        return jsonify({"authenticated": False, "can_refresh": can_refresh})
    return jsonify(_session_body(known[0], parts.now(), can_refresh=can_refresh))


def _session_body(principal: Principal, now: datetime, *, can_refresh: bool) -> dict[str, Any]:
    refresh_at = principal.expires_at - min(_LEAD, (principal.expires_at - now) / 2)
    return {
        "authenticated": True,
        "tenant": principal.tenant,
        "subject": principal.subject,
        "name": principal.name,
        "groups": sorted(principal.groups),
        "scopes": sorted(principal.scopes),
        "expires_at": _rfc3339(principal.expires_at),
        "refresh_at": _rfc3339(refresh_at),
        "can_refresh": can_refresh,
    }


def _session_cookies(parts: _Parts, tokens: Tokens, principal: Principal | None) -> list[str]:
    """Set-Cookie headers of a session; without a principal the access token's end is not known."""
    left = max(1, int((principal.expires_at - parts.now()).total_seconds())) if principal is not None else None
    cookies = [parts.cookies.access.setting(tokens.access_token, max_age=left)]
    if tokens.refresh_token is None:
        # One of an earlier login must not renew this one.
        cookies.append(parts.cookies.refresh.clearing())
    else:
        cookies.append(parts.cookies.refresh.setting(tokens.refresh_token, max_age=None))
    return cookies


def _new_login(parts: _Parts) -> str:
    """A name for a login, for as long as its tokens are renewed. Fresh each time, so that nobody plants one."""
    return parts.cookies.session.setting(secrets.token_urlsafe(16), max_age=None)


def _no_session(parts: _Parts) -> list[str]:
    cookies = parts.cookies
    return [cookie.clearing() for cookie in (cookies.access, cookies.refresh, cookies.session)]


def _headers() -> list[tuple[bytes, bytes]]:
    headers: Headers = request.scope["headers"]
    return list(headers)


def _cookie(name: str) -> str | None:
    return read_cookie(_headers(), name)


def _refresh_cookie(parts: _Parts) -> str | None:
    text = _cookie(parts.cookies.refresh.name)
    return value_of(text) if text else None


def _send_cookies(*headers: str) -> None:
    """Set cookies on this request's answer, also when that becomes an error."""

    @after_this_request
    async def add(response: ResponseTypes) -> ResponseTypes:
        for header in headers:
            response.headers.add("Set-Cookie", header)
        return response


async def _for_people(view: Awaitable[ResponseTypes]) -> ResponseTypes:
    """The view's answer; its refusal as a page, when the one who asks is a browser that shows it."""
    try:
        return await view
    except LivedocsError as error:
        if not _wants_page():
            raise
        return _page(error)


def _wants_page() -> bool:
    """Whether whoever asks is a browser that shows it."""
    return request.accept_mimetypes["text/html"] > request.accept_mimetypes["application/problem+json"]


def _page(error: LivedocsError) -> Response:
    response = Response(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(error.title)} - livedocs</title>
</head>
<body>
<main>
<h1>{escape(error.title)}</h1>
<p>{escape(error.detail)}</p>
<p><a href="/auth/login">Log in again</a> or <a href="/">go to the start page</a>.</p>
</main>
</body>
</html>
""",
        error.status,
        content_type="text/html; charset=utf-8",
    )
    response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    # The address of this page holds the code and the state.
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
