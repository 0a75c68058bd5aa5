"""What is shipped for watching fits what runs: dashboards, monitors, the collector, the pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from federation.telemetry import CATALOGUE as CONTROL
from federation.telemetry import spans
from gateway.metrics.catalogue import CATALOGUE as GATEWAY
from tests.docs import sources
from tests.docs.made import OBSERVABILITY, RULES, made
from tests.testkit.collector import COLLECTOR, validated
from tests.testkit.federation import ROOT
from tests.testkit.manifests import Object, containers, kustomized, objects, of_kind, workloads
from tests.testkit.prometheus import needs_promtool, promtool

DASHBOARDS = sorted((OBSERVABILITY / "dashboards").glob("*.json"))
COLLECTOR_CONFIG = OBSERVABILITY / "collector" / "config.yaml"
RENEW = "is not as the code says: run `make docs`"


def queries(path: Path) -> Iterator[str]:
    """All queries of a dashboard, its variables filled in as Grafana does."""
    document = json.loads(path.read_text())
    found = [target["expr"] for panel in document["panels"] for target in panel.get("targets", ())]
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            listed = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert listed is not None
            found.append(f"count by ({listed[2]}) ({listed[1]})")
    for expr in found:
        yield re.sub(r"\$\w+", ".*", expr.replace("$__rate_interval", "5m"))


def test_what_is_made_is_as_the_code_says() -> None:
    for path, text in made().items():
        assert path.read_text() == text, f"{path} {RENEW}"


def test_each_metric_span_attribute_log_field_and_alert_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert alerts
    for word in (
        *(spec.name for spec in (*CONTROL, *GATEWAY)),
        *spans.SPANS,
        *spans.ATTRIBUTES,
        *sources.attributes(),
        *sources.events(),
        *(field.word for field in sources.fields()),
        *(word for word, _flag in sources.reasons()),
    ):
        assert f"| `{word}` |" in page, f"{word}: docs/metrics.md {RENEW}"
    for alert in alerts:
        assert f"| [{alert}](runbooks/{alert}.md) |" in page, f"{alert}: docs/metrics.md {RENEW}"


@needs_promtool
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_understands_each_query(path: Path, tmp_path: Path) -> None:
    recorded = [
        {"record": f"tried:query{number}", "expr": expr}
        for number, expr in enumerate(queries(path))
    ]
    assert len(recorded) > 10
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "tried", "rules": recorded}]}))
    assert promtool("check", "rules", str(file)) == ""


def test_dashboards_name_only_metrics_that_are_exported_and_labels_that_they_have() -> None:
    specs = {spec.name: set(spec.labels) for spec in (*CONTROL, *GATEWAY)}
    for spec in (*CONTROL, *GATEWAY):
        if spec.kind == "histogram":
            for part in ("bucket", "sum", "count"):
                specs[f"{spec.name}_{part}"] = {*spec.labels, "le"}
    for name in re.findall(r"record: (\S+)", RULES.read_text()):
        specs[name] = {"grpc_service", "destination_region"}
    assert DASHBOARDS
    for path in DASHBOARDS:
        for expr in queries(path):
            named = set(re.findall(r"\b(?:federation|grpc_server)[a-z0-9_:]+", expr))
            assert named, expr
            assert named <= specs.keys(), f"{path.name}: {expr}"
            grouped = {
                label.strip()
                for labels in re.findall(r"by \(([^)]*)\)", expr)
                for label in labels.split(",")
            }
            matched = set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", expr))
            known = set.union(*(specs[name] for name in named)) | {"instance"}
            assert grouped | matched <= known, f"{path.name}: {expr}"


def test_panels_do_not_lie_on_each_other() -> None:
    for path in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (place["x"] + column, place["y"] + row)
                for column in range(place["w"])
                for row in range(place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


def test_grafana_finds_the_dashboards() -> None:
    (shown,) = of_kind(objects(kustomized("observability")), "ConfigMap")
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(shown["data"]) == {path.name for path in DASHBOARDS}
    uids = [json.loads(text)["uid"] for text in shown["data"].values()]
    assert len(set(uids)) == len(uids)


@pytest.fixture(scope="module")
def installed() -> list[Object]:
    """What a cluster with everything has."""
    folders = ("base", "control", "observability", "observability/collector")
    return [one for folder in folders for one in objects(kustomized(folder))]


def test_monitors_lead_to_ports_that_pods_have(installed: list[Object]) -> None:
    watched = set()
    for monitor in of_kind(installed, "PodMonitor"):
        meant = monitor["spec"]["selector"]["matchLabels"]
        pods = [
            workload
            for workload in workloads(installed)
            if meant.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert pods, monitor["metadata"]["name"]
        for _, container in containers(pods):
            ports = {port["name"] for port in container["ports"]}
            (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
            assert endpoint["port"] in ports
            assert endpoint["path"] == "/metrics"
        watched |= {pod["metadata"]["name"] for pod in pods}
    assert watched == {"federation-agent", "federation-resolver", "federation-gateway"}
    (service,) = of_kind(installed, "ServiceMonitor")
    (meant,) = [
        one
        for one in of_kind(installed, "Service")
        if service["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    assert service["spec"]["endpoints"][0]["port"] in {p["name"] for p in meant["spec"]["ports"]}


def test_the_collector_is_where_the_documents_policy_sends(installed: list[Object]) -> None:
    documents = (ROOT / "tests" / "manifests" / "7-observability.yaml").read_text()
    (policy,) = of_kind(objects(documents), "ObservabilityPolicy")
    (service,) = [
        one for one in of_kind(installed, "Service") if one["metadata"]["name"] == "otel-collector"
    ]
    assert service["metadata"]["namespace"] == policy["metadata"]["namespace"]
    ports = {port["port"]: port["targetPort"] for port in service["spec"]["ports"]}
    assert set(ports) == {4317, 4318, 8889}
    for told in (policy["spec"]["tracing"]["provider"], policy["spec"]["accessLog"]):
        assert told["backendRef"]["name"] == "otel-collector"
        assert told["backendRef"]["port"] in ports
    ((_, container),) = containers(
        [one for one in workloads(installed) if one["metadata"]["name"] == "otel-collector"]
    )
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {named[target] for target in ports.values()} == set(ports)
    config = yaml.safe_load(COLLECTOR_CONFIG.read_text())
    listening = {
        *(it["endpoint"] for it in config["receivers"]["otlp"]["protocols"].values()),
        config["exporters"]["prometheus"]["endpoint"],
        config["extensions"]["health_check"]["endpoint"],
    }
    assert listening == {f"0.0.0.0:{port}" for port in named.values()}
    assert config["exporters"]["prometheus"]["namespace"] == "grpc_gateway"
    assert set(config["service"]["pipelines"]) == {"traces", "metrics", "logs"}


def test_the_collectors_image_is_the_version_that_is_tested(installed: list[Object]) -> None:
    tested = re.search(
        r"go\.opentelemetry\.io/collector/otelcol v(\S+)", (COLLECTOR.module / "go.mod").read_text()
    )
    assert tested is not None
    images = {one["image"] for _, one in containers(installed) if one["name"] == "collector"}
    assert images == {f"otel/opentelemetry-collector:{tested[1]}"}


@pytest.mark.timeout(900)
def test_a_real_collector_takes_the_configuration(tmp_path: Path) -> None:
    """All but the Prometheus exporter and the health check, which are in no module proxy."""
    try:
        COLLECTOR.build()
    except NoProgramsError as error:
        pytest.skip(str(error))
    config = _without_contrib(yaml.safe_load(COLLECTOR_CONFIG.read_text()))
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    assert validated(file) == ""
    config["processors"]["memory_limiter"]["limit_percentage"] = 101
    file.write_text(yaml.safe_dump(config))
    assert "limit_percentage" in validated(file)


def _without_contrib(config: dict[str, Any]) -> dict[str, Any]:
    del config["exporters"]["prometheus"], config["extensions"], config["service"]["extensions"]
    config["exporters"]["lines"] = {}
    config["service"]["pipelines"]["metrics"]["exporters"] = ["lines"]
    return config
