"""Facts and derived state as stored values, and the federation's view read from them.

Decides: the JSON of values, what a seal covers, and what a reader does with a value it cannot read
(skips it and says so) or a cluster whose seal does not fit (goes on with what it read before).
Leaves to others: keys (``wire.etcd_keys``), reading and writing the store (services).
Invariants: one bad value hides no other; a value is parsed once, not at every change of another;
create_revisions come from the store, never from a value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pydantic import ValidationError

from federation.model.base import ClusterId, ServiceName, Value
from federation.model.drain import Drain, DrainState, drain_object_name
from federation.model.facts import (
    AcceptedShrink,
    ClusterGateways,
    Departed,
    EndpointsFact,
    ExportFact,
    FactsManifest,
    Heartbeat,
    Member,
    ServicePolicyFact,
)
from federation.model.resolved import ResolvedManifest, ResolvedService
from federation.model.view import FederationView
from federation.wire.etcd_keys import Keys

ValueT = TypeVar("ValueT", bound=Value)


class StoredEntry(Protocol):
    """What is read of a store's entry (``ports.Entry``)."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def value(self) -> bytes: ...  # noqa: D102
    @property
    def create_revision(self) -> int: ...  # noqa: D102
    @property
    def mod_revision(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class StoredProblem:
    """A stored value that was skipped or not believed."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


@dataclass(frozen=True, slots=True)
class ViewReading:
    """A view and what could not be read of it."""

    view: FederationView
    problems: tuple[StoredProblem, ...] = ()


def to_bytes(value: Value) -> bytes:
    """The stored form: compact JSON without what the store itself knows."""
    return value.model_dump_json(by_alias=True, exclude={"create_revision"}).encode()


def from_bytes(kind: type[ValueT], raw: bytes) -> ValueT:
    """Read a stored value. Raises ``ValueError`` naming the field and the reason."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "value"
        raise ValueError(f"not a valid {kind.__name__}: {where}: {first['msg']}") from error


def checksum(values: Mapping[str, bytes]) -> str:
    """SHA-256 over keys and values in order of keys, hexadecimal."""
    digest = hashlib.sha256()
    for key in sorted(values):
        for part in (key.encode(), values[key]):
            digest.update(len(part).to_bytes(4, "big"))
            digest.update(part)
    return digest.hexdigest()


_KINDS: tuple[tuple[str, type[Value]], ...] = (
    ("members", Member),
    ("departed", Departed),
    ("heartbeats", Heartbeat),
    ("gateways", ClusterGateways),
    ("drains", Drain),
    ("drain-states", DrainState),
)
_FACT_KINDS: Mapping[tuple[str, int], type[Value]] = {
    ("manifest", 1): FactsManifest,
    ("accepted-shrink", 1): AcceptedShrink,
    ("drains", 2): Drain,
    ("exports", 3): ExportFact,
    ("policies", 4): ServicePolicyFact,
    ("endpoints", 4): EndpointsFact,
}
_RESOLVED_KINDS: Mapping[tuple[str, int], type[Value]] = {
    ("manifest", 1): ResolvedManifest,
    ("services", 3): ResolvedService,
}


def _kind_of(parts: list[str]) -> type[Value] | None:
    """The type stored at a key, by its parts below ``state/``."""
    if parts[0] == "facts" and len(parts) > 2:
        return _FACT_KINDS.get((parts[2], len(parts) - 2))
    if parts[0] == "resolved" and len(parts) > 1:
        return _RESOLVED_KINDS.get((parts[1], len(parts) - 1))
    return dict(_KINDS).get(parts[0]) if len(parts) == 2 else None


def _identity(value: Value) -> tuple[str, ...]:
    """Where a value says it belongs, as parts of its key; a value elsewhere is forged or a slip."""
    match value:
        case Member():
            return ("members", value.cluster)
        case Departed():
            return ("departed", value.cluster)
        case Heartbeat():
            return ("heartbeats", value.cluster)
        case ClusterGateways():
            return ("gateways", value.cluster)
        case Drain(cluster=None):
            return ("drains", value.name)
        case Drain():
            return ("facts", str(value.cluster), "drains", drain_object_name(value))
        case DrainState():
            return ("drain-states", value.drain)
        case FactsManifest():
            return ("facts", value.cluster, "manifest")
        case AcceptedShrink():
            return ("facts", value.cluster, "accepted-shrink")
        case ExportFact() | EndpointsFact() | ServicePolicyFact():
            kind, *more = _of_service(value)
            return ("facts", value.cluster, kind, *_parts(value.service), *more)
        case ResolvedService():
            return ("resolved", "services", *_parts(value.service))
        case _:
            return ("resolved", "manifest")


def _of_service(value: ExportFact | EndpointsFact | ServicePolicyFact) -> tuple[str, ...]:
    match value:
        case ExportFact():
            return ("exports",)
        case EndpointsFact():
            return ("endpoints", value.name)
        case ServicePolicyFact():
            return ("policies", value.import_name)


def _parts(service: ServiceName) -> tuple[str, str]:
    return service.namespace, service.name


@dataclass(slots=True)
class _Gathered:
    """Values sorted into the view's maps."""

    revision: int
    members: dict[ClusterId, Member] = field(default_factory=dict)
    departed: dict[ClusterId, Departed] = field(default_factory=dict)
    heartbeats: dict[ClusterId, Heartbeat] = field(default_factory=dict)
    gateways: dict[ClusterId, ClusterGateways] = field(default_factory=dict)
    exports: dict[ServiceName, dict[ClusterId, ExportFact]] = field(default_factory=dict)
    endpoints: dict[ServiceName, list[EndpointsFact]] = field(default_factory=dict)
    policies: dict[ServiceName, dict[ClusterId, ServicePolicyFact]] = field(default_factory=dict)
    manifests: dict[ClusterId, FactsManifest] = field(default_factory=dict)
    accepted_shrinks: dict[ClusterId, AcceptedShrink] = field(default_factory=dict)
    drains: dict[str, Drain] = field(default_factory=dict)
    drain_states: dict[str, DrainState] = field(default_factory=dict)
    resolved: dict[ServiceName, ResolvedService] = field(default_factory=dict)
    resolved_manifest: ResolvedManifest | None = None

    def add(self, value: Value) -> None:
        """Put ``value`` where it belongs."""
        match value:
            case Member() | Departed() | Heartbeat() | ClusterGateways():
                self._add_of_cluster(value)
            case ExportFact():
                self.exports.setdefault(value.service, {})[value.cluster] = value
            case EndpointsFact() | ServicePolicyFact():
                self._add_beside_export(value)
            case FactsManifest():
                self.manifests[value.cluster] = value
            case AcceptedShrink():
                self.accepted_shrinks[value.cluster] = value
            case Drain():
                self.drains[value.name] = value
            case DrainState():
                self.drain_states[value.drain] = value
            case ResolvedService():
                self.resolved[value.service] = value
            case ResolvedManifest():
                self.resolved_manifest = value
            case _:
                raise AssertionError(f"no place for {type(value).__name__}")

    def _add_of_cluster(self, value: Member | Departed | Heartbeat | ClusterGateways) -> None:
        match value:
            case Member():
                self.members[value.cluster] = value
            case Departed():
                self.departed[value.cluster] = value
            case Heartbeat():
                self.heartbeats[value.cluster] = value
            case ClusterGateways():
                self.gateways[value.cluster] = value

    def _add_beside_export(self, value: EndpointsFact | ServicePolicyFact) -> None:
        """Of two imports of one service in one cluster the older speaks for it."""
        if isinstance(value, EndpointsFact):
            self.endpoints.setdefault(value.service, []).append(value)
            return
        of_service = self.policies.setdefault(value.service, {})
        other = of_service.get(value.cluster)
        if other is None or value.create_revision < other.create_revision:
            of_service[value.cluster] = value

    def view(
        self, stale_since: Mapping[ClusterId, float], doubted: Mapping[ClusterId, str]
    ) -> FederationView:
        """The finished view."""
        return FederationView(
            revision=self.revision,
            members=self.members,
            departed=self.departed,
            heartbeats=self.heartbeats,
            stale_since=stale_since,
            gateways=self.gateways,
            exports=self.exports,
            endpoints={
                service: tuple(sorted(found, key=lambda fact: (fact.cluster, fact.name)))
                for service, found in self.endpoints.items()
            },
            policies=self.policies,
            manifests=self.manifests,
            accepted_shrinks=self.accepted_shrinks,
            drains=self.drains,
            drain_states=self.drain_states,
            resolved=self.resolved,
            resolved_manifest=self.resolved_manifest,
            doubted=doubted,
        )


class ViewReader:
    """Reads views from successive listings of ``Keys.state``; what did not change is not reread.

    ``now`` gives the Unix time that a silence is counted from; without it nothing is timed.
    Memory: one parsed value for each entry of the newest listing.
    """

    def __init__(self, keys: Keys, *, now: Callable[[], float] | None = None) -> None:
        self._keys = keys
        self._now = now
        self._parsed: dict[str, tuple[int, Value | StoredProblem]] = {}
        self._seals: dict[str, tuple[tuple[int, ...], bool]] = {}
        self._sealed_exports: dict[str, tuple[Value, ...]] = {}
        self._stale_since: dict[ClusterId, float] = {}

    def read(self, revision: int, entries: Iterable[StoredEntry]) -> ViewReading:
        """The view of one listing."""
        stored = list(entries)
        self._parsed = {entry.key: self._parse(entry) for entry in stored}
        gathered = _Gathered(revision)
        problems: list[StoredProblem] = []
        exports: dict[str, list[tuple[StoredEntry, Value]]] = {}
        for entry in stored:
            value = self._parsed[entry.key][1]
            match value:
                case StoredProblem():
                    problems.append(value)
                case ExportFact():
                    exports.setdefault(value.cluster, []).append((entry, value))
                case _:
                    gathered.add(value)
        exporting = {*exports, *gathered.manifests}
        self._forget_others(exporting)
        for cluster in sorted(exporting):
            problems += self._add_exports(gathered, ClusterId(cluster), exports.get(cluster, []))
        self._track_silence(gathered)
        view = gathered.view(dict(self._stale_since), doubted_clusters(self._keys, problems))
        return ViewReading(view, tuple(problems))

    def _forget_others(self, exporting: set[str]) -> None:
        """What a cluster that has left exported is not held against its return."""
        for memory in (self._seals, self._sealed_exports):
            for cluster in memory.keys() - exporting:
                del memory[cluster]

    def _parse(self, entry: StoredEntry) -> tuple[int, Value | StoredProblem]:
        known = self._parsed.get(entry.key)
        if known is not None and known[0] == entry.mod_revision:
            return known
        return entry.mod_revision, self._read_value(entry)

    def _read_value(self, entry: StoredEntry) -> Value | StoredProblem:
        parts = entry.key.removeprefix(self._keys.state).split("/")
        kind = _kind_of(parts)
        if kind is None:
            return StoredProblem(entry.key, "not a key of this version; left alone")
        try:
            value = from_bytes(kind, entry.value)
        except ValueError as error:
            return StoredProblem(entry.key, f"{error}; skipped")
        if _identity(value) != tuple(parts):
            says = "/".join(_identity(value))
            return StoredProblem(entry.key, f"the value says it belongs at {says}; skipped")
        if isinstance(value, ExportFact | ServicePolicyFact | Drain):
            return value.model_copy(update={"create_revision": entry.create_revision})
        return value

    def _add_exports(
        self, into: _Gathered, cluster: ClusterId, found: list[tuple[StoredEntry, Value]]
    ) -> list[StoredProblem]:
        """The exports of one cluster if its seal fits them, else those it fitted last."""
        exports = tuple(value for _, value in found)
        manifest = into.manifests.get(cluster)
        before = self._sealed_exports.get(cluster)
        if manifest is None or self._fits(cluster, manifest, [entry for entry, _ in found]):
            self._sealed_exports[cluster] = exports
            problems = []
        else:
            problem = (
                f"sealed {manifest.count} exports at epoch {manifest.epoch}, found {len(found)} "
                "or other ones; " + ("keeping those read before" if before else "using these")
            )
            problems = [StoredProblem(self._keys.manifest(cluster), problem)]
            exports = before or exports
        for value in exports:
            into.add(value)
        return problems

    def _fits(
        self, cluster: ClusterId, manifest: FactsManifest, entries: list[StoredEntry]
    ) -> bool:
        key = self._keys.manifest(cluster)
        signature = (self._parsed[key][0], *(entry.mod_revision for entry in entries))
        known = self._seals.get(cluster)
        if known is None or known[0] != signature:
            values = {entry.key: entry.value for entry in entries}
            fits = manifest.count == len(values) and manifest.checksum == checksum(values)
            known = self._seals[cluster] = (signature, fits)
        return known[1]

    def _track_silence(self, gathered: _Gathered) -> None:
        if self._now is None:
            return
        now = self._now()
        silent = sorted(set(gathered.members) - set(gathered.heartbeats))
        self._stale_since = {cluster: self._stale_since.get(cluster, now) for cluster in silent}


def doubted_clusters(keys: Keys, problems: Iterable[StoredProblem]) -> Mapping[ClusterId, str]:
    """The clusters of whose facts something could not be read, or does not fit their seal, and
    what."""
    facts = f"{keys.state}facts/"
    return {
        ClusterId(problem.key.removeprefix(facts).split("/")[0]): str(problem)
        for problem in problems
        if problem.key.startswith(facts)
    }


def value_at(keys: Keys, key: str, raw: bytes) -> Value | None:
    """The value of the federation's view stored at ``key``; ``None`` if it is not one."""
    kind = _kind_of(key.removeprefix(keys.state).split("/")) if key.startswith(keys.state) else None
    try:
        return from_bytes(kind, raw) if kind is not None else None
    except ValueError:
        return None


def view_from(keys: Keys, revision: int, entries: Iterable[StoredEntry]) -> ViewReading:
    """The view of one listing, for commands that look once."""
    return ViewReader(keys).read(revision, entries)
