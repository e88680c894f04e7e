"""How this server proves to the OAuth service who it is."""

from __future__ import annotations

from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from livedocs.config import load
from livedocs.errors import ConfigurationError

ISSUER = "https://id.example/realm"
KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def pem(key, encryption=None):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.fixture
def key_file(tmp_path):
    def write(content):
        path = tmp_path / "key.pem"
        path.write_bytes(content)
        return path

    return write


async def question(introspector, introspection, active):
    """What the service is sent."""
    introspection.respond(json=active())
    await introspector.principal("a-token", fresh=True)
    request = introspection.calls.last.request
    form = {name: values[0] for name, values in parse_qs(request.content.decode(), strict_parsing=True).items()}
    assert form.pop("token") == "a-token"
    assert form.pop("token_type_hint") == "access_token"
    return request.headers, form


async def test_a_secret_may_go_into_the_form(start_introspector, introspection, active):
    introspector = start_introspector(oauth_client_auth="client_secret_post")
    headers, form = await question(introspector, introspection, active)
    assert form == {"client_id": "livedocs", "client_secret": "s3cret:with/odd ü"}
    assert "Authorization" not in headers


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_key_signs_a_statement_for_the_issuer_that_is_short_and_new_each_time(
    start_introspector, introspection, active, key_file, clock, *, algorithm
):
    key = KEYS[algorithm]
    introspector = start_introspector(
        oauth_client_auth="private_key_jwt",
        oauth_client_secret="",
        oauth_client_key_file=key_file(pem(key)),
        oauth_client_key_id="2026-11",
    )
    seen = set()
    for _ in range(2):
        headers, form = await question(introspector, introspection, active)
        assert "Authorization" not in headers
        assert form["client_id"] == "livedocs"
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assertion = form["client_assertion"]
        assert jwt.get_unverified_header(assertion) == {"alg": algorithm, "kid": "2026-11", "typ": "JWT"}
        claims = jwt.decode(assertion, key.public_key(), algorithms=[algorithm], audience=ISSUER)
        assert (claims["iss"], claims["sub"], claims["aud"]) == ("livedocs", "livedocs", ISSUER)
        assert claims["exp"] == clock.stamp(60)
        seen.add(claims["jti"])
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        (b"nonsense", "is not an unencrypted private key in PEM"),
        (
            pem(KEYS["ES256"], serialization.BestAvailableEncryption(b"x")),
            "is not an unencrypted private key in PEM",
        ),
        (pem(dsa.generate_private_key(2048)), "is neither RSA (2048 bits or more), P-256 to P-521 nor Ed25519"),
        (
            pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505 - is to be refused
            "is neither RSA (2048 bits or more), P-256 to P-521 nor Ed25519",
        ),
        (
            pem(ec.generate_private_key(ec.SECP256K1())),
            "is neither RSA (2048 bits or more), P-256 to P-521 nor Ed25519",
        ),
    ],
    ids=["missing", "nonsense", "encrypted", "dsa", "small", "curve"],
)
def test_a_key_that_cannot_be_used_stops_the_start_with_the_name_of_the_setting(
    configure, key_file, tmp_path, content, complaint
):
    file = tmp_path / "nowhere" if content is None else key_file(content)
    with pytest.raises(ConfigurationError) as refused:
        configure(oauth_client_auth="private_key_jwt", oauth_client_key_file=file)
    assert refused.value.problems == [f"LIVEDOCS_OAUTH_CLIENT_KEY_FILE: {complaint}"]


def test_a_key_is_required_where_it_is_to_prove_who_we_are(configure):
    with pytest.raises(ConfigurationError) as refused:
        configure(oauth_client_auth="private_key_jwt")
    assert refused.value.problems == ["LIVEDOCS_OAUTH_CLIENT_KEY_FILE: is required with private_key_jwt"]


def test_a_secret_is_required_where_no_key_takes_its_place():
    for given in ({}, {"oauth_client_secret": " "}):
        with pytest.raises(ConfigurationError) as refused:
            load(
                {},
                public_url="http://localhost:1",
                mongodb_uri="mongodb://m",
                oauth_issuer="http://localhost",
                **given,
            )
        assert "LIVEDOCS_OAUTH_CLIENT_ID: is required" in refused.value.problems
    with pytest.raises(ConfigurationError) as refused:
        load(
            {},
            public_url="http://localhost:1",
            mongodb_uri="mongodb://m",
            oauth_issuer="http://localhost",
            oauth_client_id="livedocs",
            oauth_audience="livedocs",
        )
    assert refused.value.problems == ["LIVEDOCS_OAUTH_CLIENT_SECRET: is required"]


async def test_the_key_seals_the_cookie_of_a_login_when_there_is_no_secret(configure, key_file):
    def settings(content):
        return configure(
            oauth_client_auth="private_key_jwt", oauth_client_secret="", oauth_client_key_file=key_file(content)
        )

    first, second = pem(KEYS["ES256"]), pem(KEYS["ES384"])
    assert settings(first).login_secret == first
    assert settings(second).login_secret == second
