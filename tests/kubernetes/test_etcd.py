"""Our store on the etcd that clusters run (3.6), where it differs from the lab's (3.5)."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

import pytest

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.cli.lab.kubernetes.control_plane import PROGRAMS
from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from federation.ports import Put
from tests.testkit.etcd import running_etcd

DEAF_AFTER_S = 0.6


async def test_a_store_that_nobody_writes_is_not_deaf(caplog: pytest.LogCaptureFixture) -> None:
    """etcd answers no probe of a watch that begins after the newest revision."""
    try:
        binary = PROGRAMS.build() / "etcd"
    except NoProgramsError as error:
        pytest.skip(str(error))
    with running_etcd(binary=binary) as etcd, caplog.at_level(logging.INFO):
        settings = EtcdSettings((etcd.endpoint,), probe_every_s=0.1, deaf_after_s=DEAF_AFTER_S)
        store = EtcdStore(settings)
        await store.commit([Put("/a", b"1")])
        async with aclosing(store.mirror("/")) as listings:
            assert [entry.value for entry in (await anext(listings)).entries] == [b"1"]
            news = asyncio.ensure_future(anext(listings))
            await asyncio.wait({news}, timeout=5 * DEAF_AFTER_S)
            assert not news.done()
            assert [record.message for record in caplog.records if "away" in record.message] == []
            await store.commit([Put("/a", b"2")])
            async with asyncio.timeout(20):
                assert [entry.value for entry in (await news).entries] == [b"2"]
        await store.close()
