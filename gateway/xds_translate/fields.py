"""Reading protobuf fields with their paths, so that a refusal names the field.

Decides: what a refusal looks like, and that every field that is set and not read is a refusal: a
setting that this gateway does not act on must not look as if it worked.
Leaves to others: which fields are read (the translators of each resource).
Invariants: pure; paths are relative to the resource, in the spelling of its proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from google.protobuf import any_pb2, duration_pb2, struct_pb2
from google.protobuf.message import DecodeError, Message

METADATA = "federation.gateway"
"""Namespace of the metadata that our own control plane adds."""

M = TypeVar("M", bound=Message)

_NESTED = struct_pb2.Struct | struct_pb2.ListValue


class UnsupportedFieldError(Exception):
    """A resource says something that this gateway does not do. Text: ``PATH: MESSAGE``."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message


def only(message: Message, path: str, *, reads: Iterable[str], ignores: Iterable[str] = ()) -> None:
    """Refuse any set field outside ``reads`` and ``ignores`` (which change no decision here)."""
    known = {*reads, *ignores}
    for descriptor, _ in message.ListFields():
        if descriptor.name not in known:
            raise UnsupportedFieldError(
                join(path, descriptor.name), "not supported by this gateway"
            )


def join(path: str, name: str) -> str:
    """``path.name``."""
    return f"{path}.{name}" if path else name


def unpack(body: any_pb2.Any, kind: type[M], path: str) -> M:
    """The message of type ``kind`` inside ``body``."""
    message = kind()
    try:
        right_type = body.Unpack(message)
    except DecodeError as failure:
        raise UnsupportedFieldError(path, f"cannot be decoded: {failure}") from failure
    if not right_type:
        raise UnsupportedFieldError(
            path, f"must be a {kind.DESCRIPTOR.full_name}, got {body.type_url or 'nothing'}"
        )
    return message


def optional_ms(message: Message, name: str) -> int | None:
    """A duration field in milliseconds, rounded up; ``None`` when unset."""
    if not message.HasField(name):
        return None
    value: duration_pb2.Duration = getattr(message, name)
    return int(value.seconds * 1000 + -(-value.nanos // 1_000_000))


def optional_value(message: Message, name: str) -> Any:
    """The value of a wrapper field (``UInt32Value`` and its like); ``None`` when unset."""
    return getattr(message, name).value if message.HasField(name) else None


def own_metadata(message: Any) -> dict[str, Any]:
    """Our control plane's metadata on ``message``; numbers are floats as in any ``Struct``."""
    namespaces = message.metadata.filter_metadata
    return members(namespaces[METADATA], f"metadata.{METADATA}") if METADATA in namespaces else {}


def members(struct: struct_pb2.Struct, path: str) -> dict[str, Any]:
    """The members of a ``Struct``; one that holds nothing, not even null, is refused."""
    try:
        found = dict(struct.items())
        inner = [it for it in found.values() if isinstance(it, _NESTED)]
        while inner:
            held = inner.pop()
            values = held.values() if isinstance(held, struct_pb2.Struct) else held
            inner += [it for it in values if isinstance(it, _NESTED)]
    except ValueError as failure:  # what reading an unset value raises
        raise UnsupportedFieldError(path, "has a value that is not set") from failure
    return found


def whole(value: object, path: str) -> int:
    """A whole, non-negative number out of a ``Struct``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        raise UnsupportedFieldError(path, f"must be a whole number, got {value!r}")
    if value < 0:
        raise UnsupportedFieldError(path, f"must not be negative, got {value!r}")
    return int(value)
