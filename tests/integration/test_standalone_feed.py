"""The feed of a standalone gateway, as the shell runs it: again after a failure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from federation.aio import cancel_and_wait
from federation.cli.standalone import FolderFeed, StandaloneSettings
from federation.model.base import ClusterId
from gateway.runtime import Runtime
from tests.integration.discovery_support import PaperCore, eventually

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: plain, port: {port}, protocol: HTTP}}]
"""


class FailingCore(PaperCore):
    """Fails when it is told to, as only a bug would."""

    failing = False

    def apply(self, update: bytes) -> bytes:
        if self.failing:
            raise RuntimeError("a bug")
        return super().apply(update)

    def ports(self) -> set[int]:
        return {entry["port"] for entry in self.state["listeners"].values()}


@contextlib.asynccontextmanager
async def followed(feed: FolderFeed) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(feed.run())
    try:
        yield task
    finally:
        await cancel_and_wait(task)


async def test_a_feed_that_failed_follows_the_folder_again(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(GATEWAY.format(port=8080))
    settings = StandaloneSettings(
        manifests=tmp_path,
        cluster=ClusterId("standalone"),
        address="127.0.0.1",
        port_offset=0,
        workers=1,
        admin="127.0.0.1:0",
        gateway_classes=frozenset({"istio"}),
    )
    core = FailingCore()
    feed = FolderFeed(settings, Runtime(core), say=lambda _: None)
    await feed.boot()
    assert core.ports() == {8080}
    core.failing = True
    async with followed(feed) as task:
        file.write_text(GATEWAY.format(port=8081))
        await eventually(task.done)
        assert isinstance(task.exception(), RuntimeError)
    core.failing = False
    async with followed(feed):
        await eventually(lambda: core.ports() == {8081})
        file.write_text(GATEWAY.format(port=8082))
        await eventually(lambda: core.ports() == {8082})
