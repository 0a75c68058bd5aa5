"""One cluster as the suite finds it: API server, controllers, Pods as processes, the federation.

Decides: which local command stands for which image of the suite, and that each Gateway has gateways
of its own beside it, as the suite wants an address for each.
Leaves to others: the cluster's parts (``tests.testkit.gateway_cluster``), what the suite applies.
Invariants: the agent has the rights of ``clusters/`` and no others; the Gateway API's CRDs are the
released ones, since the suite refuses others of that group beside them, and of the experimental
channel, since some of what is claimed is in no other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.gateway_api import programs
from tests.testkit.gateway_cluster import GatewayCluster, gateway_class, running_gateway_cluster

GATEWAY_CLASS = "federation"


def images() -> dict[str, dict[str, object]]:
    """Commands by image."""
    return {
        "registry.k8s.io/gateway-api/echo-basic": {"entrypoint": [str(programs.echo())]},
        # Asked by tests of UDPRoute alone, which is not claimed; the suite waits until it is ready.
        "registry.k8s.io/coredns/coredns": {
            "entrypoint": ["/bin/sh", "-c", "exec sleep infinity", "coredns"]
        },
    }


@contextlib.contextmanager
def running_cluster(directory: Path) -> Iterator[GatewayCluster]:
    """The cluster, once its GatewayClass is accepted. Wants a namespace of its own."""
    wanted = running_gateway_cluster(
        directory, dedicated_in=None, images=images(), channel="experimental"
    )
    with wanted as cluster:
        cluster.apply(gateway_class(GATEWAY_CLASS))
        accepted = ("wait", "--for=condition=Accepted", "--timeout=60s")
        cluster.kubernetes.kubectl(*accepted, f"gatewayclass/{GATEWAY_CLASS}")
        yield cluster
