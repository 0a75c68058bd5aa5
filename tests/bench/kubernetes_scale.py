"""One agent on one API server with thousands of objects: its start, its size, and one change.

The method stands in ``README.md``. What is measured runs in a network namespace of its own, in a
child process, since EndpointSlices take no loopback addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil

from federation.adapters.kubernetes import Connection, ConnectionSettings, connected
from federation.cli.lab.kubernetes.crds import released_definitions
from tests.bench.propagation import percentile
from tests.native.support import Backend, channel
from tests.testkit import namespace
from tests.testkit.big_cluster import (
    POD_PORT,
    PROBE_HOST,
    BigCluster,
    fill,
    own_crds,
    path_of,
    probe_slice,
)
from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, Federation, Process, process
from tests.testkit.kubernetes import install_crds, running_kubernetes
from tests.testkit.ports import free_port

CHANGES = 200
MODULE = "tests.bench.kubernetes_scale"
CLUSTER = "west-a"
PODS = ("10.77.1.1", "10.77.1.2")
PATIENCE_S = 900.0
PAUSE_S = (0.15, 0.45)
"""Between changes, drawn evenly: they must not fall into step with any timer on the way."""
QUIET_S, QUIET_CPU = 5.0, 0.1
"""Single changes are looked at when the agent has used less than this part of a core so long."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured. Sizes are MiB; ``changed_s`` is in the order of the changes.

    ``listed_s``: from the start of the agent to its first publication; ``ready_s``: to the first
    call that a gateway, which was there before, answers; ``settled_s``: until all statuses and
    imports are written and the agent is quiet.
    """

    objects: int
    filled_s: float
    listed_s: float
    ready_s: float
    ready_mib: float
    settled_s: float
    settled_mib: float
    settled_cpu_s: float
    peak_mib: float
    gateway_mib: float
    changed_s: list[float]
    change_cpu_ms: float


class Rig:
    """The processes around the agent, and the agent once it is started."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path, big: BigCluster) -> None:
        self._stack = stack
        self._directory = directory
        self.big = big
        self.kubernetes = stack.enter_context(running_kubernetes())
        self._federation = Federation(stack.enter_context(running_etcd()).endpoint, directory)
        self._xds = f"127.0.0.1:{free_port()}"
        for address in PODS:
            backend = Backend(address).start(POD_PORT, host=address)
            stack.callback(backend.stop)
        gateway = (
            *("-m", "gateway", "--name", "gw-1", "--cluster", CLUSTER, "--agent", self._xds),
            *("--state-dir", str(directory / "gateway"), "--address", "127.0.0.1"),
        )
        resolver = (*FEDCTL, *self._federation.options, "resolver", "--name", "resolver-1")
        stack.enter_context(process(directory / "resolver.log", *resolver))
        self.gateway = stack.enter_context(process(directory / "gateway.log", *gateway))
        options = [("grpc.default_authority", PROBE_HOST)]
        opened = stack.enter_context(channel(f"127.0.0.1:{big.port}", options=options))
        self._call: Any = opened.unary_unary("/test.Echo/Unary")

    def start_agent(self) -> Process:
        """The agent, with all rights."""
        options = (
            *("agent", "--cluster", CLUSTER, "--region", "us-west-1", "--xds", self._xds),
            *("--source", "kubernetes", "--kubeconfig", str(self.kubernetes.kubeconfig)),
            *("--state-dir", str(self._directory / "agent")),
        )
        arguments = (*FEDCTL, *self._federation.options, *options)
        return self._stack.enter_context(process(self._directory / "agent.log", *arguments))

    def served_by(self) -> str:
        """Which backend answers a call to the probe; empty: none did."""
        try:
            _, call = self._call.with_call(b"", timeout=5)
        except grpc.RpcError:
            return ""
        return str(dict(call.initial_metadata()).get("x-served-by", ""))


def measure(*, changes: int = CHANGES) -> Figures:
    """All of it, in a namespace of its own."""
    if namespace.inside():
        return asyncio.run(_measure(BigCluster(), changes))
    command = [sys.executable, "-m", "tests.testkit.namespace", sys.executable, "-m", MODULE]
    done = subprocess.run([*command, str(changes)], stdout=subprocess.PIPE, check=True, text=True)
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


async def _measure(big: BigCluster, changes: int) -> Figures:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rig = Rig(stack, directory, big)
        async with connected(ConnectionSettings(rig.kubernetes.kubeconfig)) as connection:
            await install_crds(connection, [*released_definitions(), *own_crds()])
            began = time.perf_counter()
            objects = await fill(connection, (*big.objects(), *big.probe(PODS[0])))
            filled_s = time.perf_counter() - began
            return await _of_agent(rig, connection, changes, objects, filled_s)


async def _of_agent(
    rig: Rig, connection: Connection, changes: int, objects: int, filled_s: float
) -> Figures:
    began = time.perf_counter()
    agent = rig.start_agent()
    inspected = psutil.Process(agent.command.pid)
    await _until(lambda: "snapshot published" in agent.output(), agent)
    listed_s = time.perf_counter() - began
    await _until(lambda: rig.served_by() == PODS[0], agent)
    ready_s, ready_mib = time.perf_counter() - began, _mib(inspected)
    await _quiet(inspected)
    settled_s, settled_mib = time.perf_counter() - began - QUIET_S, _mib(inspected)
    settled_cpu_s = _cpu_s(inspected)
    idle_s = await _idle(inspected)
    before_s, started = _cpu_s(inspected), time.perf_counter()
    changed_s = [await _change(rig, connection, number) for number in range(changes)]
    used_s = _cpu_s(inspected) - before_s - idle_s * (time.perf_counter() - started)
    return Figures(
        objects=objects,
        filled_s=filled_s,
        listed_s=listed_s,
        ready_s=ready_s,
        ready_mib=ready_mib,
        settled_s=settled_s,
        settled_mib=settled_mib,
        settled_cpu_s=settled_cpu_s,
        peak_mib=_peak_mib(inspected),
        gateway_mib=_mib(psutil.Process(rig.gateway.command.pid)),
        changed_s=changed_s,
        change_cpu_ms=used_s / changes * 1000,
    )


async def _change(rig: Rig, connection: Connection, number: int) -> float:
    """From just before the write of the slice until a call goes to the other backend."""
    await asyncio.sleep(random.Random(number).uniform(*PAUSE_S))
    address = PODS[(number + 1) % 2]
    document = probe_slice(address)
    path = f"{path_of(document)}/{document['metadata']['name']}"
    began = time.perf_counter()
    await connection.apply(path, document, manager="bench")
    deadline = began + PATIENCE_S
    while await asyncio.to_thread(rig.served_by) != address:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"no call to {address} within {PATIENCE_S} s")
    return time.perf_counter() - began


async def _until(look: Callable[[], bool], agent: Process) -> None:
    deadline = time.perf_counter() + PATIENCE_S
    while not await asyncio.to_thread(look):
        if time.perf_counter() > deadline or agent.command.poll() is not None:
            raise RuntimeError(f"the agent is not ready:\n{agent.output()[-3000:]}")
        await asyncio.sleep(0.02)


async def _quiet(inspected: psutil.Process) -> None:
    """Wait until the agent has done next to nothing for ``QUIET_S``."""
    deadline = time.perf_counter() + PATIENCE_S
    while await _idle(inspected) > QUIET_CPU:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"the agent is not quiet after {PATIENCE_S} s")


async def _idle(inspected: psutil.Process) -> float:
    """Seconds of CPU a second."""
    before_s, began = _cpu_s(inspected), time.perf_counter()
    await asyncio.sleep(QUIET_S)
    return (_cpu_s(inspected) - before_s) / (time.perf_counter() - began)


def _cpu_s(inspected: psutil.Process) -> float:
    times = inspected.cpu_times()
    return float(times.user + times.system)


def _mib(inspected: psutil.Process) -> float:
    return float(inspected.memory_info().rss) / (1 << 20)


def _peak_mib(inspected: psutil.Process) -> float:
    status = Path(f"/proc/{inspected.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def table(found: Figures) -> str:
    """The figures as Markdown."""
    took_ms = [entry * 1000 for entry in found.changed_s]
    rows = {
        "start of the agent to its first publication": f"{found.listed_s:.1f} s",
        "start of the agent to the first call": f"{found.ready_s:.1f} s",
        "until all statuses and imports are written": f"{found.settled_s:.0f} s",
        "CPU of the agent until then": f"{found.settled_cpu_s:.0f} s",
        "resident memory at the first call": f"{found.ready_mib:.0f} MiB",
        "resident memory when settled": f"{found.settled_mib:.0f} MiB",
        "resident memory, highest": f"{found.peak_mib:.0f} MiB",
        "resident memory of the gateway": f"{found.gateway_mib:.0f} MiB",
        f"EndpointSlice to a call at the gateway, {len(took_ms)} changes, p50": (
            f"{percentile(took_ms, 0.5):.0f} ms"
        ),
        "the same, p99": f"{percentile(took_ms, 0.99):.0f} ms",
        "the same, longest": f"{max(took_ms):.0f} ms",
        "CPU of the agent for one change": f"{found.change_cpu_ms:.0f} ms",
    }
    lines = [f"{found.objects:,} objects on one API server:", "", "| what | how much |"]
    lines += ["| --- | ---: |", *(f"| {what} | {much} |" for what, much in rows.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(asdict(measure(changes=int(sys.argv[1])))))
