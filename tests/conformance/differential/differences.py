"""The differences from Envoy that are meant: each with a rule that says when it explains a field.

Decides: what explains what. The reasons stand in ``docs/differences.md``, in one row for each name
here, and the test compares the two lists.
Leaves to others: what differs (``compare``).
Invariants: a rule explains only what follows from its cause; where it lets a whole answer pass, it
says what the gateway's answer must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from envoy.config.route.v3.route_components_pb2 import Route, WeightedCluster

from tests.conformance.differential.compare import Difference, differences, status_of
from tests.conformance.differential.generator import Batch
from tests.conformance.differential.scripts import (
    After,
    Answer,
    Deed,
    Hangup,
    Leave,
    Reset,
    Script,
    Seen,
    Side,
)
from tests.testkit.processes import ROOT

PAGE = ROOT / "docs" / "differences.md"
UPSTREAM_WORDS = "said%20by the upstream"

REFUSED_STREAM = 0x7
KEPT_BYTES = 65_536
GRPC_OF_RESET = {0x7: "14", 0x8: "1", 0xB: "8"}
"""gRPC's table of RST_STREAM codes; all others are INTERNAL."""

GRPC_OF_HTTP = {400: "13", 404: "12", 429: "14", 502: "14", 503: "14"}
"""gRPC's table of HTTP statuses; all others are UNKNOWN."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may look at."""

    script: Script
    envoy: Seen
    gateway: Seen
    changed_twice: frozenset[str]
    """Request headers that some rule and one of its backends both change."""

    def own(self, side: Side) -> bool:
        """Whether the proxy made (the end of) this answer itself."""
        words = _value(side, "grpc-message")
        return status_of(side) not in (None, "0") and words != UPSTREAM_WORDS

    def last_deed(self) -> Deed | None:
        """What the upstream did on the gateway's last try."""
        tries = len(self.gateway.tries)
        return self.script.deeds[min(tries, len(self.script.deeds)) - 1] if tries else None

    @property
    def deeds_done(self) -> tuple[Deed, ...]:
        """What upstreams did on the gateway's tries."""
        deeds = self.script.deeds
        return tuple(deeds[min(n, len(deeds) - 1)] for n in range(len(self.gateway.tries)))


Rule = Callable[[Context, Difference], bool]


def _value(side: Side, name: str) -> str | None:
    return dict([*side.headers, *side.trailers]).get(name)


def _at_client(difference: Difference, *fields: str) -> bool:
    return difference.where == "client" and difference.what in fields


def own_words(context: Context, difference: Difference) -> bool:
    if not (context.script.content_type or "").startswith("application/grpc"):
        # Towards a client that speaks no gRPC the words are the body.
        unasked = not context.gateway.tries and not context.envoy.tries
        return unasked and _at_client(difference, "content-type", "content-length", "body")
    return (
        _at_client(difference, "grpc-message")
        and context.own(context.gateway.answer)
        and _value(context.envoy.answer, "grpc-message") != UPSTREAM_WORDS
    )


def deadline_status(context: Context, difference: Difference) -> bool:
    return (
        _at_client(difference, "grpc-status")
        and (difference.envoy, difference.gateway) == ("14", "4")
        and context.own(context.gateway.answer)
        and "timeout" in (_value(context.envoy.answer, "grpc-message") or "")
    )


def reset_status(context: Context, difference: Difference) -> bool:
    deed = context.last_deed()
    return (
        _at_client(difference, "grpc-status")
        and isinstance(deed, Reset)
        and (difference.envoy, difference.gateway) == ("14", GRPC_OF_RESET.get(deed.code, "13"))
    )


def status_after_headers(context: Context, difference: Difference) -> bool:
    return (
        _at_client(difference, "grpc-status", "grpc-message", "end")
        and bool(context.envoy.answer.headers)
        and status_of(context.envoy.answer) is None
        and context.envoy.answer.end.startswith("reset ")
        and context.gateway.answer.end == "ended"
        and context.own(context.gateway.answer)
    )


def own_answers_unchanged(context: Context, difference: Difference) -> bool:
    return (
        difference.where == "client"
        and difference.what.startswith("x-")
        and difference.gateway is None
        and context.own(context.gateway.answer)
    )


def grpc_only(context: Context, difference: Difference) -> bool:
    kind = context.script.content_type or ""
    answer = context.gateway.answer
    return (
        not kind.startswith("application/grpc")
        and (":status", "415") in answer.headers
        and not context.gateway.tries
        and (difference.where == "client" or difference.what == "tries")
    )


def answers_in_grpc(context: Context, difference: Difference) -> bool:
    deed = context.last_deed()
    return (
        difference.where == "client"
        and isinstance(deed, Answer)
        and not deed.content_type.startswith("application/grpc")
        and (":status", "200") in context.gateway.answer.headers
        and status_of(context.gateway.answer) == GRPC_OF_HTTP.get(deed.status, "2")
    )


def authority_with_port(_: Context, difference: Difference) -> bool:
    return (
        difference.what == ":authority"
        and isinstance(difference.envoy, tuple)
        and difference.gateway == (f"{difference.envoy[0]}:8443",)
    )


def deadline_counts_down(_: Context, difference: Difference) -> bool:
    if difference.what != "grpc-timeout" or not isinstance(difference.gateway, tuple):
        return False
    given = difference.envoy[0] if isinstance(difference.envoy, tuple) else "250m"
    ours = difference.gateway[0]
    return ours == "1n" or (ours[-1] == given[-1] == "m" and int(ours[:-1]) <= int(given[:-1]))


def previous_attempts(context: Context, difference: Difference) -> bool:
    return (
        difference.what == "grpc-previous-rpc-attempts"
        and difference.envoy is None
        and len(context.gateway.tries) > 1
    )


def _unprocessed(deed: Deed) -> bool:
    return deed == Leave(refuse=True) or (isinstance(deed, Reset) and deed.code == REFUSED_STREAM)


def free_tries(context: Context, difference: Difference) -> bool:
    """More tries than Envoy's, where none before the last was processed (or could be sent)."""
    more = len(context.gateway.tries) > len(context.envoy.tries)
    before = context.deeds_done[:-1]
    lost = "connection failure" in (_value(context.envoy.answer, "grpc-message") or "")
    cause = lost or any(_unprocessed(deed) for deed in before)
    return more and cause and (difference.where == "client" or difference.what == "tries")


def retry_as_clients_see_it(context: Context, difference: Difference) -> bool:
    """The policy's words are taken for what a gRPC client would see, not for HTTP alone."""
    failed = [
        deed
        for deed in context.deeds_done[:-1]
        if isinstance(deed, Reset | Hangup)
        or (isinstance(deed, Answer) and (_grpc_status(deed) != "0"))
    ]
    return (
        len(context.gateway.tries) > len(context.envoy.tries)
        and bool(failed)
        and (difference.where == "client" or difference.what == "tries")
    )


def _grpc_status(answer: Answer) -> str:
    """What a client would make of it."""
    if answer.status != 200:
        return GRPC_OF_HTTP.get(answer.status, "2")
    return dict(answer.trailers).get("grpc-status", "2")


def retry_after_headers(context: Context, difference: Difference) -> bool:
    """Headers without a message are held back, so that a try that ends there can be repeated."""
    first = context.deeds_done[:-1]
    return (
        len(context.gateway.tries) > len(context.envoy.tries)
        and any(isinstance(deed, Reset | Hangup) and deed.after is After.HEADERS for deed in first)
        and (difference.where == "client" or difference.what == "tries")
    )


def time_from_the_start(context: Context, difference: Difference) -> bool:
    deeds = [deed for deed in context.deeds_done if isinstance(deed, Answer)]
    timed_out = status_of(context.gateway.answer) == "4"
    repeated = len(context.gateway.tries) > len(context.envoy.tries)
    return (
        any(
            deed.reads_after_s or (deed.delay_s and context.script.chunks == (0,)) for deed in deeds
        )
        and (timed_out or repeated)
        and (difference.where == "client" or difference.what in ("tries", "body", "end"))
    )


def cancel_code(_: Context, difference: Difference) -> bool:
    return (
        difference.where.startswith("upstream")
        and difference.what == "end"
        and str(difference.envoy).startswith("reset ")
        and difference.gateway == "reset CANCEL"
    )


def kept_for_retries(context: Context, difference: Difference) -> bool:
    """A request that is larger than what is kept of it is not tried again."""
    return (
        len(context.gateway.tries) < len(context.envoy.tries)
        and sum(context.script.chunks) > KEPT_BYTES
        and (difference.where == "client" or difference.what == "tries")
    )


def request_trailers(context: Context, difference: Difference) -> bool:
    return (
        difference.where.endswith(", trailers")
        and difference.envoy == ("late",)
        and difference.gateway is None
    )


def rule_before_backend(context: Context, difference: Difference) -> bool:
    return difference.where.startswith("upstream") and difference.what in context.changed_twice


DIFFERENCES: dict[str, Rule] = {
    "own-words": own_words,
    "deadline-status": deadline_status,
    "reset-status": reset_status,
    "status-after-headers": status_after_headers,
    "own-answers-unchanged": own_answers_unchanged,
    "grpc-only": grpc_only,
    "answers-in-grpc": answers_in_grpc,
    "authority-with-port": authority_with_port,
    "deadline-counts-down": deadline_counts_down,
    "previous-attempts": previous_attempts,
    "free-tries": free_tries,
    "retry-after-headers": retry_after_headers,
    "retry-as-clients-see-it": retry_as_clients_see_it,
    "time-from-the-start": time_from_the_start,
    "cancel-code": cancel_code,
    "kept-for-retries": kept_for_retries,
    "request-trailers": request_trailers,
    "rule-before-backend": rule_before_backend,
}
"""By the name of their row in ``docs/differences.md``."""


def explained(
    batch: Batch, script: Script, envoy: Seen, gateway: Seen
) -> dict[Difference, str | None]:
    """Each difference between the two with the name of what explains it."""
    context = Context(script, envoy, gateway, _changed_twice(batch))
    return {
        difference: next(
            (name for name, rule in DIFFERENCES.items() if rule(context, difference)), None
        )
        for difference in differences(script, envoy, gateway)
    }


def _changed_twice(batch: Batch) -> frozenset[str]:
    return frozenset(
        name
        for host in batch.table.virtual_hosts
        for route in host.routes
        for entry in route.route.weighted_clusters.clusters
        for name in _changed(route) & _changed(entry)
    )


def _changed(holder: Route | WeightedCluster.ClusterWeight) -> set[str]:
    added = {option.header.key for option in holder.request_headers_to_add}
    return added | set(holder.request_headers_to_remove)


def documented() -> list[str]:
    """The names in the table of ``docs/differences.md``, in its order."""
    return re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(), re.MULTILINE)
