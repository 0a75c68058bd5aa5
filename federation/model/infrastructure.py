"""What a Gateway of its own gateways is made of on Kubernetes: Deployment, Service, ServiceAccount.

Decides: the shape of these objects and of the template that they follow, as plain documents: a
template may carry every field that an API server knows.
Leaves to others: reading a template (``wire.gateway_template``), what stands in the objects
(``derive.infrastructure``), keeping them (a ``GatewayInfrastructure`` port).
Invariants: documents are never changed once made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from federation.model.status import GatewayStatusAddress

Document = Mapping[str, Any]
"""An object as JSON."""

MANAGED_BY = "federation.dev/managed-by"
"""Label of the objects made for Gateways; its value is ``MANAGER``. No others are ever deleted."""

MANAGER = "gateway-infrastructure"

GATEWAY_LABEL = "federation.dev/gateway"
"""Label that the objects of one Gateway share and its Pods are selected by: their own name."""

GATEWAY_NAME_LABEL = "gateway.networking.k8s.io/gateway-name"
"""The Gateway API's label of generated objects: the name of the Gateway (GEP-1762)."""

GATEWAY_ANNOTATION = "federation.dev/gateway"
"""``NAMESPACE/NAME`` of the Gateway for which an object was made."""


class MadeKind(Enum):
    """A kind of object made for Gateways, in the order of making: API version and plural."""

    SERVICE_ACCOUNT = ("v1", "ServiceAccount", "serviceaccounts")
    SERVICE = ("v1", "Service", "services")
    DEPLOYMENT = ("apps/v1", "Deployment", "deployments")

    @property
    def api_version(self) -> str:
        """``GROUP/VERSION``."""
        return self.value[0]

    @property
    def kind(self) -> str:
        """The kind's name."""
        return self.value[1]

    @property
    def plural(self) -> str:
        """The kind's name in paths."""
        return self.value[2]


@dataclass(frozen=True, slots=True, order=True)
class MadeKey:
    """Identity of such an object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class MadeObject:
    """One object to be there, whole."""

    kind: MadeKind
    document: Document

    @property
    def key(self) -> MadeKey:
        """Its identity."""
        metadata = self.document["metadata"]
        return MadeKey(self.kind.kind, metadata["namespace"], metadata["name"])


@dataclass(frozen=True, slots=True)
class GatewayTemplate:
    """What the gateways of every Gateway have in common.

    ``namespace`` is where all of them stand; ``None``: each in its Gateway's own. ``container`` is
    the position of the gateway among the Deployment's containers, ``port_offset`` what it adds to
    the listeners' ports by its own arguments. ``service`` is a Service whose type, annotations and
    the like are taken over; empty: there is nothing to take over.
    """

    deployment: Document
    namespace: str | None = None
    container: int = 0
    port_offset: int = 0
    service: Document = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServedPort:
    """A port of a Service in front of gateways; ``target_port`` is the gateways' own."""

    name: str
    port: int
    target_port: int | str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Gateway is reached, as far as something but the gateways themselves decides it.

    ``reason`` and ``message`` say why that is not as it should be; empty: it is.
    """

    addresses: tuple[GatewayStatusAddress, ...] = ()
    reason: str = ""
    message: str = ""
