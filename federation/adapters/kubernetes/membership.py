"""What the federation keeps in a cluster for its membership: put there, and taken away.

Decides: which kinds may carry the federation's labels, and how what carries one is found.
Leaves to others: the objects (``cli.credentials``), who may stop being a member (``cli.cluster``).
Invariants: only what carries one of the given labels is deleted; a kind that is not served has no
objects; what is gone already is no error, so that a removal can be done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from federation.adapters.kubernetes.connection import Connection, Json, ResourceAbsent
from federation.adapters.kubernetes.identity import ABOUT_VERSIONS

_PLURALS: Mapping[str, str] = {
    "Namespace": "namespaces",
    "ConfigMap": "configmaps",
    "Secret": "secrets",
}

LABELLED: Sequence[tuple[str, str]] = (
    ("/api/v1", "configmaps"),
    ("/api/v1", "secrets"),
    ("/apis/apps/v1", "deployments"),
    ("/apis/discovery.k8s.io/v1", "endpointslices"),
    ("/api/v1", "services"),
    ("/api/v1", "serviceaccounts"),
    ("/apis/multicluster.x-k8s.io/v1beta1", "serviceimports"),
    ("/apis/multicluster.x-k8s.io/v1alpha1", "serviceimports"),
    *((f"/apis/about.k8s.io/{version}", "clusterproperties") for version in ABOUT_VERSIONS),
)
"""Where objects of ours can be, in the order of removal: what leads traffic goes after what asks
for it."""


async def apply_objects(
    connection: Connection, objects: Sequence[Mapping[str, Any]], *, manager: str
) -> list[str]:
    """Create or change core objects by server-side apply; what they were. Raises ``PortError``."""
    written = []
    for document in objects:
        kind, metadata = document["kind"], document["metadata"]
        inside = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
        path = f"/api/v1{inside}/{_PLURALS[kind]}/{metadata['name']}"
        await connection.apply(path, dict(document), manager=manager)
        place = f"{metadata['namespace']}/" if inside else ""
        written.append(f"{kind} {place}{metadata['name']}")
    return written


async def delete_labelled(connection: Connection, selectors: Sequence[str]) -> list[str]:
    """Delete every object that one of ``selectors`` selects; what was deleted, as people read it.

    Raises ``PortError``; what was deleted until then stays deleted, and the call can be repeated.
    """
    removed = []
    for base, plural in LABELLED:
        for selector in selectors:
            for found in await _labelled(connection, f"{base}/{plural}", selector):
                metadata = found["metadata"]
                space = metadata.get("namespace")
                place = f"{space}/{metadata['name']}" if space else metadata["name"]
                inside = f"/namespaces/{space}" if space else ""
                await connection.delete(f"{base}{inside}/{plural}/{metadata['name']}")
                removed.append(f"{plural} {place}")
    return list(dict.fromkeys(removed))


async def _labelled(connection: Connection, path: str, selector: str) -> list[Json]:
    try:
        listed = await connection.get(path, [("labelSelector", selector)])
    except ResourceAbsent:
        return []
    return list(listed.get("items", []))
