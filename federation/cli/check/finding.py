"""Findings of ``fedctl check``.

Decides: their shape and the areas that they are of.
Leaves to others: which there are (``judge_*``).
Invariants: a finding says what, on what, why and what to do next; areas never change their names,
since scripts give them to ``--only``.
"""

from __future__ import annotations

from enum import StrEnum

from federation.model.base import Value


class Severity(StrEnum):
    """``ERROR``: calls fail or will, or a rule is broken; ``WARNING``: it works, and will not for
    long or not in every case; ``NOTE``: worth knowing, and no fault."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Area(StrEnum):
    """What is looked at; each can be looked at alone (``--only``)."""

    ETCD = "etcd"
    CLOCKS = "clocks"
    VERSIONS = "versions"
    CLUSTERS = "clusters"
    RESOLVER = "resolver"
    GATEWAYS = "gateways"
    CERTIFICATES = "certificates"
    REACHABILITY = "reachability"
    DNS = "dns"
    CRDS = "crds"
    POLICIES = "policies"
    ROUTES = "routes"
    DRAINS = "drains"


class Finding(Value):
    """One thing that is not as it should be, or worth knowing."""

    severity: Severity
    area: Area
    what: str
    subject: str
    why: str
    next: str


class Unexamined(Value):
    """An area, or a part of it, that could not be looked at, and why."""

    area: Area
    why: str
