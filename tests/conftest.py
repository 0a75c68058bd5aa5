"""Fixtures that several kinds of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testkit.etcd import EtcdServer, running_etcd


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[EtcdServer]:
    """A real etcd for the whole session; tests keep to key prefixes of their own."""
    with running_etcd() as server:
        yield server
