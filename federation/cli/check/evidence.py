"""What ``fedctl check`` judges: everything that was asked, as plain values.

Decides: the shapes.
Leaves to others: asking (``gather``), judging (``judge_*``).
Invariants: absent evidence is ``None`` or empty and is told as such, never taken for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from federation.adapters.etcd import EtcdHealth
from federation.cli.gateways import GatewayAt
from federation.derive.explain_status import LeaderStatus
from federation.model.view import FederationView


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Another machine's clock against ours: ``ahead_s`` is how far it is ahead of it, known to
    within ``unsure_s`` either way."""

    whose: str
    ahead_s: float
    unsure_s: float


@dataclass(frozen=True, slots=True)
class SeenCertificate:
    """A certificate that somebody uses. ``chain_ok`` is ``None`` where there is nobody to ask."""

    where: str
    subject: str
    issuer: str
    not_before_s: float
    not_after_s: float
    uris: tuple[str, ...] = ()
    sha256: str = ""
    pem: str = ""
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class SeenPeer:
    """A peer as one gateway tried it."""

    cluster: str
    address: str
    why: str
    down: bool


@dataclass(frozen=True, slots=True)
class SeenGateway:
    """One gateway's answers; ``why`` says what was not answered.

    ``identity`` and ``trusted`` are its own certificate and the authorities it trusts; ``others``
    are those of its listeners.
    """

    at: GatewayAt
    why: str = ""
    ready: Mapping[str, Any] = field(default_factory=dict)
    identity: SeenCertificate | None = None
    trusted: tuple[SeenCertificate, ...] = ()
    others: tuple[SeenCertificate, ...] = ()
    peers: tuple[SeenPeer, ...] = ()
    endpoints: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class SeenCondition:
    """A condition of an object; ``where`` is the parent, ancestor or listener it is of."""

    where: str
    type: str
    status: str
    reason: str
    message: str
    observed_generation: int


@dataclass(frozen=True, slots=True)
class SeenObject:
    """An object with its conditions. ``places`` counts the parents or ancestors that have any;
    ``unreadable`` says why it is no valid object; ``context`` is kubectl's for an API server that
    has it, empty for etcd."""

    cluster: str
    kind: str
    name: str
    generation: int = 0
    conditions: tuple[SeenCondition, ...] = ()
    places: int = 0
    unreadable: str = ""
    context: str = ""


@dataclass(frozen=True, slots=True)
class SeenAnswer:
    """What a cluster's DNS server said of a name."""

    cluster: str
    server: str
    name: str
    addresses: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class SeenKind:
    """A kind that is needed; ``served`` are the versions the API server has, empty: none."""

    cluster: str
    kind: str
    wanted: tuple[str, ...]
    served: tuple[str, ...]
    ours: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything. ``unread`` are parts that could not be read: whose, and why."""

    now_s: float
    release: str
    on_loopback: bool = False
    etcd: EtcdHealth | None = None
    etcd_away: str = ""
    view: FederationView | None = None
    leader: LeaderStatus | None = None
    clocks: tuple[ClockReading, ...] = ()
    gateways: tuple[SeenGateway, ...] = ()
    no_gateways: str = ""
    certificates: tuple[SeenCertificate, ...] = ()
    objects: tuple[SeenObject, ...] | None = None
    objects_unread: tuple[str, ...] = ()
    answers: tuple[SeenAnswer, ...] | None = None
    kinds: tuple[SeenKind, ...] | None = None
    kinds_unread: tuple[str, ...] = ()
