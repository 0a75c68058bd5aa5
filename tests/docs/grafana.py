"""Dashboards as Grafana imports them.

Decides: their form: rows in order, panels beside each other, one choice of data source.
Leaves to others: what they show (``dashboards``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

ROW_HEIGHT, WIDTH = 8, 24


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its queries with legends, all in one unit of Grafana."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    about: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels beside each other under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; ``variables`` are names with the query that lists their values."""

    uid: str
    title: str
    rows: tuple[Row, ...]
    variables: tuple[tuple[str, str], ...] = ()


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def text(dashboard: Dashboard, others: Iterable[Dashboard]) -> str:
    """The dashboard as Grafana imports it, with links to ``others``."""
    return json.dumps(_document(dashboard, others), indent=1, ensure_ascii=False) + "\n"


def _document(dashboard: Dashboard, others: Iterable[Dashboard]) -> dict[str, Any]:
    links = [
        {"title": other.title, "type": "link", "url": f"/d/{other.uid}", "keepTime": True}
        for other in others
        if other is not dashboard
    ]
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["grpc-federation"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": links,
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "panels": list(_panels(dashboard)),
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }


def _variable(variable: tuple[str, str]) -> dict[str, Any]:
    name, query = variable
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for row in dashboard.rows:
        number += 1
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": row.title, "gridPos": place, "panels": []}
        top += 1
        width = WIDTH // len(row.panels)
        height = 4 if row.panels[0].kind == "stat" else ROW_HEIGHT
        for column, panel in enumerate(row.panels):
            number += 1
            place = {"h": height, "w": width, "x": column * width, "y": top}
            yield _panel(panel, number, place)
        top += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + turn),
                "datasource": _SOURCE,
                "expr": expr,
                "legendFormat": legend,
            }
            for turn, (expr, legend) in enumerate(panel.queries)
        ],
    }
