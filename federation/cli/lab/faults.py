"""Faults that the lab can make real: a region killed, a region cut off, etcd gone.

Decides: what each fault does to which processes and paths.
Leaves to others: how the federation copes, which is what the lab is there to show.
Invariants: a fault does what it says at once and nothing else; each has a command that undoes it.
"""

from __future__ import annotations

import json
import signal

from federation.cli.lab.lifecycle import put_black_holed, start_and_wait
from federation.cli.lab.plan import LabPlan, ProcessPlan, Role
from federation.cli.lab.processes import Processes

_REGION_ROLES = (
    *(Role.AGENT, Role.GATEWAY, Role.DEMO, Role.CLIENT),
    *(Role.KUBE_ETCD, Role.KUBE_API, Role.KUBE_CONTROLLERS),
)


def kill(plan: LabPlan, name: str) -> list[str]:
    """SIGKILL everything that stands in the region ``name``, or the one process of that name.

    Returns which processes ran. The relay is the network, not the region: it stays, and refuses in
    the region's name.
    """
    processes = Processes(plan)
    doomed = _meant(plan, name)
    ran = [process.name for process in doomed if processes.is_alive(process.name)]
    processes.end(doomed, number=signal.SIGKILL)
    return ran


def restore(plan: LabPlan, name: str) -> list[str]:
    """Start what is dead of the region or process ``name``, on its old ports, and wait for it.

    Returns which processes were started. Demo services of which some have died start anew.
    """
    processes = Processes(plan)
    dead = [process for process in _meant(plan, name) if not processes.is_whole(process)]
    processes.end(dead, number=signal.SIGKILL)
    start_and_wait(plan, dead)
    return [process.name for process in dead]


def _meant(plan: LabPlan, name: str) -> list[ProcessPlan]:
    """The processes of a region, or the one called ``name``. Raises ``KeyError``."""
    named = [process for process in plan.processes if process.name == name]
    if named:
        return named
    try:
        cluster = plan.cluster(name)
    except KeyError as error:
        raise KeyError(f"{error.args[0]}; its processes: fedctl lab status") from None
    return [p for p in plan.processes if p.cluster == cluster.name and p.role in _REGION_ROLES]


def partition(plan: LabPlan, region: str) -> None:
    """Black-hole all traffic between ``region`` and the others, and between ``region`` and etcd."""
    cut = {*partitioned(plan), plan.cluster(region).region}
    _cut_off(plan, sorted(cut))


def heal(plan: LabPlan, region: str | None) -> None:
    """End the partition of ``region``, or (``None``) all partitions."""
    left = set[str]() if region is None else {*partitioned(plan)} - {plan.cluster(region).region}
    _cut_off(plan, sorted(left))


def partitioned(plan: LabPlan) -> list[str]:
    """Regions that are cut off now."""
    try:
        found = json.loads((plan.directory / "partitioned.json").read_text())
    except FileNotFoundError:
        return []
    return [str(region) for region in found]


def kill_etcd(plan: LabPlan) -> None:
    """SIGKILL etcd; its data stay on disk."""
    kill(plan, Role.ETCD)


def revive_etcd(plan: LabPlan) -> None:
    """Start etcd again on its data and wait until it answers."""
    restore(plan, Role.ETCD)


def _cut_off(plan: LabPlan, regions: list[str]) -> None:
    for cluster in plan.clusters:
        put_black_holed(cluster, regions, must_answer=True)
    (plan.directory / "partitioned.json").write_text(json.dumps(regions))
