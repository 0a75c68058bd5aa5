"""What a gateway says of its certificates, and of the peers it reaches: real TLS on loopback."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from federation.cli.lab.authority import Authority, KeyPair, write_private
from gateway.peers import reachability
from gateway.runtime import IDENTITY, TRUST_BUNDLE
from gateway.settings import IdentityFiles
from gateway.trust import certificates
from gateway.xds_translate import Kind, Piece, PieceId, secret_piece

EAST = "spiffe://clusterset.local/ns/federation/sa/gateway/cluster/us-east-1"


def files(folder: Path, pair: KeyPair, authority: Authority) -> IdentityFiles:
    folder.mkdir(exist_ok=True)
    found = IdentityFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    found.certificate.write_bytes(pair.certificate_pem)
    write_private(found.private_key, pair.key_pem)
    found.trust_bundle.write_bytes(authority.certificate_pem)
    return found


@asynccontextmanager
async def peer(folder: Path, pair: KeyPair, trusted: Authority) -> AsyncIterator[str]:
    """A gateway's entrance as far as TLS and the first frame; its address."""
    paths = files(folder, pair, trusted)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=paths.trust_bundle)
    context.load_cert_chain(paths.certificate, paths.private_key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def in_force(address: str, trusted: Authority) -> dict[PieceId, Piece]:
    tls = {"allowed_spiffe": [EAST], "sni": "east-west.clusterset.local"}
    endpoint = {"address": address, "peer": True}
    local = {"address": "127.0.0.1:1", "peer": False}
    pieces = [
        Piece(PieceId(Kind.CLUSTERS, "import/app/users"), {"peer_tls": tls}),
        Piece(
            PieceId(Kind.ENDPOINTS, "import/app/users"),
            {
                "localities": [
                    {"cluster_id": "us-east-1", "endpoints": [endpoint]},
                    {"cluster_id": "us-west-1", "endpoints": [local]},
                ]
            },
        ),
        secret_piece(TRUST_BUNDLE.name, ca_pem=trusted.certificate_pem.decode()),
    ]
    return {piece.id: piece for piece in pieces}


async def tried(address: str, trusted: Authority, identity: IdentityFiles | None) -> dict[str, Any]:
    stats = {"endpoints": [{"address": address, "down": True}]}
    found = await reachability(in_force(address, trusted), identity, stats)
    (only,) = found["peers"]
    assert (only["cluster"], only["address"], only["down"]) == ("us-east-1", address, True)
    return dict(only)


@pytest.fixture
def authority() -> Authority:
    return Authority("clusterset")


async def test_a_peer_that_answers_is_reached(tmp_path: Path, authority: Authority) -> None:
    mine = files(tmp_path, authority.issue_gateway("west", cluster="us-west-1"), authority)
    theirs = authority.issue_gateway("east", cluster="us-east-1")
    async with peer(tmp_path / "peer", theirs, authority) as address:
        found = await tried(address, authority, mine)
    assert (found["reached"], found["why"]) == (True, None)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("their authority", "its certificate is not trusted here"),
        ("our authority", "it closed the connection, as one does that refuses a certificate"),
        ("their identity", "it shows the identity spiffe://"),
        ("they expired", "its certificate is not trusted here: certificate has expired"),
        ("gone", "no connection"),
    ],
)
async def test_why_a_peer_is_not_reached(
    tmp_path: Path, authority: Authority, fault: str, words: str
) -> None:
    other = Authority("somebody else's")
    mine = files(tmp_path, authority.issue_gateway("west", cluster="us-west-1"), authority)
    signer = other if fault == "their authority" else authority
    theirs = signer.issue_gateway(
        "east",
        cluster="eu-west-1" if fault == "their identity" else "us-east-1",
        lifetime=dt.timedelta(minutes=-1 if fault == "they expired" else 60),
    )
    trusted = other if fault == "our authority" else authority
    async with peer(tmp_path / "peer", theirs, trusted) as address:
        if fault != "gone":
            found = await tried(address, authority, mine)
    if fault == "gone":
        found = await tried(address, authority, mine)
    assert not found["reached"]
    assert words in found["why"]


async def test_without_an_identity_no_peer_is_reached(authority: Authority) -> None:
    found = await tried("127.0.0.1:1", authority, None)
    assert "started without an identity" in found["why"]


def test_certificates_are_told_without_their_keys(authority: Authority) -> None:
    pair = authority.issue_gateway("west", cluster="us-west-1")
    pieces = [
        secret_piece(
            IDENTITY.name,
            certificate_pem=pair.certificate_pem.decode(),
            private_key_pem=pair.key_pem.decode(),
        ),
        secret_piece(TRUST_BUNDLE.name, ca_pem=authority.certificate_pem.decode()),
        secret_piece("broken", certificate_pem="-----BEGIN CERTIFICATE-----\nnone"),
    ]
    told = certificates({piece.id: piece for piece in pieces})
    by_name = {entry["secret"]: entry for entry in told}
    (leaf,) = by_name[IDENTITY.name]["certificate"]
    assert leaf["uris"] == [EAST.replace("us-east-1", "us-west-1")]
    assert by_name[TRUST_BUNDLE.name]["authorities"][0]["subject"] == "CN=clusterset"
    assert "unreadable" in by_name["broken"]["certificate"][0]
    assert "PRIVATE KEY" not in json.dumps(told)
