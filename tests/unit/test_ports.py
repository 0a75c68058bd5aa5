"""The testkit's ports."""

from __future__ import annotations

from tests.testkit.ports import free_port


def test_a_port_is_given_once() -> None:
    ports = [free_port() for _ in range(3000)]
    assert len(set(ports)) == len(ports)
