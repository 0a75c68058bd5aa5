"""What the DNS server counts, for Prometheus.

Decides: what is counted: transport and outcome, never a name that was asked for.
Leaves to others: the names themselves (``telemetry.catalogue``), where it is served
(``cli.health``).
Invariants: labels are bounded; counting costs no I/O.
"""

from __future__ import annotations

import dns.flags
import dns.rcode
from prometheus_client import CollectorRegistry, Counter

from federation.telemetry import MetricSpec, catalogue, make

_FLAGS_LOW, _FLAGS_HIGH = 3, 2
_RCODE_MASK = 0x0F
_TRUNCATED = 0x02
NO_ANSWER = "NONE"
"""Outcome of what is no query, or no message at all."""


class DnsMetrics:
    """Counters of one server, in a registry of their own or a given one."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._queries = _counter(catalogue.DNS_QUERIES)
        self._truncated = _counter(catalogue.DNS_TRUNCATED)
        self._refused = _counter(catalogue.DNS_REFUSED)
        for instrument in (self._queries, self._truncated, self._refused):
            (registry or CollectorRegistry()).register(instrument)

    def asked(self, transport: str, reply: bytes | None) -> None:
        """A message came by ``transport`` (udp, tcp) and was answered ``reply``."""
        outcome = NO_ANSWER
        if reply is not None:
            # The header alone: it is the same in every message, and this is the hot path.
            outcome = dns.rcode.to_text(dns.rcode.Rcode(reply[_FLAGS_LOW] & _RCODE_MASK))
            if reply[_FLAGS_HIGH] & _TRUNCATED:
                self._truncated.inc()
        self._queries.labels(transport, outcome).inc()

    def refused_connection(self) -> None:
        """A connection was closed without a word."""
        self._refused.inc()


def _counter(spec: MetricSpec) -> Counter:
    made = make(spec)
    assert isinstance(made, Counter)
    return made
