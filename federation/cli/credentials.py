"""What makes a cluster a member: its certificates, and the objects that carry them.

Decides: the names and contents of the ConfigMap and the Secrets that the manifests of ``clusters/``
mount, and who signs what.
Leaves to others: signing (``lab.authority``), where authorities are kept and objects are written.
Invariants: two authorities, etcd's and the clusterset's, so that neither can stand for the other; a
client of etcd has its user's name as common name and no host name, which etcd would look up.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from federation.cli.lab.authority import LIFETIME, TRUST_DOMAIN, Authority, KeyPair

NAMESPACE = "federation-system"
"""Where the federation stands in a cluster, unless somebody says otherwise."""

CONFIG_MAP = "federation-cluster"
ETCD_SECRET = "federation-etcd"  # noqa: S105 - a name
AGENT_SECRET = "federation-agent"  # noqa: S105
GATEWAY_SECRET = "federation-gateway"  # noqa: S105

MANAGED_BY = "federation.dev/managed-by"
"""Label of what is written here, with the value ``MANAGER``; nothing without it is removed."""

MANAGER = "fedctl"


@dataclass(frozen=True, slots=True)
class Signers:
    """Who signs: users of etcd, and everything between agents and gateways."""

    etcd: Authority
    clusterset: Authority

    def etcd_user(self, name: str, *, lifetime: dt.timedelta = LIFETIME) -> KeyPair:
        """What makes its holder the user ``name`` of etcd."""
        uri = f"spiffe://{TRUST_DOMAIN}/etcd/{name}"
        return self.etcd.issue(name, uris=(uri,), lifetime=lifetime)


@dataclass(frozen=True, slots=True)
class Membership:
    """A cluster as a member: who it is, and where it finds etcd.

    ``etcd_ca`` are the authorities of etcd's own certificate, PEM.
    """

    cluster: str
    region: str
    etcd: Sequence[str]
    etcd_ca: bytes
    prefix: str
    namespace: str = NAMESPACE
    lifetime: dt.timedelta = LIFETIME


def member_objects(member: Membership, signers: Signers) -> list[dict[str, Any]]:
    """The ConfigMap and the Secrets of ``member``, with new certificates."""
    names = service_names("federation-agent", member.namespace)
    agent = signers.clusterset.issue(
        "federation-agent", dns=("localhost", *names), lifetime=member.lifetime
    )
    gateway = signers.clusterset.issue_gateway(
        "federation-gateway", cluster=member.cluster, lifetime=member.lifetime
    )
    user = signers.etcd_user(member.cluster, lifetime=member.lifetime)
    clusterset = signers.clusterset.certificate_pem
    environment = {
        "FEDERATION_CLUSTER": member.cluster,
        "FEDERATION_REGION": member.region,
        "FEDERATION_ETCD": ",".join(member.etcd),
        "FEDERATION_PREFIX": member.prefix,
    }
    config = _object("ConfigMap", CONFIG_MAP, member.namespace) | {"data": environment}
    return [
        config,
        identity_secret(ETCD_SECRET, user, member.etcd_ca, member.namespace),
        identity_secret(AGENT_SECRET, agent, clusterset, member.namespace),
        identity_secret(GATEWAY_SECRET, gateway, clusterset, member.namespace),
    ]


def service_names(name: str, namespace: str) -> tuple[str, ...]:
    """A Service's names, from short to whole."""
    inside = f"{name}.{namespace}"
    return name, inside, f"{inside}.svc", f"{inside}.svc.cluster.local"


def identity_secret(name: str, pair: KeyPair, ca: bytes, namespace: str) -> dict[str, Any]:
    """A Secret with ``ca.crt``, ``tls.crt`` and ``tls.key``.

    Opaque on purpose: agents read Secrets of type kubernetes.io/tls, which are listeners'.
    """
    content = {"ca.crt": ca, "tls.crt": pair.certificate_pem, "tls.key": pair.key_pem}
    data = {key: base64.b64encode(value).decode() for key, value in content.items()}
    return _object("Secret", name, namespace) | {"type": "Opaque", "data": data}


def _object(kind: str, name: str, namespace: str) -> dict[str, Any]:
    labels = {MANAGED_BY: MANAGER}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}
