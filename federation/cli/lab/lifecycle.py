"""The lab from nothing to ready and back.

Decides: the order in which things start, when the lab counts as ready, what stays after it ends.
Leaves to others: the plan, the processes, the objects that clusters begin with.
Invariants: after ``take_down`` no process of the lab runs and its directory is gone; a lab that
fails to come up is stopped again, with its logs left to read.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from federation.cli.lab.authority import Authority, write_private
from federation.cli.lab.commands import peer_dial_path
from federation.cli.lab.kubernetes import clusters
from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from federation.cli.lab.objects import apply_bootstrap
from federation.cli.lab.plan import ClusterPlan, LabPlan, ProcessPlan, Role
from federation.cli.lab.processes import LabError, Processes
from federation.ports import PortError

READY_TIMEOUT_S = 60.0
HTTP_TIMEOUT_S = 2.0

Say = Callable[[str], None]


def lab_directory() -> Path:
    """``FEDERATION_LAB_DIR``, else the user's state directory (XDG)."""
    if explicit := os.environ.get("FEDERATION_LAB_DIR"):
        return Path(explicit).absolute()
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "federation" / "lab"


def load(directory: Path) -> LabPlan:
    """The plan of the lab in ``directory``. Raises ``LabError`` when there is none."""
    try:
        return LabPlan.model_validate_json((directory / "lab.json").read_bytes())
    except FileNotFoundError:
        raise LabError(
            f"no lab is up ({directory / 'lab.json'} is not there); start one: fedctl lab up"
        ) from None


def bring_up(plan: LabPlan, say: Say) -> None:
    """Start everything and wait until traffic can flow. Raises ``LabError`` and takes all down."""
    processes = Processes(plan)
    plan.directory.mkdir(parents=True, exist_ok=True)
    (plan.directory / "lab.json").write_text(plan.model_dump_json(by_alias=True, indent=2))
    try:
        authority = _certificates(plan)
        first = (Role.ETCD, Role.RELAY, Role.DEMO, Role.KUBE_ETCD, Role.KUBE_API)
        servers = ", API servers" if plan.programs else ""
        say(f"starting etcd, relays{servers} and demo services")
        for role in first:
            _start(plan, processes, role)
        for role in first:
            _await(plan, processes, role)
        _start(plan, processes, Role.KUBE_CONTROLLERS)
        say("writing the clusters' first objects")
        if plan.programs:
            _populate(plan, authority, say)
        else:
            apply_bootstrap(plan, authority)
        say("starting resolvers, agents and gateways")
        for role in (Role.RESOLVER, Role.AGENT, Role.GATEWAY, Role.CONSOLE):
            _start(plan, processes, role)
        for role in (Role.AGENT, Role.GATEWAY, Role.CONSOLE):
            _await(plan, processes, role)
        _start(plan, processes, Role.CLIENT)
    except BaseException:
        stop(plan)
        raise


def take_down(plan: LabPlan) -> None:
    """End every process of the lab and remove its directory."""
    stop(plan)
    shutil.rmtree(plan.directory, ignore_errors=True)


def stop(plan: LabPlan) -> None:
    """End every process of the lab, clients first and etcd last, so that nothing ends in errors."""
    processes = Processes(plan)
    order = (
        *(Role.CONSOLE, Role.CLIENT, Role.GATEWAY, Role.AGENT, Role.RESOLVER),
        *(Role.DEMO, Role.RELAY),
        *(Role.KUBE_CONTROLLERS, Role.KUBE_API, Role.KUBE_ETCD, Role.ETCD),
    )
    # Black-holed relays would make the others wait for their time-outs.
    for cluster in plan.clusters:
        put_black_holed(cluster, [], must_answer=False)
    for role in order:
        # Gateways would drain, and API servers wait for their watchers.
        abrupt = (Role.GATEWAY, Role.KUBE_API)
        graceful = signal.SIGKILL if role in abrupt else signal.SIGTERM
        processes.end([p for p in plan.processes if p.role is role], number=graceful)


def start_and_wait(plan: LabPlan, wanted: list[ProcessPlan]) -> None:
    """Start what is not running of ``wanted`` and wait until all of it is ready.

    A cluster's API server comes first: others ask it as they start.
    """
    processes = Processes(plan)
    servers = [process for process in wanted if process.role in (Role.KUBE_ETCD, Role.KUBE_API)]
    for part in (servers, [process for process in wanted if process not in servers]):
        for process in part:
            processes.start(process)
        for process in part:
            _await_process(plan, processes, process)


def put_black_holed(cluster: ClusterPlan, regions: list[str], *, must_answer: bool) -> None:
    """Tell the relay of ``cluster`` which regions are cut off. Raises ``LabError`` if away."""
    request = urllib.request.Request(
        f"http://{cluster.relay.control}/black-holed",
        method="PUT",
        data=json.dumps(regions).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S):
            return
    except OSError as error:
        if must_answer:
            raise LabError(
                f"the relay of {cluster.region} does not answer on {cluster.relay.control}: {error}"
            ) from error


def _populate(plan: LabPlan, authority: Authority, say: Say) -> None:
    try:
        clusters.populate(plan, authority, say)
    except (NoProgramsError, PortError, TimeoutError) as error:
        raise LabError(f"writing the clusters' first objects: {error}") from error
    except BaseExceptionGroup as failed:
        # One cluster's failure ends the writing to the others; the first is the cause.
        raise LabError(f"writing the clusters' first objects: {failed.exceptions[0]}") from failed


def _certificates(plan: LabPlan) -> Authority:
    authority = Authority("federation lab authority")
    plan.ca.parent.mkdir(parents=True, exist_ok=True)
    plan.ca.write_bytes(authority.certificate_pem)
    for cluster in plan.clusters:
        peers = {
            route.target: route.listen for route in cluster.relay.routes if route.region is not None
        }
        peer_dial_path(plan, cluster).write_text(json.dumps(peers))
        for gateway in cluster.gateways:
            pair = authority.issue_gateway(gateway.name, cluster=cluster.name)
            (plan.ca.parent / f"{gateway.name}.pem").write_bytes(pair.certificate_pem)
            write_private(plan.ca.parent / f"{gateway.name}.key", pair.key_pem)
    clusters.write_files(plan)
    return authority


def _start(plan: LabPlan, processes: Processes, role: Role) -> None:
    for process in plan.processes:
        if process.role is role:
            processes.start(process)


def _await(plan: LabPlan, processes: Processes, role: Role) -> None:
    for process in plan.processes:
        if process.role is role:
            _await_process(plan, processes, process)


def _await_process(plan: LabPlan, processes: Processes, process: ProcessPlan) -> None:
    if (ready := _readiness(plan, processes, process)) is not None:
        processes.wait_for(ready, of=process, what="ready", timeout_s=READY_TIMEOUT_S)


def _readiness(
    plan: LabPlan, processes: Processes, process: ProcessPlan
) -> Callable[[], bool] | None:
    """How to see that ``process`` is ready; ``None`` where nothing waits for it."""
    if process.role is Role.ETCD:
        return lambda: _http_ok(f"http://{plan.etcd}/health")
    if process.role is Role.CONSOLE:
        return lambda: _http_ok(f"http://{plan.console}/api/overview")
    if process.cluster is None:
        return None
    cluster = plan.cluster(process.cluster)
    match process.role:
        case Role.RELAY:
            return lambda: _http_ok(f"http://{cluster.relay.control}/black-holed")
        case Role.DEMO:
            return lambda: (
                len(processes.demo_pids(process)) > 0
                and all(_accepts(endpoint.address) for endpoint in cluster.demo.endpoints)
            )
        case Role.KUBE_ETCD if cluster.kubernetes is not None:
            etcd = cluster.kubernetes.etcd
            return lambda: _http_ok(f"http://{etcd}/health")
        case Role.KUBE_API if (control := clusters.control_plane(plan, cluster)) is not None:
            return control.is_ready
        case Role.AGENT:
            return lambda: _accepts(cluster.xds)
        case Role.GATEWAY:
            gateway = next(g for g in cluster.gateways if g.name == process.name)
            return lambda: _http_ok(f"http://{gateway.admin}/ready")
        case _:
            return None


def _http_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _accepts(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except OSError:
        return False
