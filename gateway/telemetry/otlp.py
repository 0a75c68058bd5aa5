"""OTLP requests around records that are encoded already.

Decides: the resource and the scope of what a gateway tells, the method of each signal, what an
answer says was not taken, and which failures are worth another try (OTLP 1.x, "Failures").
Leaves to others: records (the core, ``gateway.metrics``), sending (``exporter``).
Invariants: pure; records are never decoded: a protobuf message is what its parts are, joined. The
little of protobuf that this takes is written here: the published messages cannot be imported beside
those of ``xds-protos``, which are older.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

import grpc

SERVICE_NAME = "federation-gateway"
"""``service.name`` of what gateways send."""


class Signal(StrEnum):
    """What is sent; the values are the core's words."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}

_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

_RETRY_INFO = b"google.rpc.RetryInfo"


def envelope(attributes: Mapping[str, str], version: str) -> tuple[bytes, bytes]:
    """Resource and scope as fields of the messages that they stand in, both the first there."""
    resource = b"".join(
        field(1, _text(1, key) + field(2, _text(1, value)))
        for key, value in sorted(attributes.items())
        if value
    )
    return field(1, resource), field(1, _text(1, SERVICE_NAME) + _text(2, version))


def _text(number: int, content: str) -> bytes:
    return field(number, content.encode())


def request(records: bytes, *, resource: bytes, scope: bytes) -> bytes:
    """An export request for ``records``: a message of one scope without its scope."""
    return field(1, resource + field(2, scope + records))


def field(number: int, content: bytes) -> bytes:
    """A field of a message that holds bytes (wire type 2)."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def rejected(answer: bytes) -> tuple[int, str]:
    """How many records the collector did not take, and why, by its answer.

    Raises ``ValueError`` for what is no answer. The answers of all signals have one shape: field 1
    is the partial success, of a number and a text.
    """
    count, why = 0, ""
    for number, value in _fields(answer):
        if number == 1 and isinstance(value, bytes):
            for inner, content in _fields(value):
                if inner == 1 and isinstance(content, int):
                    count = content
                elif inner == 2 and isinstance(content, bytes):
                    why = content.decode(errors="replace")
    return count, why


_FIXED_BYTES = {1: 8, 5: 4}
"""Lengths of fields by their wire type, where it says it."""


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and contents of a message's fields; those of fixed length are passed over."""
    at = 0
    while at < len(message):
        head, at = _read_varint(message, at)
        number, kind = head >> 3, head & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _read_varint(message, at)
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"wire type {kind} in an answer")
        if at + length > len(message):
            raise ValueError("an answer that breaks off")
        if kind == 2:
            yield number, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            raise ValueError("an answer that breaks off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes in an answer")


def retryable(failure: grpc.aio.AioRpcError) -> bool:
    """Whether the same request may be taken later.

    A collector that has no room says so with RESOURCE_EXHAUSTED and when to come again; without
    that it means that the request is too large for ever.
    """
    if failure.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return failure.code() in _RETRYABLE
    details = (value for key, value in failure.trailing_metadata() if key.endswith("details-bin"))
    return any(_RETRY_INFO in value for value in details if isinstance(value, bytes))
