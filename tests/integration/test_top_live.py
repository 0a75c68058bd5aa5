"""``fedctl top`` on a terminal, with a real etcd that goes away."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.model.base import ClusterId, Region
from federation.model.traffic_report import Flow, TrafficReport
from federation.ports import Put
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import traffic_to_bytes
from tests.testkit.etcd import EtcdServer, running_etcd
from tests.testkit.federation import until

pytestmark = pytest.mark.timeout(180)

WEST, EAST = ClusterId("west"), ClusterId("east")
KEYS = Keys()


class Terminal:
    """A command on a terminal of its own, and all that it drew."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        command = ("-c", "from federation.cli.main import main; main()", *arguments)
        root = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "PYTHONPATH": root, "TERM": "xterm", "COLUMNS": "160"},
            start_new_session=True,
        )
        os.close(theirs)
        self.drawn = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):  # the other side is closed
            while part := os.read(self._ours, 65_536):
                self.drawn += part.decode(errors="replace")

    def shows(self, text: str) -> None:
        """Wait until ``text`` is drawn after everything that was waited for before."""
        until(lambda: text in self.drawn, lambda: f"{text!r} in {self.drawn[-3000:]}")
        self.drawn = self.drawn.partition(text)[2]


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    found = Terminal(*arguments)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def tell(etcd: EtcdServer, *flows: Flow) -> None:
    report = TrafficReport(at=1.0, cluster=WEST, region=Region("us-west"), flows=flows)

    async def write() -> None:
        store = EtcdStore(EtcdSettings(endpoints=(etcd.endpoint,)))
        try:
            await store.commit([Put(KEYS.traffic_of(WEST), traffic_to_bytes(report))])
        finally:
            await store.close()

    asyncio.run(write())


def flow(calls_per_s: float) -> Flow:
    return Flow(service="app/users", to_cluster=EAST, calls_per_s=calls_per_s)


def test_top_follows_and_says_when_etcd_is_away() -> None:
    with running_etcd() as etcd, terminal("--etcd", etcd.endpoint, "top") as top:
        top.shows("No cluster reports its traffic yet")
        tell(etcd, flow(12.3))
        top.shows("12.3")
        tell(etcd, flow(45.6))
        top.shows("45.6")
        etcd.kill()
        top.shows("etcd is away")
        top.shows("traffic goes on")
        top.shows("45.6")  # what was known stays to be seen
        top.process.send_signal(signal.SIGINT)
        assert top.process.wait(30) == 130
