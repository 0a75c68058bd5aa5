"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.testkit.etcd import EtcdServer, running_etcd

# How long one example takes says how busy the machine is; each test as a whole has a timeout.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell that starts a job in the background has it ignore SIGINT, and so would every command that
# a test starts and interrupts; a handler is not inherited, but what is ignored is.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[EtcdServer]:
    """A real etcd for the whole session; tests keep to key prefixes of their own."""
    with running_etcd() as server:
        yield server
