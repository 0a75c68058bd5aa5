"""The template of dedicated gateways: a YAML file with a Deployment and, if wanted, a Service.

Decides: what a template has to have and what is set for it, so that a wrong one is found at start.
Leaves to others: what is made of it (``derive.infrastructure``), the fields of Kubernetes' kinds
(the API server says what it does not take).
Invariants: what the agent sets itself cannot stand in a template and be overwritten silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from federation.model.infrastructure import Document, GatewayTemplate

CONTAINER = "gateway"
"""Name of the gateway's container, where a template has several."""

_OFFSET = "--port-offset"
_PORT_MAX = 65_535


class TemplateError(ValueError):
    """The template cannot be used; the message names the field and what to do."""


def read_template(text: str) -> GatewayTemplate:
    """The template that ``text`` is. Raises ``TemplateError``."""
    try:
        documents = [found for found in yaml.safe_load_all(text) if found is not None]
    except yaml.YAMLError as error:
        raise TemplateError(f"is no YAML: {' '.join(str(error).split())}") from error
    deployments = [found for found in documents if _is(found, "apps/v1", "Deployment")]
    services = [found for found in documents if _is(found, "v1", "Service")]
    if len(deployments) != 1 or len(services) > 1 or len(deployments + services) < len(documents):
        raise TemplateError(
            "has to have one Deployment (apiVersion apps/v1), one Service (v1) at most, and no more"
        )
    deployment: Document = deployments[0]
    position = _container(_mapping(deployment, "spec", "template", "spec"))
    return GatewayTemplate(
        deployment=deployment,
        namespace=_mapping(deployment, "metadata").get("namespace"),
        container=position,
        port_offset=_port_offset(deployment["spec"]["template"]["spec"]["containers"][position]),
        service=services[0] if services else {},
    )


def _is(document: object, api_version: str, kind: str) -> bool:
    if not isinstance(document, Mapping):
        return False
    return (document.get("apiVersion"), document.get("kind")) == (api_version, kind)


def _mapping(document: Document, *path: str) -> Document:
    """The mapping at ``path``; one that is absent is empty."""
    found: Any = document
    for name in path:
        found = found.get(name) or {}
        if not isinstance(found, Mapping):
            raise TemplateError(f"{'.'.join(path)}: must be a mapping")
    return dict(found)


def _container(pod: Document) -> int:
    where = "spec.template.spec"
    if pod.get("serviceAccountName"):
        raise TemplateError(
            f"{where}.serviceAccountName: each Gateway gets a ServiceAccount of its own; remove it"
        )
    containers = pod.get("containers")
    if not isinstance(containers, list) or not all(isinstance(it, Mapping) for it in containers):
        raise TemplateError(f"{where}.containers: must be a list of containers")
    names = [container.get("name") for container in containers]
    if len(containers) != 1 and CONTAINER not in names:
        raise TemplateError(
            f'{where}.containers: of several, name the one that runs the gateway "{CONTAINER}"'
        )
    return names.index(CONTAINER) if CONTAINER in names else 0


def _port_offset(container: Document) -> int:
    arguments = container.get("args") or []
    if not isinstance(arguments, list) or not all(isinstance(it, str) for it in arguments):
        raise TemplateError("the gateway's args: must be a list of strings")
    if any(word == "--serves" or word.startswith("--serves=") for word in arguments):
        raise TemplateError("the gateway's args: --serves is set for each Gateway; remove it")
    text = "0"
    for position, word in enumerate(arguments):
        if word == _OFFSET and position + 1 < len(arguments):
            text = arguments[position + 1]
        elif word.startswith(f"{_OFFSET}="):
            text = word.partition("=")[2]
    if not text.isdigit() or int(text) > _PORT_MAX:
        raise TemplateError(
            f'the gateway\'s args: {_OFFSET}: must be from 0 to {_PORT_MAX}, got "{text}"'
        )
    return int(text)
