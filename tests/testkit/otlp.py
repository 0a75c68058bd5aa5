"""OpenTelemetry's messages (opentelemetry-proto 1.x) as far as tests read them.

The package of these messages cannot stand beside xds-protos, which brings an older one under the
same name; so the fields are declared here, by their published numbers, and protobuf reads them.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessages

_PACKAGE: Final = "tests.otlp"
_F = FieldDescriptorProto

# Message: {field: (number, type, repeated)}; a type that is text names a message.
_FIELDS: Final[dict[str, dict[str, tuple[int, int | str, bool]]]] = {
    "AnyValue": {
        "string_value": (1, _F.TYPE_STRING, False),
        "int_value": (3, _F.TYPE_INT64, False),
    },
    "KeyValue": {"key": (1, _F.TYPE_STRING, False), "value": (2, "AnyValue", False)},
    "Event": {
        "time_unix_nano": (1, _F.TYPE_FIXED64, False),
        "name": (2, _F.TYPE_STRING, False),
        "attributes": (3, "KeyValue", True),
    },
    "Status": {"message": (2, _F.TYPE_STRING, False), "code": (3, _F.TYPE_INT32, False)},
    "Span": {
        "trace_id": (1, _F.TYPE_BYTES, False),
        "span_id": (2, _F.TYPE_BYTES, False),
        "trace_state": (3, _F.TYPE_STRING, False),
        "parent_span_id": (4, _F.TYPE_BYTES, False),
        "name": (5, _F.TYPE_STRING, False),
        "kind": (6, _F.TYPE_INT32, False),
        "start_time_unix_nano": (7, _F.TYPE_FIXED64, False),
        "end_time_unix_nano": (8, _F.TYPE_FIXED64, False),
        "attributes": (9, "KeyValue", True),
        "events": (11, "Event", True),
        "status": (15, "Status", False),
        "flags": (16, _F.TYPE_FIXED32, False),
    },
    "ScopeSpans": {"spans": (2, "Span", True)},
    "LogRecord": {
        "time_unix_nano": (1, _F.TYPE_FIXED64, False),
        "severity_number": (2, _F.TYPE_INT32, False),
        "severity_text": (3, _F.TYPE_STRING, False),
        "body": (5, "AnyValue", False),
        "attributes": (6, "KeyValue", True),
        "flags": (8, _F.TYPE_FIXED32, False),
        "trace_id": (9, _F.TYPE_BYTES, False),
        "span_id": (10, _F.TYPE_BYTES, False),
        "observed_time_unix_nano": (11, _F.TYPE_FIXED64, False),
        "event_name": (12, _F.TYPE_STRING, False),
    },
    "ScopeLogs": {"log_records": (2, "LogRecord", True)},
    # What is around records when they are sent. Requests and answers of all signals are alike.
    "Resource": {"attributes": (1, "KeyValue", True)},
    "Scope": {"name": (1, _F.TYPE_STRING, False), "version": (2, _F.TYPE_STRING, False)},
    "ScopeRecords": {"scope": (1, "Scope", False), "records": (2, "Span", True)},
    "ResourceRecords": {
        "resource": (1, "Resource", False),
        "scope_records": (2, "ScopeRecords", True),
    },
    "Request": {"resource_records": (1, "ResourceRecords", True)},
    "PartialSuccess": {
        "rejected": (1, _F.TYPE_INT64, False),
        "error_message": (2, _F.TYPE_STRING, False),
    },
    "Response": {"partial_success": (1, "PartialSuccess", False)},
}

SERVER: Final = 2
"""``SPAN_KIND_SERVER``."""

CLIENT: Final = 3
"""``SPAN_KIND_CLIENT``."""

ERROR: Final = 2
"""``STATUS_CODE_ERROR``."""


def _messages() -> dict[str, Any]:
    file = FileDescriptorProto(name="tests/otlp.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type, added.type_name = _F.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = _F.Type.ValueType(kind)
    # One of the two is there, be it empty or 0.
    value = file.message_type[0]
    value.oneof_decl.add(name="value")
    for field in value.field:
        field.oneof_index = 0
    pool = DescriptorPool()
    pool.Add(file)
    return {it.rpartition(".")[2]: made for it, made in GetMessages([file], pool=pool).items()}


_MADE: Final = _messages()

Request: Final[Any] = _MADE["Request"]
"""Of an export; its records are read as spans."""

Response: Final[Any] = _MADE["Response"]
ScopeRecords: Final[Any] = _MADE["ScopeRecords"]
Span: Final[Any] = _MADE["Span"]


def spans(message: bytes) -> list[Any]:
    """The spans of a ``ScopeSpans``; raises for what is no such message or has more in it."""
    return list(_read("ScopeSpans", message).spans)


def log_records(message: bytes) -> list[Any]:
    """The records of a ``ScopeLogs``; raises for what is no such message or has more in it."""
    return list(_read("ScopeLogs", message).log_records)


def attributes(record: Any) -> dict[str, str | int]:
    """Attributes of a span, an event or a log record."""
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in record.attributes}


def _read(name: str, message: bytes) -> Any:
    read = _MADE[name].FromString(message)
    known = _MADE[name].FromString(message)
    known.DiscardUnknownFields()
    assert read.ByteSize() == known.ByteSize(), "there are fields that the format does not have"
    return read
