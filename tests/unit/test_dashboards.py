"""The alerts and the dashboard of ops/ ask for metrics that there are, in the language of Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client import Counter, Histogram

from livedocs.telemetry import BOUNDS, DISCONNECTS, EVENTS, RESYNCS, Metrics

OPS = Path(__file__).parents[2] / "ops"
ALERTS = yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((OPS / "grafana" / "livedocs.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Grafana puts the interval in before Prometheus sees it.
EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "1m")
        for panel in PANELS
        for target in panel["targets"]
    },
}
MADE = [made for made in vars(Metrics()).values() if hasattr(made, "describe") and hasattr(made, "_name")]
# What Prometheus adds of its own.
ALWAYS = {"instance", "job"}
VALUES = {
    "op": set(EVENTS),
    "reason": {*RESYNCS, *DISCONNECTS},
    "kind": {kind for kind, _ in BOUNDS},
    "scope": {scope for _, scope in BOUNDS},
    "path": {"direct", "asgi"},
}


def samples():
    """The labels of every series there is, by its name."""
    found = {"up": ALWAYS}
    for made in MADE:
        (family,) = made.describe()
        labels = ALWAYS | set(made._labelnames)
        if isinstance(made, Histogram):
            found |= {family.name + ending: labels for ending in ("_sum", "_count")}
            found[family.name + "_bucket"] = labels | {"le"}
        else:
            found[family.name + ("_total" if isinstance(made, Counter) else "")] = labels
    return found


SAMPLES = samples()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_is_one_and_names_what_there_is(name):
    expression = EXPRESSIONS[name]
    promql_parser.parse(expression)
    asked = re.findall(r"(?<![\w{,\"|])(livedocs_\w+|up)\b(?:\{([^}]*)\})?", expression)
    assert asked
    grouped = {
        label for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in labels.split(", ")
    }
    for series, selectors in asked:
        assert series in SAMPLES, series
        assert grouped <= SAMPLES[series]
        for label, operator, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', selectors):
            assert label in SAMPLES[series]
            if operator == "=" and label in VALUES:
                assert value in VALUES[label], value
            elif operator == "=~" and label in VALUES:
                assert set(value.split("|")) <= VALUES[label], value


def test_every_metric_is_on_the_dashboard():
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    missing = [made._name for made in MADE if not re.search(rf"\b{made._name}(_total|_bucket)?\b", shown)]
    assert missing == []


def test_an_alert_says_how_urgent_it_is_and_what_to_do():
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_documentation_lists_every_alert_with_its_severity():
    page = (OPS.parent / "docs" / "observability.md").read_text()
    listed = re.findall(r"^\| `(Livedocs\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]


def test_the_documentation_lists_every_span():
    page = (OPS.parent / "docs" / "observability.md").read_text()
    listed = set(re.findall(r"^\| `([\w/. ]+)`", page.split("## Traces")[1], re.MULTILINE))
    source = "".join(path.read_text() for path in (OPS.parent / "src" / "livedocs").rglob("*.py"))
    made = {
        name.replace("{_ROUTE}", "/socket.io") for name in re.findall(r'tracing\.span\(\s*f?"([^"]+)"', source)
    }
    assert made
    assert made <= listed


@pytest.mark.parametrize(
    "alert", ["LivedocsStreamLag", "LivedocsRevocationSlow", "LivedocsStreamBroken", "LivedocsAuthUnavailable"]
)
def test_whoever_is_on_call_hears_of_what_breaks_a_promise(alert):
    [rule] = [rule for rule in RULES if rule["alert"] == alert]
    assert rule["labels"]["severity"] == "critical"


def test_no_two_panels_are_in_one_place():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_legends_and_texts_name_labels_that_the_expression_has():
    for panel in PANELS:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = re.search(r"\bby \(([^)]*)\)", target["expr"])
            assert named <= (set(grouped[1].split(", ")) if grouped else ALWAYS), panel["title"]
    for rule in RULES:
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        grouped = re.search(r"\bby \(([^)]*)\)", rule["expr"])
        assert named <= (set(grouped[1].split(", ")) if grouped else ALWAYS), rule["alert"]


def test_the_alerts_are_what_prometheus_is_told_to_watch():
    settings = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
    assert settings["rule_files"] == ["alerts.yml"]
    [job] = settings["scrape_configs"]
    assert job["job_name"] == "livedocs"
    # The port of the default setting.
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9464"]}]
