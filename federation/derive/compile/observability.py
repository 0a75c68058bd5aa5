"""ObservabilityPolicies: what is told about which calls, and to whom.

Decides: which policy holds a Gateway, a port or a route (the oldest of each; the others are
``Conflicted``), how those for one call come together, and which collectors resolve.
Leaves to others: where the result stands in listeners and routes (``tables``, ``eastwest``),
statuses (``observability_status``), telling itself (the gateway).
Invariants: the more specific policy wins field by field: a route's, then a listener's, then its
Gateway's; a reference that does not resolve is as if it were not there, and changes nothing for
traffic; listeners of one port are one to gateways, so a policy for one of them is for all of them;
who owns routes or imports alone reads neither the gateway's environment nor writes its files;
listeners of imports belong to no Gateway, and tell what policies for their own import say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from federation.derive.compile.backends import GRPC_PROTOCOLS, port_of
from federation.derive.compile.import_listeners import takes_calls
from federation.derive.compile.index import Index
from federation.derive.compile.listeners import Listeners
from federation.derive.compile.problem import Problem
from federation.derive.compile.routes import CompiledRoute
from federation.derive.compile.upstreams import UpstreamKind, UpstreamRef, upstream_ref
from federation.model.base import ServiceName
from federation.model.objects import (
    DEFAULT_SAMPLING_PERCENT,
    STANDARD_OUTPUT,
    AccessLogType,
    CollectorReference,
    CoreServiceType,
    CustomTag,
    Gateway,
    GRPCRoute,
    HTTPRoute,
    McsServiceImport,
    ObjectKey,
    ObservabilityPolicy,
    Service,
)
from federation.model.objects import AccessLog as AccessLogSpec
from federation.model.telemetry import (
    DEFAULT_FIELDS,
    AccessLog,
    RouteTracing,
    Tag,
    TagSource,
    Telemetry,
    Tracing,
)

LOGS_MAX = 8
"""Access logs of one listener that differ; gateways take no more."""

PER_MILLION_OF_PERCENT = 10_000

_ROUTES = frozenset((kind.GROUP, kind.KIND) for kind in (GRPCRoute, HTTPRoute))
_IMPORT = (McsServiceImport.GROUP, McsServiceImport.KIND)
_ROUTE_FILES = (STANDARD_OUTPUT, "/dev/stderr")

Target = tuple[ObjectKey, int]
"""A Gateway, a route or an import, and a port of the Gateway (0: the whole)."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """The policy that holds each target, and the problem of each that holds none.

    ``foreign`` are for Gateways of other controllers, and none of our business.
    """

    holders: Mapping[Target, ObservabilityPolicy]
    problems: Mapping[ObjectKey, Problem]
    foreign: frozenset[ObjectKey]

    def of(self, target: ObjectKey, port: int = 0) -> ObservabilityPolicy | None:
        """The policy for that target itself."""
        return self.holders.get((target, port))


@dataclass(frozen=True, slots=True)
class Told:
    """What gateways tell, by the name of the listener (``GATEWAY/PORT``).

    ``routes`` are routes with sampling and tags of their own there, ``imports`` what the listeners
    of imports tell, by the clusterset service. ``collectors`` are the upstreams needed.
    ``unresolved``, ``conflicts`` and ``notes`` are what policies came to.
    """

    listeners: Mapping[str, Telemetry] = field(default_factory=dict)
    routes: Mapping[str, Mapping[ObjectKey, RouteTracing]] = field(default_factory=dict)
    imports: Mapping[ServiceName, Telemetry] = field(default_factory=dict)
    east_west: Telemetry | None = None
    collectors: frozenset[UpstreamRef] = frozenset()
    unresolved: Mapping[ObjectKey, Problem] = field(default_factory=dict)
    conflicts: Mapping[ObjectKey, Problem] = field(default_factory=dict)
    notes: Mapping[ObjectKey, str] = field(default_factory=dict)


NOTHING_TOLD = Told()


def policy_target(policy: ObservabilityPolicy) -> ObjectKey:
    """The object that the policy speaks about, in its own namespace."""
    ref = policy.spec.target_ref
    return ObjectKey(ref.group, ref.kind, policy.metadata.namespace, ref.name)


def assign_observability(index: Index, served: Sequence[Gateway]) -> Assigned:
    """Give each target at most one policy: the oldest. ``served`` are the Gateways of ours."""
    gateways = {gateway.key: gateway for gateway in served}
    holders: dict[Target, ObservabilityPolicy] = {}
    problems: dict[ObjectKey, Problem] = {}
    foreign = set()
    for policy in index.objects.of(ObservabilityPolicy):
        target = policy_target(policy)
        gateway = gateways.get(target)
        if gateway is None and target.kind == Gateway.KIND and target in index.objects.objects:
            foreign.add(policy.key)
            continue
        problem = _target_problem(index, policy, target, gateway)
        place = (target, _port(policy, gateway))
        if problem is None and holders.setdefault(place, policy) is not policy:
            problem = _older(holders[place], place)
        if problem is not None:
            problems[policy.key] = problem
    return Assigned(holders, problems, frozenset(foreign))


def _older(holder: ObservabilityPolicy, place: Target) -> Problem:
    target, port = place
    held = f"port {port} of {target}" if port else str(target)
    message = f"{holder.key} is older and holds {held}; merge the two or target something else"
    return Problem("Conflicted", message)


def _port(policy: ObservabilityPolicy, gateway: Gateway | None) -> int:
    section = policy.spec.target_ref.section_name
    listeners = gateway.spec.listeners if gateway is not None and section is not None else ()
    return next((entry.port for entry in listeners if entry.name == section), 0)


def _target_problem(
    index: Index, policy: ObservabilityPolicy, target: ObjectKey, gateway: Gateway | None
) -> Problem | None:
    section = policy.spec.target_ref.section_name
    kind = (target.group, target.kind)
    if kind != (Gateway.GROUP, Gateway.KIND) and kind not in _ROUTES and kind != _IMPORT:
        return Problem(
            "Invalid",
            f"spec.targetRef: kind {target.kind} ({target.group or 'core'}) cannot be targeted, "
            f"use a {Gateway.KIND}, a {GRPCRoute.KIND}, an {HTTPRoute.KIND} or a "
            f"{McsServiceImport.KIND} ({McsServiceImport.GROUP})",
        )
    if target not in index.objects.objects:
        return Problem("TargetNotFound", f"spec.targetRef: {target} does not exist")
    if gateway is None:
        return _route_problem(policy)
    names = [entry.name for entry in gateway.spec.listeners]
    if section is not None and section not in names:
        return Problem(
            "TargetNotFound",
            f"spec.targetRef.sectionName: {target} has no listener {section}; listeners: "
            f"{', '.join(names)}",
        )
    return None


def _route_problem(policy: ObservabilityPolicy) -> Problem | None:
    """What only those may ask for who own the Gateway."""
    spec = policy.spec
    what, parts = "route", "rules"
    if spec.target_ref.kind == McsServiceImport.KIND:
        what, parts = "ServiceImport", "ports"
    if spec.target_ref.section_name is not None:
        message = f"spec.targetRef.sectionName: single {parts} cannot be targeted"
        return Problem("Invalid", message)
    for position, tag in enumerate(spec.tracing.custom_tags if spec.tracing else ()):
        if tag.env is not None:
            return Problem(
                "Invalid",
                f"spec.tracing.customTags[{position}].env: the environment is the gateway's, and "
                f"a policy for a {what} cannot read it; use a policy for the Gateway",
            )
    path = spec.access_log.path if spec.access_log else None
    if path is not None and path not in _ROUTE_FILES:
        return Problem(
            "Invalid",
            f"spec.accessLog.path: files are the gateway's, and a policy for a {what} may name "
            f"{' and '.join(_ROUTE_FILES)} only; use a policy for the Gateway",
        )
    return None


def tell(
    index: Index, assigned: Assigned, listeners: Listeners, routes: Iterable[CompiledRoute]
) -> Told:
    """What gateways tell under the policies of ``assigned``."""
    if not assigned.holders:
        return NOTHING_TOLD
    work = _Work(index, assigned)
    places = _places(assigned, listeners, routes)
    told = {name: work.listener(name, place) for name, place in sorted(places.items())}
    imports = work.imports()
    work.note_idle()
    return Told(
        listeners={name: found for name, (found, _) in told.items() if found is not None},
        routes={name: own for name, (_, own) in told.items() if own},
        imports=imports,
        east_west=work.east_west(),
        collectors=frozenset(work.used),
        unresolved=work.unresolved,
        conflicts=work.conflicts,
        notes=work.notes,
    )


@dataclass(slots=True)
class _Place:
    """A listener as gateways open it: its Gateway and port, names, and routes with policies."""

    gateway: ObjectKey
    port: int
    sections: list[str] = field(default_factory=list)
    routes: dict[ObjectKey, CompiledRoute] = field(default_factory=dict)


def _places(
    assigned: Assigned, listeners: Listeners, routes: Iterable[CompiledRoute]
) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for states in listeners.values():
        for state in states:
            if state.usable and not state.passthrough:
                gateway, port = state.gateway.key, state.spec.port
                name = f"{gateway.qualified_name}/{port}"
                place = places.setdefault(name, _Place(gateway, port))
                place.sections.append(state.section)
    if not any((target.group, target.kind) in _ROUTES for target, _ in assigned.holders):
        return places
    for route in routes:
        if assigned.of(route.source.key) is None:
            continue
        for outcome in route.outcomes:
            for entry in outcome.attached:
                state = entry.listener
                found = places.get(f"{state.gateway.key.qualified_name}/{state.spec.port}")
                if found is not None and not state.passthrough:
                    found.routes[route.source.key] = route
    return places


class _Work:
    """One compilation of policies; gathers what is used, and what became of each policy."""

    def __init__(self, index: Index, assigned: Assigned) -> None:
        self._index = index
        self._assigned = assigned
        self._effective: set[ObjectKey] = set()
        self.used: set[UpstreamRef] = set()
        self.unresolved: dict[ObjectKey, Problem] = {}
        self.conflicts: dict[ObjectKey, Problem] = {}
        self.notes: dict[ObjectKey, str] = {}
        for policy in assigned.holders.values():
            self._check(policy)

    def listener(
        self, name: str, place: _Place
    ) -> tuple[Telemetry | None, Mapping[ObjectKey, RouteTracing]]:
        """What the listener ``name`` tells, and its routes with sampling of their own."""
        layers = self._layers(place)
        by_age = sorted(place.routes, key=lambda key: self._policy(key).age)
        tracing, own = self._tracing(layers, by_age)
        telemetry = Telemetry(tracing, self._logs(name, layers, place, by_age))
        return (telemetry if telemetry != Telemetry() else None), own

    def imports(self) -> Mapping[ServiceName, Telemetry]:
        """What the listeners of imports tell."""
        found = {}
        for (target, _), policy in sorted(
            self._assigned.holders.items(), key=lambda entry: entry[0]
        ):
            source = self._index.objects.get(McsServiceImport, target.namespace, target.name)
            if (target.group, target.kind) != _IMPORT or source is None:
                continue
            if not takes_calls(self._index, source):
                note = f"without effect: no port of {target} takes calls at this cluster's gateways"
                self._note(policy, note)
            collector, log = self._provider(policy), self._log(policy)
            tracing = None
            if collector is not None:
                self._effective.add(policy.key)
                tracing = Tracing(self._use(collector), _sampling((policy,)), _tags((policy,)))
            name = ServiceName(namespace=target.namespace, name=target.name)
            found[name] = Telemetry(tracing, (log,) if log is not None else ())
        return {name: telemetry for name, telemetry in found.items() if telemetry != Telemetry()}

    def east_west(self) -> Telemetry | None:
        """What the entrance for other clusters tells: spans of calls that their gateway records."""
        for policy in sorted(self._assigned.holders.values(), key=lambda it: it.age):
            if policy_target(policy).kind != Gateway.KIND or policy.spec.target_ref.section_name:
                continue
            collector = self._provider(policy)
            if collector is not None:
                # Sampling is the caller's: whoever lets a call in has decided.
                return Telemetry(Tracing(self._use(collector), 0, _tags((policy,))))
        return None

    def note_idle(self) -> None:
        """Say of policies that ask for spans, and have no collector anywhere, that they do."""
        for policy in self._assigned.holders.values():
            if (
                policy.spec.tracing is not None
                and policy.key not in self._effective
                and policy.key not in self.unresolved
                and policy.key not in self.conflicts
            ):
                note = "tracing is without effect: no policy names a provider for these calls"
                self._note(policy, note)

    def _layers(self, place: _Place) -> tuple[ObservabilityPolicy, ...]:
        """The policies of a listener, the most specific last."""
        whole = self._assigned.of(place.gateway)
        single = self._assigned.of(place.gateway, place.port)
        if single is not None and len(place.sections) > 1:
            shared = ", ".join(sorted(place.sections))
            note = f"holds for listeners {shared}, which share port {place.port}"
            self._note(single, note)
        return tuple(policy for policy in (whole, single) if policy is not None)

    def _tracing(
        self, layers: tuple[ObservabilityPolicy, ...], routes: Sequence[ObjectKey]
    ) -> tuple[Tracing | None, Mapping[ObjectKey, RouteTracing]]:
        source, collector = self._provider_of(reversed(layers))
        rate = _sampling(layers)
        if collector is None:
            # Routes bring one: then their calls alone are recorded.
            source, collector = self._provider_of(map(self._policy, routes))
            rate = 0
        if source is None or collector is None:
            return None, {}
        own: dict[ObjectKey, RouteTracing] = {}
        for key in routes:
            policy = self._policy(key)
            named = self._provider(policy)
            if named not in (None, collector):
                self._other_provider(policy, source, traced=source in layers)
            if policy.spec.tracing is None or (source not in layers and named != collector):
                continue
            self._effective.add(policy.key)
            own[key] = RouteTracing(_sampling((*layers, policy)), _tags((*layers, policy)))
        self._effective.update(policy.key for policy in layers)
        return Tracing(self._use(collector), rate, _tags(layers)), own

    def _other_provider(
        self, policy: ObservabilityPolicy, winner: ObservabilityPolicy, *, traced: bool
    ) -> None:
        then = "spans go to its collector" if traced else "no span of this route is recorded there"
        message = (
            "spec.tracing.provider: a listener has one collector for spans, and "
            f"{winner.key} names another; {then}"
        )
        self.conflicts.setdefault(policy.key, Problem("ProviderConflict", message))

    def _logs(
        self,
        listener: str,
        layers: tuple[ObservabilityPolicy, ...],
        place: _Place,
        routes: Sequence[ObjectKey],
    ) -> tuple[AccessLog, ...]:
        found: dict[AccessLog, list[str]] = {}
        for key in routes:
            policy = self._policy(key)
            log = self._log(policy)
            if log is None:
                continue
            # One place is kept for the Gateway's own.
            if log not in found and len(found) >= LOGS_MAX - 1:
                message = (
                    f"spec.accessLog: listener {listener} writes at most {LOGS_MAX - 1} access "
                    "logs of routes that differ, and older policies have them; use a format and a "
                    "target of theirs"
                )
                self.conflicts.setdefault(policy.key, Problem("TooManyAccessLogs", message))
                continue
            found.setdefault(log, []).extend(_rules(place.routes[key]))
        named = tuple(sorted({rule for rules in found.values() for rule in rules}))
        logs = [
            AccessLog(log.collector, log.path, log.text, log.fields, rules=tuple(rules))
            for log, rules in found.items()
            if rules
        ]
        whole = next(filter(None, (self._log(policy) for policy in reversed(layers))), None)
        if whole is not None:
            general = AccessLog(
                whole.collector, whole.path, whole.text, whole.fields, except_rules=named
            )
            logs.insert(0, general)
        return tuple(logs)

    def _log(self, policy: ObservabilityPolicy) -> AccessLog | None:
        spec = policy.spec.access_log
        if spec is None:
            return None
        if spec.type is AccessLogType.FILE:
            return _log_of(spec, path=spec.path or STANDARD_OUTPUT)
        assert spec.backend_ref is not None, "checked by the model"
        collector = self._collector(policy, spec.backend_ref, "spec.accessLog.backendRef")
        return _log_of(spec, collector=self._use(collector)) if collector is not None else None

    def _provider_of(
        self, policies: Iterable[ObservabilityPolicy]
    ) -> tuple[ObservabilityPolicy | None, UpstreamRef | None]:
        """The first of ``policies`` with a collector for spans."""
        for policy in policies:
            collector = self._provider(policy)
            if collector is not None:
                return policy, collector
        return None, None

    def _provider(self, policy: ObservabilityPolicy) -> UpstreamRef | None:
        tracing = policy.spec.tracing
        if tracing is None or tracing.provider is None:
            return None
        where = "spec.tracing.provider.backendRef"
        return self._collector(policy, tracing.provider.backend_ref, where)

    def _check(self, policy: ObservabilityPolicy) -> None:
        """Resolve what ``policy`` refers to, whether or not a call comes to need it."""
        self._provider(policy)
        spec = policy.spec.access_log
        if spec is not None and spec.backend_ref is not None:
            self._collector(policy, spec.backend_ref, "spec.accessLog.backendRef")

    def _collector(
        self, policy: ObservabilityPolicy, ref: CollectorReference, where: str
    ) -> UpstreamRef | None:
        found = _resolve(self._index, policy, ref, where)
        if isinstance(found, Problem):
            self.unresolved.setdefault(policy.key, found)
            return None
        return found

    def _use(self, collector: UpstreamRef) -> str:
        self.used.add(collector)
        return collector.name

    def _policy(self, target: ObjectKey) -> ObservabilityPolicy:
        return self._assigned.holders[target, 0]

    def _note(self, policy: ObservabilityPolicy, text: str) -> None:
        known = self.notes.get(policy.key)
        self.notes[policy.key] = f"{known}; {text}" if known else text


def _resolve(
    index: Index, policy: ObservabilityPolicy, ref: CollectorReference, where: str
) -> UpstreamRef | Problem:
    """The upstream of a collector, or why there is none; words are those of routes' backends."""
    key = ObjectKey(ref.group, ref.kind, ref.namespace or policy.metadata.namespace, ref.name)
    if (ref.group, ref.kind) != (Service.GROUP, Service.KIND):
        message = f"{where}: kind {ref.kind} ({ref.group or 'core'}) is no collector; use a Service"
        return Problem("InvalidKind", message)
    if not index.permitted(policy.key, key):
        return Problem(
            "RefNotPermitted",
            f"{where}: no ReferenceGrant in namespace {key.namespace} lets {policy.KIND}s of "
            f"namespace {policy.metadata.namespace} refer to {key}",
        )
    service = index.objects.get(Service, key.namespace, key.name)
    if service is None:
        return Problem("BackendNotFound", f"{where}: {key} does not exist; nothing is sent")
    if service.spec.type is CoreServiceType.EXTERNAL_NAME:
        message = f"{where}: {key} is of type ExternalName, which has no endpoints"
        return Problem("InvalidKind", message)
    port = port_of(service, ref.port)
    if port is None:
        ports = ", ".join(f"{entry.port}/{entry.protocol}" for entry in service.spec.ports)
        return Problem(
            "BackendNotFound",
            f"{where}.port: {key} has no TCP port {ref.port}; ports: {ports or 'none'}",
        )
    if port.app_protocol is not None and port.app_protocol.lower() not in GRPC_PROTOCOLS:
        return Problem(
            "UnsupportedProtocol",
            f"{where}.port: {key} says appProtocol {port.app_protocol} for port {ref.port}; OTLP "
            f"over gRPC needs one of {', '.join(sorted(GRPC_PROTOCOLS))}",
        )
    name = ServiceName(namespace=key.namespace, name=key.name)
    return upstream_ref(UpstreamKind.SERVICE, name, ref.port)


def _sampling(layers: Iterable[ObservabilityPolicy]) -> int:
    """In a million; the most specific that says it."""
    percent = DEFAULT_SAMPLING_PERCENT
    for policy in layers:
        tracing = policy.spec.tracing
        if tracing is not None and tracing.sampling_rate is not None:
            percent = tracing.sampling_rate
    if percent > 0:
        return max(1, round(percent * PER_MILLION_OF_PERCENT))
    return 0


def _tags(layers: Iterable[ObservabilityPolicy]) -> tuple[Tag, ...]:
    """All tags, sorted by name; of one name the most specific."""
    found = {
        tag.name: _tag(tag)
        for policy in layers
        if policy.spec.tracing is not None
        for tag in policy.spec.tracing.custom_tags
    }
    return tuple(found[name] for name in sorted(found))


def _tag(spec: CustomTag) -> Tag:
    if spec.literal is not None:
        return Tag(spec.name, TagSource.LITERAL, spec.literal.value)
    if spec.env is not None:
        default = spec.env.default_value or None
        return Tag(spec.name, TagSource.ENVIRONMENT, spec.env.name, default)
    assert spec.request_header is not None, "checked by the model"
    header = spec.request_header
    return Tag(spec.name, TagSource.HEADER, header.name.lower(), header.default_value or None)


def _log_of(spec: AccessLogSpec, *, collector: str = "", path: str = "") -> AccessLog:
    layout = spec.format
    if layout.text is not None:
        return AccessLog(collector, path, text=layout.text)
    fields = tuple(layout.fields.items()) if layout.fields else DEFAULT_FIELDS
    return AccessLog(collector, path, fields=fields)


def _rules(route: CompiledRoute) -> list[str]:
    """The rules' names, as the gateway knows them."""
    names = [match.rule for rule in route.rules for _, match in rule.routes]
    return list(dict.fromkeys(names))
