"""Who is who in an installation: the certificates and the objects that carry them.

Decides: names in certificates of etcd, its people and the demo, and which Secrets hold them.
Leaves to others: those of members (``cli.credentials``), signing (``lab.authority``), writing
objects (``install``).
Invariants: three authorities (etcd's, the clusterset's, the clients'), so that none can stand for
another. Keys of authorities are kept nowhere: in kind, new clusters get new ones.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation.cli.context import DEFAULT_PREFIX
from federation.cli.credentials import (
    NAMESPACE,
    Membership,
    Signers,
    identity_secret,
    member_objects,
    service_names,
)
from federation.cli.lab.authority import Authority, KeyPair, write_private

ETCD = "federation-etcd"
ETCD_PEERS = f"{ETCD}-peers"
ETCD_MEMBERS = 3
HOSTNAMES = ("grpc.example.com", "*.example.com")
"""What the demo's listener is called."""


@dataclass(frozen=True, slots=True)
class Authorities:
    """Who signs."""

    etcd: Authority = field(default_factory=lambda: Authority("federation etcd"))
    clusterset: Authority = field(default_factory=lambda: Authority("federation clusterset"))
    clients: Authority = field(default_factory=lambda: Authority("federation demo"))

    @property
    def signers(self) -> Signers:
        """Those of members."""
        return Signers(etcd=self.etcd, clusterset=self.clusterset)

    def etcd_user(self, name: str) -> KeyPair:
        """What makes its holder the user ``name`` of etcd."""
        return self.signers.etcd_user(name)


def of_member(
    authorities: Authorities, region: str, *, etcd: Sequence[str]
) -> list[dict[str, Any]]:
    """The objects that make a cluster the member ``region``, which reaches ``etcd`` there."""
    member = Membership(
        cluster=region,
        region=region,
        etcd=etcd,
        etcd_ca=authorities.etcd.certificate_pem,
        prefix=DEFAULT_PREFIX,
    )
    return member_objects(member, authorities.signers)


def of_control(authorities: Authorities, *, addresses: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of etcd and the resolvers; etcd is reached at ``addresses`` from outside."""
    server = authorities.etcd.issue(
        ETCD,
        dns=("localhost", *service_names(ETCD, NAMESPACE)),
        addresses=("127.0.0.1", *addresses),
    )
    members = [f"{ETCD}-{number}.{ETCD_PEERS}" for number in range(ETCD_MEMBERS)]
    names = tuple(f"{member}.{NAMESPACE}.svc" for member in members)
    peer = Authority("federation etcd peers")
    return [
        _secret(f"{ETCD}-server", server, authorities.etcd),
        _secret(f"{ETCD}-peer", peer.issue(ETCD_PEERS, dns=names), peer),
        _secret("federation-resolver", authorities.etcd_user("resolver"), authorities.etcd),
    ]


def of_demo(authorities: Authorities) -> dict[str, Any]:
    """The certificate that the demo's Gateway names."""
    pair = authorities.clients.issue(HOSTNAMES[0], dns=HOSTNAMES)
    data = {"tls.crt": _encoded(pair.certificate_pem), "tls.key": _encoded(pair.key_pem)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "grpc-cert", "namespace": "infra"},
        "type": "kubernetes.io/tls",
        "data": data,
    }


def write_identity(folder: Path, pair: KeyPair, authority: Authority) -> None:
    """Write ``ca.crt``, ``tls.crt`` and ``tls.key``, for their owner alone."""
    write_private(folder / "ca.crt", authority.certificate_pem)
    write_private(folder / "tls.crt", pair.certificate_pem)
    write_private(folder / "tls.key", pair.key_pem)


def _secret(name: str, pair: KeyPair, authority: Authority) -> dict[str, Any]:
    return identity_secret(name, pair, authority.certificate_pem, NAMESPACE)


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
