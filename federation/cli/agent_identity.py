"""The name of a cluster that was not given one: what the cluster itself says (KEP-2149).

Decides: that only Kubernetes can say it, by a ClusterProperty.
Leaves to others: reading it (``adapters``), what a name may be (``cli.agent``).
Invariants: without a name the command ends and says both ways to give one.
"""

from __future__ import annotations

import asyncio

from federation.cli.agent_objects import SourceKind, SourceOptions
from federation.cli.context import fail
from federation.cli.exit_codes import ExitCode
from federation.ports import PortError


def told_name(options: SourceOptions) -> str:
    """The cluster's name as it says itself; ends the command where it says none."""
    if options.kind is not SourceKind.KUBERNETES:
        fail("give the cluster a name: --cluster NAME", ExitCode.USAGE)
    try:
        found = asyncio.run(_read(options))
    except PortError as error:
        fail(f"reading the cluster's name: {error}; or give it: --cluster NAME", ExitCode.FAILED)
    if not found:
        fail(
            "the cluster has no ClusterProperty cluster.clusterset.k8s.io to tell its name; create "
            "it, or give the name: --cluster NAME",
            ExitCode.USAGE,
        )
    return found


async def _read(options: SourceOptions) -> str | None:
    from federation.adapters.kubernetes import (
        CLUSTER_ID,
        ClusterProperties,
        ConnectionSettings,
        KubeconfigError,
        connected,
    )

    try:
        async with connected(ConnectionSettings(options.kubeconfig, options.context)) as connection:
            return await ClusterProperties(connection).read(CLUSTER_ID)
    except KubeconfigError as error:
        fail(str(error), ExitCode.USAGE)
