"""Looking at the lab on API servers until it is as it should be."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.testkit.lab import Caller, KubernetesLab

WEST, EAST = "us-west-1", "us-east-1"
WAIT_S = 60.0


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


def splits_to(lab: KubernetesLab, call: Caller, service: str, share: float) -> None:
    """Wait until ``service`` answers that part of 200 calls, within what chance explains."""
    slack = 0.0 if share in (0.0, 1.0) else 0.12
    lab.wait(
        lambda: abs(call.share(service, 200) - share) <= slack,
        timeout_s=WAIT_S,
        what=lambda: f"{service}: {call.share(service, 200)}, not {share}",
    )
