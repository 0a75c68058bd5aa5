"""Protobuf messages with random places changed, every decision taken from a tape of bytes.

Decides: which changes there are. A tape that has ended gives zeros, so every tape is a mutation and
short tapes are small ones, which is what a shrinking search wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf import any_pb2, symbol_database
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

T = TypeVar("T")

_TEXTS = ("", "*", "a", "(", ".*", "-1", "1.5", "app/users", "federation.gateway", "\x00", "é")
_NUMBERS = (0, 1, 2, 100, 101, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -1, -(2**31))
_FLOATS = (0.0, 0.5, -1.0, 1e308, float("inf"), float("nan"))
_INTEGERS: dict[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class Tape:
    """Decisions, one byte or two at a time."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._content)

    def below(self, bound: int) -> int:
        """A number from 0 to ``bound`` - 1."""
        taken = self._content[self._at : self._at + 2]
        self._at += 2
        return int.from_bytes(taken, "little") % bound

    def one_of(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.below(len(choices))]


def mutate(message: Message, tape: Tape) -> None:
    """Change one place of ``message``, at whatever depth, packed messages included."""
    if isinstance(message, any_pb2.Any):
        _mutate_packed(message, tape)
        return
    inner = [value for field, value in message.ListFields() for value in _messages(field, value)]
    if inner and tape.below(4):
        mutate(tape.one_of(inner), tape)
    else:
        _change_field(message, tape)


def _mutate_packed(packed: any_pb2.Any, tape: Tape) -> None:
    """Inside where the type is known; now and then the type or the bytes themselves."""
    name = packed.type_url.rpartition("/")[2]
    match tape.below(16):
        case 1:
            packed.type_url = tape.one_of(_TEXTS)
        case 2:
            packed.value = packed.value[: tape.below(len(packed.value) + 1)]
        case _:
            try:
                content = symbol_database.Default().GetSymbol(name)()
                content.ParseFromString(packed.value)
            except (KeyError, DecodeError):
                return
            mutate(content, tape)
            packed.Pack(content)


def _messages(field: FieldDescriptor, value: Any) -> list[Message]:
    if field.message_type is None:
        return []
    if not field.is_repeated:
        return [value]
    if field.message_type.GetOptions().map_entry:
        value = value.values()
    return [each for each in value if isinstance(each, Message)]


def _change_field(message: Message, tape: Tape) -> None:
    fields: Sequence[FieldDescriptor] = message.DESCRIPTOR.fields
    if not fields:
        return
    field = tape.one_of(fields)
    if not tape.below(4):
        message.ClearField(field.name)
    elif field.is_repeated:
        _grow(message, field, tape)
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, _scalar(field, tape))


def _grow(message: Message, field: FieldDescriptor, tape: Tape) -> None:
    values = getattr(message, field.name)
    if field.message_type is None:
        values.append(_scalar(field, tape))
    elif not field.message_type.GetOptions().map_entry:
        added = values.add()
        if len(values) > 1:
            added.CopyFrom(tape.one_of(list(values)))
    elif field.message_type.fields_by_name["value"].message_type is not None:
        values[tape.one_of(_TEXTS)].SetInParent()


def _scalar(field: FieldDescriptor, tape: Tape) -> Any:
    kind = field.cpp_type
    if kind in _INTEGERS:
        least, most = _INTEGERS[kind]
        return min(max(tape.one_of(_NUMBERS), least), most)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return bool(tape.below(2))
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return tape.one_of(_FLOATS)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return tape.one_of([*(value.number for value in field.enum_type.values), 999])
    text = tape.one_of(_TEXTS)
    return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
