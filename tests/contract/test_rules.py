"""The alerting rules, run by Prometheus' own tool: each fires when it should, and only then."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from federation.cli.main import app
from federation.telemetry import CATALOGUE as CONTROL
from gateway.metrics.catalogue import CATALOGUE as GATEWAY
from tests.testkit.federation import ROOT
from tests.testkit.manifests import CLUSTERS
from tests.testkit.prometheus import needs_promtool, promtool

RULES = CLUSTERS / "observability" / "rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "rules" / "cases.yaml").read_text()
)
DOCUMENTS = ROOT / "tests" / "manifests" / "7-observability.yaml"


def rules() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    assert promtool("check", "rules", str(RULES)) == ""


def test_each_alert_has_series_on_which_it_fires_and_others() -> None:
    assert all(case["fires"] and case["calm"] for case in CASES)
    tried = {(case["alert"], case["severity"]) for case in CASES}
    # The same alert, nearer to the end: its series are those of the warning, a week later.
    tried.add(("FederationCertificateExpires", "critical"))
    assert tried == {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()}


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['alert']}-{case['severity']}")
def test_it_fires_and_does_not(case: dict[str, Any], tmp_path: Path) -> None:
    rule = next(
        rule
        for rule in alerts()
        if (rule["alert"], rule["labels"]["severity"]) == (case["alert"], case["severity"])
    )
    alone = {**rule, "annotations": {"runbook_url": rule["annotations"]["runbook_url"]}}
    recorded = [rule for rule in rules() if "record" in rule]
    groups = [{"name": "recorded", "rules": recorded}, {"name": "tried", "rules": [alone]}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    fired = {
        "exp_labels": {**case["labels"], "severity": case["severity"]},
        "exp_annotations": alone["annotations"],
    }
    tests = [
        {
            "interval": case["every"],
            "input_series": case[side],
            "alert_rule_test": [
                {"eval_time": case["at"], "alertname": case["alert"], "exp_alerts": expected}
            ],
        }
        for side, expected in (("fires", [fired]), ("calm", []))
    ]
    order = ["recorded", "tried"]
    said = {"rule_files": ["rules.yaml"], "group_eval_order": order, "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(said))
    assert promtool("test", "rules", "test.yaml", at=tmp_path) == ""


@needs_promtool
def test_a_certificate_is_urgent_on_its_last_day(tmp_path: Path) -> None:
    series = (
        'federation_gateway_certificate_expiry_timestamp_seconds{instance="gw",secret="infra/edge"}'
    )
    critical = [
        rule
        for rule in alerts()
        if rule["alert"] == "FederationCertificateExpires"
        and rule["labels"]["severity"] == "critical"
    ]
    alone = [{**rule, "annotations": {}} for rule in critical]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "tried", "rules": alone}]})
    )
    fired = {"exp_labels": {"instance": "gw", "secret": "infra/edge", "severity": "critical"}}
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": f"{ends}x10"}],
            "alert_rule_test": [
                {
                    "eval_time": "5m",
                    "alertname": "FederationCertificateExpires",
                    "exp_alerts": expected,
                }
            ],
        }
        for ends, expected in ((80_000, [fired]), (90_000, []))
    ]
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests})
    )
    assert promtool("test", "rules", "test.yaml", at=tmp_path) == ""


def test_the_documents_alerts_are_there_as_they_stand() -> None:
    document = next(
        one
        for one in yaml.safe_load_all(DOCUMENTS.read_text())
        if one and one["kind"] == "PrometheusRule"
    )
    ours = {rule["alert"]: rule for rule in alerts()}
    for rule in document["spec"]["groups"][0]["rules"]:
        mine = ours[rule["alert"]]
        assert (mine["for"], mine["labels"]) == (rule["for"], rule["labels"])
        expected = rule["expr"].replace(
            "envoy_cluster_circuit_breakers_open_circuit",  # Envoy's; this is the gateway's own
            "federation_gateway_circuit_breaker_open_total",
        )
        assert mine["expr"].split() == expected.split()


def test_rules_name_only_metrics_that_are_exported() -> None:
    known = {spec.name for spec in (*CONTROL, *GATEWAY)}
    known |= {
        f"{spec.name}_{part}"
        for spec in (*CONTROL, *GATEWAY)
        if spec.kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    known |= {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        named = re.findall(r"\b(?:federation|grpc_server)[a-z0-9_:]+", rule["expr"])
        assert named
        assert set(named) <= known, rule


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")}
    assert pages == {rule["alert"] for rule in alerts()}
    for rule in alerts():
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        page = (RUNBOOKS / f"{rule['alert']}.md").read_text()
        parts = re.findall(r"^## (.*)$", page, re.MULTILINE)
        assert parts == ["What it means", "What to look at", "What to do"]
        assert page.startswith(f"# {rule['alert']}\n")


def test_runbooks_name_only_what_there_is() -> None:
    group: Any = get_command(app)
    commands = set(
        group.list_commands(group.make_context("fedctl", ["--help"], resilient_parsing=True))
    )
    known = {spec.name for spec in (*CONTROL, *GATEWAY)}
    for path in RUNBOOKS.glob("*.md"):
        text = path.read_text()
        assert set(re.findall(r"`fedctl ([a-z-]+)", text)) <= commands, path.name
        assert set(re.findall(r"`(federation_[a-z_]+)", text)) <= known, path.name
        for link in re.findall(r"\]\(([\w.]+)\)", text):
            assert (RUNBOOKS / link).exists(), link
