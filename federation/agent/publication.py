"""What to write so that the stored facts become those of the objects; pure.

Decides: the writes, their order and seals; what is kept under quarantine.
Leaves to others: what the facts are (``derive.exports``), whether a loss is believed
(``derive.shrink``), committing (``publisher``).
Invariants: the seal of each commit fits the exports as they are after it, also when a publication
takes several; facts that are as stored are not written; under quarantine nothing that is missing is
removed, weights and endpoints included.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from federation.derive.exports import ClusterFacts
from federation.derive.shrink import Publish, Quarantined, judge
from federation.model.base import ClusterId, ServiceName
from federation.model.drain import Drain
from federation.model.facts import FactsManifest, Quarantine, ServiceType
from federation.model.view import FederationView
from federation.ports import MAX_WRITES, Delete, Entry, Put, Write
from federation.wire.etcd import checksum, to_bytes
from federation.wire.etcd_keys import Keys

Verdict = Publish | Quarantined

_HEADLESS = ServiceType.HEADLESS


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store has of this cluster: raw entries below its facts, and what they say.

    ``accepted`` are services that an operator says are meant to be gone.
    """

    entries: Mapping[str, Entry]
    exports: Collection[ServiceName]
    policies: Collection[tuple[ServiceName, str]]
    endpoints: Collection[tuple[ServiceName, str]]
    manifest: FactsManifest | None
    accepted: Collection[ServiceName] = ()

    @classmethod
    def of(
        cls, keys: Keys, cluster: ClusterId, view: FederationView, found: Iterable[Entry]
    ) -> Self:
        """The cluster's part of a listing. Names come from keys, so a bad value hides none."""
        entries = {entry.key: entry for entry in found if entry.key.startswith(keys.facts(cluster))}
        accepted = view.accepted_shrinks.get(cluster)
        paths = [key.removeprefix(keys.facts(cluster)).split("/") for key in entries]
        return cls(
            entries=entries,
            exports=[_name(path) for path in paths if path[0] == "exports" and len(path) == 3],
            policies=[
                (_name(path), path[3]) for path in paths if path[0] == "policies" and len(path) == 4
            ],
            endpoints=[
                (_name(path), path[3])
                for path in paths
                if path[0] == "endpoints" and len(path) == 4
            ],
            manifest=view.manifests.get(cluster),
            accepted=accepted.missing if accepted is not None else (),
        )


def _name(path: list[str]) -> ServiceName:
    return ServiceName(namespace=path[1], name=path[2])


@dataclass(frozen=True, slots=True)
class Batch:
    """One commit, sealed."""

    writes: tuple[Write, ...]
    manifest: FactsManifest


@dataclass(frozen=True, slots=True)
class Publication:
    """The commits to make, in order, and the quarantine in force after them."""

    batches: tuple[Batch, ...]
    quarantine: Quarantine | None


def plan(
    keys: Keys,
    cluster: ClusterId,
    stored: Stored,
    facts: ClusterFacts,
    *,
    deleted: Collection[ServiceName],
    emptied: Collection[ServiceName] = (),
    now: str,
    drains: Mapping[str, Drain] | None = None,
) -> Publication:
    """Compare ``facts`` with what is stored.

    ``deleted``: services seen to be taken back; ``emptied``: those whose last slice was seen to go.
    ``drains`` are what the cluster's objects ask for, by name. One that is no longer asked for is
    taken back; while a shrink is quarantined its absence is not believed either.
    """
    deleted = {*deleted, *stored.accepted}
    exports = judge(stored=stored.exports, desired=facts.exports, deleted=deleted)
    policies = judge(
        stored={name for name, _ in stored.policies},
        desired={name for name, _ in facts.policies},
        deleted=deleted,
    )
    # Slices of a service come and go; that none is left of many services at once is no churn.
    balanced = {name for name, fact in facts.exports.items() if fact.type is not _HEADLESS}
    headless = judge(
        stored={name for name, _ in stored.endpoints} - balanced,
        desired={name for name, _ in facts.endpoints},
        deleted={*deleted, *emptied},
    )
    quarantine = _quarantine((exports, policies, headless), stored.manifest, now)
    kept = set(quarantine.missing) if quarantine is not None else set()
    keep = {keys.export(cluster, name) for name in kept}
    keep |= {keys.policy(cluster, name, of) for name, of in stored.policies if name in kept}
    keep |= {keys.endpoints(cluster, name, of) for name, of in stored.endpoints if name in kept}
    if quarantine is not None:
        below = keys.requested_drain(cluster, "")
        keep |= {key for key in stored.entries if key.startswith(below)}
    wanted = {keys.export(cluster, name): to_bytes(fact) for name, fact in facts.exports.items()}
    wanted |= {
        keys.policy(cluster, name, of): to_bytes(fact)
        for (name, of), fact in facts.policies.items()
    }
    wanted |= {
        keys.endpoints(cluster, name, of): to_bytes(fact)
        for (name, of), fact in facts.endpoints.items()
    }
    wanted |= {
        keys.requested_drain(cluster, name): to_bytes(drain)
        for name, drain in (drains or {}).items()
    }
    writes = _writes(keys, cluster, stored.entries, wanted, keep)
    return Publication(_batches(keys, cluster, stored, writes, quarantine), quarantine)


def _quarantine(
    verdicts: Iterable[Verdict], manifest: FactsManifest | None, now: str
) -> Quarantine | None:
    """The quarantine that the verdicts make; since when is kept while it is about the same."""
    doubts = [verdict for verdict in verdicts if isinstance(verdict, Quarantined)]
    if not doubts:
        return None
    missing = tuple(sorted({name for doubt in doubts for name in doubt.missing}, key=str))
    before = manifest.quarantine if manifest is not None else None
    since = before.since if before is not None and before.missing == missing else now
    return Quarantine(missing=missing, reason=doubts[0].reason, since=since)


def _writes(
    keys: Keys,
    cluster: ClusterId,
    stored: Mapping[str, Entry],
    wanted: Mapping[str, bytes],
    keep: Collection[str],
) -> list[Write]:
    """What differs. An operator's word goes last: until all of it is done, it stands."""
    word = keys.accepted_shrink(cluster)
    spared = {keys.manifest(cluster), word, *wanted, *keep}
    writes: list[Write] = [
        Put(key, value)
        for key, value in sorted(wanted.items())
        if key not in stored or stored[key].value != value
    ]
    writes += [Delete(key) for key in sorted(stored) if key not in spared]
    writes += [Delete(word)] if word in stored else []
    return writes


def _batches(
    keys: Keys,
    cluster: ClusterId,
    stored: Stored,
    writes: list[Write],
    quarantine: Quarantine | None,
) -> tuple[Batch, ...]:
    """``writes`` in commits of at most ``MAX_WRITES`` with the seal, each sealed for itself."""
    prefix = keys.exports(cluster)
    exports = {key: entry.value for key, entry in stored.entries.items() if key.startswith(prefix)}
    epoch = stored.manifest.epoch if stored.manifest is not None else 0
    batches: list[Batch] = []
    for start in range(0, max(1, len(writes)), MAX_WRITES - 1):
        part = writes[start : start + MAX_WRITES - 1]
        for write in part:
            if isinstance(write, Delete):
                exports.pop(write.key, None)
            elif write.key.startswith(prefix):
                exports[write.key] = write.value
        sealed = FactsManifest(
            cluster=cluster,
            epoch=epoch + 1 + len(batches),
            count=len(exports),
            checksum=checksum(exports),
            quarantine=quarantine,
        )
        if part or not _same_seal(stored.manifest, sealed):
            batches.append(Batch((*part, Put(keys.manifest(cluster), to_bytes(sealed))), sealed))
    return tuple(batches)


def _same_seal(stored: FactsManifest | None, sealed: FactsManifest) -> bool:
    return stored is not None and stored == sealed.model_copy(update={"epoch": stored.epoch})
