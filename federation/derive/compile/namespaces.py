"""Namespaces as selectors see them.

Decides: the labels of a namespace.
Leaves to others: who selects them.
Invariants: a namespace has its name as a label, whether or not it has an object.
"""

from __future__ import annotations

from collections.abc import Mapping

from federation.derive.compile.index import Index
from federation.model.objects import Namespace

_NAME_LABEL = "kubernetes.io/metadata.name"
"""Label that Kubernetes puts on every Namespace: its name."""


def namespace_labels(index: Index, namespace: str) -> Mapping[str, str]:
    """The labels of ``namespace``."""
    # Without Kubernetes a namespace needs no object of its own; it then has its name alone.
    found = index.objects.get(Namespace, "", namespace)
    return {_NAME_LABEL: namespace, **((found.metadata.labels if found else None) or {})}
