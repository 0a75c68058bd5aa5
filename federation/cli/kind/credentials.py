"""Certificates of an installation besides its members' own (``federation.cli.credentials``).

Decides: names in the certificates of etcd and the resolvers, and of the demo's listener.
Leaves to others: signing (``lab.authority``), writing objects (``install``).
Invariants: etcd's members trust each other by an authority of their own, that nobody else has.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from federation.cli.credentials import NAMESPACE, Signers, identity_secret, service_names
from federation.cli.lab.authority import Authority, KeyPair, write_private

ETCD = "federation-etcd"
ETCD_PEERS = f"{ETCD}-peers"
ETCD_MEMBERS = 3
HOSTNAMES = ("grpc.example.com", "*.example.com")
"""What the demo's listener is called."""


def of_control(signers: Signers, *, addresses: Sequence[str]) -> list[dict[str, Any]]:
    """The Secrets of etcd and the resolvers; etcd is reached at ``addresses`` from outside."""
    names = ("localhost", *service_names(ETCD, NAMESPACE))
    server = signers.etcd.issue(ETCD, dns=names, addresses=("127.0.0.1", *addresses))
    peers = Authority("federation etcd peers")
    members = tuple(
        f"{ETCD}-{number}.{ETCD_PEERS}.{NAMESPACE}.svc" for number in range(ETCD_MEMBERS)
    )
    found = [
        _secret(f"{ETCD}-server", server, signers.etcd),
        _secret(f"{ETCD}-peer", peers.issue(ETCD_PEERS, dns=members), peers),
        _secret("federation-resolver", signers.etcd_user("resolver"), signers.etcd),
    ]
    for secret in found:
        # They are not a member's: `fedctl cluster remove` is to leave them alone.
        del secret["metadata"]["labels"]
    return found


def of_demo(clients: Authority) -> dict[str, Any]:
    """The certificate that the demo's Gateway names, signed by ``clients``."""
    pair = clients.issue(HOSTNAMES[0], dns=HOSTNAMES)
    content = {"tls.crt": pair.certificate_pem, "tls.key": pair.key_pem}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "grpc-cert", "namespace": "infra"},
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(text).decode() for name, text in content.items()},
    }


def write_identity(folder: Path, pair: KeyPair, authority: Authority) -> None:
    """Write ``ca.crt``, ``tls.crt`` and ``tls.key``, for their owner alone."""
    write_private(folder / "ca.crt", authority.certificate_pem)
    write_private(folder / "tls.crt", pair.certificate_pem)
    write_private(folder / "tls.key", pair.key_pem)


def _secret(name: str, pair: KeyPair, authority: Authority) -> dict[str, Any]:
    return identity_secret(name, pair, authority.certificate_pem, NAMESPACE)
