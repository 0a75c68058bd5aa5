"""ReferenceGrant (Gateway API): who of other namespaces may refer to objects of this one.

Decides: its fields and whether it permits one reference.
Leaves to others: which references need a grant (``derive.compile``).
Invariants: a grant stands in the namespace of the referent and speaks for that namespace alone.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from federation.model.objects.gateway import GATEWAY_GROUP
from federation.model.objects.metadata import ApiObject, Name, Namespace_, ObjectKey, Part


class ReferenceGrantFrom(Part):
    """A kind of referring objects of one namespace."""

    group: str
    kind: str
    namespace: Namespace_ = Field(min_length=1)


class ReferenceGrantTo(Part):
    """A kind of referents, or one of them by ``name``."""

    group: str
    kind: str
    name: Name | None = None


class ReferenceGrantSpec(Part):
    """Any of ``from_`` may refer to any of ``to``."""

    from_: tuple[ReferenceGrantFrom, ...] = Field(alias="from", min_length=1, max_length=16)
    to: tuple[ReferenceGrantTo, ...] = Field(min_length=1, max_length=16)


class ReferenceGrant(ApiObject):
    """Leave for references across namespaces."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "ReferenceGrant"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1beta1", "v1")

    api_version: str = f"{GATEWAY_GROUP}/v1beta1"
    kind: str = "ReferenceGrant"
    spec: ReferenceGrantSpec

    def permits(self, referrer: ObjectKey, referent: ObjectKey) -> bool:
        """Whether this grant lets ``referrer`` refer to ``referent``."""
        return (
            referent.namespace == self.metadata.namespace
            and any(
                (entry.group, entry.kind, entry.namespace)
                == (referrer.group, referrer.kind, referrer.namespace)
                for entry in self.spec.from_
            )
            and any(
                (entry.group, entry.kind) == (referent.group, referent.kind)
                and entry.name in (None, referent.name)
                for entry in self.spec.to
            )
        )
