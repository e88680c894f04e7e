"""Access tokens that are signed JWTs (RFC 9068): what is believed, what is not, and what attacks cost."""

from __future__ import annotations

import asyncio
import base64
import json

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from livedocs.access import tokens
from livedocs.access.introspection import token_id
from livedocs.access.issuer import Issuer
from livedocs.errors import AuthUnavailable, ConfigurationError, InvalidToken

ISSUER = "https://id.example/realm"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P384_KEY = ec.generate_private_key(ec.SECP384R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
EVERY_ALGORITHM = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA"


def public(key, key_id, **members):
    kinds = {rsa.RSAPrivateKey: RSAAlgorithm, ed25519.Ed25519PrivateKey: OKPAlgorithm}
    kind = next((kind for of, kind in kinds.items() if isinstance(key, of)), ECAlgorithm)
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": key_id, "use": "sig", **members}


@pytest.fixture
def keys(provider):
    return provider.get(f"{ISSUER}/jwks", name="jwks").respond(json={"keys": [public(KEY, "k1")]})


@pytest.fixture
async def start(configure, clock, metrics, keys):
    started = []

    def make(mode="jwt", **changes):
        settings = configure(oauth_mode=mode, oauth_jwks_url=f"{ISSUER}/jwks", **changes)
        issuer = Issuer(settings, now=clock)
        made = tokens.of(settings, issuer, metrics, now=clock)
        started.extend([made, issuer])
        return made

    yield make
    for part in started:
        await part.aclose()


@pytest.fixture
def claims(clock):
    def make(**changes):
        body = {
            "iss": ISSUER,
            "aud": ["another", "livedocs"],
            "sub": "alice",
            "client_id": "livedocs",
            "jti": "t1",
            "iat": clock.stamp(-10),
            "exp": clock.stamp(300),
            "scope": "openid livedocs:write",
            "tenant": "acme",
            "groups": ["staff"],
            **changes,
        }
        return {name: value for name, value in body.items() if value is not None}

    return make


def sign(claims, key=KEY, algorithm="ES256", **header):
    headers = {"kid": "k1", "typ": "at+jwt", **header}
    # Not jwt.encode, which would refuse to sign some of what a test wants signed.
    return jwt.api_jws.encode(json.dumps(claims).encode(), key, algorithm, headers)


def forge(header, claims, signature=b""):
    def part(value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return ".".join([part(header), part(claims), part(signature)])


async def refusal(understands, token, **options):
    with pytest.raises(InvalidToken) as refused:
        await understands.principal(token, **options)
    return refused.value.data["reason"]


async def test_a_signed_token_names_its_principal_without_a_question(start, claims, introspection, keys, clock):
    understands, token = start(), sign(claims())
    for _ in range(3):
        principal = await understands.principal(token)
    assert (principal.tenant, principal.subject) == ("acme", "user:alice")
    assert principal.groups == {"staff"}
    assert principal.scopes == {"openid", "livedocs:write"}
    assert principal.expires_at.timestamp() == clock.stamp(300)
    assert principal.token_id == token_id(token)
    assert not introspection.called
    assert keys.call_count == 1


async def test_a_service_has_its_client_id_as_subject(start, claims):
    principal = await start().principal(sign(claims(sub="importer", client_id="importer")))
    assert principal.subject == "client:importer"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": None}, "issuer"),
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"iss": [ISSUER]}, "issuer"),
        ({"aud": None}, "audience"),
        ({"aud": "another"}, "audience"),
        ({"aud": ["livedocs-too"]}, "audience"),
        ({"sub": None}, "claims"),
        ({"sub": 7}, "claims"),
        ({"client_id": None}, "claims"),
        ({"iat": None}, "iat"),
        ({"iat": 4_000_000_000}, "iat"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"exp": 1}, "expired"),
        ({"nbf": 4_000_000_000}, "nbf"),
        ({"active": False, "tenant": None}, "tenant"),
        ({"tenant": "acme\n"}, "tenant"),
        ({"groups": {"staff": 1}}, "groups"),
        ({"scope": {"livedocs:admin": 1}}, "scope"),
        ({"cnf": {"jkt": "x"}}, "bound"),
    ],
)
async def test_a_good_signature_under_the_wrong_claims_is_worth_nothing(start, claims, changes, reason):
    assert await refusal(start(), sign(claims(**changes))) == reason


async def test_a_token_ends_at_exp_and_may_come_a_little_early(start, claims, clock):
    understands = start()
    early = sign(claims(iat=clock.stamp(4), nbf=clock.stamp(4), exp=clock.stamp(60)))
    assert await understands.principal(early)
    clock.forward(60)
    assert await refusal(understands, early) == "expired"
    assert await refusal(understands, sign(claims(iat=clock.stamp(6)))) == "iat"


@pytest.mark.parametrize("kind", ["at+jwt", "at+JWT", "application/at+jwt"])
async def test_the_type_may_be_written_as_a_whole_media_type(start, claims, kind):
    assert await start().principal(sign(claims(), typ=kind))


def _plain(start):
    return start(oauth_token_types=("at+jwt", "JWT"), oauth_audience="api")


async def test_plain_jwts_are_taken_where_the_settings_say_so(start, claims):
    assert await _plain(start).principal(sign(claims(jti=None, aud="api"), typ="JWT"))


@pytest.mark.parametrize("kind", ["", "JWT", "id+jwt", "application/jwt", "text/at+jwt", ["at+jwt"]])
async def test_a_token_of_another_type_is_no_access_token(start, claims, keys, kind):
    # PyJWT writes `typ: JWT` when there is none.
    token = forge({"alg": "ES256", "kid": "k1", "typ": kind}, claims()) if kind else sign(claims(), typ="JWT")
    assert await refusal(start(), token) == "type"
    assert not keys.called


async def test_no_algorithm_but_those_on_the_list(start, claims, keys):
    understands = start()
    for algorithm in ("none", "None", "NONE", "HS256", "HS512", "ES256K", "", None, 5, ["ES256"]):
        token = forge({"alg": algorithm, "kid": "k1", "typ": "at+jwt"}, claims())
        assert await refusal(understands, token) in {"algorithm", "malformed"}
    narrow = start(oauth_algorithms="EdDSA")
    assert await refusal(narrow, sign(claims())) == "algorithm"
    assert not keys.called


@pytest.mark.parametrize("secret", ["pem", "der", "jwk", "x"])
async def test_the_public_key_is_no_hmac_secret_even_under_an_asymmetric_name(start, claims, keys, secret):
    keys.respond(json={"keys": [public(RSA_KEY, "k1", alg="RS256")]})
    key = RSA_KEY.public_key()
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    bytes_of = {
        "pem": key.public_bytes(serialization.Encoding.PEM, info),
        "der": key.public_bytes(serialization.Encoding.DER, info),
        "jwk": json.dumps(public(RSA_KEY, "k1", alg="RS256")).encode(),
        "x": b"x" * 32,
    }[secret]
    hmac = jwt.get_algorithm_by_name("HS256")
    understands = start()
    for claimed, reason in (("HS256", "algorithm"), ("RS256", "signature"), ("ES256", "algorithm")):
        unsigned = forge({"alg": claimed, "kid": "k1", "typ": "at+jwt"}, claims()).rpartition(".")[0]
        signature = hmac.sign(unsigned.encode(), bytes_of)
        token = f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
        assert await refusal(understands, token) == reason


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (RSA_KEY, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (KEY, {"ES256"}),
        (P384_KEY, {"ES384"}),
        (ED_KEY, {"EdDSA"}),
    ],
    ids=["RSA", "P-256", "P-384", "Ed25519"],
)
async def test_a_key_that_states_no_algorithm_checks_those_of_its_type_and_no_others(
    start, claims, keys, key, algorithms
):
    # RFC 7517, 4.4: `alg` is optional.
    keys.respond(json={"keys": [public(key, "k1")]})
    understands = start(oauth_algorithms=EVERY_ALGORITHM)
    for algorithm in EVERY_ALGORITHM.split():
        if algorithm in algorithms:
            assert (await understands.principal(sign(claims(), key, algorithm))).subject == "user:alice"
        else:
            token = forge({"alg": algorithm, "kid": "k1", "typ": "at+jwt"}, claims(), b"x" * 64)
            assert await refusal(understands, token) == "algorithm"


async def test_what_a_key_could_check_is_still_for_the_list_and_its_own_word_to_allow(start, claims, keys):
    keys.respond(json={"keys": [public(RSA_KEY, "k1", key_ops=["verify"])]})
    understands = start()
    assert await understands.principal(sign(claims(), RSA_KEY, "PS256"))
    assert await refusal(understands, sign(claims(), RSA_KEY, "PS384")) == "algorithm"
    keys.respond(json={"keys": [public(RSA_KEY, "k1", alg="PS256")]})
    strict = start(oauth_algorithms=EVERY_ALGORITHM)
    assert await strict.principal(sign(claims(), RSA_KEY, "PS256"))
    assert await refusal(strict, sign(claims(), RSA_KEY, "RS256")) == "algorithm"


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")  # said to the one who signs
async def test_a_key_short_enough_to_be_broken_checks_nothing(start, claims, keys):
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - is to be refused
    keys.respond(json={"keys": [public(short, "k1")]})
    assert await refusal(start(), sign(claims(), short, "RS256")) == "signature"


async def test_keys_of_two_types_may_share_an_id(start, claims, keys):
    keys.respond(json={"keys": [public(RSA_KEY, "k1"), public(KEY, "k1")]})
    understands = start()
    assert await understands.principal(sign(claims(), RSA_KEY, "RS256"))
    assert await understands.principal(sign(claims(), KEY, "ES256"))


def symmetric():
    return {"kty": "oct", "kid": "k1", "k": base64.urlsafe_b64encode(b"x" * 32).decode().rstrip("=")}


@pytest.mark.parametrize(
    "jwk",
    [
        symmetric(),
        public(KEY, "k1", use="enc"),
        public(KEY, "k1", key_ops=["sign"]),
        public(KEY, "k1", key_ops="verify"),
        public(KEY, "k1", alg="HS256"),
        public(KEY, "k1", alg="RS256"),
        public(KEY, "k1", alg=5),
        public(KEY, "k1", crv="P-384"),
        public(KEY, "k1", crv=["P-256"]),
        public(KEY, "k1", kty="RSA"),
        public(KEY, "k1", x="AA"),
        json.loads(ECAlgorithm.to_jwk(KEY)) | {"kid": "k1"},
        {},
        "k1",
        None,
    ],
    ids=[
        *("symmetric", "encryption", "signing", "no operations", "HMAC", "another type's", "no name"),
        *("another curve", "no curve", "another type", "no point", "private", "empty", "text", "nothing"),
    ],
)
async def test_what_is_no_public_key_for_signatures_checks_none(start, claims, keys, jwk):
    keys.respond(json={"keys": [jwk, public(OTHER, "k2")]})
    understands = start(oauth_algorithms=EVERY_ALGORITHM)
    assert await refusal(understands, sign(claims())) == "key"
    # And it is in nobody's way.
    assert await understands.principal(sign(claims(), OTHER, kid="k2"))


async def test_a_signature_of_another_key_or_over_another_text_is_refused(start, claims, keys):
    understands = start()
    assert await refusal(understands, sign(claims(), OTHER)) == "signature"
    head, body, signature = sign(claims()).split(".")
    other = sign(claims(sub="root")).split(".")[1]
    assert await refusal(understands, f"{head}.{other}.{signature}") == "signature"
    assert await refusal(understands, f"{head}.{body}.") == "signature"


async def test_a_token_cannot_bring_its_own_key(start, claims, keys, provider):
    theirs = provider.get("https://evil.example/jwks").respond(json={"keys": [public(OTHER, "k1")]})
    embedded = {"jwk": public(OTHER, "k1"), "jku": "https://evil.example/jwks", "x5u": "https://evil.example/jwks"}
    assert await refusal(start(), sign(claims(), OTHER, **embedded)) == "signature"
    assert not theirs.called


async def test_a_header_nested_past_the_parsers_stack_is_only_refused(start, keys):
    deep = b'{"alg":"ES256","typ":"at+jwt","x":' + b"[" * 2900
    token = base64.urlsafe_b64encode(deep).rstrip(b"=").decode() + ".e30.e30"
    assert len(token) < 4096
    assert await refusal(start(), token) == "malformed"


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"b64": False}, {"crit": []}])
async def test_an_extension_that_must_be_understood_is_not(start, claims, header):
    token = forge({"alg": "ES256", "kid": "k1", "typ": "at+jwt", **header}, claims(), b"x" * 64)
    assert await refusal(start(), token) == "malformed"


@pytest.mark.parametrize("token", ["a", "a.b", "a.b.c", "a.b.c.d.e", "..", "e30.e30.e30", "é.b.c", "a" * 5000])
async def test_what_is_no_jwt_is_refused(start, keys, token):
    assert await refusal(start(), token) in {"malformed", "type"}
    assert not keys.called


async def test_a_flood_of_made_up_key_ids_costs_one_fetch_each_half_minute(start, claims, keys, clock):
    understands = start()
    assert await understands.principal(sign(claims()))
    clock.forward(31)
    for number in range(200):
        assert await refusal(understands, sign(claims(), OTHER, kid=f"made up {number}")) == "key"
    assert keys.call_count == 2
    # And whoever has a good token notices nothing.
    assert await understands.principal(sign(claims()))
    clock.forward(31)
    assert await refusal(understands, sign(claims(), OTHER, kid="one more")) == "key"
    assert keys.call_count == 3


async def test_a_new_key_is_found_when_the_first_token_names_it(start, claims, keys, clock):
    understands = start()
    assert await understands.principal(sign(claims()))
    keys.respond(json={"keys": [public(KEY, "k1"), public(OTHER, "k2")]})
    clock.forward(31)
    assert await understands.principal(sign(claims(), OTHER, kid="k2"))


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(500), httpx.Response(200, text="no"), httpx.ConnectError("gone"), httpx.ReadTimeout("slow")],
)
async def test_old_keys_are_kept_while_a_fetch_fails(start, claims, keys, clock, answer):
    understands = start()
    assert await understands.principal(sign(claims()))
    keys.mock(side_effect=[answer, answer])
    clock.forward(601)
    assert await understands.principal(sign(claims()))
    clock.forward(31)
    assert await refusal(understands, sign(claims(), OTHER, kid="k2")) == "key"
    assert await understands.principal(sign(claims()))


async def test_a_withdrawn_key_is_not_used_for_ever(start, claims, keys, clock):
    understands = start()
    assert await understands.principal(sign(claims()))
    keys.respond(json={"keys": [public(OTHER, "k2")]})
    clock.forward(601)
    # This one makes it known; the next ones are checked with what is in force.
    assert await understands.principal(sign(claims()))
    async with asyncio.timeout(5):
        while keys.call_count < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(InvalidToken):
            while await understands.principal(sign(claims())):
                await asyncio.sleep(0.01)
    assert await refusal(understands, sign(claims())) == "key"


async def test_without_keys_nobody_gets_in_and_the_flood_is_one_call_a_second(start, claims, keys, clock):
    keys.respond(503)
    understands = start()
    for _ in range(50):
        with pytest.raises(AuthUnavailable):
            await understands.principal(sign(claims()))
    assert keys.call_count == 1
    assert not await understands.reachable()
    clock.forward(1)
    keys.respond(json={"keys": [public(KEY, "k1")]})
    assert await understands.principal(sign(claims()))
    assert await understands.reachable()


async def test_a_logged_out_token_is_of_no_use_although_its_signature_is_good(start, claims):
    understands, token = start(), sign(claims())
    assert await understands.principal(token)
    understands.forget(token_id(token))
    assert await refusal(understands, token) == "ended"


async def test_a_logged_out_token_stays_so_however_long_it_would_have_lived(start, claims, clock):
    understands, token = start(), sign(claims(exp=clock.stamp(7 * 86400)))
    understands.forget(token_id(token))
    clock.forward(2 * 86400)
    assert await refusal(understands, token) == "ended"


async def test_a_user_whom_the_expected_claim_does_not_name_is_not_taken_for_the_client(start, claims):
    understands = start(oauth_subject_claim="email")
    assert await refusal(understands, sign(claims(client_id="acme-service"))) == "subject"


async def test_checks_are_counted_by_result(start, claims, metrics):
    understands = start()
    await understands.principal(sign(claims()))
    await refusal(understands, sign(claims(), OTHER))
    count = metrics.registry.get_sample_value
    assert count("livedocs_token_checks_total", {"result": "active"}) == 1
    assert count("livedocs_token_checks_total", {"result": "signature"}) == 1


@pytest.mark.parametrize("value", ["HS256", "none", "RS256 none", ""])
def test_an_algorithm_that_proves_nothing_stops_the_start(configure, value):
    with pytest.raises(ConfigurationError, match="LIVEDOCS_OAUTH_ALGORITHMS"):
        configure(oauth_mode="jwt", oauth_algorithms=value)


# Both


async def asked(introspection, times):
    """Wait until the issuer has been asked so often, in the background."""
    async with asyncio.timeout(5):
        while introspection.call_count < times:
            await asyncio.sleep(0)
        # What comes of the last answer is done a few turns later.
        for _ in range(20):
            await asyncio.sleep(0)


async def test_with_both_the_signature_decides_at_once_and_the_issuer_is_asked_meanwhile(
    start, claims, introspection, active
):
    introspection.respond(json=active(groups=["staff", "new"]))
    understands, token = start("jwt+introspect"), sign(claims())
    assert (await understands.principal(token)).groups == {"staff"}
    await asked(introspection, 1)
    # Its word is newer than the token.
    assert (await understands.principal(token)).groups == {"staff", "new"}
    assert introspection.call_count == 1


async def test_with_both_a_revoked_token_is_of_no_use_from_the_next_request_to_its_end(
    start, claims, introspection, clock
):
    introspection.respond(json={"active": False})
    understands, token = start("jwt+introspect"), sign(claims())
    assert await understands.principal(token)
    await asked(introspection, 1)
    for _ in range(10):
        assert await refusal(understands, token) == "inactive"
        clock.forward(20)
    introspection.respond(503)
    clock.forward(20)
    with pytest.raises(AuthUnavailable):
        await understands.principal(token)


async def test_with_both_a_live_socket_waits_for_the_issuers_word(start, claims, introspection, active):
    understands, token = start("jwt+introspect"), sign(claims())
    introspection.respond(json=active())
    assert await understands.principal(token, fresh=True)
    introspection.respond(json={"active": False})
    assert await refusal(understands, token, fresh=True) == "inactive"
    introspection.respond(503)
    with pytest.raises(AuthUnavailable):
        await understands.principal(sign(claims(jti="t2")), fresh=True)


async def test_with_both_two_words_that_contradict_each_other_are_neither_believed(
    start, claims, introspection, active
):
    understands, token = start("jwt+introspect"), sign(claims())
    introspection.respond(json=active(tenant="globex"))
    assert await refusal(understands, token, fresh=True) == "subject"
    introspection.respond(json=active(sub="root"))
    assert await refusal(understands, sign(claims(jti="t2")), fresh=True) == "subject"


async def test_with_both_a_signature_is_enough_for_the_grace_only_while_the_issuer_does_not_answer(
    start, claims, introspection, active, clock
):
    introspection.respond(503)
    understands, token = start("jwt+introspect", auth_grace=60), sign(claims())
    for calls in range(1, 3):
        assert await understands.principal(token)
        await asked(introspection, calls)
        clock.forward(30)
    # Revoked or not, who could say?
    with pytest.raises(AuthUnavailable):
        await understands.principal(token)
    # Heard of again, it has as long again.
    clock.forward(20)
    introspection.respond(json=active())
    assert await understands.principal(token)
    introspection.respond(503)
    clock.forward(31)
    assert await understands.principal(token)


async def test_with_both_a_bad_signature_is_never_asked_about(start, claims, introspection):
    assert await refusal(start("jwt+introspect"), sign(claims(), OTHER)) == "signature"
    assert not introspection.called


async def test_with_both_readiness_needs_both(start, introspection, keys):
    introspection.respond(json={"active": False})
    assert await start("jwt+introspect").reachable()
    introspection.respond(503)
    assert not await start("jwt+introspect").reachable()
    introspection.respond(json={"active": False})
    keys.respond(503)
    assert not await start("jwt+introspect").reachable()
