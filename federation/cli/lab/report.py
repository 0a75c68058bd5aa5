"""What the lab is, as one JSON document that scripts rely on.

Decides: the shape of ``fedctl lab status -o json``.
Leaves to others: live figures (``view``) and the federation's own status (``fedctl status``).
Invariants: fields are only ever added.
"""

from __future__ import annotations

from typing import Any

from federation.cli.lab.faults import partitioned
from federation.cli.lab.plan import ClusterPlan, LabPlan, Role
from federation.cli.lab.processes import Processes
from federation.cli.output import aligned


def status(plan: LabPlan) -> dict[str, Any]:
    """All processes, addresses and pids of the lab. ``alive`` is false for what was killed."""
    processes = Processes(plan)
    running = processes.running()
    alive = {name: entry.process() is not None for name, entry in running.items()}
    return {
        "directory": str(plan.directory),
        "ca": str(plan.ca),
        "etcd": plan.etcd,
        "console": f"http://{plan.console}/",
        "kubeconfig": str(plan.kubeconfig) if plan.programs else None,
        "partitioned": partitioned(plan),
        "processes": [
            {
                "name": process.name,
                "role": process.role.value,
                "cluster": process.cluster,
                "pid": running[process.name].pid,
                "alive": alive[process.name],
            }
            for process in plan.processes
            if process.name in running
        ],
        "clusters": [_cluster(plan, cluster, processes) for cluster in plan.clusters],
    }


def _cluster(plan: LabPlan, cluster: ClusterPlan, processes: Processes) -> dict[str, Any]:
    running = processes.running()
    pids = {name: entry.pid for name, entry in running.items()}
    demo = next(p for p in plan.processes if p.role is Role.DEMO and p.cluster == cluster.name)
    demo_pids = processes.demo_pids(demo)
    return {
        "name": cluster.name,
        "region": cluster.region,
        "gateways": [
            {
                "name": gateway.name,
                "pid": pids.get(gateway.name),
                "admin": gateway.admin,
                "portOffset": gateway.port_offset,
                "eastWest": gateway.eastwest,
                "listeners": {"grpc": gateway.listener(443)},
            }
            for gateway in cluster.gateways
        ],
        "agent": {
            "pid": pids.get(f"agent-{cluster.name}"),
            "xds": cluster.xds,
            "dns": cluster.dns,
            "etcd": cluster.relay.etcd(),
        },
        "kubernetes": cluster.kubernetes.api if cluster.kubernetes else None,
        "endpoints": [
            {
                "namespace": endpoint.namespace,
                "service": endpoint.service,
                "address": endpoint.address,
                "pod": endpoint.pod,
                "pid": demo_pids.get(endpoint.address),
            }
            for endpoint in cluster.demo.endpoints
        ],
    }


def table(found: dict[str, Any]) -> str:
    """The processes of a status document, for people."""
    addresses = {"etcd": found["etcd"], "console": found["console"]}
    for cluster in found["clusters"]:
        addresses[f"agent-{cluster['name']}"] = f"xds {cluster['agent']['xds']}"
        if cluster["kubernetes"]:
            addresses[f"{Role.KUBE_API}-{cluster['name']}"] = f"https://{cluster['kubernetes']}"
        for gateway in cluster["gateways"]:
            listener = gateway["listeners"]["grpc"]
            addresses[gateway["name"]] = f"grpc {listener}, admin {gateway['admin']}"
    lines = [["NAME", "ROLE", "CLUSTER", "PID", "STATE", "ADDRESS"]]
    lines.extend(
        [
            process["name"],
            process["role"],
            process["cluster"] or "-",
            str(process["pid"]),
            "running" if process["alive"] else "dead",
            addresses.get(process["name"], "-"),
        ]
        for process in found["processes"]
    )
    return "\n".join([aligned(lines), *_hints(found)])


def _hints(found: dict[str, Any]) -> list[str]:
    """What is broken on purpose, and the command that mends it."""
    hints = [f"{region} is cut off; connect it: fedctl lab heal" for region in found["partitioned"]]
    processes = [entry for entry in found["processes"] if entry["role"] != Role.RELAY]
    dead = {entry["name"]: entry["cluster"] for entry in processes if not entry["alive"]}
    living = {entry["cluster"] for entry in processes if entry["alive"]}
    names = dict.fromkeys(
        name if cluster is None or cluster in living else cluster for name, cluster in dead.items()
    )
    hints += [f"{name} is dead; start it: fedctl lab restore {name}" for name in names]
    return ["", *hints] if hints else []
