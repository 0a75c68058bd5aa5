"""What differs between two configurations of gateways, as their admin endpoints dump them.

Decides: what is compared: each resource's content by kind and name, path by path. Where a gateway
binds (address and port of listeners) and what it makes for itself is its own business.
Leaves to others: fetching (``config``).
Invariants: pure; secrets are compared by version alone, since nothing else of them is dumped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

KINDS = ("listeners", "route_tables", "clusters", "endpoints", "secrets")
OWN = "gateway."
"""Names of what a gateway makes for itself begin with this."""

BOUND = ("address", "port")
ABSENT = "<none>"

Dump = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """``path`` inside the resource, empty where it is on one side only; both sides as JSON."""

    kind: str
    name: str
    path: str
    left: str
    right: str


def resources(dump: Dump, kind: str) -> dict[str, Any]:
    """The resources of a kind, by name, as they are compared."""
    found = {}
    for entry in dump.get(kind, ()):
        name, body = str(entry["name"]), entry["body"]
        if name.startswith(OWN):
            continue
        if kind == "secrets":
            body = {"version": entry["version"]}
        elif kind == "listeners":
            body = {key: value for key, value in body.items() if key not in BOUND}
        elif kind == "route_tables":
            body = {**body, "virtual_hosts": [_host(host) for host in body["virtual_hosts"]]}
        found[name] = body
    return found


def _host(host: Mapping[str, Any]) -> dict[str, Any]:
    routes = [route for route in host["routes"] if not str(route["name"]).startswith("gateway/")]
    return {**host, "routes": routes}


def differences(left: Dump, right: Dump) -> list[Difference]:
    """What differs, by kind and name."""
    return [
        difference
        for kind in KINDS
        for difference in _of_kind(kind, resources(left, kind), resources(right, kind))
    ]


def pending(dump: Dump) -> list[Difference]:
    """What a gateway's agent has sent it and is not in force there, or the other way round."""
    found = []
    refused, waiting = dump.get("refused", {}), dump.get("waiting", {})
    for entry in dump.get("pending", ()):
        kind, name = str(entry["kind"]), str(entry["name"])
        force = resources(dump, kind).get(name)
        sent = entry["sent"]
        known = resources({kind: [sent]}, kind).get(name) if sent else None
        said, needs = refused.get(f"{kind} {name}"), waiting.get(f"{kind} {name}")
        why = f"refused: {said}" if said else f"waits for {', '.join(needs)}" if needs else ""
        inside = list(_paths(force, known, "")) if force is not None and known is not None else []
        if inside:
            found += [Difference(kind, name, p, left, right) for p, left, right in inside]
        else:
            found.append(
                Difference(
                    *(kind, name, why),
                    ABSENT if force is None else "in force",
                    ABSENT if sent is None else "sent",
                )
            )
    return found


def _of_kind(kind: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Difference]:
    for name in sorted({*left, *right}):
        if name not in right:
            yield Difference(kind, name, "", "there", ABSENT)
        elif name not in left:
            yield Difference(kind, name, "", ABSENT, "there")
        else:
            for path, one, other in _paths(left[name], right[name], ""):
                yield Difference(kind, name, path, one, other)


def _paths(left: Any, right: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if left == right:
        return
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}):
            inside = f"{path}.{key}" if path else str(key)
            if key in left and key in right:
                yield from _paths(left[key], right[key], inside)
            else:
                yield inside, _shown(left.get(key, ABSENT)), _shown(right.get(key, ABSENT))
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _paths(one, other, f"{path}[{number}]")
    else:
        yield path, _shown(left), _shown(right)


def _shown(value: Any) -> str:
    return value if value == ABSENT else json.dumps(value, sort_keys=True, ensure_ascii=False)
