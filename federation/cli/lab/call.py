"""``fedctl lab call``: a few calls by hand through a region's gateways, and who answered them.

Decides: what is called, with which metadata, and how the answers are counted.
Leaves to others: the steady load (``client``), what demo services answer (``demo``).
Invariants: one call at a time, in turn over the region's gateways; an error is an answer, counted
with its status and message like the others.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import grpc

from federation.cli.lab.client import server_of
from federation.cli.lab.plan import ClusterPlan, LabPlan

CALL_TIMEOUT_S = 10.0
HTTPS_PORT = 443


def call(
    plan: LabPlan,
    region: str,
    method: str,
    *,
    authority: str,
    metadata: Sequence[tuple[str, str]],
    count: int,
) -> list[tuple[str, int]]:
    """Call ``method`` ``count`` times from ``region``: who answered, most first.

    Requests are empty messages, which every demo method takes.
    """
    channels = _channels(plan, plan.cluster(region), authority)
    answers: collections.Counter[str] = collections.Counter()
    for number in range(count):
        answers[_once(channels[number % len(channels)], method, metadata)] += 1
    for channel in channels:
        channel.close()
    return answers.most_common()


def parse_header(text: str) -> tuple[str, str]:
    """``name:value`` as metadata. Raises ``ValueError``."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f'-H wants NAME:VALUE, got "{text}"')
    return name.strip().lower(), value.strip()


def _channels(plan: LabPlan, cluster: ClusterPlan, authority: str) -> list[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials(plan.ca.read_bytes())
    options = (
        ("grpc.ssl_target_name_override", authority),
        ("grpc.default_authority", authority),
    )
    return [
        grpc.secure_channel(gateway.listener(HTTPS_PORT), credentials, options=options)
        for gateway in cluster.gateways
    ]


def _once(channel: grpc.Channel, method: str, metadata: Sequence[tuple[str, str]]) -> str:
    send: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{method.strip('/')}")
    try:
        _, answered = send.with_call(b"", timeout=CALL_TIMEOUT_S, metadata=tuple(metadata))
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    cluster, service = server_of(answered.initial_metadata())
    return f"{service} in {cluster}"
