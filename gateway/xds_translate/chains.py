"""Filter chains of a listener: TLS by server name, terminated here or passed through.

Decides: which of Envoy's combinations of chains this gateway has, and the core's form of them.
Leaves to others: TLS contexts (``tls``), HTTP connection managers (``listeners``).
Invariants: chains that terminate TLS demand the same of clients; a listener without TLS has one
kind of chain: HTTP, or a single TCP proxy (which has no TLS inspector beside it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from gateway.xds_translate.fields import UnsupportedFieldError, join, only, optional_ms
from gateway.xds_translate.piece import Kind, PieceId
from gateway.xds_translate.tls import TlsNames

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chain:
    """One filter chain: ``passthrough`` is the core's form of a TCP proxy, in place of a table.

    With ``tls`` beside it TLS ends here, and the bytes in it go on.
    """

    server_names: tuple[str, ...]
    table: str | None = None
    tls: TlsNames | None = None
    connection: dict[str, Any] | None = None
    passthrough: dict[str, Any] | None = None
    telemetry: dict[str, Any] | None = None


def passthrough_of(proxy: tcp_proxy_pb2.TcpProxy, path: str, name: str) -> dict[str, Any]:
    """Where a TCP proxy sends connections, as the core reads it."""
    only(
        proxy,
        path,
        reads=("cluster", "weighted_clusters", "idle_timeout"),
        ignores=("stat_prefix",),
    )
    weighted = [{"cluster": proxy.cluster, "weight": 1}] if proxy.cluster else []
    for index, entry in enumerate(proxy.weighted_clusters.clusters):
        where = f"{path}.weighted_clusters.clusters[{index}]"
        only(entry, where, reads=("name", "weight"))
        weighted.append({"cluster": entry.name, "weight": entry.weight})
    if not weighted:
        raise UnsupportedFieldError(join(path, "cluster"), "is empty, and so is weighted_clusters")
    return {"name": name, "weighted": weighted, "idle_ms": optional_ms(proxy, "idle_timeout")}


def tls_of(chains: Sequence[Chain]) -> dict[str, Any] | None:
    """The listener's TLS, as the core reads it."""
    if not any(chain.tls is not None or chain.passthrough is not None for chain in chains):
        return None
    terminating = [chain for chain in chains if chain.tls is not None]
    contexts = [chain.tls for chain in terminating if chain.tls is not None]
    if any(chain.tls is None and chain.passthrough is None for chain in chains):
        raise UnsupportedFieldError("filter_chains", "some chains are TLS and some are plain text")
    by_name = len(chains) > 1
    rest = [
        chain
        for chain in terminating
        if chain.passthrough is None and not (by_name and chain.server_names)
    ]
    certificates = [name for chain in rest if chain.tls for name in chain.tls.certificates]
    return {
        "certificates": list(dict.fromkeys(certificates)),
        **_demand(contexts),
        "chains": [
            _chain(chain) for chain in chains if chain.passthrough is not None or chain not in rest
        ],
    }


def _chain(chain: Chain) -> dict[str, Any]:
    found: dict[str, Any] = {"server_names": list(chain.server_names)}
    if chain.passthrough is not None:
        found["passthrough"] = chain.passthrough
    if chain.tls is not None:
        found["certificates"] = list(chain.tls.certificates)
    return found


def _demand(contexts: Sequence[TlsNames]) -> dict[str, Any]:
    if not contexts:
        return {"client_ca": None, "client_optional": False, "allowed_spiffe": []}
    return {
        "client_ca": same([c.ca for c in contexts], "filter_chains", "trust bundle"),
        "client_optional": same(
            [c.optional for c in contexts], "filter_chains", "trust_chain_verification"
        ),
        "allowed_spiffe": list(
            same([c.allowed_spiffe for c in contexts], "filter_chains", "allowed identities")
        ),
    }


def needs_of(chains: Sequence[Chain]) -> set[PieceId]:
    """What must be in force before the chains can be."""
    needs: set[PieceId] = set()
    for chain in chains:
        if chain.table is not None:
            needs.add(PieceId(Kind.ROUTE_TABLES, chain.table))
        if chain.tls is not None:
            names = (*chain.tls.certificates, *([chain.tls.ca] if chain.tls.ca else ()))
            needs |= {PieceId(Kind.SECRETS, name) for name in names}
        for entry in (chain.passthrough or {}).get("weighted", ()):
            needs.add(PieceId(Kind.CLUSTERS, entry["cluster"]))
    return needs


def same(values: Sequence[T], path: str, what: str) -> T:
    """The one value that all have."""
    if any(value != values[0] for value in values):
        raise UnsupportedFieldError(path, f"all chains must have the same {what}")
    return values[0]
