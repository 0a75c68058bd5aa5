"""Who may write which keys of the store: the roles of the federation, as prefixes.

Decides: what each part reads and writes. A cluster's agent writes what is its own and nothing of
another cluster, so that no member can export, heartbeat or speak for another; everyone reads the
federation's state, which all routing rests on.
Leaves to others: making users and roles (``adapters.etcd.access``), certificates.
Invariants: write prefixes of two clusters never overlap; only resolvers write what is resolved.
What a cluster's objects ask of others (drains) is among its own facts: whether it is done is the
resolvers' decision.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.model.base import ClusterId
from federation.wire.etcd_keys import Keys


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """A right on one key, or on all below ``key`` when it ends with a slash."""

    key: str
    write: bool = False

    def __str__(self) -> str:
        return f"{'read and write' if self.write else 'read'} {self.key}"


def of_cluster(keys: Keys, cluster: ClusterId) -> tuple[Permission, ...]:
    """What the agent of ``cluster`` needs."""
    written = (
        keys.member(cluster),
        keys.heartbeat(cluster),
        keys.gateways(cluster),
        keys.facts(cluster),
        keys.statuses(cluster),
        keys.agents(cluster),
        keys.traffic_of(cluster),
    )
    return _sorted(
        Permission(keys.state),
        Permission(keys.objects(cluster)),
        *(Permission(key, write=True) for key in written),
    )


def of_resolver(keys: Keys) -> tuple[Permission, ...]:
    """What a resolver needs."""
    # Drains of operators are removed by the resolver when they expire.
    written = (
        f"{keys.state}resolved/",
        keys.drain(""),
        keys.drain_state(""),
        f"{keys.resolver_election}/",
    )
    return _sorted(
        Permission(keys.state),
        Permission(keys.traffic),  # drains show how many streams are left
        *(Permission(key, write=True) for key in written),
    )


def of_console(keys: Keys) -> tuple[Permission, ...]:
    """What a console needs: to look at everything, and to ask for drains as operators do."""
    return _sorted(Permission(keys.prefix), Permission(keys.drain(""), write=True))


def of_operator(keys: Keys) -> tuple[Permission, ...]:
    """What people at ``fedctl`` need: objects, drains and everything to look at."""
    return (Permission(keys.prefix, write=True),)


def _sorted(*permissions: Permission) -> tuple[Permission, ...]:
    return tuple(sorted(permissions))
