"""Every answer of the authorization, token, key and revocation endpoints, right and wrong."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from livedocs.access.introspection import token_id
from livedocs.access.issuer import Issuer
from livedocs.access.login_state import Seal
from livedocs.access.oauth import LoginClient, LoginDeclined
from livedocs.errors import AuthUnavailable, InvalidToken, LoginFailed, TokenTooLarge, Unavailable
from livedocs.model import Renewal

ISSUER = "https://id.example/realm"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public(key, kid):
    algorithm = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}


def metadata(**changes):
    return {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "revocation_endpoint": f"{ISSUER}/revoke",
        "end_session_endpoint": f"{ISSUER}/logout",
        "jwks_uri": f"{ISSUER}/jwks",
        "authorization_response_iss_parameter_supported": True,
        **changes,
    }


@pytest.fixture
def discovery(provider):
    return provider.get(f"{ISSUER}/.well-known/openid-configuration").respond(json=metadata())


@pytest.fixture
def keys(provider):
    return provider.get(f"{ISSUER}/jwks").respond(json={"keys": [public(KEY, "k1")]})


@pytest.fixture
def token_endpoint(provider):
    return provider.post(f"{ISSUER}/token")


@pytest.fixture
def revocation(provider):
    return provider.post(f"{ISSUER}/revoke").respond(200)


@pytest.fixture
async def start_login(configure, clock, discovery, keys):
    started = []

    def start(**overrides):
        settings = configure(**overrides)
        issuer = Issuer(settings, now=clock)
        login = LoginClient(settings, issuer, now=clock)
        started.extend([login, issuer])
        return login

    yield start
    for part in started:
        await part.aclose()


@pytest.fixture
def login(start_login):
    return start_login()


class Trip:
    """A browser on its way to the provider and back."""

    def __init__(self, url, sealed, clock):
        self.url, self.sealed, self.clock = url, sealed, clock
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}

    def back(self, **changes):
        answer = {"code": "the-code", "state": self.query["state"], "iss": ISSUER, **changes}
        return {name: value for name, value in answer.items() if value is not None}

    def id_token(self, key=KEY, algorithm="ES256", headers=None, **changes):
        claims = {
            "iss": ISSUER,
            "aud": "livedocs",
            "sub": "alice",
            "nonce": self.query["nonce"],
            "iat": self.clock.stamp(),
            "exp": self.clock.stamp(300),
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key, algorithm, headers={"kid": "k1"} if headers is None else headers)

    def tokens(self, **changes):
        body = {
            "access_token": "the-access-token",
            "refresh_token": "the-refresh-token",
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": self.id_token(),
            **changes,
        }
        return {name: value for name, value in body.items() if value is not None}


@pytest.fixture
def depart(login, clock):
    async def begin(return_to="/notes?x=1", by=None):
        begun = await (by or login).begin(return_to)
        return Trip(begun.url, begun.sealed, clock)

    return begin


async def failure(login, answer, sealed):
    with pytest.raises((LoginFailed, LoginDeclined)) as caught:
        await login.finish(answer, sealed)
    return caught.value.reason if isinstance(caught.value, LoginDeclined) else caught.value.data["reason"]


# The way there


async def test_the_browser_is_sent_with_code_state_nonce_and_an_s256_challenge(depart):
    trip = await depart()
    assert trip.url.startswith(f"{ISSUER}/authorize?")
    query = dict(trip.query)
    assert len(query.pop("state")) == len(query.pop("nonce")) == len(query.pop("code_challenge")) == 43
    assert query == {
        "response_type": "code",
        "client_id": "livedocs",
        "redirect_uri": "http://localhost:8000/auth/callback",
        "scope": "openid offline_access",
        "code_challenge_method": "S256",
    }


async def test_no_two_attempts_share_a_secret_and_the_cookie_shows_none(depart):
    one, two = await depart(), await depart()
    for name in ("state", "nonce", "code_challenge"):
        assert one.query[name] != two.query[name]
    assert one.query["state"].encode() not in base64.urlsafe_b64decode(one.sealed)


async def test_without_a_provider_no_login_begins(login, discovery):
    discovery.side_effect = httpx.ConnectError("gone")
    with pytest.raises(AuthUnavailable):
        await login.begin("/")


async def test_without_an_authorization_endpoint_no_login_begins(login, discovery):
    discovery.respond(json=metadata(authorization_endpoint=None))
    with pytest.raises(AuthUnavailable):
        await login.begin("/")


# The way back


async def test_a_login_that_fits_brings_the_tokens_and_the_way_home(login, depart, token_endpoint):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens())
    tokens, return_to = await login.finish(trip.back(), trip.sealed)
    assert (tokens.access_token, tokens.refresh_token) == ("the-access-token", "the-refresh-token")
    assert return_to == "/notes?x=1"
    assert "the-" not in repr(tokens)
    request = token_endpoint.calls.last.request
    form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
    challenge = base64.urlsafe_b64encode(hashlib.sha256(form.pop("code_verifier").encode()).digest())
    assert challenge.decode().rstrip("=") == trip.query["code_challenge"]
    assert form == {
        "grant_type": "authorization_code",
        "code": "the-code",
        "redirect_uri": "http://localhost:8000/auth/callback",
    }
    assert request.headers["Authorization"].startswith("Basic ")


async def test_any_process_with_the_same_secret_can_finish_a_login(start_login, depart, token_endpoint):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens())
    assert await start_login().finish(trip.back(), trip.sealed)


async def test_a_process_with_another_secret_cannot(start_login, depart, token_endpoint):
    trip = await depart()
    stranger = start_login(oauth_client_secret="another")
    assert await failure(stranger, trip.back(), trip.sealed) == "attempt"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "another"}, "state"),
        ({"state": None}, "state"),
        ({"state": ""}, "state"),
        ({"state": "é"}, "state"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"code": None}, "provider"),
        ({"code": ""}, "provider"),
        ({"error": "access_denied", "code": None}, "access_denied"),
        ({"error": "<script>alert(1)</script>"}, "provider"),
        ({"error": "access_denied", "iss": "https://evil.example"}, "issuer"),
    ],
)
async def test_an_answer_that_does_not_fit_the_attempt_costs_no_code(
    login, depart, token_endpoint, changes, reason
):
    trip = await depart()
    assert await failure(login, trip.back(**changes), trip.sealed) == reason
    assert not token_endpoint.called


async def test_a_provider_that_does_not_announce_iss_may_leave_it_out_but_not_lie(
    login, depart, discovery, token_endpoint
):
    discovery.respond(json=metadata(authorization_response_iss_parameter_supported=None))
    trip = await depart()
    token_endpoint.respond(json=trip.tokens())
    assert await login.finish(trip.back(iss=None), trip.sealed)
    trip = await depart()
    assert await failure(login, trip.back(iss="https://evil.example"), trip.sealed) == "issuer"


@pytest.mark.parametrize("sealed", [None, "", "x", "AAAA", "é", "A" * 400])
async def test_a_browser_without_its_own_attempt_is_refused(login, depart, sealed):
    trip = await depart()
    assert await failure(login, trip.back(), sealed) == "attempt"


async def test_an_altered_attempt_is_refused(login, depart):
    trip = await depart()
    raw = bytearray(base64.urlsafe_b64decode(trip.sealed))
    raw[20] ^= 1
    assert await failure(login, trip.back(), base64.urlsafe_b64encode(raw).decode()) == "attempt"


def test_a_guess_at_the_secret_that_seals_attempts_is_expensive():
    """Whoever begins a login has something to try guesses on."""

    def guess():
        begun = time.process_time()
        Seal(b"a guess")
        return time.process_time() - begun

    assert min(guess() for _ in range(5)) > 0.005


async def test_an_attempt_ends_after_ten_minutes(login, depart, clock):
    trip = await depart()
    clock.forward(600)
    assert await failure(login, trip.back(), trip.sealed) == "attempt"


async def test_the_state_of_another_browser_is_refused(login, depart):
    victim, attacker = await depart(), await depart()
    assert await failure(login, attacker.back(), victim.sealed) == "state"


async def test_a_login_state_that_was_used_is_refused_even_with_a_kept_cookie(login, depart, token_endpoint):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens())
    await login.finish(trip.back(), trip.sealed)
    assert await failure(login, trip.back(), trip.sealed) == "replayed"
    assert token_endpoint.call_count == 1


async def test_two_replays_at_once_make_one_login(login, depart, token_endpoint):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens())
    outcomes = await asyncio.gather(
        *(login.finish(trip.back(), trip.sealed) for _ in range(5)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes].count(LoginFailed) == 4
    assert token_endpoint.call_count == 1


@pytest.mark.parametrize(
    ("given", "home"),
    [
        ("/", "/"),
        ("/a/b?c=d#e", "/a/b?c=d#e"),
        (None, "/"),
        ("", "/"),
        ("notes", "/"),
        ("//evil.example", "/"),
        ("///evil.example", "/"),
        ("/\\evil.example", "/"),
        ("\\\\evil.example", "/"),
        ("/x\\..\\..\\evil", "/"),
        ("/\t/evil.example", "/"),
        ("/\n/evil.example", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        (" /x", "/"),
        ("/é", "/"),
        ("/auth/login", "/"),
        ("/auth", "/"),
        ("/./auth/login", "/"),
        ("/x/../auth/login", "/"),
        ("/%61uth/login", "/"),
        ("/auth%2flogin", "/"),
        ("/author", "/author"),
        ("/" + "x" * 2000, "/"),
    ],
)
async def test_after_a_login_the_way_home_stays_here(login, depart, token_endpoint, given, home):
    trip = await depart(given)
    token_endpoint.respond(json=trip.tokens())
    assert (await login.finish(trip.back(), trip.sealed))[1] == home


# The token endpoint


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(503, text="later"),
        httpx.Response(401, json={"error": "invalid_client"}),
        httpx.Response(400, json={"error": "unauthorized_client"}),
        httpx.Response(400, text="no"),
        httpx.Response(200, text="no"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"access_token": "x"}),
        httpx.Response(200, json={"access_token": 7, "token_type": "Bearer"}),
        httpx.Response(200, json={"access_token": "two words", "token_type": "Bearer"}),
        httpx.Response(200, json={"access_token": "x\r\nSet-Cookie: a=b", "token_type": "Bearer"}),
        httpx.Response(200, json={"access_token": "x", "token_type": "DPoP"}),
        httpx.Response(200, json={"access_token": "x", "token_type": "Bearer", "refresh_token": 7}),
        httpx.Response(200, json={"access_token": "x", "token_type": "Bearer", "refresh_token": ""}),
        httpx.Response(302, headers={"Location": "https://evil.example"}),
        httpx.ConnectError("gone"),
        httpx.ReadTimeout("slow"),
    ],
)
async def test_no_usable_answer_of_the_token_endpoint_means_unavailable(login, depart, token_endpoint, answer):
    trip = await depart()
    token_endpoint.mock(side_effect=[answer, answer])
    with pytest.raises(AuthUnavailable):
        await login.finish(trip.back(), trip.sealed)
    with pytest.raises(AuthUnavailable):
        await login.refresh("the-refresh-token")


async def test_a_code_that_the_provider_takes_back_fails_the_login(login, depart, token_endpoint):
    trip = await depart()
    token_endpoint.respond(400, json={"error": "invalid_grant"})
    assert await failure(login, trip.back(), trip.sealed) == "code"


async def test_a_token_over_4096_octets_is_refused_with_its_own_error(login, depart, token_endpoint):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens(access_token="x" * 4097))
    with pytest.raises(TokenTooLarge):
        await login.finish(trip.back(), trip.sealed)


async def test_a_provider_may_give_no_refresh_token(login, depart, token_endpoint):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens(refresh_token=None))
    tokens, _ = await login.finish(trip.back(), trip.sealed)
    assert tokens.refresh_token is None


# The ID token


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["livedocs", "another"]},
        {"aud": ["livedocs", "another"], "azp": "another"},
        {"azp": "another"},
        {"aud": None},
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": 7},
        {"nonce": "\ud800"},
        {"sub": None},
        {"sub": ""},
        {"exp": None},
        {"exp": 1},
        {"exp": True},
        {"iat": None},
        {"iat": 4_000_000_000},
        {"headers": {"kid": "unknown"}},
        {"key": OTHER_KEY},
        {"key": RSA_KEY, "algorithm": "RS256"},
        {"key": None, "algorithm": "none"},
        {"key": "x" * 32, "algorithm": "HS256"},
    ],
)
async def test_an_id_token_that_does_not_vouch_for_this_login_fails_it(login, depart, token_endpoint, changes):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens(id_token=trip.id_token(**changes)))
    assert await failure(login, trip.back(), trip.sealed) == "id_token"


@pytest.mark.parametrize("token", [None, "", "a.b.c", "x", 7, {"alg": "none"}])
async def test_what_is_no_id_token_fails_the_login(login, depart, token_endpoint, token):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens(id_token=token))
    assert await failure(login, trip.back(), trip.sealed) == "id_token"


async def test_a_public_key_is_no_hmac_secret(login, depart, token_endpoint):
    trip = await depart()
    header, payload, _ = trip.id_token().split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"k1"}').rstrip(b"=").decode()
    signed = jwt.api_jws.PyJWS().get_algorithm_by_name("HS256")
    secret = json.dumps(public(KEY, "k1")).encode()
    signature = base64.urlsafe_b64encode(signed.sign(f"{header}.{payload}".encode(), secret)).rstrip(b"=").decode()
    token_endpoint.respond(json=trip.tokens(id_token=f"{header}.{payload}.{signature}"))
    assert await failure(login, trip.back(), trip.sealed) == "id_token"


async def test_an_rsa_key_of_fair_length_is_as_good(login, depart, keys, token_endpoint):
    keys.respond(json={"keys": [public(RSA_KEY, "r1")]})
    trip = await depart()
    signed = trip.id_token(RSA_KEY, "RS256", {"kid": "r1"})
    token_endpoint.respond(json=trip.tokens(id_token=signed))
    assert await login.finish(trip.back(), trip.sealed)


async def test_an_extension_of_an_id_token_that_must_be_understood_is_not(login, depart, token_endpoint):
    trip = await depart()
    signed = trip.id_token(headers={"kid": "k1", "crit": ["exp"], "exp": 1})
    token_endpoint.respond(json=trip.tokens(id_token=signed))
    assert await failure(login, trip.back(), trip.sealed) == "id_token"


async def test_a_key_without_an_id_serves_when_it_is_the_only_one(login, depart, keys, token_endpoint):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens(id_token=trip.id_token(headers={})))
    assert await login.finish(trip.back(), trip.sealed)


async def test_without_openid_among_the_scopes_no_id_token_is_asked_for(start_login, depart, token_endpoint):
    login = start_login(oauth_scopes=("livedocs:write",))
    trip = await depart(by=login)
    token_endpoint.respond(json=trip.tokens(id_token=None))
    assert await login.finish(trip.back(), trip.sealed)


# The keys


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(200, text="no"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"keys": []}),
        httpx.Response(200, json={"keys": "k1"}),
        httpx.Response(200, json={"keys": [{"kty": "oct", "k": "eHg", "kid": "k1"}]}),
        httpx.Response(200, json={"keys": [{"kty": "EC"}, 7, None]}),
        httpx.ConnectError("gone"),
    ],
)
async def test_without_keys_a_login_is_unavailable(login, depart, keys, token_endpoint, answer):
    keys.mock(side_effect=[answer])
    trip = await depart()
    token_endpoint.respond(json=trip.tokens())
    with pytest.raises(AuthUnavailable):
        await login.finish(trip.back(), trip.sealed)


async def test_a_new_key_is_fetched_but_made_up_key_ids_cost_one_fetch_each_half_minute(
    login, depart, keys, clock, token_endpoint
):
    async def attempt(key, kid):
        trip = await depart()
        token_endpoint.respond(json=trip.tokens(id_token=trip.id_token(key, headers={"kid": kid})))
        return await login.finish(trip.back(), trip.sealed)

    await attempt(KEY, "k1")
    keys.respond(json={"keys": [public(KEY, "k1"), public(OTHER_KEY, "k2")]})
    for kid in ("x", "y", "k2"):
        with pytest.raises(LoginFailed):
            await attempt(OTHER_KEY, kid)
    assert keys.call_count == 1
    clock.forward(30)
    assert await attempt(OTHER_KEY, "k2")
    assert keys.call_count == 2


async def test_old_keys_are_kept_while_a_fetch_fails(login, depart, keys, clock, token_endpoint):
    trip = await depart()
    token_endpoint.respond(json=trip.tokens())
    await login.finish(trip.back(), trip.sealed)
    keys.respond(500)
    clock.forward(30)
    trip = await depart()
    token_endpoint.respond(json=trip.tokens(id_token=trip.id_token(headers={"kid": "k2"})))
    assert await failure(login, trip.back(), trip.sealed) == "id_token"
    trip = await depart()
    token_endpoint.respond(json=trip.tokens())
    assert await login.finish(trip.back(), trip.sealed)


# Refresh


def renewed(number):
    body = {"access_token": f"access-{number}", "refresh_token": f"refresh-{number}", "token_type": "bearer"}
    return httpx.Response(200, json=body)


async def test_a_refresh_rotates_the_refresh_token(login, token_endpoint):
    token_endpoint.mock(side_effect=[renewed(1), renewed(2)])
    first = await login.refresh("refresh-0")
    second = await login.refresh(first.refresh_token)
    assert (second.access_token, second.refresh_token) == ("access-2", "refresh-2")
    form = parse_qs(token_endpoint.calls.last.request.content.decode())
    assert form == {"grant_type": ["refresh_token"], "refresh_token": ["refresh-1"]}


async def test_a_provider_that_does_not_rotate_keeps_the_refresh_token(login, token_endpoint):
    token_endpoint.respond(json={"access_token": "access-1", "token_type": "Bearer"})
    assert (await login.refresh("refresh-0")).refresh_token == "refresh-0"


async def test_tabs_that_refresh_at_once_spend_the_refresh_token_once(login, token_endpoint):
    token_endpoint.mock(side_effect=[renewed(1)])
    results = await asyncio.gather(*(login.refresh("refresh-0") for _ in range(10)))
    assert {result.access_token for result in results} == {"access-1"}
    assert token_endpoint.call_count == 1


async def test_a_tab_that_is_late_by_seconds_gets_the_same_tokens(login, token_endpoint, clock):
    token_endpoint.mock(side_effect=[renewed(1)])
    await login.refresh("refresh-0")
    clock.forward(9.9)
    assert (await login.refresh("refresh-0")).access_token == "access-1"
    assert token_endpoint.call_count == 1


async def test_a_refresh_token_used_again_later_goes_to_the_provider_which_ends_the_session(
    login, token_endpoint, clock
):
    token_endpoint.mock(side_effect=[renewed(1), httpx.Response(400, json={"error": "invalid_grant"})])
    await login.refresh("refresh-0")
    clock.forward(10)
    with pytest.raises(InvalidToken):
        await login.refresh("refresh-0")
    assert token_endpoint.call_count == 2


async def test_a_refresh_that_failed_is_not_remembered(login, token_endpoint):
    token_endpoint.mock(side_effect=[httpx.ConnectError("gone"), renewed(1)])
    with pytest.raises(AuthUnavailable):
        await login.refresh("refresh-0")
    assert (await login.refresh("refresh-0")).access_token == "access-1"


# Revocation and the end


async def over(login, refresh_token):
    with pytest.raises(InvalidToken):
        await login.refresh(refresh_token)


async def test_tokens_that_come_when_nobody_waits_for_them_any_more_are_revoked(login, token_endpoint, revocation):
    # Of the logout alone: the answer comes within the time of a call, but late in it.
    login._timeout = 0.1
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request):
        asked.set()
        await go_on.wait()
        return renewed(1)

    token_endpoint.mock(side_effect=slow)
    tab = asyncio.create_task(login._spend("refresh-0", token_id("refresh-0"), "tab", ""))
    await login._renewals.claim(token_id("refresh-0"), "tab")
    await asyncio.wait_for(asked.wait(), 5)
    assert await login.end("refresh-0") == []
    go_on.set()
    with pytest.raises(InvalidToken):
        await tab
    forms = [parse_qs(call.request.content.decode())["token"] for call in revocation.calls]
    assert forms == [["refresh-1"], ["access-1"]]


class Gone:
    """Renewals of which nothing can be seen any more once a token was claimed."""

    async def claim(self, _token, by):
        return Renewal(by)

    async def settle(self, *_):
        raise Unavailable

    get = give_up = end = settle


async def test_a_token_that_is_spent_when_mongodb_fails_leads_to_the_new_ones(start_login, token_endpoint):
    login = start_login()
    login._renewals = Gone()
    token_endpoint.mock(side_effect=[renewed(1)])
    tokens = await login.refresh("refresh-0")
    assert (tokens.access_token, tokens.refresh_token) == ("access-1", "refresh-1")
    await login.check_session("refresh-0", "refresh-1")
    assert await login.end("refresh-1") == []


async def test_a_session_that_is_renewed_while_somebody_logs_out_is_over(login, token_endpoint, revocation):
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request):
        asked.set()
        await go_on.wait()
        return renewed(1)

    token_endpoint.mock(side_effect=slow)
    tab = asyncio.create_task(login.refresh("refresh-0"))
    await asyncio.wait_for(asked.wait(), 5)
    logout = asyncio.create_task(login.end("refresh-0"))
    go_on.set()
    # What the provider has given meanwhile is for the logout to revoke, and for nobody else.
    [successor] = await logout
    assert (successor.access_token, successor.refresh_token) == ("access-1", "refresh-1")
    with pytest.raises(InvalidToken):
        await tab
    await over(login, "refresh-0")
    await over(login, "refresh-1")
    assert token_endpoint.call_count == 1


async def test_what_a_session_was_renewed_to_within_seconds_ends_with_it_and_older_tabs_get_nothing(
    login, token_endpoint
):
    token_endpoint.mock(side_effect=[renewed(1), renewed(2)])
    await login.refresh("refresh-0")
    await login.refresh("refresh-1")
    ended = await login.end("refresh-0")
    assert [tokens.access_token for tokens in ended] == ["access-1", "access-2"]
    for number in range(3):
        await over(login, f"refresh-{number}")
    assert token_endpoint.call_count == 2


async def test_a_tab_that_is_late_gets_no_tokens_of_a_session_that_has_ended(login, token_endpoint):
    token_endpoint.mock(side_effect=[renewed(1)])
    await login.refresh("refresh-0")
    assert await login.end("refresh-1") == []
    await over(login, "refresh-0")


async def test_a_session_without_rotation_is_over_too(login, token_endpoint):
    token_endpoint.respond(json={"access_token": "access-1", "token_type": "Bearer"})
    await login.refresh("refresh-0")
    assert [tokens.access_token for tokens in await login.end("refresh-0")] == ["access-1"]
    await over(login, "refresh-0")
    assert token_endpoint.call_count == 1


async def test_a_refresh_that_hangs_holds_a_logout_up_for_the_time_limit_only(login, token_endpoint):
    asked = asyncio.Event()

    async def hang(_request):
        asked.set()
        await asyncio.Event().wait()

    token_endpoint.mock(side_effect=hang)
    tab = asyncio.create_task(login.refresh("refresh-0"))
    await asyncio.wait_for(asked.wait(), 5)
    assert await asyncio.wait_for(login.end("refresh-0"), 5) == []
    with pytest.raises((InvalidToken, AuthUnavailable)):
        await tab


async def test_logging_out_revokes_the_refresh_token_first_then_the_access_token(login, revocation):
    assert await login.revoke({"access_token": "a", "refresh_token": "r"})
    forms = [parse_qs(call.request.content.decode()) for call in revocation.calls]
    assert forms == [
        {"token": ["r"], "token_type_hint": ["refresh_token"]},
        {"token": ["a"], "token_type_hint": ["access_token"]},
    ]
    assert all(call.request.headers["Authorization"].startswith("Basic ") for call in revocation.calls)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(400, json={"error": "unsupported_token_type"}),
        httpx.Response(401),
        httpx.Response(503),
        httpx.ConnectError("gone"),
        httpx.ReadTimeout("slow"),
    ],
)
async def test_a_failed_revocation_is_said_and_does_not_stop_the_logout(login, revocation, answer):
    revocation.mock(side_effect=[answer, httpx.Response(200)])
    assert not await login.revoke({"access_token": "a", "refresh_token": "r"})
    assert revocation.call_count == 2


async def test_a_provider_that_hangs_holds_a_logout_up_for_the_time_limit_only(login, revocation):
    async def hang(_request):
        await asyncio.Event().wait()

    revocation.mock(side_effect=hang)
    assert not await asyncio.wait_for(login.revoke({"refresh_token": "r", "access_token": "a"}), 5)


@pytest.mark.parametrize("document", [metadata(revocation_endpoint=None), {}])
async def test_without_a_revocation_endpoint_there_is_nothing_to_do(login, discovery, document):
    discovery.respond(json=document)
    assert not await login.revoke({"access_token": "a"})


async def test_the_page_learns_where_the_providers_own_session_ends(login, discovery):
    url = urlsplit(await login.post_logout_redirect())
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{ISSUER}/logout"
    assert parse_qs(url.query) == {
        "client_id": ["livedocs"],
        "post_logout_redirect_uri": ["http://localhost:8000/"],
    }


@pytest.mark.parametrize("document", [metadata(end_session_endpoint=None), {}])
async def test_no_place_to_end_the_providers_session_is_no_error(login, discovery, document):
    discovery.respond(json=document)
    assert await login.post_logout_redirect() is None
