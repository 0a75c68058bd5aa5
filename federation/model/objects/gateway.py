"""Gateway, ListenerSet and GatewayClass (Gateway API v1).

Decides: their fields, the closed sets of their values, and what is wrong in one object by itself.
Leaves to others: whether listeners conflict or can be served (``derive.compile``).
Invariants: ``selectorLabels`` is read as ``selector.matchLabels`` (docs/semantics.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from federation.model.objects.metadata import (
    ApiObject,
    Name,
    Namespace_,
    ObjectKey,
    Part,
    Port,
)

GATEWAY_GROUP = "gateway.networking.k8s.io"
"""API group of Gateway API kinds and of the federation's own kinds."""

_HOSTNAME = re.compile(
    r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII
)
_ADDRESS = re.compile(r"\d+(\.\d+){3}", re.ASCII)


def _check_hostname(text: str) -> str:
    if not 1 <= len(text) <= 253 or not _HOSTNAME.fullmatch(text) or _ADDRESS.fullmatch(text):
        raise ValueError(
            "must be a lower-case DNS name, with `*.` in front at most (no port, no address), "
            f'got "{text}"'
        )
    return text


Hostname = Annotated[str, AfterValidator(_check_hostname)]
"""A precise hostname, or one with a wildcard as its first label."""


class ListenerProtocol(StrEnum):
    """Protocols of listeners that the Gateway API names; others stay in the object, for its status
    to name. Which are served is the compiler's business."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"
    TLS = "TLS"
    TCP = "TCP"
    UDP = "UDP"


class TlsMode(StrEnum):
    """What a listener does with TLS."""

    TERMINATE = "Terminate"
    PASSTHROUGH = "Passthrough"


class FromNamespaces(StrEnum):
    """Which namespaces' routes a listener takes."""

    ALL = "All"
    SAME = "Same"
    SELECTOR = "Selector"
    NONE = "None"


class SecretObjectReference(Part):
    """A certificate: a Secret, in the Gateway's namespace if ``namespace`` is ``None``."""

    group: str = ""
    kind: str = "Secret"
    name: Name
    namespace: Namespace_ | None = None


class ObjectReference(Part):
    """Any object by group, kind and name."""

    group: str = ""
    kind: str
    name: Name
    namespace: Namespace_ | None = None


class FrontendValidationMode(StrEnum):
    """Whether clients without a valid certificate are let in."""

    ALLOW_VALID_ONLY = "AllowValidOnly"
    ALLOW_INSECURE_FALLBACK = "AllowInsecureFallback"


class FrontendTlsValidation(Part):
    """Where the authorities stand that client certificates are checked against."""

    ca_certificate_refs: tuple[ObjectReference, ...] = Field(
        min_length=1, max_length=8, alias="caCertificateRefs"
    )
    mode: FrontendValidationMode = FrontendValidationMode.ALLOW_VALID_ONLY


class FrontendTls(Part):
    """TLS towards clients, apart from certificates."""

    validation: FrontendTlsValidation | None = None


class PortTls(Part):
    """TLS towards clients of one port."""

    port: Port
    tls: FrontendTls


class GatewayFrontendTls(Part):
    """TLS towards clients of all HTTPS listeners, and in its place of single ports."""

    default: FrontendTls
    per_port: tuple[PortTls, ...] = Field(default=(), max_length=64)

    @field_validator("per_port")
    @classmethod
    def _ports_unique(cls, entries: tuple[PortTls, ...]) -> tuple[PortTls, ...]:
        ports = [entry.port for entry in entries]
        if twice := next((port for port in ports if ports.count(port) > 1), None):
            raise ValueError(f"port {twice} stands twice")
        return entries


class GatewayTls(Part):
    """TLS of a Gateway as a whole."""

    frontend: GatewayFrontendTls | None = None


class ListenerTls(Part):
    """TLS of a listener."""

    mode: TlsMode = TlsMode.TERMINATE
    certificate_refs: tuple[SecretObjectReference, ...] = ()
    frontend_validation: FrontendTlsValidation | None = None
    options: Mapping[str, str] | None = None


class LabelSelectorOperator(StrEnum):
    """Operators of label selectors."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelSelectorRequirement(Part):
    """One expression of a label selector."""

    key: str
    operator: LabelSelectorOperator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether ``labels`` satisfy this expression (Kubernetes' rules for absent keys)."""
        match self.operator:
            case LabelSelectorOperator.IN:
                return labels.get(self.key) in self.values
            case LabelSelectorOperator.NOT_IN:
                return labels.get(self.key) not in self.values
            case LabelSelectorOperator.EXISTS:
                return self.key in labels
            case LabelSelectorOperator.DOES_NOT_EXIST:
                return self.key not in labels


class LabelSelector(Part):
    """A selection by labels; an empty one selects everything."""

    match_labels: Mapping[str, str] | None = None
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with ``labels`` is selected."""
        wanted = self.match_labels or {}
        return all(labels.get(name) == value for name, value in wanted.items()) and all(
            expression.matches(labels) for expression in self.match_expressions
        )


class RouteNamespaces(Part):
    """Namespaces whose routes a listener takes; ``selector`` counts only for ``Selector``."""

    from_: FromNamespaces = Field(default=FromNamespaces.SAME, alias="from")
    selector: LabelSelector | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_selector_labels(cls, raw: object) -> object:
        # What a validator has seen raw is no longer JSON to pydantic, where a list is a tuple.
        raw = _tupled(raw)
        if not isinstance(raw, Mapping):
            return raw
        if isinstance(raw.get("selector"), Mapping) and "selectorLabels" in raw["selector"]:
            return {**raw, "selector": _with_match_labels(raw["selector"])}
        if "selectorLabels" in raw and "selector" not in raw:
            rest = {name: value for name, value in raw.items() if name != "selectorLabels"}
            return {**rest, "selector": {"matchLabels": raw["selectorLabels"]}}
        return raw

    @model_validator(mode="after")
    def _selector_present(self) -> RouteNamespaces:
        if self.from_ is FromNamespaces.SELECTOR and self.selector is None:
            raise ValueError("`from: Selector` needs a selector")
        return self


def _tupled(raw: object) -> object:
    if isinstance(raw, Mapping):
        return {name: _tupled(value) for name, value in raw.items()}
    return tuple(_tupled(value) for value in raw) if isinstance(raw, list) else raw


def _with_match_labels(selector: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in selector.items() if name != "selectorLabels"}
    return {"matchLabels": selector["selectorLabels"], **rest}


class AllowedRouteKind(Part):
    """A kind of route that may attach."""

    group: str = GATEWAY_GROUP
    kind: str


class AllowedRoutes(Part):
    """Which routes may attach; no ``kinds`` means all that fit the listener's protocol."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[AllowedRouteKind, ...] = ()


class Listener(Part):
    """One listener of a Gateway; ``hostname`` ``None`` takes every host."""

    name: Name
    hostname: Hostname | None = None
    port: Port
    protocol: Annotated[str, Field(min_length=1, max_length=255)]
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewayAddress(Part):
    """An address asked for."""

    type: str = "IPAddress"
    value: str | None = None


class ParametersReference(Part):
    """Parameters of a class or gateway: an object of the implementation."""

    group: str
    kind: str
    name: str
    namespace: str | None = None


class GatewayInfrastructure(Part):
    """What is put on generated infrastructure."""

    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    parameters_ref: ParametersReference | None = None


class ListenerNamespaces(Part):
    """Namespaces whose ListenerSets a Gateway takes; ``selector`` counts only for ``Selector``."""

    from_: FromNamespaces = Field(default=FromNamespaces.NONE, alias="from")
    selector: LabelSelector | None = None

    @model_validator(mode="after")
    def _selector_present(self) -> ListenerNamespaces:
        if self.from_ is FromNamespaces.SELECTOR and self.selector is None:
            raise ValueError("`from: Selector` needs a selector")
        return self


class AllowedListeners(Part):
    """Which ListenerSets may add listeners."""

    namespaces: ListenerNamespaces = ListenerNamespaces()


class GatewaySpec(Part):
    """What a Gateway asks for; ``allowed_listeners`` ``None``: its own listeners alone."""

    gateway_class_name: Name
    listeners: tuple[Listener, ...] = Field(min_length=1, max_length=64)
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: GatewayInfrastructure | None = None
    tls: GatewayTls | None = None
    allowed_listeners: AllowedListeners | None = None

    @field_validator("listeners")
    @classmethod
    def _names_unique(cls, listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
        return _with_unique_names(listeners)


class Gateway(ApiObject):
    """A Gateway: where traffic enters."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "Gateway"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "Gateway"
    spec: GatewaySpec


class ParentGatewayReference(Part):
    """The Gateway of a ListenerSet, in its own namespace if ``namespace`` is ``None``."""

    group: str = GATEWAY_GROUP
    kind: str = "Gateway"
    name: Name
    namespace: Namespace_ | None = None


class ListenerSetSpec(Part):
    """Listeners for a Gateway."""

    parent_ref: ParentGatewayReference
    listeners: tuple[Listener, ...] = Field(min_length=1, max_length=64)

    @field_validator("listeners")
    @classmethod
    def _names_unique(cls, listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
        return _with_unique_names(listeners)


def _with_unique_names(listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
    seen: set[str] = set()
    for listener in listeners:
        if listener.name in seen:
            raise ValueError(f'listener name "{listener.name}" stands twice')
        seen.add(listener.name)
    return listeners


class ListenerSet(ApiObject):
    """Listeners that others than a Gateway's owner add to it."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "ListenerSet"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "ListenerSet"
    spec: ListenerSetSpec

    @property
    def gateway(self) -> ObjectKey:
        """The Gateway that the listeners are for."""
        ref = self.spec.parent_ref
        return ObjectKey(ref.group, ref.kind, ref.namespace or self.metadata.namespace, ref.name)


class GatewayClassSpec(Part):
    """Which controller serves the class."""

    controller_name: str
    parameters_ref: ParametersReference | None = None
    description: str | None = None


class GatewayClass(ApiObject):
    """A class of Gateways."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "GatewayClass"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")
    NAMESPACED: ClassVar[bool] = False

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "GatewayClass"
    spec: GatewayClassSpec
