"""What ``docs/conformance.md`` says of the Gateway API: the counts of the last report."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
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
CLAIMS = """
Claimed beyond core (GRPCRouteNamedRouteRule too, which the suite tests and counts in no profile;
for HTTPRouteRetryBackendTimeout and HTTPRouteRetryConnectionError it has no test yet, only
`tests/integration` has):
{claimed}.

Not served:
{left}.
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
    for profile in sorted(report["profiles"], key=lambda profile: profile["name"]):
        core, extended = (_passed(profile.get(part, {})) for part in ("core", "extended"))
        yield f"| {profile['name']} | {core} | {extended} | {PEER[profile['name']]} |"
    beyond = [profile.get("extended", {}) for profile in report["profiles"]]
    yield CLAIMS.format(
        claimed=_names(part.get("supportedFeatures", ()) for part in beyond),
        left=_names(part.get("unsupportedFeatures", ()) for part in beyond),
    )


def _names(lists: Iterable[Iterable[str]]) -> str:
    names = ", ".join(sorted({name for found in lists for name in found}))
    return textwrap.fill(names, width=100)


def _passed(part: Mapping[str, Any]) -> str:
    counts = part.get("statistics", {})
    passed, failed = counts.get("Passed", 0), counts.get("Failed", 0)
    return f"{passed} of {passed + failed + counts.get('Skipped', 0)}"
