"""Keepalive of a Gateway's listeners, from a ConfigMap.

Decides: which ConfigMap is for which Gateway, and what is said of one that is for none.
Leaves to others: the document's fields (``model.keepalive``), statuses of Gateways (``gateways``).
Invariants: a Gateway refers to its ConfigMap, never the other way: who may write a ConfigMap does
not thereby change a Gateway; a fault of it never closes a listener, it leaves keepalive unset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from federation.derive.compile.index import Index
from federation.derive.compile.problem import Problem, verdict
from federation.model.keepalive import KEEPALIVE_KEY, Keepalive, KeepaliveDocument, parse_keepalive
from federation.model.objects import ConfigMap, Gateway, ObjectKey
from federation.model.snapshot import ConnectionLife, PingLimit
from federation.model.status import ObjectStatus

KEEPALIVE_ANNOTATION = "gateway.federation.dev/keepalive"
"""Annotation of a Gateway: ``NAME`` or ``NAMESPACE/NAME`` of its ConfigMap.

For ConfigMaps of other namespaces, which ``spec.infrastructure.parametersRef`` cannot name.
"""


@dataclass(frozen=True, slots=True)
class GatewayKeepalive:
    """What a Gateway's reference came to: a document, a problem, or neither if it names none."""

    source: ObjectKey | None = None
    document: KeepaliveDocument | None = None
    problem: Problem | None = None

    def life(self, port: int) -> ConnectionLife | None:
        """The life of connections of ``port``; ``None`` without bounds."""
        if self.document is None:
            return None
        life = _life(self.document.of_port(port))
        return life if life != ConnectionLife() else None


def keepalive_of(index: Index, gateway: Gateway) -> GatewayKeepalive:
    """The keepalive that ``gateway`` asks for."""
    named = _named(gateway)
    if named is None:
        return GatewayKeepalive()
    if isinstance(named, Problem):
        return GatewayKeepalive(problem=named)
    where, key = named
    if not index.permitted(gateway.key, key):
        words = f"no ReferenceGrant in namespace {key.namespace} lets this Gateway use {key}"
        return GatewayKeepalive(problem=_invalid(where, words))
    source = index.objects.get(ConfigMap, key.namespace, key.name)
    if source is None:
        return GatewayKeepalive(key, problem=_invalid(where, f"{key} does not exist"))
    document = _document(source)
    if isinstance(document, str):
        return GatewayKeepalive(key, problem=_invalid(where, f"{key} {document}"))
    return GatewayKeepalive(key, document=document)


def keepalive_statuses(
    index: Index, used: Mapping[ObjectKey, GatewayKeepalive]
) -> dict[ObjectKey, ObjectStatus]:
    """A status for every ConfigMap with a keepalive document: whom it is for, or what is wrong."""
    users: dict[ObjectKey, list[str]] = {}
    for gateway, keepalive in used.items():
        if keepalive.source is not None:
            users.setdefault(keepalive.source, []).append(gateway.qualified_name)
    return {
        source.key: _status(source, users.get(source.key, ()))
        for source in index.objects.of(ConfigMap)
        if KEEPALIVE_KEY in source.data
    }


def _status(source: ConfigMap, users: Iterable[str]) -> ObjectStatus:
    names = ", ".join(sorted(users))
    document = _document(source)
    problem = None
    if isinstance(document, str):
        problem = Problem("Invalid", document)
    elif not names:
        message = (
            "no Gateway refers to it, so it is without effect: name it in a Gateway's "
            f"spec.infrastructure.parametersRef, or in its annotation {KEEPALIVE_ANNOTATION}"
        )
        problem = Problem("NotReferenced", message)
    accepted = verdict(source, "Accepted", problem, message=f"used by Gateway {names}")
    return ObjectStatus(observed_generation=source.metadata.generation, conditions=(accepted,))


def _named(gateway: Gateway) -> tuple[str, ObjectKey] | Problem | None:
    """The field that names a ConfigMap, and the ConfigMap."""
    infrastructure = gateway.spec.infrastructure
    ref = infrastructure.parameters_ref if infrastructure is not None else None
    own = gateway.metadata.namespace
    if ref is not None:
        where = "spec.infrastructure.parametersRef"
        if (ref.group, ref.kind) != (ConfigMap.GROUP, ConfigMap.KIND):
            return _invalid(where, f"{ref.kind} ({ref.group or 'core'}) is unknown, use ConfigMap")
        return where, _key(own, ref.name)
    text = (gateway.metadata.annotations or {}).get(KEEPALIVE_ANNOTATION)
    if text is None:
        return None
    namespace, slash, name = text.partition("/")
    where = f"metadata.annotations[{KEEPALIVE_ANNOTATION}]"
    return where, _key(namespace, name) if slash else _key(own, text)


def _key(namespace: str, name: str) -> ObjectKey:
    return ObjectKey(ConfigMap.GROUP, ConfigMap.KIND, namespace, name)


def _document(source: ConfigMap) -> KeepaliveDocument | str:
    text = source.data.get(KEEPALIVE_KEY)
    if text is None:
        return f"has no data[{KEEPALIVE_KEY}]"
    document = parse_keepalive(text)
    if isinstance(document, str):
        return f"data[{KEEPALIVE_KEY}]: {document}"
    return document


def _invalid(where: str, message: str) -> Problem:
    return Problem("InvalidParameters", f"{where}: {message}; listeners have no keepalive settings")


def _life(keepalive: Keepalive) -> ConnectionLife:
    limit = keepalive.enforcement
    return ConnectionLife(
        max_idle_ms=keepalive.max_connection_idle_ms,
        max_age_ms=keepalive.max_connection_age_ms,
        max_age_grace_ms=keepalive.max_connection_age_grace_ms,
        ping_after_ms=keepalive.time_ms,
        ping_timeout_ms=keepalive.timeout_ms,
        ping_limit=None
        if limit is None
        else PingLimit(limit.min_time_ms, limit.permit_without_stream, limit.strikes),
    )
