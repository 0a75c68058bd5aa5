"""Manifests in, snapshot and conditions out, compared with files that people have read.

A case is a folder: `in.yaml` (one cluster's objects, oldest first; certificates listed in a
comment `# certificate: NAMESPACE/NAME` are made on the spot), optionally `federation.yaml` (facts
and derived state, in the model's JSON form) and `out.yaml`, without values at their defaults.
`pytest tests/golden --update-golden` rewrites it.
"""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.model.base import ServiceName, Value
from federation.model.conditions import Condition
from federation.model.facts import ClusterGateways, ExportFact, Member, ServicePolicyFact
from federation.model.resolved import ResolvedService
from federation.model.snapshot import TlsSecret
from federation.model.status import ObjectStatus
from federation.model.view import FederationView
from tests.testkit.routing import certificate, compiled, parse

CASES = Path(__file__).parent / "cases"
CERTIFICATE = re.compile(r"^# certificate: (\S+)$", re.MULTILINE)


@pytest.mark.parametrize("case", sorted(CASES.iterdir()), ids=lambda case: case.name)
def test_golden(case: Path, request: pytest.FixtureRequest) -> None:
    text = (case / "in.yaml").read_text()
    certificates = [certificate(name) for name in CERTIFICATE.findall(text)]
    result = compiled([*parse(text), *certificates], federation(case / "federation.yaml"))
    actual = {
        "snapshot": plain(result.snapshot),
        "statuses": {str(key): status(entry) for key, entry in result.statuses.items()},
    }
    path = case / "out.yaml"
    if request.config.getoption("--update-golden", default=False):
        path.write_text(yaml.safe_dump(actual, sort_keys=False, width=100, allow_unicode=True))
    assert actual == yaml.safe_load(path.read_text())


def federation(path: Path) -> FederationView:
    """The federation's state of a case; without a file this cluster stands alone."""
    if not path.exists():
        return FederationView()
    raw = yaml.safe_load(path.read_text())

    def read(cls: type[Value], name: str) -> list[Any]:
        return [cls.model_validate(entry) for entry in raw.get(name, ())]

    exports: dict[ServiceName, dict[Any, ExportFact]] = {}
    for fact in read(ExportFact, "exports"):
        exports.setdefault(fact.service, {})[fact.cluster] = fact
    policies: dict[ServiceName, dict[Any, ServicePolicyFact]] = {}
    for policy in read(ServicePolicyFact, "policies"):
        policies.setdefault(policy.service, {})[policy.cluster] = policy
    return FederationView(
        members={entry.cluster: entry for entry in read(Member, "members")},
        gateways={entry.cluster: entry for entry in read(ClusterGateways, "gateways")},
        exports=exports,
        policies=policies,
        resolved={entry.service: entry for entry in read(ResolvedService, "resolved")},
    )


def plain(value: Any) -> Any:
    """`value` as YAML knows it; fields at their defaults and secret content left out."""
    if isinstance(value, TlsSecret):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    return value


def status(source: ObjectStatus) -> dict[str, Any]:
    """The status with its conditions as one line each."""
    parts: dict[str, Any] = {
        "conditions": lines(source.conditions),
        "listeners": {
            f"{entry.name} ({entry.attached_routes} routes)": lines(entry.conditions)
            for entry in source.listeners
        },
        "parents": {
            f"{entry.parent_ref.name}/{entry.parent_ref.section_name or '*'}": lines(
                entry.conditions
            )
            for entry in source.parents
        },
        "ancestors": {
            f"{entry.ancestor_ref.kind} {entry.ancestor_ref.name}": lines(entry.conditions)
            for entry in source.ancestors
        },
        "clusters": list(source.clusters),
    }
    return {name: part for name, part in parts.items() if part}


def lines(conditions: tuple[Condition, ...]) -> list[str]:
    """`TYPE=STATUS/REASON@GENERATION: MESSAGE`."""
    return [
        f"{entry.type}={entry.status.value}/{entry.reason}@{entry.observed_generation}"
        + (f": {entry.message}" if entry.message else "")
        for entry in conditions
    ]
