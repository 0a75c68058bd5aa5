"""The files that are made, with their texts."""

from __future__ import annotations

from pathlib import Path

from tests.docs import metrics
from tests.docs.dashboards import DASHBOARDS
from tests.docs.grafana import text
from tests.testkit.federation import ROOT

OBSERVABILITY = ROOT / "clusters" / "observability"
RULES = OBSERVABILITY / "rules.yaml"

_RULE = """\
# Made from rules.yaml by `make docs`. runbook_url leads into this repository; put where yours is
# read in front of it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: grpc-gateway-rules
  namespace: federation-system
  labels:
    app.kubernetes.io/part-of: federation
spec:
"""


def made() -> dict[Path, str]:
    """All files by their place."""
    found = {
        OBSERVABILITY / "dashboards" / f"{name}.json": text(dashboard, DASHBOARDS.values())
        for name, dashboard in DASHBOARDS.items()
    }
    found[OBSERVABILITY / "prometheus-rule.yaml"] = prometheus_rule(RULES.read_text())
    found[ROOT / "docs" / "metrics.md"] = metrics.page(RULES.read_text())
    return found


def prometheus_rule(rules: str) -> str:
    """The plain rule file as the Prometheus operator takes it."""
    lines = rules[rules.index("groups:") :].splitlines()
    return _RULE + "".join(f"  {line}\n" if line else "\n" for line in lines)
