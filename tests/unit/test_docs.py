"""The documentation against the code: what it lists is what there is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import get_args

import click
import pytest

from livedocs import config, errors
from livedocs.access import claims
from livedocs.cli import main as cli
from livedocs.demo.oauth import client_secret
from livedocs.http import app as http_app
from livedocs.live import client as live_client
from livedocs.telemetry import Metrics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    page for place in (".", "docs", "docs/how-to", "examples/*", "ops") for page in ROOT.glob(f"{place}/*.md")
)
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(page, after=""):
    """The rows of a page's table that begins behind `after`, each a list of cells."""
    text = (DOCS / page).read_text().split(after, 1)[1]
    found = []
    for line in text.splitlines():
        if line.startswith("|"):
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found:
            break
    return found[2:]


@pytest.mark.parametrize("name", ["settings", "errors", "metrics", "reasons", "commands"])
def test_the_tables_are_as_they_would_be_written_now(reference, name):
    text = (DOCS / reference.TABLES[name][0]).read_text()
    assert reference.written(name, text) == text, "run python scripts/reference.py"


def test_every_setting_is_listed_with_its_default_and_meaning():
    listed = {row[0].strip("`"): row[1:] for row in rows("settings.md", "<!-- begin settings -->")}
    assert listed.keys() == {config.PREFIX + name.upper() for name in config.Settings.model_fields}
    for name, field in config.Settings.model_fields.items():
        default, _, meaning = listed[config.PREFIX + name.upper()]
        assert meaning == field.description
        assert meaning, name
        assert (default == "**required**") == field.is_required(), name


def test_a_default_in_the_table_can_be_set(monkeypatch):
    required = {
        "LIVEDOCS_PUBLIC_URL": "http://localhost:8000",
        "LIVEDOCS_MONGODB_URI": "mongodb://localhost",
        "LIVEDOCS_OAUTH_ISSUER": "http://localhost:8001",
        "LIVEDOCS_OAUTH_CLIENT_ID": "livedocs",
        "LIVEDOCS_OAUTH_CLIENT_SECRET": "secret",
        "LIVEDOCS_OAUTH_AUDIENCE": "livedocs",
    }
    listed = {row[0].strip("`"): row[1] for row in rows("settings.md", "<!-- begin settings -->")}
    always = {name for name, default in listed.items() if default == "**required**"}
    # The secret is not needed by those who have a key.
    assert always == required.keys() - {"LIVEDOCS_OAUTH_CLIENT_SECRET"}
    given = {name: default.strip("`") for name, default in listed.items() if default.startswith("`")}
    assert config.load({**required, **given}) == config.load(required)


def every_error(kind=errors.LivedocsError):
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from every_error(child)


def test_every_error_is_listed_with_its_status():
    listed = [(row[0].strip("`"), row[1], row[2].strip("`")) for row in rows("errors.md", "<!-- begin errors -->")]
    assert listed == [(kind.code, str(kind.status), kind.on_socket()) for kind in every_error()]
    assert len({code for code, _, _ in listed}) == len(listed)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    drawn = re.findall(r"^[ |]*\+-- (\w+) +(\d{3}) +(\w+)$", errors.__doc__, re.MULTILINE)
    assert drawn == [(kind.__name__, str(kind.status), kind.code) for kind in every_error()]
    depths = re.findall(r"^( *(?:\|?[ |]*))\+-- \w+", errors.__doc__, re.MULTILINE)
    parents = [len(kind.__mro__) - len(errors.LivedocsError.__mro__) for kind in every_error()]
    assert [len(indent) // 4 for indent in depths] == parents


def test_every_metric_is_listed_as_prometheus_sees_it():
    listed = {row[0].strip("`") for row in rows("metrics.md", "<!-- begin metrics -->")}
    families = {family.name: family.type for family in Metrics().registry.collect()}
    endings = {"counter": "_total", "histogram": "_bucket", "gauge": ""}
    assert listed == {name + endings[kind] for name, kind in families.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_metric_that_a_page_names_exists(page):
    families = {family.name for family in Metrics().registry.collect()}
    known = {f"{name}{ending}" for name in families for ending in ("", "_total", "_bucket", "_sum", "_count")}
    named = re.findall(r"\blivedocs_\w+_(?:total|seconds|bytes|bucket|sum|count)\b", page.read_text())
    assert set(named) <= known, set(named) - known


def braced(match):
    return f"{{{match[1]}}}"


def test_the_http_page_lists_every_route_and_no_other(tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html>")
    settings = config.Settings(
        public_url="http://localhost:8000",
        mongodb_uri="mongodb://localhost",
        oauth_issuer="http://localhost:8001",
        oauth_client_id="livedocs",
        oauth_client_secret="secret",
        oauth_audience="livedocs",
    )
    # The routes are looked at, none is called.
    names = "authenticator documents grants batches idempotency processes login registry deletions audit"
    parts = dict.fromkeys(names.split())
    app = http_app.build(http_app.Services(settings=settings, metrics=Metrics(), **parts))
    routes = {
        f"{method} {PARAMETER.sub(braced, rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    listed = [row[0].strip("`") for row in rows("http-api.md", "curl -H")]
    assert sorted(listed) == sorted(routes - {"GET /docs.css"})


def test_the_socket_page_lists_every_event_and_no_other():
    source = {path.name: path.read_text() for path in (ROOT / "src" / "livedocs" / "live").glob("*.py")}
    calls = re.findall(r'^ +"(\w+)": self\._\w+,$', source["calls.py"], re.MULTILINE)
    assert [row[0].strip("`") for row in rows("socket-protocol.md", "## Client to server")] == calls
    sent = {name for text in source.values() for name in re.findall(r'"(\$[a-z]+)"', text)}
    listed = [row[0].strip("`") for row in rows("socket-protocol.md", "Control events begin")]
    assert set(listed) == sent


def test_the_socket_page_says_which_reasons_are_final():
    listed = {row[0].strip("`"): row[1] for row in rows("socket-protocol.md", "unless the reason is final |")}
    final = {reason for reason, of in listed.items() if "final" in of}
    assert final == live_client.FINAL


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_that_a_page_names_exists(page):
    options = {option.envvar for command in every_command() for option in command.params}
    known = {config.PREFIX + name.upper() for name in config.Settings.model_fields} | {client_secret.VARIABLE}
    named = set(re.findall(r"LIVEDOCS_[A-Z_]*[A-Z]", page.read_text()))
    assert named <= known | options, named - known


def every_command(group=cli.main):
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from every_command(command)
        else:
            yield command


def commands(text):
    """What stands behind `livedocs` in a page's code."""
    code = re.findall(r"^```sh[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code += re.findall(r"`(livedocs [^`\n]+)`", text)
    joined = "\n".join(code).replace("\\\n", " ")
    return re.findall(r"(?:^|&& |\$\()livedocs (?!is ready)([^)#|\n]+)", joined, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists_with_its_options(page):
    for line in commands(page.read_text()):
        command, words = cli.main, line.split()
        while words and isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
            assert command is not None, line
        options = {name for option in command.params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= {*options, "--help"}, line


@pytest.mark.parametrize("name", ["architecture.svg", "concepts.svg", "threat-model.svg"])
def test_a_picture_loads_nothing_from_elsewhere(name):
    picture = (DOCS / name).read_text()
    assert "<title" in picture
    assert set(re.findall(r"https?://[^\"' ]+", picture)) == {"http://www.w3.org/2000/svg"}
    assert "href" not in picture


def test_the_license_is_the_whole_apache_license():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_reason_to_refuse_a_token_is_explained():
    page = (ROOT / "docs" / "settings.md").read_text()
    table = page[page.index("| `reason` |") :].split("\n\n")[0]
    told = set(re.findall(r"`([a-z_]+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:])))
    assert told == {*get_args(claims.Reason), "tenant_unknown"}
