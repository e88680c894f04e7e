"""The login of a browser against the development provider, over real HTTP on its side."""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from quart import Quart, Response

from livedocs import config
from livedocs.access.authenticate import Authenticator
from livedocs.access.introspection import Introspector, token_id
from livedocs.access.issuer import Issuer
from livedocs.access.login_state import login_state_name
from livedocs.access.oauth import LoginClient
from livedocs.demo import people
from livedocs.errors import InvalidToken, LivedocsError
from livedocs.http import auth
from livedocs.http.problems import problem
from livedocs.model import Tenant
from livedocs.telemetry import Metrics

OURS = {"X-Requested-With": "livedocs"}
# The provider rounds the end of a token up to whole seconds.
LIFETIME = timedelta(seconds=people.ACCESS_TOKEN_SECONDS + 1)
HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


class Registered(dict):
    """Tenants by their slug."""

    named = dict.get


class Clock:
    """The provider's own time, ahead of it when a test says so."""

    ahead = timedelta()

    def __call__(self):
        return datetime.now(UTC) + self.ahead


class Site:
    """The routes under test in an application with nothing else, and what they worked with."""

    def __init__(self, oauth, **changes):
        values = {
            "public_url": f"http://localhost:{oauth.server_port}",
            "allowed_origins": (f"http://127.0.0.1:{oauth.server_port}",),
            "mongodb_uri": "mongodb://localhost",
            "oauth_issuer": oauth.issuer,
            "oauth_client_id": people.LOGIN_CLIENT.client_id,
            "oauth_client_secret": oauth.secret,
            "oauth_audience": people.AUDIENCE,
        }
        self.settings = config.load({}, **{**values, **changes})
        self.origin = self.settings.public_origin
        self.clock = Clock()
        self.tenants = Registered({"acme": Tenant("acme", "livedocs_acme", {})})
        self.issuer = Issuer(self.settings, now=self.clock)
        self.introspector = Introspector(self.settings, self.issuer, Metrics(), now=self.clock)
        self.login = LoginClient(self.settings, self.issuer, now=self.clock)
        self.logged_out = []
        self.ended_with_the_login = []
        self.app = Quart(__name__)
        self.app.register_blueprint(
            auth.blueprint(
                self.settings,
                self.login,
                Authenticator(self.introspector, self.tenants, secure=self.settings.secure),
                self._on_logout,
                now=self.clock,
            )
        )

        @self.app.errorhandler(LivedocsError)
        async def refused(error):
            answer = problem(error)
            return Response(answer.body, answer.status, answer.headers)

    def _on_logout(self, token, login, tenant):
        self.logged_out.append((token, login, tenant))
        return self.ended_with_the_login

    async def aclose(self):
        for part in (self.login, self.introspector, self.issuer):
            await part.aclose()


class Browser:
    """Keeps cookies, and says where its requests come from, as a browser does."""

    def __init__(self, site):
        self.site = site
        self.cookies = {}
        self.set_cookies = {}
        self.secrets = set()

    async def get(self, path, headers=(), **more):
        return await self._send("GET", path, headers, **more)

    async def post(self, path, headers=None):
        if headers is None:
            headers = {"Origin": self.site.origin, **OURS}
        return await self._send("POST", path, headers)

    async def _send(self, method, path, headers, base=None):
        sent = {"Host": urlsplit(base or self.site.origin).netloc, **dict(headers)}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        client = self.site.app.test_client(use_cookies=False)
        response = await client.open(path, method=method, headers=sent)
        self.set_cookies = {}
        for header in response.headers.getlist("Set-Cookie"):
            pair, *attributes = header.split("; ")
            name, _, value = pair.partition("=")
            self.set_cookies[name] = (value, set(attributes))
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
                self.secrets.add(value)
        assert response.headers["Cache-Control"] == "no-store"
        body = await response.get_data(as_text=True)
        assert not any(secret in body for secret in self.secrets), "an answer repeats a secret"
        return response

    async def choose(self, url, user="alice"):
        """Pick a user at the provider; returns the path and query that it sends the browser back to."""
        async with httpx.AsyncClient(trust_env=False) as there:
            shown = await there.get(url)
            assert shown.status_code == 200, shown.text
            page = unescape(re.search(r'name="page" value="([^"]*)"', shown.text)[1])
            chosen = {"user": user} if user else {"cancel": "1"}
            back = await there.post(url, data={"page": page, **chosen})
        location = back.headers["Location"]
        assert location.startswith(f"{self.site.origin}/auth/callback?"), location
        return location.removeprefix(self.site.origin)

    async def way_back(self, user="alice", return_to="/notes", ttl=None):
        started = await self.get(f"/auth/login?return_to={return_to}")
        assert started.status_code == 303
        url = started.headers["Location"] + (f"&ttl={ttl}" if ttl else "")
        return await self.choose(url, user)

    async def log_in(self, user="alice", **more):
        response = await self.get(await self.way_back(user, **more))
        assert response.status_code == 303, await response.get_data(as_text=True)
        return response

    async def session(self):
        response = await self.get("/auth/session")
        assert response.status_code == 200
        return await response.get_json()


@pytest.fixture
async def start_site(oauth):
    sites = []

    def start(**changes):
        sites.append(Site(oauth, **changes))
        return sites[-1]

    yield start
    for site in sites:
        await site.aclose()


@pytest.fixture
def site(start_site):
    return start_site()


@pytest.fixture
def browser(site):
    return Browser(site)


async def code_of(response):
    assert response.headers["Content-Type"] == "application/problem+json"
    return (await response.get_json(force=True))["code"]


# In


async def test_a_login_leaves_the_tokens_in_strict_http_only_cookies_and_returns_to_the_page(browser):
    response = await browser.log_in()
    assert response.headers["Location"] == "/notes"
    strict = {"Path=/", "HttpOnly", "SameSite=Strict"}
    _, access = browser.set_cookies["livedocs_token"]
    _, refresh = browser.set_cookies["livedocs_refresh"]
    lifetimes = {attribute for attribute in access if attribute.startswith("Max-Age=")}
    assert access - lifetimes == strict
    assert 0 < int(lifetimes.pop().partition("=")[2]) <= LIFETIME.total_seconds()
    assert refresh == strict
    _, session = browser.set_cookies["livedocs_session"]
    assert session == refresh
    assert set(browser.cookies) == {"livedocs_token", "livedocs_refresh", "livedocs_session"}


async def test_the_session_says_who_it_is_and_when_to_refresh(browser):
    await browser.log_in()
    session = await browser.session()
    expires_at = datetime.fromisoformat(session.pop("expires_at"))
    refresh_at = datetime.fromisoformat(session.pop("refresh_at"))
    assert expires_at - refresh_at == timedelta(seconds=60)
    assert timedelta() < expires_at - datetime.now(UTC) <= LIFETIME
    assert session == {
        "authenticated": True,
        "tenant": "acme",
        "subject": "user:alice",
        "name": session["name"],
        "groups": ["staff"],
        "scopes": ["offline_access", "openid"],
        "can_refresh": True,
    }
    assert session["name"].lower() == "alice"


async def test_a_short_token_is_to_be_refreshed_halfway(browser):
    await browser.log_in(ttl=10)
    session = await browser.session()
    left = datetime.fromisoformat(session["expires_at"]) - datetime.fromisoformat(session["refresh_at"])
    assert timedelta() < left <= timedelta(seconds=11) / 2


async def test_without_a_session_the_answer_says_so(browser):
    assert await browser.session() == {"authenticated": False, "can_refresh": False}


async def test_a_cookie_that_is_no_token_of_ours_is_no_session(browser):
    browser.cookies = {"livedocs_token": "made-up", "livedocs_refresh": "x"}
    assert await browser.session() == {"authenticated": False, "can_refresh": True}


async def test_the_login_cookie_is_lax_short_and_gone_after_the_callback(browser):
    back = await browser.way_back()
    ((name, (value, attributes)),) = browser.set_cookies.items()
    assert name.startswith("livedocs_login_")
    assert value
    assert attributes == {"Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=600"}
    await browser.get(back)
    assert "Max-Age=0" in browser.set_cookies[name][1]


async def test_on_https_every_cookie_is_secure_and_locked_to_the_host(start_site, oauth):
    browser = Browser(start_site(public_url=f"https://localhost:{oauth.server_port}"))
    await browser.get("/auth/login")
    ((name, (_, attributes)),) = browser.set_cookies.items()
    assert name.startswith("__Host-livedocs_login_")
    assert "Secure" in attributes


async def test_a_browser_that_came_by_another_name_of_ours_logs_in_under_the_public_one(browser, oauth):
    response = await browser.get("/auth/login?return_to=/x", base=f"http://127.0.0.1:{oauth.server_port}")
    assert response.headers["Location"] == f"{browser.site.origin}/auth/login?return_to=/x"
    assert not browser.set_cookies


async def test_a_made_up_host_sends_nobody_anywhere(browser, oauth):
    response = await browser.get("/auth/login", base="http://evil.example")
    assert response.headers["Location"].startswith(f"{oauth.issuer}/authorize?")
    query = parse_qs(urlsplit(response.headers["Location"]).query)
    assert query["redirect_uri"] == [f"{browser.site.origin}/auth/callback"]


async def test_a_login_ends_on_our_own_pages_only(browser):
    response = await browser.log_in(return_to="//evil.example")
    assert response.headers["Location"] == "/"


# Refused on the way back


async def test_a_login_state_is_good_once_even_for_a_browser_that_kept_its_cookie(browser):
    back = await browser.way_back()
    kept = dict(browser.cookies)
    await browser.get(back)
    browser.cookies = dict(kept)
    response = await browser.get(back)
    assert response.status_code == 400
    assert await code_of(response) == "login_failed"
    # Known here: the provider was not even asked about the code again.
    assert (await response.get_json(force=True))["reason"] == "replayed"
    assert set(browser.set_cookies) == set(kept)


async def test_another_browser_cannot_finish_the_login(browser, site):
    back = await browser.way_back()
    stranger = Browser(site)
    await stranger.get("/auth/login")
    own = dict(stranger.cookies)
    (name,) = browser.cookies
    disguised = Browser(site)
    disguised.cookies = dict.fromkeys([name], *own.values())
    for one, reason in ((Browser(site), "attempt"), (stranger, "attempt"), (disguised, "state")):
        response = await one.get(back)
        assert (response.status_code, await code_of(response)) == (400, "login_failed")
        assert (await response.get_json(force=True))["reason"] == reason
    # Its own login goes on.
    assert stranger.cookies == own


@pytest.mark.parametrize(
    "change",
    [
        lambda back: back.replace("state=", "state=x"),
        lambda back: re.sub(r"iss=[^&]*", "iss=https%3A%2F%2Fevil.example", back),
        lambda back: re.sub(r"&?iss=[^&]*", "", back),
        lambda back: re.sub(r"code=[^&]*", "code=made-up", back),
        lambda back: re.sub(r"code=[^&]*", "code=", back),
        lambda back: back + "&code=second",
        lambda back: back + "&state=second",
        lambda _back: "/auth/callback",
    ],
)
async def test_a_way_back_that_was_tampered_with_is_no_login(browser, change):
    back = await browser.way_back()
    before = dict(browser.cookies)
    response = await browser.get(change(back))
    assert (response.status_code, await code_of(response)) == (400, "login_failed")
    assert browser.cookies.items() <= before.items()


async def test_a_person_is_told_on_a_page_and_can_try_again(browser):
    browser.cookies = {"livedocs_login_" + login_state_name("x"): "old"}
    response = await browser.get("/auth/callback?error=%3Cscript%3E&state=x", HTML)
    page = await response.get_data(as_text=True)
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<html lang="en">' in page
    assert "<h1>" in page
    assert 'href="/auth/login"' in page
    assert "<script" not in page
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert not browser.cookies


async def test_a_login_that_is_cancelled_at_the_provider_says_so(browser):
    response = await browser.get(await browser.way_back(user=None))
    assert response.status_code == 400
    assert (await response.get_json(force=True))["reason"] == "access_denied"


@pytest.mark.parametrize(
    ("return_to", "location"),
    [
        ("/notes", "/notes?login_error=access_denied"),
        ("/notes?a=1", "/notes?a=1&login_error=access_denied"),
        ("/", "/?login_error=access_denied"),
        ("//evil.example", "/?login_error=access_denied"),
    ],
)
async def test_a_person_who_cancels_is_back_on_the_page_which_is_told_why(browser, return_to, location):
    response = await browser.get(await browser.way_back(user=None, return_to=quote(return_to)), HTML)
    assert (response.status_code, response.headers["Location"]) == (303, location)
    assert not browser.cookies


async def test_the_page_is_told_no_reason_that_the_provider_made_up(browser):
    back = re.sub("error=[^&]*", "error=%3Cscript%3E", await browser.way_back(user=None))
    response = await browser.get(back, HTML)
    assert response.headers["Location"] == "/notes?login_error=provider"


# Several tabs


async def test_two_logins_at_once_each_end_where_they_began(browser):
    first = await browser.way_back(return_to="/first")
    second = await browser.way_back(return_to="/second")
    assert (await browser.get(first)).headers["Location"] == "/first"
    assert (await browser.session())["subject"] == "user:alice"
    assert (await browser.get(second)).headers["Location"] == "/second"
    assert (await browser.session())["subject"] == "user:alice"


async def test_a_login_that_fails_or_is_cancelled_leaves_that_of_another_tab_alone(browser):
    good, forged = await browser.way_back(), await browser.way_back()
    cancelled = await browser.way_back(user=None)
    assert (await browser.get(re.sub("code=[^&]*", "code=made-up", forged))).status_code == 400
    assert (await browser.get(cancelled)).status_code == 400
    assert (await browser.get("/auth/callback?state=made-up&code=x")).status_code == 400
    assert (await browser.get(good)).status_code == 303
    assert (await browser.session())["authenticated"]


async def test_a_browser_keeps_few_attempts_and_the_newest(browser):
    backs = [await browser.way_back() for _ in range(8)]
    assert len(browser.cookies) == 5
    assert (await browser.get(backs[2])).status_code == 400
    for back in backs[3:]:
        assert (await browser.get(back)).status_code == 303


async def test_a_logout_ends_the_logins_that_are_under_way(browser):
    await browser.log_in()
    back = await browser.way_back()
    await browser.post("/auth/logout")
    assert not browser.cookies
    assert (await browser.get(back)).status_code == 400


async def test_a_user_of_a_tenant_that_is_not_registered_gets_no_session(browser):
    response = await browser.get(await browser.way_back("carol"))
    assert (response.status_code, await code_of(response)) == (403, "unknown_tenant")
    assert not browser.cookies


async def test_a_token_for_another_service_gets_no_session(start_site):
    browser = Browser(start_site(oauth_audience="another"))
    response = await browser.get(await browser.way_back())
    body = await response.get_json(force=True)
    assert (response.status_code, body["code"], body["claim"]) == (400, "login_failed", "audience")
    assert not browser.cookies


async def test_a_provider_out_of_reach_is_said_to_programs_and_to_people(start_site, free_ports):
    browser = Browser(start_site(oauth_issuer=f"http://localhost:{free_ports(1)[0]}"))
    response = await browser.get("/auth/login")
    assert (response.status_code, await code_of(response)) == (503, "auth_unavailable")
    response = await browser.get("/auth/login", HTML)
    assert response.status_code == 503
    assert "<h1>" in await response.get_data(as_text=True)


# Staying in


async def test_a_refresh_rotates_both_cookies_and_answers_like_the_session(browser):
    await browser.log_in()
    before = dict(browser.cookies)
    response = await browser.post("/auth/refresh")
    assert response.status_code == 200
    assert (await response.get_json())["subject"] == "user:alice"
    assert browser.cookies.keys() == before.keys()
    changed = {name for name in before if browser.cookies[name] != before[name]}
    # What the login is known by stays, so that its sockets end with it whichever token they hold.
    assert changed == {"livedocs_token", "livedocs_refresh"}
    assert (await browser.session())["authenticated"]


async def test_an_expired_token_leaves_a_session_that_can_be_refreshed(browser, site):
    await browser.log_in()
    site.clock.ahead = LIFETIME
    assert await browser.session() == {"authenticated": False, "can_refresh": True}


async def test_two_tabs_that_refresh_at_once_keep_one_session(browser, site):
    await browser.log_in()
    tabs = [Browser(site) for _ in range(2)]
    for tab in tabs:
        tab.cookies = dict(browser.cookies)
    first, second = await asyncio.gather(*(tab.post("/auth/refresh") for tab in tabs))
    assert first.status_code == second.status_code == 200
    assert tabs[0].cookies == tabs[1].cookies
    assert (await tabs[0].session())["authenticated"]


async def test_a_spent_refresh_token_ends_the_session_when_it_is_used_later(browser, site):
    await browser.log_in()
    thief = Browser(site)
    thief.cookies = dict(browser.cookies)
    await browser.post("/auth/refresh")
    site.clock.ahead = timedelta(seconds=11)
    response = await thief.post("/auth/refresh")
    assert (response.status_code, await code_of(response)) == (401, "invalid_token")
    assert not thief.cookies
    assert (await browser.post("/auth/refresh")).status_code == 401
    assert not browser.cookies


async def test_a_refresh_without_a_session_is_unauthenticated(browser):
    response = await browser.post("/auth/refresh")
    assert (response.status_code, await code_of(response)) == (401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="livedocs"'


async def test_a_failed_introspection_does_not_lose_the_rotated_session(browser, oauth):
    await browser.log_in()
    before = dict(browser.cookies)
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as controls:
        (await controls.post("/dev/faults", json={"introspection": "error"})).raise_for_status()
        try:
            response = await browser.post("/auth/refresh")
        finally:
            (await controls.delete("/dev/faults")).raise_for_status()
    assert (response.status_code, await code_of(response)) == (503, "auth_unavailable")
    assert browser.cookies["livedocs_refresh"] != before["livedocs_refresh"]
    assert (await browser.session())["authenticated"]


@pytest.mark.parametrize("path", ["/auth/refresh", "/auth/logout"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        OURS,
        {"Origin": "https://evil.example", **OURS},
        {"Origin": "null", **OURS},
        {"Sec-Fetch-Site": "same-site", **OURS},
    ],
)
async def test_another_sites_page_can_neither_refresh_nor_log_out(browser, path, headers):
    await browser.log_in()
    before = dict(browser.cookies)
    response = await browser.post(path, headers)
    assert (response.status_code, await code_of(response)) == (403, "csrf")
    assert browser.cookies == before
    assert (await browser.session())["authenticated"]


@pytest.mark.parametrize("path", ["/auth/refresh", "/auth/logout"])
async def test_state_is_not_changed_by_get(browser, path):
    client = browser.site.app.test_client(use_cookies=False)
    assert (await client.get(path)).status_code == 405


async def test_a_cookie_and_a_bearer_token_together_are_refused(browser):
    await browser.log_in()
    bearer = {"Authorization": "Bearer abc"}
    response = await browser.get("/auth/session", bearer)
    assert (response.status_code, await code_of(response)) == (400, "multiple_credentials")
    response = await browser.post("/auth/refresh", {"Origin": browser.site.origin, **OURS, **bearer})
    assert (response.status_code, await code_of(response)) == (400, "multiple_credentials")


# Out


async def test_a_logout_ends_the_tokens_at_the_provider_and_their_sockets_here(browser, site):
    await browser.log_in()
    token = browser.cookies["livedocs_token"]
    kept = dict(browser.cookies)
    response = await browser.post("/auth/logout")
    assert response.status_code == 200
    redirect = urlsplit((await response.get_json())["post_logout_redirect"])
    assert f"{redirect.scheme}://{redirect.netloc}{redirect.path}" == f"{site.settings.oauth_issuer}/logout"
    assert parse_qs(redirect.query)["post_logout_redirect_uri"] == [f"{site.origin}/"]
    [(ended, login, tenant)] = site.logged_out
    assert (ended, tenant) == (token_id(token), "acme")
    assert login == hashlib.sha256(kept["livedocs_session"].encode()).hexdigest()
    assert not browser.cookies
    assert await browser.session() == {"authenticated": False, "can_refresh": False}
    # Whoever kept a copy has nothing.
    browser.cookies = kept
    assert not (await browser.session())["authenticated"]
    with pytest.raises(InvalidToken):
        await site.introspector.principal(token, fresh=True)
    assert (await browser.post("/auth/refresh")).status_code == 401


async def test_a_logout_takes_the_word_back_for_every_token_that_a_socket_of_the_login_held(browser, site):
    await browser.log_in()
    older = browser.cookies["livedocs_token"]
    assert (await browser.post("/auth/refresh")).status_code == 200
    assert site.introspector.known(token_id(older)) is not None
    site.ended_with_the_login = [token_id(older)]
    assert (await browser.post("/auth/logout")).status_code == 200
    assert site.introspector.known(token_id(older)) is None


@pytest.mark.parametrize("stage", ["at the provider", "behind it"], ids=lambda stage: stage.replace(" ", "-"))
async def test_a_logout_in_the_midst_of_another_tabs_refresh_is_one(browser, site, monkeypatch, stage):
    await browser.log_in()
    tab = Browser(site)
    tab.cookies = dict(browser.cookies)
    reached, go_on, given, revoked = asyncio.Event(), asyncio.Event(), [], set()
    post, principal, end = site.issuer.post, site.introspector.principal, site.login.end

    async def slow_post(url, form, **options):
        answer = await post(url, form, **options)
        if url.endswith("/revoke"):
            revoked.update(parse_qs(form)["token"])
        if url.endswith("/token"):
            given.append(answer.body)
            reached.set()
            if stage == "at the provider":
                await go_on.wait()
        return answer

    async def slow_principal(token, *, fresh=False, address=""):
        found = await principal(token, fresh=fresh, address=address)
        if fresh:
            await go_on.wait()
        return found

    async def ending(token, **options):
        if stage == "at the provider":
            go_on.set()
        return await end(token, **options)

    monkeypatch.setattr(site.issuer, "post", slow_post)
    monkeypatch.setattr(site.introspector, "principal", slow_principal)
    monkeypatch.setattr(site.login, "end", ending)
    refreshing = asyncio.create_task(tab.post("/auth/refresh"))
    await asyncio.wait_for(reached.wait(), 5)
    assert (await asyncio.wait_for(browser.post("/auth/logout"), 10)).status_code == 200
    go_on.set()
    refreshed = await asyncio.wait_for(refreshing, 5)
    assert (refreshed.status_code, await code_of(refreshed)) == (401, "invalid_token")
    # Neither has the browser got a session back, nor is one left over at the provider.
    assert not tab.cookies
    assert not browser.cookies
    [tokens] = given
    assert {tokens["access_token"], tokens["refresh_token"]} < revoked
    with pytest.raises(InvalidToken):
        await principal(tokens["access_token"], fresh=True)
    site.clock.ahead = timedelta(seconds=11)
    with pytest.raises(InvalidToken):
        await site.login.refresh(tokens["refresh_token"])


async def test_a_logout_takes_back_the_word_for_tokens_that_may_be_good_and_for_no_made_up_ones(
    browser, site, oauth, monkeypatch
):
    """Else a flood of made-up ones would push those out that are remembered as logged out."""
    forgotten = []
    monkeypatch.setattr(site.introspector, "forget", forgotten.append)
    for made_up in ("abc", "a b", "x" * 5000):
        browser.cookies = {"livedocs_token": made_up}
        assert (await browser.post("/auth/logout")).status_code == 200
    assert forgotten == []
    await browser.log_in()
    good = token_id(browser.cookies["livedocs_token"])
    assert (await browser.post("/auth/logout")).status_code == 200
    assert forgotten == [good]
    # Nobody can say: then it may be one.
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as controls:
        (await controls.post("/dev/faults", json={"introspection": "error"})).raise_for_status()
        try:
            browser.cookies = {"livedocs_token": "unknown"}
            assert (await browser.post("/auth/logout")).status_code == 200
        finally:
            (await controls.delete("/dev/faults")).raise_for_status()
    assert forgotten == [good, token_id("unknown")]


async def test_every_login_has_a_name_of_its_own_and_one_from_before_there_were_names_gets_it_later(browser):
    names = set()
    for _ in range(2):
        await browser.log_in()
        names.add(browser.cookies["livedocs_session"])
    assert len(names) == 2
    del browser.cookies["livedocs_session"]
    assert (await browser.post("/auth/refresh")).status_code == 200
    assert browser.cookies["livedocs_session"] not in names


async def test_a_logout_without_a_session_is_fine(browser, site):
    assert (await browser.post("/auth/logout")).status_code == 200
    assert site.logged_out == [(None, None, None)]


async def test_a_provider_out_of_reach_does_not_keep_anybody_logged_in_here(start_site, free_ports):
    site = start_site(oauth_issuer=f"http://localhost:{free_ports(1)[0]}")
    browser = Browser(site)
    browser.cookies = {"livedocs_token": "abc", "livedocs_refresh": "def"}
    response = await browser.post("/auth/logout")
    assert await response.get_json() == {"post_logout_redirect": None}
    # The other processes are told of tokens that are known to be good, and of no others.
    assert site.logged_out == [(token_id("abc"), None, None)]
    assert not browser.cookies
