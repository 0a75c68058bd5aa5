"""The text that Prometheus reads, in its own format and in OpenMetrics.

Decides: spelling. Written here and not by ``prometheus_client``: its writer takes 10 us for a
sample, which at the bound of 10,000 series is a tenth of a second without the interpreter for
others.
Leaves to others: what is shown (``samples``).
Invariants: both forms show the same samples; HELP and TYPE stand once, before a family's samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.metrics.samples import Distribution, Family

PLAIN_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_TOTAL: Final = "_total"


def wants_openmetrics(accept: str) -> bool:
    """Whether an ``Accept`` header asks for OpenMetrics (Prometheus itself always offers both)."""
    for offer in accept.split(","):
        media, *parameters = (part.strip().lower() for part in offer.split(";"))
        if media == "application/openmetrics-text":
            return "q=0" not in parameters
    return False


def exposition(families: Iterable[Family], *, openmetrics: bool = False) -> bytes:
    """All families as text; ``PLAIN_TYPE`` or ``OPENMETRICS_TYPE`` is its content type."""
    lines = [line for family in families for line in _family(family, openmetrics=openmetrics)]
    if openmetrics:
        lines.append("# EOF")
    lines.append("")
    return "\n".join(lines).encode()


def _family(family: Family, *, openmetrics: bool) -> Iterator[str]:
    spec = family.spec
    name = spec.name.removesuffix(_TOTAL) if openmetrics else spec.name
    text = spec.help.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {text.replace(chr(34), chr(92) + chr(34)) if openmetrics else text}"
    yield f"# TYPE {name} {spec.kind}"
    if openmetrics and spec.unit and name.endswith(f"_{spec.unit}"):
        yield f"# UNIT {name} {spec.unit}"
    for point in family.points:
        labels = ",".join(
            f'{label}="{_escaped(value)}"'
            for label, value in zip(spec.labels, point.labels, strict=True)
        )
        if isinstance(point.value, Distribution):
            yield from _histogram(spec.name, labels, point.value)
        else:
            yield (
                f"{spec.name}{{{labels}}} {_number(point.value)}"
                if labels
                else (f"{spec.name} {_number(point.value)}")
            )


def _histogram(name: str, labels: str, value: Distribution) -> Iterator[str]:
    """Buckets count everything up to their bound."""
    before = f"{labels}," if labels else ""
    total = 0
    for bound, count in zip(value.bounds, value.counts, strict=False):
        total += count
        yield f'{name}_bucket{{{before}le="{_number(bound)}"}} {total}'
    total += value.counts[-1]
    yield f'{name}_bucket{{{before}le="+Inf"}} {total}'
    yield f"{name}_sum{{{labels}}} {_number(value.sum)}"
    yield f"{name}_count{{{labels}}} {total}"


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value


def _number(value: float) -> str:
    """Counts without a fraction, bounds as OpenMetrics wants them (``1.0``)."""
    return repr(int(value)) if isinstance(value, int) else repr(value)
