"""The compile step: objects and federation state in, snapshot and statuses out.

Decides: the order of the steps, what a complete result is, and what is compiled anew after a
change: the units (routes, upstreams, statuses) that read what has changed, and the lists that
changed units stand in.
Leaves to others: every single rule (the siblings of this file), what depends on what
(``derive.incremental``), Envoy's spelling (``wire.xds``), whether gateways took it
(``derive.programmed``).
Invariants: pure and total: the same inputs give the same result in the same order, whatever was
compiled before, and no object can make it fail; what is wrong with an object stands in that
object's status and changes nothing for the others; what is remembered is of the last inputs alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from federation.derive.compile.coexistence import Admissions
from federation.derive.compile.eastwest import (
    EastWest,
    build_east_west,
    exported_ports,
    exported_tcp,
    exported_upstreams,
)
from federation.derive.compile.gateways import served_gateways
from federation.derive.compile.import_listeners import (
    ImportListener,
    OpenPort,
    build_import_listener,
    open_ports,
)
from federation.derive.compile.index import Index, Indexes
from federation.derive.compile.inputs import Compiled, CompileInputs
from federation.derive.compile.keepalive import (
    GatewayKeepalive,
    keepalive_of,
    keepalive_statuses,
)
from federation.derive.compile.listener_sets import allowed_sets
from federation.derive.compile.listeners import (
    Listeners,
    judge_listeners,
    wanted_ports,
)
from federation.derive.compile.observability import (
    Assigned,
    Told,
    assign_observability,
    tell,
)
from federation.derive.compile.observability_status import (
    Outcome,
    affected,
    observability_status,
    outcomes,
)
from federation.derive.compile.policies import Policies, assign_policies, target_key
from federation.derive.compile.problem import Problem
from federation.derive.compile.routes import CompiledRoute, compile_route, route_status
from federation.derive.compile.statuses import (
    MulticlusterObject,
    Statuses,
    clusterset_status,
    gateway_statuses,
    policy_status,
    routes_passed,
)
from federation.derive.compile.tables import Hosts, build_listeners
from federation.derive.compile.upstreams import (
    Built,
    UpstreamRef,
    build_upstream,
    invalid,
    unavailable,
)
from federation.derive.incremental import Change, Single, Units
from federation.model.base import ServiceName, slimmed
from federation.model.facts import ServicePort
from federation.model.objects import (
    AnyRoute,
    BackendTrafficPolicy,
    DrainRequest,
    FederatedServiceImport,
    Gateway,
    GRPCRoute,
    HTTPRoute,
    McsServiceExport,
    McsServiceImport,
    MultiClusterService,
    ObjectKey,
    ObservabilityPolicy,
)
from federation.model.snapshot import (
    CaSecret,
    EndpointSet,
    Listener,
    RouteTable,
    Snapshot,
    TlsSecret,
    Upstream,
)
from federation.model.status import ObjectStatus
from federation.model.telemetry import Telemetry


def compile_cluster(inputs: CompileInputs) -> Compiled:
    """Compile ``inputs``, with nothing remembered before and after."""
    return Compiler().compile(inputs)


@dataclass(frozen=True, slots=True)
class _Doors:
    """The Gateways that are served, with what became of their listeners."""

    gateways: tuple[Gateway, ...]
    keepalives: Mapping[ObjectKey, GatewayKeepalive]
    listeners: Listeners


Routes = tuple[CompiledRoute, ...]
_Source = tuple[AnyRoute, BackendTrafficPolicy | None]
_Governing = tuple[BackendTrafficPolicy, Problem | None, bool]
_Observing = tuple[ObservabilityPolicy, Outcome]
_Admitted = tuple[CompiledRoute, ObjectKey | None]
_Telling = tuple[OpenPort, Telemetry | None]
_Member = tuple[MulticlusterObject, ObjectKey | None]
"""An object of the clusterset, and the ObservabilityPolicy that holds it."""


class Compiler:
    """Compiles successive inputs; what a change does not touch is not compiled again.

    One caller at a time. Memory: the inputs and results of the last compilation, with what each
    unit asked for.
    """

    def __init__(self) -> None:
        self._held: object = None
        self._forget()

    def __repr__(self) -> str:
        return f"Compiler({', '.join(f'{name}={count}' for name, count in self.made.items())})"

    @property
    def made(self) -> Mapping[str, int]:
        """How many units of each kind the last compilation made anew.

        ``listeners`` 1: all of them; ``services``: upstreams with their endpoints.
        """
        return {
            "listeners": self._doors.made,
            "routes": self._routes.made,
            "hosts": self._hosts.made,
            "services": self._upstreams.made,
            "statuses": sum(
                units.made
                for units in (
                    self._route_statuses,
                    self._policy_statuses,
                    self._observing_statuses,
                    self._clusterset,
                )
            ),
        }

    def compile(self, inputs: CompileInputs) -> Compiled:
        """Compile ``inputs``; equal to ``compile_cluster`` of them."""
        held = (inputs.cluster, inputs.region, inputs.settings)
        if held != self._held:
            self._forget()
            self._held = held
        try:
            return self._compile(inputs)
        except BaseException:
            self._forget()  # what was noted and what was made no longer belong together
            raise

    def _forget(self) -> None:
        self._indexes = Indexes()
        self._doors: Single[_Doors] = Single()
        self._listeners: Listeners = {}
        self._ports: Single[Mapping[ObjectKey, tuple[int, ...]]] = Single()
        self._policies: Single[Policies] = Single()
        self._observed: Single[Assigned] = Single()
        self._told: Single[Told] = Single()
        self._sources: Single[Mapping[ObjectKey, _Source]] = Single()
        self._routes: Units[ObjectKey, _Source, CompiledRoute] = Units()
        self._admissions = Admissions()
        self._answering: Single[Routes] = Single()
        self._hosts = Hosts()
        self._ingress: Single[tuple[tuple[Listener, ...], tuple[RouteTable, ...]]] = Single()
        self._exported: Single[Mapping[ServiceName, tuple[ServicePort, ...]]] = Single()
        self._local: Single[tuple[UpstreamRef, ...]] = Single()
        self._tcp: Single[tuple[tuple[ServiceName, int], ...]] = Single()
        self._east_west: Single[EastWest | None] = Single()
        self._open_ports: Single[Mapping[str, tuple[OpenPort]]] = Single()
        self._telling: Single[Mapping[str, _Telling]] = Single()
        self._imports: Units[str, _Telling, ImportListener] = Units()
        self._refs: Single[Mapping[UpstreamRef, tuple[UpstreamRef]]] = Single()
        self._upstreams: Units[UpstreamRef, tuple[UpstreamRef], Built] = Units()
        self._built: Single[tuple[tuple[Upstream, ...], tuple[EndpointSet, ...]]] = Single()
        self._secrets: Single[tuple[TlsSecret | CaSecret, ...]] = Single()
        self._gateway_statuses: Single[Statuses] = Single()
        self._keepalive_statuses: Single[Statuses] = Single()
        self._admitted: Single[Mapping[ObjectKey, _Admitted]] = Single()
        self._route_statuses: Units[ObjectKey, _Admitted, ObjectStatus] = Units()
        self._passed: Single[frozenset[ObjectKey]] = Single()
        self._governing: Single[Mapping[ObjectKey, _Governing]] = Single()
        self._policy_statuses: Units[ObjectKey, _Governing, ObjectStatus] = Units()
        self._observing: Single[Mapping[ObjectKey, _Observing]] = Single()
        self._observing_statuses: Units[ObjectKey, _Observing, ObjectStatus] = Units()
        self._members: Single[Mapping[ObjectKey, _Member]] = Single()
        self._clusterset: Units[ObjectKey, _Member, ObjectStatus] = Units()
        self._statuses: Single[Statuses] = Single()

    def _compile(self, inputs: CompileInputs) -> Compiled:
        change, look_up = self._indexes.follow(inputs)
        doors = self._doors.update(change, (), lambda: _judged(look_up, self._doors.value))
        policies = self._policies.update(change, (), lambda: assign_policies(look_up))
        routes = self._compile_routes(change, look_up, doors, policies)
        observed = self._observed.update(
            change, (doors,), lambda: assign_observability(look_up, doors.gateways)
        )
        told = self._told.update(
            change,
            (observed, doors.listeners, routes),
            lambda: tell(look_up, observed, doors.listeners, routes),
        )
        statuses = (
            *self._statuses_of_doors(change, look_up, doors, routes, observed),
            self._of_routes(change, look_up, routes, observed),
            self._of_policies(change, look_up, policies, routes),
            self._of_observability(change, look_up, observed, told),
            self._of_clusterset(change, look_up, observed),
        )
        return Compiled(
            snapshot=self._snapshot(change, look_up, doors, routes, told),
            statuses=self._statuses.update(change, statuses, lambda: _in_order(statuses)),
            ports=self._ports.update(
                change, (doors.listeners,), lambda: wanted_ports(doors.listeners)
            ),
        )

    def _compile_routes(
        self, change: Change, look_up: Index, doors: _Doors, policies: Policies
    ) -> Routes:
        listeners = change.table("listeners", self._listeners, doors.listeners)
        self._listeners = doors.listeners
        of_kinds: tuple[tuple[AnyRoute, ...], ...] = (
            look_up.objects.of(GRPCRoute),
            look_up.objects.of(HTTPRoute),
        )
        held = policies.by_route
        wanted = self._sources.update(
            change,
            (*of_kinds, held),
            lambda: {it.key: (it, held.get(it.key)) for kind in of_kinds for it in kind},
        )

        return self._admissions.update(
            self._routes.update(change, wanted, lambda of: compile_route(look_up, listeners, *of))
        )

    def _snapshot(
        self, change: Change, look_up: Index, doors: _Doors, routes: Routes, told: Told
    ) -> Snapshot:
        answering = self._answering.update(
            change, (routes,), lambda: tuple(route for route in routes if route.answers)
        )
        self._hosts.made = 0
        ingress, tables = self._ingress.update(
            change,
            (doors.listeners, answering, told),
            lambda: build_listeners(doors.listeners, answering, self._hosts, told),
        )
        local = self._compile_exported(change, look_up)
        tcp = self._tcp.update(change, (), lambda: exported_tcp(look_up))
        east_west = self._east_west.update(
            change,
            (local, tcp, told.east_west),
            lambda: build_east_west(look_up, local, tcp, told.east_west),
        )
        imports = self._compile_imports(change, look_up, ingress, told)
        refs = self._refs.update(
            change,
            (answering, local, east_west, imports, told),
            lambda: _refs(
                answering,
                [
                    *(local if east_west else ()),
                    *told.collectors,
                    *(ref for entry in imports.values() for ref in entry.upstreams),
                ],
            ),
        )
        made = self._upstreams.update(change, refs, lambda of: build_upstream(look_up, *of))
        upstreams, endpoints = self._built.update(
            change, (made, answering), lambda: _with_refusing(made.values(), answering)
        )
        return Snapshot(
            cluster=look_up.cluster,
            listeners=_sorted(
                [
                    *ingress,
                    *(entry.listener for entry in imports.values()),
                    *([east_west[0]] if east_west else []),
                ]
            ),
            route_tables=_sorted(
                [
                    *tables,
                    *(entry.table for entry in imports.values() if entry.table is not None),
                    *([east_west[1]] if east_west else []),
                ]
            ),
            upstreams=upstreams,
            endpoint_sets=endpoints,
            secrets=self._secrets.update(
                change, (doors.listeners,), lambda: _secrets(doors.listeners)
            ),
        )

    def _compile_imports(
        self, change: Change, look_up: Index, ingress: tuple[Listener, ...], told: Told
    ) -> Mapping[str, ImportListener]:
        held = {entry.port for entry in ingress} | {look_up.settings.eastwest_port or 0}
        opened = self._open_ports.update(change, (ingress,), lambda: open_ports(look_up, held))
        wanted = self._telling.update(
            change,
            (opened, told),
            lambda: {
                name: (entry, told.imports.get(entry.service)) for name, (entry,) in opened.items()
            },
        )
        return self._imports.update(change, wanted, lambda of: build_import_listener(look_up, *of))

    def _compile_exported(self, change: Change, look_up: Index) -> tuple[UpstreamRef, ...]:
        """Exports change with each endpoint that comes or goes, and their ports hardly ever."""
        ports = self._exported.update(change, (), lambda: exported_ports(look_up))
        return self._local.update(change, (ports,), lambda: exported_upstreams(ports))

    def _statuses_of_doors(
        self, change: Change, look_up: Index, doors: _Doors, routes: Routes, observed: Assigned
    ) -> tuple[Statuses, Statuses]:
        gateways = self._gateway_statuses.update(
            change,
            (doors, routes, observed),
            lambda: gateway_statuses(
                look_up, doors.gateways, doors.listeners, doors.keepalives, routes, observed
            ),
        )
        keepalives = self._keepalive_statuses.update(
            change, (doors,), lambda: keepalive_statuses(look_up, doors.keepalives)
        )
        return gateways, keepalives

    def _of_routes(
        self, change: Change, look_up: Index, routes: Routes, observed: Assigned
    ) -> Statuses:
        wanted = self._admitted.update(
            change,
            (routes, observed),
            lambda: {
                (key := route.source.key): (
                    route,
                    policy.key if (policy := observed.of(key)) is not None else None,
                )
                for route in routes
            },
        )

        return self._route_statuses.update(
            change,
            wanted,
            lambda of: slimmed(route_status(look_up, of[0], affected(of[0].source, of[1]))),
        )

    def _of_policies(
        self, change: Change, look_up: Index, policies: Policies, routes: Routes
    ) -> Statuses:
        passed = self._passed.update(change, (routes,), lambda: routes_passed(routes))
        sources = look_up.objects.of(BackendTrafficPolicy)
        problems = policies.problems
        wanted = self._governing.update(
            change,
            (sources, policies, passed),
            lambda: {
                it.key: (it, problems.get(it.key), target_key(it) in passed) for it in sources
            },
        )
        return self._policy_statuses.update(
            change,
            wanted,
            lambda of: policy_status(look_up, of[0], of[1], passed=of[2]),
        )

    def _of_observability(
        self, change: Change, look_up: Index, observed: Assigned, told: Told
    ) -> Statuses:
        sources = look_up.objects.of(ObservabilityPolicy)
        wanted = self._observing.update(
            change, (sources, observed, told), lambda: outcomes(sources, observed, told)
        )
        return self._observing_statuses.update(
            change, wanted, lambda of: observability_status(look_up, *of)
        )

    def _of_clusterset(self, change: Change, look_up: Index, observed: Assigned) -> Statuses:
        of_kinds: tuple[tuple[MulticlusterObject, ...], ...] = (
            look_up.objects.of(McsServiceExport),
            look_up.objects.of(McsServiceImport),
            look_up.objects.of(FederatedServiceImport),
            look_up.objects.of(MultiClusterService),
            look_up.objects.of(DrainRequest),
        )
        wanted = self._members.update(
            change,
            (*of_kinds, observed),
            lambda: {
                (key := it.key): (
                    it,
                    policy.key if (policy := observed.of(key)) is not None else None,
                )
                for kind in of_kinds
                for it in kind
            },
        )

        return self._clusterset.update(
            change, wanted, lambda of: slimmed(_of_member(look_up, of[0], of[1]))
        )


def _of_member(
    look_up: Index, source: MulticlusterObject, policy: ObjectKey | None
) -> ObjectStatus:
    status = clusterset_status(look_up, source)
    held = affected(source, policy)
    return status.model_copy(update={"conditions": (*status.conditions, *held)}) if held else status


def _judged(look_up: Index, before: _Doors | None) -> _Doors:
    """All listeners; those of a Gateway that are as ``before`` stay the same object."""
    gateways = served_gateways(look_up)
    keepalives = {gateway.key: keepalive_of(look_up, gateway) for gateway in gateways}
    sets = allowed_sets(look_up, gateways)
    found = judge_listeners(look_up, gateways, keepalives, sets)
    known = before.listeners if before is not None else {}
    listeners = {
        key: was if (was := known.get(key)) == states else states for key, states in found.items()
    }
    return _Doors(gateways, keepalives, listeners)


def _refs(routes: Routes, local: Iterable[UpstreamRef]) -> Mapping[UpstreamRef, tuple[UpstreamRef]]:
    """The upstreams that calls need, sorted by name."""
    refs = {ref for route in routes for rule in route.rules for ref in rule.upstreams}
    refs.update(local)
    return {ref: (ref,) for ref in sorted(refs, key=lambda ref: ref.name)}


def _with_refusing(
    made: Iterable[Built], routes: Routes
) -> tuple[tuple[Upstream, ...], tuple[EndpointSet, ...]]:
    """All upstreams and their endpoints by name, with those where what is refused goes."""
    built = [*made, unavailable()]
    if any(isinstance(route.source, HTTPRoute) for route in routes):
        built.append(invalid())
    built.sort(key=lambda pair: pair[0].name)
    return tuple(upstream for upstream, _ in built), tuple(endpoints for _, endpoints in built)


def _in_order(parts: Iterable[Statuses]) -> Statuses:
    found = {key: status for part in parts for key, status in part.items()}
    return {key: found[key] for key in sorted(found)}


class _Named(Protocol):
    @property
    def name(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)


def _sorted(entries: Iterable[NamedT]) -> tuple[NamedT, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _secrets(listeners: Listeners) -> tuple[TlsSecret | CaSecret, ...]:
    found: dict[str, TlsSecret | CaSecret] = {
        secret.name: secret
        for states in listeners.values()
        for state in states
        if state.usable
        for secret in (
            *state.certificates,
            *([state.client.authorities] if state.client is not None else ()),
        )
    }
    return _sorted(found.values())
