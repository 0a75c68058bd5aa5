"""What every API object has: kind, name, age, and its form outside.

Decides: identity (``ObjectKey``), order of age, the JSON form of objects and of their parts.
Leaves to others: fields of single kinds (siblings), which kinds there are (``registry``), reading
and reporting errors (``wire.manifests``), generations (whoever stores objects).
Invariants: objects are frozen; the JSON form leaves out what is absent or empty and spells out
defaults, as an API server does, so that a patch can point at them.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)

from federation.model.base import Value

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


NAME_WORDS = "must be a DNS name of at most 253 lower-case letters, digits, '-' and '.'"
LABEL_WORDS = "must be a DNS label of at most 63 lower-case letters, digits and '-'"

PATTERNS = {
    f"^{_SUBDOMAIN.pattern}$": NAME_WORDS,
    f"^{_LABEL.pattern}$": LABEL_WORDS,
    f"^({_LABEL.pattern})?$": LABEL_WORDS,
}
"""What texts must be, in words, by their patterns."""


def _check_name(text: str) -> str:
    if not 1 <= len(text) <= 253 or not _SUBDOMAIN.fullmatch(text):
        raise ValueError(f'{NAME_WORDS}, got "{text}"')
    return text


def _check_label(text: str) -> str:
    if len(text) > 63 or not _LABEL.fullmatch(text):
        raise ValueError(f'{LABEL_WORDS}, got "{text}"')
    return text


def _check_namespace(text: str) -> str:
    return _check_label(text) if text else text


Name = Annotated[
    str,
    AfterValidator(_check_name),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": 253, "pattern": f"^{_SUBDOMAIN.pattern}$"}
    ),
]
"""A name of an object (RFC 1123 subdomain)."""

Namespace_ = Annotated[
    str,
    AfterValidator(_check_namespace),
    WithJsonSchema({"type": "string", "maxLength": 63, "pattern": f"^({_LABEL.pattern})?$"}),
]
"""A name of a namespace (RFC 1123 label); empty for cluster-scoped objects."""

Label = Annotated[
    str,
    AfterValidator(_check_label),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": 63, "pattern": f"^{_LABEL.pattern}$"}
    ),
]
"""A name of a cluster, a region or a namespace that must be given (RFC 1123 label)."""

OptionalText = Annotated[str, Field(exclude_if=operator.not_)]
"""Text whose empty value is left out of the JSON form; its default is empty."""

OptionalNamespace = Annotated[Namespace_, Field(exclude_if=operator.not_)]
"""A namespace that cluster-scoped objects do not have."""

Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port."""


class ObjectKey(NamedTuple):
    """Identity of an object inside one cluster, whatever version it was written in.

    A tuple, since keys are hashed and sorted by the ten thousand.
    """

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.qualified_name}"

    @property
    def qualified_name(self) -> str:
        """``NAMESPACE/NAME``, or the name alone for cluster-scoped objects."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Rule:
    """A check over several fields of one part, as an API server makes it.

    ``expression`` is CEL over ``self``; ``message`` is what a person reads; ``says`` (CEL) makes
    it where it quotes the object. ``field`` names the field that it is told at, if not the whole.
    Each stands beside the validator that does the same here, in the same words.
    """

    expression: str
    message: str
    says: str = ""
    field: str = ""


class Part(Value):
    """A part of an object. Its JSON form leaves out ``None`` and empty lists and maps.

    ``RULES`` say to API servers what validators over several fields say here.
    """

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {
            name: value
            for name, value in handler(self).items()
            if value is not None and value not in ([], ())
        }


class ObjectMeta(Part):
    """Metadata as API servers keep it; fields that only they use are dropped on reading."""

    name: Name
    namespace: OptionalNamespace = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    generation: int = Field(default=1, ge=0)
    creation_timestamp: str | None = None
    resource_version: str | None = None
    uid: str | None = None


class ApiObject(Part):
    """An object of any kind; subclasses say their group, kind, versions and scope."""

    GROUP: ClassVar[str]
    KIND: ClassVar[str]
    VERSIONS: ClassVar[tuple[str, ...]]
    NAMESPACED: ClassVar[bool] = True

    api_version: str
    kind: str
    metadata: ObjectMeta

    _creation_order: int = PrivateAttr(default=0)

    @property
    def key(self) -> ObjectKey:
        """Identity inside the cluster."""
        return ObjectKey(self.GROUP, self.KIND, self.metadata.namespace, self.metadata.name)

    @property
    def creation_order(self) -> int:
        """Position in the total order of age of one source; never part of the JSON form."""
        return self._creation_order

    @property
    def age(self) -> tuple[int, str, str]:
        """Sort key: the older object is the smaller; then by namespace and name (Gateway API)."""
        return (self._creation_order, self.metadata.namespace, self.metadata.name)

    def with_creation_order(self, creation_order: int) -> Self:
        """This object with its place in the order of age, as its source knows it."""
        placed = self.model_copy()
        placed._creation_order = creation_order  # noqa: SLF001 - our own class
        return placed

    def with_metadata(self, **changes: object) -> Self:
        """This object with fields of its metadata replaced (snake_case names)."""
        metadata = self.metadata.model_copy(update=changes)
        return self.model_copy(update={"metadata": metadata})

    def to_document(self) -> dict[str, Any]:
        """The JSON form: camelCase, defaults spelled out, absent and empty fields left out."""
        return self.model_dump(mode="json", by_alias=True)
