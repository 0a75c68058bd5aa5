"""Looking at the lab on API servers until it is as it should be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from tests.testkit.lab import Caller, KubernetesLab

WEST, EAST = "us-west-1", "us-east-1"
WAIT_S = 60.0
CALLS = 200


def becomes(
    lab: KubernetesLab,
    kind: str,
    name: str,
    shows: Mapping[str, str],
    *,
    at: str = "",
    namespace: str = "app",
) -> None:
    """Wait until an object's conditions begin as ``shows`` has them."""

    def seen() -> dict[str, str]:
        return lab.conditions(WEST, kind, name, at, namespace)

    lab.wait(
        lambda: all(seen().get(type_, "").startswith(text) for type_, text in shows.items()),
        timeout_s=WAIT_S,
        what=lambda: f"{kind} {name}: {json.dumps(seen(), indent=2)}",
    )


def answers(lab: KubernetesLab, call: Caller, service: str) -> None:
    """Wait until ``service`` answers a call."""
    lab.wait(lambda: call() == service, timeout_s=WAIT_S, what=lambda: f"{service}, not {call()}")


def splits_to(lab: KubernetesLab, call: Caller, stable: str, canary: str, share: float) -> None:
    """Wait until ``canary`` answers that part of 200 calls and ``stable`` the rest, within five
    standard deviations."""
    slack = 5 * math.sqrt(share * (1 - share) / CALLS)

    def divided() -> bool:
        found = call.shares(CALLS)
        seen = {stable: found.get(stable, 0.0), canary: found.get(canary, 0.0)}
        return sum(seen.values()) == 1.0 and abs(seen[canary] - share) <= slack

    lab.wait(divided, timeout_s=WAIT_S, what=lambda: f"{share} to {canary}: {call.shares(CALLS)}")
