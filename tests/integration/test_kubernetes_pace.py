"""An API server that answers at once and brings nothing is not asked without end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web

from federation.adapters.kubernetes import ConnectionSettings, connected
from federation.adapters.kubernetes.reflector import Reflector, ReflectorSettings
from federation.aio import cancel_and_wait
from federation.model.objects import ConfigMap
from tests.integration.discovery_support import eventually

CONFIGMAPS = "/api/v1/configmaps"
RARE = ReflectorSettings(backoff_s_first=30.0)
"""So long that a second try within the test can only be one without any wait."""


class Server:
    """Names a kind; what becomes of listing and watching it is the test's."""

    def __init__(self, *, listed: int, watched: int) -> None:
        self.statuses = {"list": listed, "watch": watched}
        self.asked: Counter[str] = Counter()

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path != CONFIGMAPS:
            return web.json_response({"resources": [{"name": "configmaps"}]})
        what = "watch" if "watch" in request.query else "list"
        self.asked[what] += 1
        status = self.statuses[what]
        if status != 200:
            return web.json_response({"code": status, "message": "no"}, status=status)
        if what == "watch":
            return web.Response()  # ended as soon as it began
        return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


def kubeconfig(directory: Path, url: str) -> Path:
    path = directory / "kubeconfig"
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("listed", "watched", "asked"),
    [
        (200, 200, {"list": 1, "watch": 1}),
        (200, 410, {"list": 1, "watch": 1}),
        (404, 200, {"list": 1}),
    ],
    ids=["watches end at once", "versions are never kept", "named and not served"],
)
async def test_tries_have_a_pause_between_them(
    tmp_path: Path, listed: int, watched: int, asked: dict[str, int]
) -> None:
    server = Server(listed=listed, watched=watched)
    async with (
        server.running() as url,
        connected(ConnectionSettings(kubeconfig(tmp_path, url))) as connection,
        aiohttp.ClientSession() as client,
    ):
        reflector = Reflector(connection, ConfigMap, RARE, lambda: None)
        task = asyncio.create_task(reflector.run())
        try:
            await eventually(lambda: server.asked == asked)
            for _ in range(20):  # time enough for many more tries
                async with client.get(f"{url}/version"):
                    pass
            assert server.asked == asked
        finally:
            await cancel_and_wait(task)
