from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedocs.access.credentials import (
    Credential,
    check_csrf,
    check_origin,
    cookie_name,
    from_headers,
    origin_from,
    read_cookie,
    well_formed,
)
from livedocs.errors import (
    BadRequest,
    CsrfRejected,
    DuplicateCookie,
    ForbiddenOrigin,
    InvalidToken,
    MultipleCredentials,
    TokenTooLarge,
    Unauthenticated,
)

OURS = frozenset({"http://localhost:8000", "http://127.0.0.1:8000"})
COOKIE = Credential("t", "cookie")
BEARER = Credential("t", "bearer")


def headers(*pairs):
    return [(name.encode(), value.encode("latin-1")) for name, value in pairs]


def test_a_request_without_a_credential_has_none():
    assert from_headers([], secure=False) is None
    assert from_headers(headers(("cookie", "theme=dark; other=1")), secure=False) is None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_bearer_token_is_taken_from_the_authorization_header(scheme):
    found = from_headers(headers(("Authorization", f"{scheme} a.b-c_d~e+f/g==")), secure=False)
    assert found == Credential("a.b-c_d~e+f/g==", "bearer")


@pytest.mark.parametrize("secure", [False, True])
def test_a_cookie_token_is_taken_from_the_cookie_of_that_scheme_only(secure):
    both = {False: "livedocs_token", True: "__Host-livedocs_token"}
    assert cookie_name(secure) == both[secure]
    assert from_headers(headers(("cookie", f"{both[secure]}=abc")), secure=secure) == Credential("abc", "cookie")
    assert from_headers(headers(("cookie", f"{both[not secure]}=abc")), secure=secure) is None


def test_a_cookie_among_others_and_in_any_header_field_is_found():
    sent = headers(("cookie", "a=b;livedocs_token=abc ; c=d"), ("cookie", "e=f"))
    assert from_headers(sent, secure=False) == Credential("abc", "cookie")


@pytest.mark.parametrize("name", ["Livedocs_token", "livedocs_token2", "xlivedocs_token", "livedocs_token "])
def test_a_cookie_of_nearly_the_name_is_another_cookie(name):
    assert from_headers(headers(("cookie", f"x={name}; {name.strip()}x=abc")), secure=False) is None


def test_a_cookie_and_an_authorization_header_are_refused():
    sent = headers(("cookie", "livedocs_token=abc"), ("authorization", "Bearer abc"))
    with pytest.raises(MultipleCredentials):
        from_headers(sent, secure=False)


def test_two_authorization_headers_are_refused():
    sent = headers(("authorization", "Bearer abc"), ("Authorization", "Bearer abc"))
    with pytest.raises(MultipleCredentials):
        from_headers(sent, secure=False)


@pytest.mark.parametrize(
    "pairs",
    [
        [("cookie", "livedocs_token=abc; livedocs_token=abc")],
        [("cookie", "livedocs_token=abc"), ("cookie", "livedocs_token=def")],
        [("cookie", "livedocs_token=abc; a=b; livedocs_token=")],
    ],
)
def test_our_cookie_twice_is_refused(pairs):
    with pytest.raises(DuplicateCookie):
        from_headers(headers(*pairs), secure=False)


def test_other_cookies_may_come_twice():
    assert read_cookie(headers(("cookie", "a=1; a=2; b=3")), "b") == "3"


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer ", "Bearer  ", "Bearer two words", "Bearer a,b", "Bearer =", "Bearer tök", "Bearer a\x00b"],
)
def test_a_malformed_bearer_header_is_a_bad_request(value):
    with pytest.raises(BadRequest):
        from_headers(headers(("authorization", value)), secure=False)


@pytest.mark.parametrize("value", ["", "Basic YTpi", "abc", "Bearerabc", "DPoP abc"])
def test_another_scheme_is_no_credential_of_ours(value):
    with pytest.raises(Unauthenticated) as caught:
        from_headers(headers(("authorization", value)), secure=False)
    assert caught.type is Unauthenticated


@pytest.mark.parametrize("value", ["", '"abc"', "a b", "a,b", "tök", "%61"])
def test_a_cookie_that_is_no_token_is_an_invalid_token(value):
    with pytest.raises(InvalidToken):
        from_headers(headers(("cookie", f"livedocs_token={value}")), secure=False)


@pytest.mark.parametrize("where", [("cookie", "livedocs_token="), ("authorization", "Bearer ")])
def test_a_token_over_4096_octets_is_refused(where):
    name, prefix = where
    assert from_headers(headers((name, prefix + "x" * 4096)), secure=False)
    with pytest.raises(TokenTooLarge):
        from_headers(headers((name, prefix + "x" * 4097)), secure=False)


def test_a_credential_does_not_show_its_token():
    assert "secret-token" not in repr(Credential("secret-token", "cookie"))


def test_the_origin_is_read_once_only():
    assert origin_from([]) is None
    assert origin_from(headers(("Origin", "http://localhost:8000"))) == "http://localhost:8000"
    with pytest.raises(ForbiddenOrigin):
        origin_from(headers(("origin", "http://localhost:8000"), ("origin", "http://localhost:8000")))


@pytest.mark.parametrize("credential", [None, COOKIE, BEARER])
@pytest.mark.parametrize(
    "origin",
    [
        *(
            "https://evil.example",
            "null",
            "",
            "http://localhost",
            "http://localhost:80000",
            "https://localhost:8000",
        ),
        *("http://localhost:8000/", "http://localhost:8000.evil.example", "http://LOCALHOST:8000"),
    ],
)
def test_a_foreign_origin_is_refused_whatever_the_credential(origin, credential):
    with pytest.raises(ForbiddenOrigin):
        check_origin(origin, credential, OURS)


@pytest.mark.parametrize("credential", [None, COOKIE, BEARER])
@pytest.mark.parametrize("origin", sorted(OURS))
def test_our_own_origins_are_allowed(origin, credential):
    check_origin(origin, credential, OURS)


def test_a_missing_origin_is_allowed_without_a_cookie_only():
    check_origin(None, None, OURS)
    check_origin(None, BEARER, OURS)
    with pytest.raises(ForbiddenOrigin):
        check_origin(None, COOKIE, OURS)


def test_an_empty_list_of_origins_allows_none():
    with pytest.raises(ForbiddenOrigin):
        check_origin("http://localhost:8000", BEARER, frozenset())


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "post", "ANYTHING"])
@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("x-requested-with", "livedocs")],
        [("origin", "http://localhost:8000")],
        [("sec-fetch-site", "same-origin")],
        [("origin", "https://evil.example"), ("x-requested-with", "livedocs")],
        [("origin", "null"), ("x-requested-with", "livedocs")],
        [("origin", ""), ("x-requested-with", "livedocs")],
        [("origin", "https://evil.example"), ("sec-fetch-site", "same-origin"), ("x-requested-with", "livedocs")],
        [("origin", "http://localhost:8000"), ("origin", "https://evil.example"), ("x-requested-with", "x")],
        [("sec-fetch-site", "same-site"), ("x-requested-with", "livedocs")],
        [("sec-fetch-site", "cross-site"), ("x-requested-with", "livedocs")],
        [("sec-fetch-site", "none"), ("x-requested-with", "livedocs")],
        [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"), ("x-requested-with", "x")],
    ],
)
def test_a_change_with_a_cookie_and_without_both_proofs_is_refused(method, pairs):
    with pytest.raises(CsrfRejected):
        check_csrf(method, headers(*pairs), COOKIE, OURS)


@pytest.mark.parametrize(
    "pairs",
    [
        [("Origin", "http://127.0.0.1:8000"), ("X-Requested-With", "livedocs")],
        [("sec-fetch-site", "same-origin"), ("x-requested-with", "livedocs")],
    ],
)
def test_a_change_from_one_of_our_own_pages_passes(pairs):
    check_csrf("POST", headers(*pairs), COOKIE, OURS)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_needs_no_proof(method):
    check_csrf(method, [], COOKIE, OURS)


@pytest.mark.parametrize("credential", [None, BEARER])
def test_what_no_browser_adds_by_itself_needs_no_proof(credential):
    check_csrf("POST", [], credential, OURS)


def _signed_token():
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode()
        for part in (b'{"alg":"RS256","typ":"at+jwt"}', b'{"sub":"alice"}', bytes(range(64)))
    )


def test_a_signed_token_has_one_spelling():
    token = _signed_token()
    assert well_formed(token)
    head, payload, signature = token.split(".")
    spellings = [
        # A lenient decoder reads the same bytes out of each of these.
        *(token + "=" * count for count in (1, 2, 3)),
        f"{head}~.{payload}.{signature}",
        # The last character has bits that mean nothing.
        token[:-1] + chr(ord(token[-1]) + 1),
        f"{head}.{payload}.{signature[:10]}~{signature[10:]}",
    ]
    assert [spelling for spelling in spellings if well_formed(spelling)] == []


@pytest.mark.parametrize("token", ["opaque==", "a.b.c", "v4.public.eyJzdWIiOiJhbGljZSJ9", "x" * 40])
def test_an_opaque_token_is_what_its_issuer_made_it(token):
    assert well_formed(token)


@given(st.text(alphabet="abcAB019-_.~+/=", max_size=60))
def test_no_text_is_more_than_refused(text):
    assert well_formed(text) in {True, False}
