"""The base of every value in the model: frozen, closed, camelCase on the wire.

Decides: how values compare, hash and spell themselves as JSON.
Leaves to others: what the values mean (their own modules) and where they travel (``wire``).
Invariants: a ``Value`` never changes after construction; unknown fields are errors, never ignored.
"""

from __future__ import annotations

from typing import NewType, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

ClusterId = NewType("ClusterId", str)
"""Name of a member cluster: an RFC 1123 label, unique in the clusterset (KEP-2149)."""

Region = NewType("Region", str)
"""Failure domain of one or more clusters."""


class Value(BaseModel):
    """An immutable value with named fields; JSON names are camelCase, Python names snake_case."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        ser_json_bytes="base64",
    )


_NAMES_MAX = 4096
"""Different sets of names that are shared; values with further ones keep their own."""

_names: dict[frozenset[str], set[str]] = {}

T = TypeVar("T")


def slimmed(value: T) -> T:
    """``value`` itself, whose parts share the sets of the names of their fields.

    Beside each value pydantic keeps which of its fields were given. Nothing here asks for that, and
    in a large cluster it is a third of all memory. Only for values of which there are thousands.
    """
    todo: list[object] = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, BaseModel):
            given = part.__pydantic_fields_set__
            names = frozenset(given)
            if names in _names or len(_names) < _NAMES_MAX:
                shared = _names.setdefault(names, given)
                object.__setattr__(part, "__pydantic_fields_set__", shared)
            todo.extend(part.__dict__.values())
        elif isinstance(part, tuple):
            todo.extend(part)
    return value


class ServiceName(Value):
    """A namespaced service name. Namespace sameness holds over the whole clusterset (KEP-1645)."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    # Pydantic's own compare any fields; names are keys of all that is looked up.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServiceName):
            return NotImplemented
        return self.name == other.name and self.namespace == other.namespace

    def __hash__(self) -> int:
        return hash((self.namespace, self.name))
