"""The clusters' API servers that a command reads: which context is which cluster's.

Decides: how ``--context`` is written, that a running lab's are known without it.
Leaves to others: credentials and reading (``adapters.kubernetes``).
Invariants: read only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.cli.context import Context, kubeconfig_for, lab_clusters
from federation.model.base import ClusterId

if TYPE_CHECKING:
    from federation.adapters.kubernetes import KubernetesReader

KubeconfigOption = Annotated[
    Path | None,
    typer.Option(
        help="Kubeconfig of the clusters, where --context names some. Default: the lab's, "
        "$KUBECONFIG, ~/.kube/config.",
        show_default=False,
    ),
]
ContextOption = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        metavar="[CLUSTER=]CONTEXT",
        help="Context of a cluster's API server, where its objects are read; may be given again. "
        "Default: the lab's.",
        show_default=False,
    ),
]


def named_contexts(named: Sequence[str]) -> dict[str, str | None]:
    """The contexts of ``[CLUSTER=]CONTEXT``, by cluster; without one it has the context's name."""
    found: dict[str, str | None] = {}
    for text in named:
        cluster, _, name = text.rpartition("=")
        found[cluster or name] = name
    return found


def contexts_of(context: Context, named: Sequence[str]) -> dict[str, str | None]:
    """The contexts that are ``named``; else those of the lab that ``context`` is of."""
    if named:
        return named_contexts(named)
    clusters = lab_clusters(context) if context.kubeconfig is not None else []
    return {str(it["name"]): str(it["name"]) for it in clusters}


def readers(
    context: Context, kubeconfig: Path | None, contexts: Mapping[str, str | None]
) -> dict[ClusterId, KubernetesReader]:
    """What reads the objects of each cluster with a context. Nothing is connected yet."""
    if not contexts:
        return {}
    from federation.adapters.kubernetes import ConnectionSettings, KubernetesReader

    path = kubeconfig_for(kubeconfig, context)
    return {
        ClusterId(cluster): KubernetesReader(ConnectionSettings(path, name))
        for cluster, name in contexts.items()
    }
