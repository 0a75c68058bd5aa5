"""Text forms of objects: tables, YAML, JSON and descriptions.

Decides: layout: kubectl's tables, documents with their status, descriptions in words.
Leaves to others: what the columns are (``columns``), which objects (``objects_get``).
Invariants: pure; values of Secrets stand in YAML and JSON alone, where they were asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml

from federation.cli.columns import NONE, Row, age, columns_of, parent_text
from federation.model.conditions import Condition
from federation.model.objects import ApiObject, Secret, resource
from federation.model.status import ObjectStatus
from federation.wire.statuses import status_document

CLUSTER_ANNOTATION = "federation.dev/cluster"
"""In lists over several clusters: whose object an item is."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object that a command found: where, and its status."""

    cluster: str
    object: ApiObject
    status: ObjectStatus


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns a table has besides its kind's own. ``qualified`` writes ``kind/name``."""

    clusters: bool = False
    namespaces: bool = False
    wide: bool = False
    qualified: bool = False


def table(found: Sequence[Found], layout: Layout, now: datetime) -> str:
    """The objects, all of one kind, as a table with its heading."""
    cls = type(found[0].object)
    columns = columns_of(cls, wide=layout.wide)
    heading = ["NAME", *(column.title for column in columns), "AGE"]
    if layout.namespaces and cls.NAMESPACED:
        heading.insert(0, "NAMESPACE")
    if layout.clusters:
        heading.insert(0, "CLUSTER")
    lines = [heading]
    for entry in found:
        meta = entry.object.metadata
        row = Row(entry.object, entry.status)
        name = f"{resource(cls)}/{meta.name}" if layout.qualified else meta.name
        line = [name, *(column.cell(row) for column in columns)]
        line.append(age(meta.creation_timestamp, now))
        if layout.namespaces and cls.NAMESPACED:
            line.insert(0, meta.namespace)
        if layout.clusters:
            line.insert(0, entry.cluster)
        lines.append(line)
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns, three spaces between, as kubectl writes them."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def document(found: Found) -> dict[str, Any]:
    """The object's JSON form with its status."""
    written = found.object.to_document()
    status = status_document(found.status)
    return {**written, "status": status} if status else written


def listing(found: Iterable[Found], *, clusters: bool) -> dict[str, Any]:
    """Several objects as a Kubernetes ``List``; of several clusters each item says whose it is."""
    items = []
    for entry in found:
        item = document(entry)
        if clusters:
            notes = {**item["metadata"].get("annotations", {}), CLUSTER_ANNOTATION: entry.cluster}
            item["metadata"] = {**item["metadata"], "annotations": notes}
        items.append(item)
    return {"apiVersion": "v1", "kind": "List", "items": items}


def as_yaml(value: Mapping[str, Any]) -> str:
    """YAML as people write it: fields in their order, blocks, no line folding."""
    return yaml.safe_dump(
        value, sort_keys=False, default_flow_style=False, allow_unicode=True, width=10_000
    ).rstrip("\n")


def as_json(value: Mapping[str, Any]) -> str:
    """JSON with two spaces of indentation."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def description(found: Found, now: datetime) -> str:
    """The object in words: what it is, what it asks for, what the federation says about it."""
    meta = found.object.metadata
    lines = [
        ["Name:", meta.name],
        *([["Namespace:", meta.namespace]] if meta.namespace else []),
        ["Cluster:", found.cluster],
        ["Labels:", _pairs(meta.labels)],
        ["Annotations:", _pairs(meta.annotations)],
        ["API Version:", found.object.api_version],
        ["Kind:", found.object.kind],
        ["Generation:", str(meta.generation)],
        ["Age:", age(meta.creation_timestamp, now)],
    ]
    return "\n".join([aligned(lines), *_body(found.object), *_said(found, now)])


def _pairs(values: Mapping[str, str] | None) -> str:
    return ", ".join(f"{name}={value}" for name, value in (values or {}).items()) or NONE


def _body(entry: ApiObject) -> list[str]:
    if isinstance(entry, Secret):
        sizes = [f"  {name}:  {len(value)} bytes" for name, value in entry.data.items()]
        return [f"Type: {entry.type}", "Data:", *sizes]
    rest = entry.to_document()
    for name in ("apiVersion", "kind", "metadata"):
        del rest[name]
    if list(rest) == ["spec"]:
        return ["Spec:", _indented(as_yaml(rest["spec"]))] if rest["spec"] else []
    return [as_yaml(rest)] if rest else []


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _said(found: Found, now: datetime) -> list[str]:
    status, namespace = found.status, found.object.metadata.namespace
    lines: list[str] = []
    if status.addresses:
        lines.append(f"Addresses: {', '.join(entry.value for entry in status.addresses)}")
    if status.clusters:
        lines.append(f"Clusters: {', '.join(status.clusters)}")
    if status.conditions:
        lines += ["Conditions:", _conditions(status.conditions, now)]
    for listener in status.listeners:
        routes = (
            "1 route" if listener.attached_routes == 1 else f"{listener.attached_routes} routes"
        )
        lines.append(f"Listener {listener.name} ({routes} attached):")
        lines.append(_conditions(listener.conditions, now))
    for parent in status.parents:
        lines.append(f"Parent {parent_text(parent.parent_ref, namespace)}:")
        lines.append(_conditions(parent.conditions, now))
    for ancestor in status.ancestors:
        reference = ancestor.ancestor_ref
        lines.append(f"Ancestor {reference.kind} {parent_text(reference, namespace)}:")
        lines.append(_conditions(ancestor.conditions, now))
    return lines or ["Status: none yet; does an agent run for this cluster?"]


def _conditions(conditions: Iterable[Condition], now: datetime) -> str:
    lines = [["TYPE", "STATUS", "REASON", "AGE", "MESSAGE"]]
    lines += [
        [
            condition.type,
            str(condition.status),
            condition.reason,
            age(condition.last_transition_time, now),
            condition.message,
        ]
        for condition in conditions
    ]
    return _indented(aligned(lines))
