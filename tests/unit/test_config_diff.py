"""What differs between two configurations, and what was sent and is not in force."""

from __future__ import annotations

from typing import Any

from federation.cli.config_diff import ABSENT, Difference, differences, pending


def dump(**kinds: Any) -> dict[str, Any]:
    return kinds


def cluster(name: str, **body: Any) -> dict[str, Any]:
    return {"name": name, "version": "1", "body": {"name": name, **body}}


def test_paths_say_where() -> None:
    left = dump(clusters=[cluster("a", lb="random", tls={"sni": "x"}), cluster("only")])
    right = dump(clusters=[cluster("a", lb="random", tls={"sni": "y"}), cluster("gateway.own")])
    assert differences(left, right) == [
        Difference("clusters", "a", "tls.sni", '"x"', '"y"'),
        Difference("clusters", "only", "", "there", ABSENT),
    ]


def test_where_a_gateway_binds_is_no_difference() -> None:
    entry = {"name": "l", "version": "1", "body": {"port": 1, "address": "a", "tls": None}}
    other = {"name": "l", "version": "2", "body": {"port": 2, "address": "b", "tls": None}}
    assert differences(dump(listeners=[entry]), dump(listeners=[other])) == []


def test_secrets_are_compared_by_version() -> None:
    def secret(version: str) -> dict[str, Any]:
        return {"name": "cert", "version": version, "body": "redacted"}

    (found,) = differences(dump(secrets=[secret("1")]), dump(secrets=[secret("2")]))
    assert (found.path, found.left, found.right) == ("version", '"1"', '"2"')


def test_what_was_refused_is_pending_with_the_reason() -> None:
    sent = cluster("a", lb="strange")
    found = pending(
        dump(
            clusters=[],
            pending=[{"kind": "clusters", "name": "a", "sent": sent}],
            refused={"clusters a": "lb: is not known"},
            waiting={},
        )
    )
    assert found == [Difference("clusters", "a", "refused: lb: is not known", ABSENT, "sent")]
