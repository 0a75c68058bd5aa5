"""Simulations that say ``VIRTUAL_TIME = True`` run in virtual time, the others in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.testkit.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    module = getattr(item, "module", None)
    if getattr(module, "VIRTUAL_TIME", False):
        return {"virtual-time": VirtualTimeLoop}
    return {"real-time": asyncio.new_event_loop}
