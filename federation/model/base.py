"""The base of every value in the model: frozen, closed, camelCase on the wire.

Decides: how values compare, hash and spell themselves as JSON.
Leaves to others: what the values mean (their own modules) and where they travel (``wire``).
Invariants: a ``Value`` never changes after construction; unknown fields are errors, never ignored.
"""

from __future__ import annotations

from typing import NewType

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
