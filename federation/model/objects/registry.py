"""Which kinds there are.

Decides: the kinds read here, foreign kinds that are known but without effect in this
version, and the names by which people call kinds on the command line.
Leaves to others: messages about kinds that are not (``wire.manifests``, ``cli``).
Invariants: a group and kind name one class; of two kinds of one name, the one listed first answers
to the bare name, the other to ``name.group``.
"""

from __future__ import annotations

from collections.abc import Iterator

from federation.model.objects.core import (
    ConfigMap,
    EndpointSlice,
    Namespace,
    Node,
    Secret,
    Service,
)
from federation.model.objects.drain import DrainRequest
from federation.model.objects.gateway import Gateway, GatewayClass, ListenerSet
from federation.model.objects.grant import ReferenceGrant
from federation.model.objects.http_route import HTTPRoute
from federation.model.objects.metadata import ApiObject
from federation.model.objects.multicluster import (
    FederatedServiceImport,
    McsServiceExport,
    McsServiceImport,
    MultiClusterService,
)
from federation.model.objects.observability import ObservabilityPolicy
from federation.model.objects.policy import BackendTrafficPolicy
from federation.model.objects.route import GRPCRoute

KINDS: tuple[type[ApiObject], ...] = (
    GatewayClass,
    Gateway,
    ListenerSet,
    GRPCRoute,
    HTTPRoute,
    ReferenceGrant,
    BackendTrafficPolicy,
    ObservabilityPolicy,
    MultiClusterService,
    FederatedServiceImport,
    McsServiceImport,
    McsServiceExport,
    DrainRequest,
    Service,
    EndpointSlice,
    Secret,
    Namespace,
    ConfigMap,
)
"""Every kind that is read, in the order in which they are shown."""

ON_DEMAND: tuple[type[ApiObject], ...] = (Node,)
"""Kinds that an API server is asked for only where something rests on them; see the source."""

WITHOUT_EFFECT: dict[tuple[str, str], str] = {
    ("argoproj.io", "Rollout"): "Argo Rollouts acts on it and patches the route's weights",
    ("monitoring.coreos.com", "PrometheusRule"): "Prometheus acts on it",
}
"""Kinds that are known and skipped with a notice: group and kind to the reason."""

_SHORT_NAMES: dict[type[ApiObject], tuple[str, ...]] = {
    GatewayClass: ("gc",),
    Gateway: ("gtw",),
    ListenerSet: ("lset",),
    ReferenceGrant: ("refgrant",),
    BackendTrafficPolicy: ("btp",),
    ObservabilityPolicy: ("obs",),
    MultiClusterService: ("mcs",),
    FederatedServiceImport: ("svcim",),
    McsServiceExport: ("svcex",),
    DrainRequest: ("fdr",),
    Service: ("svc",),
    Namespace: ("ns",),
    ConfigMap: ("cm",),
}


def find_kind(group: str, kind: str) -> type[ApiObject] | None:
    """The class of that group and kind."""
    known = (*KINDS, *ON_DEMAND)
    return next((cls for cls in known if (group, kind) == (cls.GROUP, cls.KIND)), None)


def plural(cls: type[ApiObject]) -> str:
    """The lower-case plural by which Kubernetes calls the kind."""
    word = cls.KIND.lower()
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith("s") else f"{word}s"


def resource(cls: type[ApiObject]) -> str:
    """``kind.group`` in lower case, as kubectl prints it before an object's name."""
    return f"{cls.KIND.lower()}.{cls.GROUP}" if cls.GROUP else cls.KIND.lower()


def names_of(cls: type[ApiObject]) -> tuple[str, ...]:
    """All names of a kind on the command line: singular, plural, short."""
    return (cls.KIND.lower(), plural(cls), *short_names(cls))


def short_names(cls: type[ApiObject]) -> tuple[str, ...]:
    """The abbreviations of a kind."""
    return _SHORT_NAMES.get(cls, ())


def find_kind_by_name(text: str) -> type[ApiObject] | None:
    """The class called ``text``: singular, plural or short name, alone or with ``.group``."""
    wanted = text.lower()
    return next((cls for name, cls in _names() if name == wanted), None)


def _names() -> Iterator[tuple[str, type[ApiObject]]]:
    for cls in KINDS:
        yield from ((name, cls) for name in names_of(cls))
    for cls in KINDS:
        yield from ((f"{name}.{cls.GROUP}", cls) for name in names_of(cls) if cls.GROUP)
