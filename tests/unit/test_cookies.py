from __future__ import annotations

import pytest

from livedocs.errors import TokenTooLarge
from livedocs.http.cookies import Cookie, Cookies, value_of


def attributes(header):
    first, *rest = header.split("; ")
    return first, set(rest)


def test_on_https_the_token_cookies_are_strict_and_locked_to_the_host():
    cookies = Cookies.named(secure=True)
    strict = {"Path=/", "HttpOnly", "SameSite=Strict", "Secure"}
    assert attributes(cookies.access.setting("abc", max_age=60)) == (
        "__Host-livedocs_token=abc",
        strict | {"Max-Age=60"},
    )
    assert attributes(cookies.refresh.setting("abc", max_age=None)) == ("__Host-livedocs_refresh=abc", strict)
    assert attributes(cookies.session.setting("abc", max_age=None)) == ("__Host-livedocs_session=abc", strict)


def test_the_login_cookie_is_lax_for_the_way_back_from_the_provider():
    assert attributes(Cookies.named(secure=True).attempt("x1").setting("abc", max_age=600)) == (
        "__Host-livedocs_login_x1=abc",
        {"Path=/", "Max-Age=600", "HttpOnly", "SameSite=Lax", "Secure"},
    )


def test_on_plain_http_prefix_and_secure_are_left_out():
    cookies = Cookies.named(secure=False)
    for cookie, name in (
        (cookies.access, "livedocs_token"),
        (cookies.refresh, "livedocs_refresh"),
        (cookies.session, "livedocs_session"),
        (cookies.attempt("x1"), "livedocs_login_x1"),
    ):
        first, rest = attributes(cookie.setting("abc", max_age=1))
        assert first == f"{name}=abc"
        assert "Secure" not in rest
        assert "HttpOnly" in rest


@pytest.mark.parametrize("secure", [False, True])
def test_a_cookie_is_deleted_with_the_attributes_it_was_set_with(secure):
    for cookie in (Cookies.named(secure=secure).access, Cookies.named(secure=secure).attempt("x1")):
        _, was_set = attributes(cookie.setting("abc", max_age=1))
        first, deleted = attributes(cookie.clearing())
        assert first == f"{cookie.name}="
        assert deleted == was_set - {"Max-Age=1"} | {"Max-Age=0"}


def test_the_attempts_that_a_browser_brings_are_told_from_its_other_cookies():
    for secure, prefix in ((True, "__Host-"), (False, "")):
        pairs = f"a=1; {prefix}livedocs_login_x2=2; {prefix}livedocs_token=3; {prefix}livedocs_login_x1=4"
        found = Cookies.named(secure=secure).attempts([(b"cookie", pairs.encode())])
        assert [cookie.name for cookie in found] == [f"{prefix}livedocs_login_x2", f"{prefix}livedocs_login_x1"]


def test_a_cookie_that_a_browser_would_drop_in_silence_is_refused():
    cookie = Cookie("name", "Strict", secure=False)
    assert cookie.setting("x" * 4092, max_age=None)
    with pytest.raises(TokenTooLarge):
        cookie.setting("x" * 4093, max_age=None)


@pytest.mark.parametrize(
    "value", ["abc", "a.b-c_d~e+f/g==", "a;b", "a, b", 'a"b\\', "a%3Bb", "a\r\nSet-Cookie: evil=1", "ü"]
)
def test_any_value_comes_back_as_it_was_and_cannot_add_to_the_header(value):
    first, rest = attributes(Cookie("name", "Lax", secure=False).setting(value, max_age=None))
    quoted = first.removeprefix("name=")
    assert value_of(quoted) == value
    assert not set(quoted) & set(';, "\\\r\n')
    assert rest == {"Path=/", "HttpOnly", "SameSite=Lax"}


def test_an_access_token_is_not_changed_on_its_way_into_the_cookie():
    token = "AZaz09-._~+/=="
    assert Cookies.named(secure=False).access.setting(token, max_age=None).startswith(f"livedocs_token={token};")
