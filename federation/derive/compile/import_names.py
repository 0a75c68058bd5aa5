"""Whether an import's name is resolved: the condition ``DNSResolved``.

Decides: what keeps a name in ``svc.clusterset.local`` from leading anywhere, and says so in the
words that people search for.
Leaves to others: answering (``dns``), which Service an import means (``derive.imports``).
Invariants: what is said here is what the agent's DNS server answers from: no more and no less.
"""

from __future__ import annotations

from federation.derive.compile.endpoints import is_address
from federation.derive.compile.index import AnyImport, Index
from federation.derive.compile.problem import Problem, verdict
from federation.derive.merge import merge
from federation.model.base import ServiceName
from federation.model.conditions import Condition
from federation.model.facts import ServiceType
from federation.model.objects import McsServiceImport

FAILED = "ServiceImport DNS resolution failed"


def name_resolved(index: Index, source: AnyImport, service: ServiceName | None) -> Condition:
    """The condition on ``source``, which means ``service``."""
    metadata = source.metadata
    name = f"{metadata.name}.{metadata.namespace}.svc.clusterset.local"
    addresses = _addresses(index, service)
    if isinstance(addresses, Problem):
        problem = Problem(addresses.reason, f"{FAILED}: {name}: {addresses.message}")
        return verdict(source, "DNSResolved", problem)
    return verdict(
        source, "DNSResolved", None, good="Resolved", message=f"{name} is {', '.join(addresses)}"
    )


def _addresses(index: Index, service: ServiceName | None) -> tuple[str, ...] | Problem:
    """What the name leads to, or why to nothing."""
    if not index.settings.answers_names:
        return Problem(
            "NoServer", "the agent of this cluster answers no DNS; start it with --dns HOST:PORT"
        )
    exports = index.exports(service) if service is not None else {}
    if service is None or not exports:
        return Problem("NotExported", "no cluster exports the Service that it means")
    if merge(exports).type is ServiceType.HEADLESS:
        found = {
            address
            for entry in index.view.endpoints.get(service, ())
            for endpoint in entry.endpoints
            if endpoint.ready
            for address in endpoint.addresses
        }
        return tuple(sorted(found)) or Problem(
            "NoReadyEndpoints", f"no endpoint of headless Service {service} is ready in any cluster"
        )
    if index.settings.gateway_service is not None:
        known = index.objects.get(McsServiceImport, service.namespace, service.name)
        return (known.spec.ips if known is not None else ()) or Problem(
            "NoAddress", f"ServiceImport {service} of the MCS API has no address yet"
        )
    own = index.view.gateways.get(index.cluster)
    hosts = (peer.address.rpartition(":")[0].strip("[]") for peer in own.gateways) if own else ()
    return tuple(sorted({host for host in hosts if is_address(host)})) or Problem(
        "NoAddress", f"no gateway of {index.cluster} has told an IP address at which it is reached"
    )
