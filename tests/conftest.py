"""Fixtures that several kinds of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.testkit.etcd import EtcdServer, running_etcd

# How long one example takes says how busy the machine is; each test as a whole has a timeout.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[EtcdServer]:
    """A real etcd for the whole session; tests keep to key prefixes of their own."""
    with running_etcd() as server:
        yield server
