"""What differs between two proxies' runs of one case, field by field, and what is left aside.

Decides: which headers belong to Envoy itself and are left aside, that values of one name are
compared in their order, different names in none, and that what an upstream still got of a request
that it cut short is chance.
Leaves to others: whether a difference is meant (``differences``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.conformance.differential.scripts import (
    CASE_HEADER,
    Answer,
    At,
    Deed,
    Hangup,
    Header,
    Leave,
    Reset,
    Script,
    Seen,
    Side,
    Silence,
)

ADDED_BY_ENVOY = frozenset(
    {
        "server",
        "date",
        "x-envoy-upstream-service-time",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-external-address",
        "x-envoy-internal",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-request-id",
    }
)

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not the same: ``where`` is client or upstream, ``what`` the field."""

    where: str
    what: str
    envoy: object
    gateway: object

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: Envoy {self.envoy!r}, gateway {self.gateway!r}"


def differences(script: Script, envoy: Seen, gateway: Seen) -> tuple[Difference, ...]:
    """Everything that differs."""
    return (
        *_of_answers(envoy.answer, gateway.answer),
        *_of_tries(script.deeds, envoy.tries, gateway.tries),
    )


def status_of(side: Side) -> str | None:
    """The answer's grpc-status, wherever it stands."""
    return dict([*side.headers, *side.trailers]).get("grpc-status")


def _of_answers(envoy: Side, gateway: Side) -> Iterator[Difference]:
    where = "client"
    if status_of(envoy) != status_of(gateway):
        yield Difference(where, "grpc-status", status_of(envoy), status_of(gateway))
    # An answer in one block and one with empty trailers behind it say the same.
    first, second = _by_name(_all_fields(envoy)), _by_name(_all_fields(gateway))
    first.pop("grpc-status", None)
    second.pop("grpc-status", None)
    yield from _of_fields(where, first, second)
    if str(envoy.body) != str(gateway.body):
        yield Difference(where, "body", str(envoy.body), str(gateway.body))
    if envoy.end != gateway.end:
        yield Difference(where, "end", envoy.end, gateway.end)


def _all_fields(side: Side) -> list[Header]:
    return [*side.headers, *side.trailers]


def _of_tries(
    deeds: Sequence[Deed], envoy: Sequence[Side], gateway: Sequence[Side]
) -> Iterator[Difference]:
    if len(envoy) != len(gateway):
        yield Difference("upstream", "tries", len(envoy), len(gateway))
    for number, (deed, one, other) in enumerate(
        zip(_each_try(deeds, len(envoy)), envoy, gateway, strict=False), start=1
    ):
        where = f"upstream, try {number}"
        yield from _of_fields(where, _by_name(one.headers), _by_name(other.headers))
        if _cuts_short(deed):
            continue
        trailers = _by_name(one.trailers), _by_name(other.trailers)
        yield from _of_fields(f"{where}, trailers", *trailers)
        if str(one.body) != str(other.body):
            yield Difference(where, "body", str(one.body), str(other.body))
        if one.end != other.end:
            yield Difference(where, "end", one.end, other.end)


def _each_try(deeds: Sequence[Deed], tries: int) -> tuple[Deed, ...]:
    return tuple(deeds[min(number, len(deeds) - 1)] for number in range(tries))


def _cuts_short(deed: Deed) -> bool:
    """Whether the upstream ended the stream without waiting for the request's end."""
    match deed:
        case Leave(refuse=refuse):
            return refuse
        case Reset(at=at) | Hangup(at=at) | Answer(at=at):
            return at is At.HEADERS
        case Silence():
            return False


def _of_fields(
    where: str, envoy: dict[str, Values], gateway: dict[str, Values]
) -> Iterator[Difference]:
    for name in sorted(envoy.keys() | gateway.keys()):
        if envoy.get(name) != gateway.get(name):
            yield Difference(where, name, envoy.get(name), gateway.get(name))


def _by_name(headers: Sequence[Header]) -> dict[str, Values]:
    found: dict[str, Values] = {}
    for name, value in headers:
        if name not in ADDED_BY_ENVOY and name != CASE_HEADER:
            found[name] = (*found.get(name, ()), value)
    return found
