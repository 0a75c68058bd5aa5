"""What the compile step is given and what it returns.

Decides: the settings of compiling and the identity a cluster's gateways carry.
Leaves to others: where objects and the view come from (the agent, or a standalone gateway).
Invariants: everything is immutable; equal inputs give equal results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.derive.mcs_ports import PortRange
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.objects import ObjectKey, ObjectSnapshot
from federation.model.snapshot import WHOLE_SHARE_PPM, Keepalive, Snapshot
from federation.model.status import ObjectStatus
from federation.model.view import FederationView

CONTROLLER_NAME = "federation.dev/gateway-controller"
"""Our name in GatewayClasses and in status entries."""


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """What a deployment decides about compiling.

    ``gateway_classes``: names of GatewayClasses served even without an object that says so, unless
    one gives the class to another controller. ``trust_domain``: SPIFFE trust domain of the
    clusterset. ``eastwest_port``: port on which other clusters' gateways are let in, ``None`` for a
    gateway that stands alone.
    ``peer_keepalive``: liveness checks towards peers; their sum bounds how long a black hole goes
    unnoticed. The connect time-outs hold where no policy sets one: short across clusters, where
    another cluster can take the call, 5 s inside the cluster as Envoy has it. ``first_share_ppm``:
    a gateway's share of a rate limit that all gateways count together, until its agent has divided
    it: the whole for a gateway that stands alone. ``gateway_service``: the Service in front of the
    cluster's shared gateways (``derive.entrances``), ``None`` where there is none; then imports of
    the MCS API have no address either. ``import_ports`` are the gateways' ports for those.
    ``dedicated_gateways``: each Gateway has gateways of its own, so that ports of different
    Gateways cannot meet. ``answers_names``: the agent answers DNS for the clusterset.
    """

    gateway_classes: frozenset[str] = frozenset({"istio", "federation"})
    controller_name: str = CONTROLLER_NAME
    trust_domain: str = "clusterset.local"
    eastwest_port: int | None = 15444
    peer_keepalive: Keepalive = field(
        default_factory=lambda: Keepalive(interval_ms=300, timeout_ms=700)
    )
    import_connect_timeout_ms: int = 1_000
    service_connect_timeout_ms: int = 5_000
    first_share_ppm: int = WHOLE_SHARE_PPM
    gateway_service: ServiceName | None = None
    import_ports: PortRange = field(default_factory=PortRange)
    dedicated_gateways: bool = False
    answers_names: bool = False


@dataclass(frozen=True, slots=True)
class CompileInputs:
    """One cluster's objects and the federation's state, as the cluster's agent sees them.

    ``kept_certificates`` are Secrets that are in ``objects`` as they last were good, with what is
    wrong with them now (``derive.kept_certificates``).
    """

    cluster: ClusterId
    region: Region
    objects: ObjectSnapshot
    view: FederationView = field(default_factory=FederationView)
    settings: CompileSettings = CompileSettings()
    kept_certificates: Mapping[ObjectKey, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compiled:
    """The snapshot for the gateways and the status of every object that this controller serves.

    ``ports`` are those of each Gateway that is served, whether or not they can be opened now.
    """

    snapshot: Snapshot
    statuses: Mapping[ObjectKey, ObjectStatus]
    ports: Mapping[ObjectKey, tuple[int, ...]] = field(default_factory=dict)


def spiffe_id(trust_domain: str, cluster: ClusterId) -> str:
    """The identity in the certificates of the gateways of ``cluster``."""
    return f"spiffe://{trust_domain}/ns/federation/sa/gateway/cluster/{cluster}"
