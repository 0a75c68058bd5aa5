"""Whether this gateway reaches the gateways of other clusters, tried now and for real.

Decides: what a try is: TCP, TLS with this gateway's own identity and the names it asks of that
peer, then HTTP/2's first frames, since a server of TLS 1.3 refuses a certificate only after the
handshake. It is asked for by a person, beside the core's connections, which it does not touch.
Leaves to others: what the core makes of its own connections (``down``, told beside the result).
Invariants: bounded: ``PEERS_MAX`` peers, ``AT_ONCE`` at a time, ``TRY_S`` each; no call is made, so
nothing reaches an application; the private key stays in its file.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.runtime import TRUST_BUNDLE
from gateway.settings import IdentityFiles
from gateway.xds_translate import Kind, Piece, PieceId

PEERS_MAX = 256
AT_ONCE = 8
TRY_S = 2.0

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""HTTP/2's connection preface: the fixed bytes and an empty SETTINGS frame (RFC 9113, 3.4)."""

SETTINGS_HEAD = 9
"""Bytes of the head of a frame; the first one of a server is SETTINGS."""

PLAIN = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted here",
    "CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of our certificate",
    "TLSV1_ALERT_CERTIFICATE_REQUIRED": "it was shown no certificate",
    "CERTIFICATE_EXPIRED": "our certificate has expired",
}


@dataclass(slots=True)
class Peer:
    """A peer's entrance and how it is spoken to."""

    cluster: str
    address: str
    sni: str
    allowed: frozenset[str]
    xds_clusters: set[str] = field(default_factory=set)


def known_peers(in_force: Mapping[PieceId, Piece]) -> list[Peer]:
    """Peers that routes in force lead to, by cluster and address."""
    found: dict[tuple[str, str], Peer] = {}
    for piece_id, piece in in_force.items():
        cluster = in_force.get(PieceId(Kind.CLUSTERS, piece_id.name))
        tls = cluster.body.get("peer_tls") if cluster else None
        if piece_id.kind is not Kind.ENDPOINTS or tls is None:
            continue
        for locality in piece.body["localities"]:
            for endpoint in locality["endpoints"]:
                if endpoint.get("peer"):
                    key = (locality["cluster_id"], endpoint["address"])
                    peer = found.setdefault(
                        key, Peer(*key, tls["sni"], frozenset(tls["allowed_spiffe"]))
                    )
                    peer.xds_clusters.add(piece_id.name)
    return [found[key] for key in sorted(found)]


async def reachability(
    in_force: Mapping[PieceId, Piece], identity: IdentityFiles | None, stats: Mapping[str, Any]
) -> dict[str, Any]:
    """Try every known peer; what came of it, and what the core thinks of it meanwhile."""
    peers = known_peers(in_force)
    down = {it["address"] for it in stats.get("endpoints", ()) if it["down"]}
    turn = asyncio.Semaphore(AT_ONCE)
    bundle = in_force.get(TRUST_BUNDLE)
    authorities = str(bundle.body["ca_pem"]) if bundle else ""

    async def one(peer: Peer) -> dict[str, Any]:
        async with turn:
            began = time.monotonic()
            why = await _why_not(peer, identity, authorities)
        return {
            "cluster": peer.cluster,
            "address": peer.address,
            "reached": why is None,
            "why": why,
            "took_ms": round((time.monotonic() - began) * 1000, 1),
            "down": peer.address in down,
        }

    results = await asyncio.gather(*(one(peer) for peer in peers[:PEERS_MAX]))
    return {"peers": results, "left_out": max(0, len(peers) - PEERS_MAX)}


async def _why_not(peer: Peer, identity: IdentityFiles | None, authorities: str) -> str | None:
    """Why ``peer`` cannot be spoken to, in words; ``None``: it can."""
    if identity is None:
        return "this gateway was started without an identity (--identity-cert and its fellows)"
    try:
        context = _context(identity, authorities)
    except (OSError, ValueError) as error:
        return f"our own identity cannot be used: {error}"
    try:
        async with asyncio.timeout(TRY_S):
            return await _greet(peer, context)
    except TimeoutError:
        return f"no answer within {TRY_S:g} s"
    except ssl.SSLError as error:
        return _tls_words(error)
    except OSError as error:
        return f"no connection: {error.strerror or error}"


def _context(identity: IdentityFiles, authorities: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=authorities)
    context.load_cert_chain(identity.certificate, identity.private_key)
    return context


async def _greet(peer: Peer, context: ssl.SSLContext) -> str | None:
    host, _, port = peer.address.rpartition(":")
    reader, writer = await asyncio.open_connection(
        host.strip("[]"), int(port), ssl=context, server_hostname=peer.sni
    )
    try:
        uris = _uris(writer.get_extra_info("peercert"))
        if peer.allowed and not uris & peer.allowed:
            shown = ", ".join(sorted(uris)) or "none"
            return f"it shows the identity {shown}, expected {', '.join(sorted(peer.allowed))}"
        writer.write(HELLO)
        await writer.drain()
        head = await reader.read(SETTINGS_HEAD)
        return None if head else "it closed the connection, as one does that refuses a certificate"
    finally:
        writer.transport.abort()


def _uris(certificate: Mapping[str, Any] | None) -> set[str]:
    names = (certificate or {}).get("subjectAltName", ())
    return {value for kind, value in names if kind == "URI"}


def _tls_words(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    detail = getattr(error, "verify_message", "") or reason.replace("_", " ").lower()
    words = next((text for name, text in PLAIN.items() if name in reason), "TLS failed")
    return f"{words}: {detail}"
