"""What ``docs/conformance.md`` says of the Gateway API: the counts of the last report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

REPORT = Path(__file__).parents[3] / "docs" / "conformance" / "gateway-api.yaml"
"""The report of the last whole run, as the suite wrote it."""

PEER = {
    "GATEWAY-GRPC": "Traefik 3.6.12: 13 of 15",
    "GATEWAY-HTTP": "Traefik 3.6.12: 56 of 68",
}
"""Counted with the same suite on clusters of processes, of the tests each claims."""

INTRODUCTION = """## Gateway API

The conformance suite of Gateway API {version} (CRDs of the {channel} channel), unchanged and
without a test left out, against a real API server whose Pods are processes, each Gateway with
gateways of its own (`--gateway-mode dedicated`). The suite reads what is claimed from
`status.supportedFeatures` of the GatewayClass. Its own report is
[gateway-api.yaml](conformance/gateway-api.yaml), of {date}.
`python -m tests.conformance.gateway_api` runs it alone.
"""
BEYOND_CORE = """
GRPCRouteNamedRule runs and passes too; the suite counts it in no profile. Claimed beyond core:
"""


def section() -> str:
    """The section, empty while there is no report."""
    if not REPORT.exists():
        return ""
    return "\n".join(_lines(yaml.safe_load(REPORT.read_text())))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield INTRODUCTION.format(
        version=report["gatewayAPIVersion"],
        channel=report["gatewayAPIChannel"],
        date=report["date"][:10],
    )
    yield "| profile | core | extended | beside it |"
    yield "| --- | --- | --- | --- |"
    for profile in report["profiles"]:
        core, extended = (_passed(profile.get(part, {})) for part in ("core", "extended"))
        yield f"| {profile['name']} | {core} | {extended} | {PEER[profile['name']]} |"
    features = {
        name
        for profile in report["profiles"]
        for name in profile.get("extended", {}).get("supportedFeatures", ())
    }
    yield BEYOND_CORE
    yield from (f"- {name}" for name in sorted(features))
    yield ""


def _passed(part: Mapping[str, Any]) -> str:
    counts = part.get("statistics", {})
    passed, failed = counts.get("Passed", 0), counts.get("Failed", 0)
    return f"{passed} of {passed + failed + counts.get('Skipped', 0)}"
