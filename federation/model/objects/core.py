"""Kubernetes' own kinds: Service, EndpointSlice, Secret, Namespace, ConfigMap, Node.

Decides: their fields, Kubernetes' defaults, and that secrets never print.
Leaves to others: what is exported (``derive.exports``), where endpoints lead (``derive.compile``).
Invariants: fields without effect here are read too, so that stock manifests parse unchanged;
``stringData`` of a Secret is folded into ``data``; a Secret's values appear in its JSON form alone.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from federation.model.objects.metadata import ApiObject, OptionalText, Part, Port

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""Label by which an EndpointSlice names its Service."""


class CoreServiceType(StrEnum):
    """Types of Kubernetes Services."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class CoreServicePort(Part):
    """A port of a Service; ``target_port`` ``None`` is the port itself."""

    name: OptionalText = ""
    port: Port
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: int | str | None = None
    node_port: int | None = None


class ServiceSpec(Part):
    """What a Service is. ``cluster_ip`` ``"None"`` makes it headless."""

    type: CoreServiceType = CoreServiceType.CLUSTER_IP
    ports: tuple[CoreServicePort, ...] = ()
    selector: Mapping[str, str] | None = None
    cluster_ip: str | None = Field(default=None, alias="clusterIP")
    cluster_ips: tuple[str, ...] = Field(default=(), alias="clusterIPs")
    external_ips: tuple[str, ...] = Field(default=(), alias="externalIPs")
    external_name: str | None = None
    session_affinity: str = "None"
    session_affinity_config: Mapping[str, Any] | None = None
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    traffic_distribution: str | None = None
    publish_not_ready_addresses: bool = False
    health_check_node_port: int | None = None
    load_balancer_ip: str | None = Field(default=None, alias="loadBalancerIP")
    load_balancer_class: str | None = None
    load_balancer_source_ranges: tuple[str, ...] = ()
    allocate_load_balancer_node_ports: bool | None = None


class LoadBalancerIngress(Part):
    """One place where a load balancer takes traffic in: ``ip`` or, failing that, ``hostname``."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None
    ports: tuple[Mapping[str, Any], ...] = ()


class LoadBalancerStatus(Part):
    """What the cluster's provider has set up for a Service of type LoadBalancer."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Part):
    """What others say about a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Mapping[str, Any], ...] = ()


class Service(ApiObject):
    """A Kubernetes Service.

    Its ``status`` is read, unlike other kinds', since addresses for the outside stand nowhere else.
    """

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Service"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: str = "v1"
    kind: str = "Service"
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus | None = None

    @property
    def headless(self) -> bool:
        """Whether clients are meant to see the endpoints themselves."""
        return self.spec.cluster_ip == "None"


class EndpointConditions(Part):
    """State of an endpoint; ``None`` reads as Kubernetes says: ready, serving, not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Part):
    """One endpoint of a slice."""

    addresses: tuple[str, ...] = Field(min_length=1, max_length=100)
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: Mapping[str, Any] | None = None
    hints: Mapping[str, Any] | None = None
    deprecated_topology: Mapping[str, str] | None = None

    @property
    def ready(self) -> bool:
        """Whether new calls may go there."""
        return self.conditions.ready is not False and self.conditions.terminating is not True


class EndpointPort(Part):
    """A port of all endpoints of a slice; ``port`` ``None`` means every port."""

    name: OptionalText = ""
    port: Port | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSlice(ApiObject):
    """A part of the endpoints of a Service."""

    GROUP: ClassVar[str] = "discovery.k8s.io"
    KIND: ClassVar[str] = "EndpointSlice"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: str = "discovery.k8s.io/v1"
    kind: str = "EndpointSlice"
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = Field(default=(), max_length=1000)
    ports: tuple[EndpointPort, ...] = ()

    @property
    def service_name(self) -> str | None:
        """Name of the Service in the same namespace, or ``None`` for a slice of nobody."""
        return (self.metadata.labels or {}).get(SERVICE_NAME_LABEL)


class SecretBytes(bytes):
    """Bytes that print as their length alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<redacted, {len(self)} bytes>"

    __str__ = __repr__


def _from_base64(value: object) -> SecretBytes:
    if isinstance(value, bytes):
        return SecretBytes(value)
    if not isinstance(value, str):
        # ValueError, since pydantic reports no other.
        raise ValueError("must be base64 text")  # noqa: TRY004
    try:
        return SecretBytes(base64.b64decode("".join(value.split()), validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("must be base64 text; plain text belongs into stringData") from None


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


SecretValue = Annotated[
    bytes, BeforeValidator(_from_base64), PlainSerializer(_to_base64, return_type=str)
]


class Secret(ApiObject):
    """A Kubernetes Secret."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Secret"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: str = "v1"
    kind: str = "Secret"
    type: str = "Opaque"
    data: Mapping[str, SecretValue] = Field(default_factory=dict, repr=False)
    immutable: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _fold_string_data(cls, raw: object) -> object:
        if not isinstance(raw, Mapping) or not isinstance(raw.get("stringData"), Mapping):
            return raw
        if not all(isinstance(value, str) for value in raw["stringData"].values()):
            return raw
        plain = {name: text.encode() for name, text in raw["stringData"].items()}
        rest = {name: value for name, value in raw.items() if name != "stringData"}
        return {**rest, "data": {**(raw.get("data") or {}), **plain}}


class Namespace(ApiObject):
    """A Kubernetes Namespace; listeners select routes by its labels."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Namespace"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)
    NAMESPACED: ClassVar[bool] = False

    api_version: str = "v1"
    kind: str = "Namespace"
    spec: Mapping[str, Any] | None = None


class ConfigMap(ApiObject):
    """A Kubernetes ConfigMap; keepalive settings are kept in one."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "ConfigMap"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: str = "v1"
    kind: str = "ConfigMap"
    data: Mapping[str, str] = Field(default_factory=dict)
    binary_data: Mapping[str, str] | None = None
    immutable: bool | None = None


class NodeAddress(Part):
    """An address of a node; ``type`` is InternalIP, ExternalIP, Hostname or a DNS name's."""

    type: str
    address: str


class NodeStatus(Part):
    """What the node says about itself; all but its addresses is left out."""

    addresses: tuple[NodeAddress, ...] = ()


class Node(ApiObject):
    """A Kubernetes Node, read for its addresses alone."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Node"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)
    NAMESPACED: ClassVar[bool] = False

    api_version: str = "v1"
    kind: str = "Node"
    status: NodeStatus = NodeStatus()
