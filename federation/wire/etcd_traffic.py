"""Traffic reports as stored values.

Decides: their JSON (compact, without fields at their defaults), that it fits the bound, and that a
report which cannot be read hides no other.
Leaves to others: keys (``wire.etcd_keys``), what is in a report (``derive.traffic``).
Invariants: an encoded report has at most ``REPORT_BYTES_MAX`` bytes, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.derive.traffic import bounded
from federation.model.base import ClusterId
from federation.model.traffic_report import REPORT_BYTES_MAX, TrafficReport
from federation.wire.etcd import StoredEntry, StoredProblem, from_bytes
from federation.wire.etcd_keys import Keys


@dataclass(frozen=True, slots=True)
class TrafficReading:
    """The reports of one listing, and what could not be read of it."""

    reports: Mapping[ClusterId, TrafficReport] = field(default_factory=dict)
    problems: tuple[StoredProblem, ...] = ()


def traffic_to_bytes(report: TrafficReport, *, limit: int = REPORT_BYTES_MAX) -> bytes:
    """``report`` in at most ``limit`` bytes: with as many flows told one by one as fit.

    Gateways go after the flows. A limit that not even the rest fits into is a mistake.
    """
    encoded = _encoded(report)
    flows, gateways = len(report.flows), len(report.gateways)
    while len(encoded) > limit and (flows or gateways):
        if flows:
            flows = flows * 3 // 4
        else:
            gateways //= 2
        encoded = _encoded(bounded(report, flows_max=flows, gateways_max=gateways))
    if len(encoded) > limit:
        raise ValueError(f"a traffic report does not fit into {limit} bytes")
    return encoded


def _encoded(report: TrafficReport) -> bytes:
    return report.model_dump_json(by_alias=True, exclude_defaults=True).encode()


class TrafficReader:
    """Reads reports from successive listings of ``Keys.traffic``; unchanged ones are not reread."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._parsed: dict[str, tuple[int, TrafficReport | StoredProblem]] = {}

    def read(self, entries: Iterable[StoredEntry]) -> TrafficReading:
        """The reports of one listing."""
        self._parsed = {entry.key: self._parse(entry) for entry in entries}
        found = [value for _, value in self._parsed.values()]
        return TrafficReading(
            {value.cluster: value for value in found if isinstance(value, TrafficReport)},
            tuple(value for value in found if isinstance(value, StoredProblem)),
        )

    def _parse(self, entry: StoredEntry) -> tuple[int, TrafficReport | StoredProblem]:
        known = self._parsed.get(entry.key)
        if known is not None and known[0] == entry.mod_revision:
            return known
        return entry.mod_revision, self._read_value(entry)

    def _read_value(self, entry: StoredEntry) -> TrafficReport | StoredProblem:
        try:
            report = from_bytes(TrafficReport, entry.value)
        except ValueError as error:
            return StoredProblem(entry.key, f"{error}; skipped")
        if entry.key != self._keys.traffic_of(report.cluster):
            return StoredProblem(
                entry.key, f"the report says it is of cluster {report.cluster}; skipped"
            )
        return report
