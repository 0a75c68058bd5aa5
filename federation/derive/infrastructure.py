"""Gateways with gateways of their own: what is made for each of them, and where they are reached.

Decides: names, labels, ports and arguments of a Gateway's Deployment, Service and ServiceAccount;
the addresses that its status gives, and why it has none.
Leaves to others: which listeners are opened (``compile.listeners``), making objects (a
``GatewayInfrastructure`` port), what gateways say (``programmed``).
Invariants: pure; names of two Gateways never meet, whatever they are; a Gateway without any port to
open keeps what it has, since a load balancer that is given up loses its address.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from federation.model.infrastructure import (
    GATEWAY_ANNOTATION,
    GATEWAY_LABEL,
    GATEWAY_NAME_LABEL,
    MANAGED_BY,
    MANAGER,
    GatewayTemplate,
    MadeKind,
    MadeObject,
    Place,
)
from federation.model.objects import Gateway, GatewayClass, ObjectKey, ObjectSnapshot, Service
from federation.model.serving import only_gateway
from federation.model.status import GatewayStatusAddress

NAME_MAX = 63
"""Characters of a Service's name, and of a label's value."""

_HASH_CHARS = 8

NOT_USABLE = "AddressNotUsable"
NOT_ASSIGNED = "AddressNotAssigned"
NO_RESOURCES = "NoResources"


def infrastructure_of(
    gateway: Gateway, ports: Sequence[int], template: GatewayTemplate
) -> tuple[MadeObject, ...]:
    """What ``gateway`` needs to be reached at ``ports``; nothing without a port."""
    if not ports:
        return ()
    return (
        MadeObject(MadeKind.SERVICE_ACCOUNT, _service_account(gateway, template)),
        MadeObject(MadeKind.SERVICE, _service(gateway, ports, template)),
        MadeObject(MadeKind.DEPLOYMENT, _deployment(gateway, ports, template)),
    )


def unread_gateways(objects: ObjectSnapshot) -> list[ObjectKey]:
    """The Gateways of which it is not known now what they want, so that they keep what they have.

    They cannot be read, by an agent that never saw them otherwise; or a GatewayClass cannot, which
    may be any Gateway's.
    """
    rejected = [key for key in objects.rejected if isinstance(key, ObjectKey)]
    if any((key.group, key.kind) == (GatewayClass.GROUP, GatewayClass.KIND) for key in rejected):
        rejected += [gateway.key for gateway in objects.of(Gateway)]
    return [key for key in rejected if (key.group, key.kind) == (Gateway.GROUP, Gateway.KIND)]


def infrastructure_name(gateway: Gateway) -> str:
    """The name of everything that is made for ``gateway``.

    The hash tells apart Gateways of several namespaces, and names that are cut or rewritten.
    """
    told = gateway.key.qualified_name.encode()
    digest = hashlib.sha256(told).hexdigest()[:_HASH_CHARS]
    plain = gateway.metadata.name.replace(".", "-")[: NAME_MAX - _HASH_CHARS - 4]
    return f"gw-{plain.rstrip('-')}-{digest}"


def _namespace(gateway: Gateway, template: GatewayTemplate) -> str:
    return template.namespace or gateway.metadata.namespace


def _labels(gateway: Gateway) -> dict[str, str]:
    infrastructure = gateway.spec.infrastructure
    name = gateway.metadata.name
    return {
        **((infrastructure.labels if infrastructure is not None else None) or {}),
        GATEWAY_NAME_LABEL: name if len(name) <= NAME_MAX else name[:NAME_MAX].rstrip("-."),
        GATEWAY_LABEL: infrastructure_name(gateway),
        MANAGED_BY: MANAGER,
    }


def _annotations(gateway: Gateway) -> dict[str, str]:
    infrastructure = gateway.spec.infrastructure
    return {
        **((infrastructure.annotations if infrastructure is not None else None) or {}),
        GATEWAY_ANNOTATION: gateway.key.qualified_name,
    }


def _metadata(
    gateway: Gateway, template: GatewayTemplate, base: Mapping[str, Any]
) -> dict[str, Any]:
    """Name and place of an object, with what the template's ``base`` has in its metadata."""
    return {
        "name": infrastructure_name(gateway),
        "namespace": _namespace(gateway, template),
        "labels": {**(base.get("labels") or {}), **_labels(gateway)},
        "annotations": {**(base.get("annotations") or {}), **_annotations(gateway)},
    }


def _document(kind: MadeKind, metadata: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}


def _service_account(gateway: Gateway, template: GatewayTemplate) -> dict[str, Any]:
    # Gateways ask the agent and never the API server.
    metadata = _metadata(gateway, template, {})
    return _document(MadeKind.SERVICE_ACCOUNT, metadata, automountServiceAccountToken=False)


def _service(gateway: Gateway, ports: Sequence[int], template: GatewayTemplate) -> dict[str, Any]:
    base = template.service
    spec: dict[str, Any] = {
        "type": "LoadBalancer",
        **copy.deepcopy(dict(base.get("spec") or {})),
        "selector": {GATEWAY_LABEL: infrastructure_name(gateway)},
        "ports": service_ports(ports, template.port_offset),
    }
    if wanted := requested_addresses(gateway):
        spec["loadBalancerIP"] = wanted[0]
    metadata = _metadata(gateway, template, base.get("metadata") or {})
    return _document(MadeKind.SERVICE, metadata, spec=spec)


def service_ports(ports: Iterable[int], port_offset: int) -> list[dict[str, Any]]:
    """Ports of a Service that lead to gateways which add ``port_offset``."""
    return [
        {
            "name": f"port-{port}",
            "port": port,
            "targetPort": port + port_offset,
            "protocol": "TCP",
        }
        for port in sorted(ports)
    ]


def _deployment(
    gateway: Gateway, ports: Sequence[int], template: GatewayTemplate
) -> dict[str, Any]:
    base = copy.deepcopy(dict(template.deployment))
    name = infrastructure_name(gateway)
    pod = base["spec"]["template"]
    about = dict(pod.get("metadata") or {})
    pod["metadata"] = {
        **about,
        "labels": {**(about.get("labels") or {}), **_labels(gateway)},
        "annotations": {**(about.get("annotations") or {}), **_annotations(gateway)},
    }
    pod["spec"]["serviceAccountName"] = name
    container = pod["spec"]["containers"][template.container]
    serves = only_gateway(gateway.key.qualified_name)
    container["args"] = [*(container.get("args") or ()), "--serves", serves]
    own = [port + template.port_offset for port in sorted(ports)]
    others = [it for it in container.get("ports") or () if it.get("containerPort") not in own]
    container["ports"] = [*others, *({"containerPort": it, "protocol": "TCP"} for it in own)]
    spec = {**base["spec"], "selector": {"matchLabels": {GATEWAY_LABEL: name}}}
    metadata = _metadata(gateway, template, base.get("metadata") or {})
    return _document(MadeKind.DEPLOYMENT, metadata, spec=spec)


# Addresses.


def requested_addresses(gateway: Gateway) -> tuple[str, ...]:
    """The addresses that ``spec.addresses`` names; an entry without a value asks for any."""
    return tuple(entry.value for entry in gateway.spec.addresses if entry.value)


def place_of(
    gateway: Gateway, objects: ObjectSnapshot, template: GatewayTemplate, *, failure: str = ""
) -> Place:
    """Where ``gateway`` is reached by its own Service.

    ``failure`` is why something of it could not be made.
    """
    name, namespace = infrastructure_name(gateway), _namespace(gateway, template)
    found = objects.get(Service, namespace, name)
    addresses = service_addresses(found) if found is not None else ()
    if failure:
        return Place(addresses, NO_RESOURCES, failure)
    if found is None:
        return Place((), NO_RESOURCES, f"Service {namespace}/{name} is not there yet")
    return place_at(gateway, addresses, who=f"Service {namespace}/{name}")


def place_at(gateway: Gateway, addresses: tuple[GatewayStatusAddress, ...], *, who: str) -> Place:
    """``gateway`` at the ``addresses`` of ``who``, given what it asks for."""
    wanted = requested_addresses(gateway)
    given = {address.value for address in addresses}
    missing = [address for address in wanted if address not in given]
    if missing:
        message = f"spec.addresses: {who} has not been given {', '.join(missing)}"
        if len(wanted) > 1:
            message += "; one address is asked for, the first"
        return Place(addresses, NOT_USABLE, message)
    if not addresses:
        return Place((), NOT_ASSIGNED, f"{who} has no address yet")
    return Place(addresses)


def service_addresses(service: Service) -> tuple[GatewayStatusAddress, ...]:
    """The addresses of a Service's load balancer; without one, those inside the cluster."""
    if service.spec.type != "LoadBalancer":
        inside = service.spec.cluster_ips or (service.spec.cluster_ip or "",)
        return tuple(
            GatewayStatusAddress(type="IPAddress", value=address)
            for address in inside
            if address not in ("", "None")
        )
    ingress = service.status.load_balancer.ingress if service.status is not None else ()
    return tuple(
        GatewayStatusAddress(type="IPAddress", value=entry.ip)
        if entry.ip
        else GatewayStatusAddress(type="Hostname", value=entry.hostname)
        for entry in ingress
        if entry.ip or entry.hostname
    )
