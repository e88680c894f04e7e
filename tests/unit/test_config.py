from __future__ import annotations

import pytest

from livedocs import config
from livedocs.errors import ConfigurationError

GOOD = {
    "LIVEDOCS_PUBLIC_URL": "https://docs.example.com",
    "LIVEDOCS_MONGODB_URI": "mongodb://livedocs:hunter2@db/?replicaSet=rs0",
    "LIVEDOCS_OAUTH_ISSUER": "https://login.example.com/realm",
    "LIVEDOCS_OAUTH_CLIENT_ID": "livedocs",
    "LIVEDOCS_OAUTH_CLIENT_SECRET": "hunter2",
    "LIVEDOCS_OAUTH_AUDIENCE": "livedocs",
}


def problems(**changes: str | None) -> list[str]:
    environ = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(ConfigurationError) as caught:
        config.load(environ)
    return caught.value.problems


def test_the_required_settings_are_enough():
    settings = config.load(GOOD)
    assert settings.secure
    assert settings.origins == {"https://docs.example.com"}
    assert settings.bind == "127.0.0.1:8000"


def test_every_missing_setting_is_named_at_once():
    with pytest.raises(ConfigurationError) as caught:
        config.load({})
    assert sorted(line.split(":")[0] for line in caught.value.problems) == sorted(GOOD)


def test_a_setting_that_does_not_exist_is_a_typing_error():
    assert problems(LIVEDOCS_PUBLIC_ULR="x") == ["LIVEDOCS_PUBLIC_ULR: there is no such setting"]


def test_variables_of_the_client_commands_are_let_be():
    assert config.load({**GOOD, "LIVEDOCS_TOKEN": "x", "OTHER": "y"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "http://docs.example.com"),
        ("PUBLIC_URL", "https://docs.example.com/path"),
        ("PUBLIC_URL", "ftp://docs.example.com"),
        ("PUBLIC_URL", "https://user:hunter2@docs.example.com"),
        ("OAUTH_ISSUER", "http://login.example.com"),
        ("OAUTH_ISSUER", "https://login.example.com?x=hunter2"),
        ("OAUTH_INTROSPECTION_URL", "http://login.example.com/introspect"),
        ("ALLOWED_ORIGINS", "https://a.example, http://b.example"),
        ("ALLOWED_ORIGINS", "https://a.example/"),
        ("ALLOWED_ORIGINS", "*"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "10.0.0.0/8 0.0.0.0/0"),
        ("TRUSTED_PROXIES", "::/0"),
        ("OAUTH_CLIENT_SECRET", " "),
        ("MONGODB_URI", ""),
        ("OAUTH_AUDIENCE", ""),
        ("METRICS_BIND", "127.0.0.1:8000"),
        ("FRONTEND_DIR", "/nowhere"),
        ("PING_INTERVAL", "0"),
        ("MAX_MESSAGE_BYTES", "many"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_an_unsafe_or_malformed_setting_is_named_without_its_value(name, value):
    (line,) = problems(**{f"LIVEDOCS_{name}": value})
    assert line.startswith(f"LIVEDOCS_{name}: ")
    assert "hunter2" not in line


def test_plain_http_is_for_this_machine_only():
    for host in ("localhost", "127.0.0.1", "127.1.2.3", "[::1]"):
        assert not config.load({**GOOD, "LIVEDOCS_PUBLIC_URL": f"http://{host}:8000"}).secure


def test_secrets_do_not_show():
    settings = config.load(GOOD)
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
    assert "hunter2" not in settings.model_dump_json()


def test_several_values_are_separated_by_commas_or_spaces():
    settings = config.load(
        {**GOOD, "LIVEDOCS_ALLOWED_ORIGINS": "https://a.example,https://b.example https://c.example"}
    )
    assert settings.allowed_origins == ("https://a.example", "https://b.example", "https://c.example")


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        config.load(GOOD).bind = "0.0.0.0:80"
