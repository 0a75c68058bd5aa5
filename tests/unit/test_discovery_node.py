"""What a node says about itself, and the messages when it says it wrong."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2

from federation.discovery.node import NodeIdentity, read_node
from federation.discovery.subscription import SubscriptionError


def node(name: str = "gw-1", cluster: str = "us-west-1", **metadata: Any) -> base_pb2.Node:
    message = base_pb2.Node(id=name, cluster=cluster)
    message.metadata.update(metadata)
    return message


def test_a_gateway_is_read_whole() -> None:
    read = read_node(
        node(
            kind="gateway",
            address="127.0.0.1",
            port_offset=20000,
            eastwest_address="127.0.0.1:35444",
        ),
        cluster="us-west-1",
    )
    assert read == NodeIdentity(
        "gw-1", "us-west-1", "gateway", "127.0.0.1", 20000, "127.0.0.1:35444"
    )


def test_a_node_without_metadata_is_an_envoy_on_all_addresses() -> None:
    read = read_node(node(), cluster="us-west-1")
    assert (read.kind, read.address, read.port_offset) == ("envoy", "0.0.0.0", 0)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (node(name=""), "node.id: is empty"),
        (node(cluster="us-east-1"), '"us-east-1" asked the agent of cluster "us-west-1"'),
        (node(kind="proxyless"), "node.metadata.kind: must be one of"),
        (node(port_offset=1.5), "node.metadata.port_offset: must be a whole number"),
        (node(port_offset=70000), "node.metadata.port_offset: must be a whole number"),
        (node(port_offset=True), "node.metadata.port_offset: must be a whole number"),
        (node(address=3), "node.metadata.address: must be a string"),
    ],
)
def test_a_wrong_field_is_named(message: base_pb2.Node, text: str) -> None:
    with pytest.raises(SubscriptionError) as refusal:
        read_node(message, cluster="us-west-1")
    assert text in str(refusal.value)


@pytest.mark.parametrize("serves", ["all", "east-west", "gateway:app/edge.v2"])
def test_what_a_node_serves_is_read(serves: str) -> None:
    assert read_node(node(serves=serves), cluster="us-west-1").serves == serves


def test_a_node_that_says_nothing_serves_everything() -> None:
    assert read_node(node(), cluster="us-west-1").serves == "all"


@pytest.mark.parametrize("serves", ["none", "gateway:edge", "gateway:app/Edge", "gateway:a/b/c"])
def test_what_cannot_be_served_is_refused(serves: str) -> None:
    with pytest.raises(SubscriptionError, match=r"node\.metadata\.serves: must be `all`, `east"):
        read_node(node(serves=serves), cluster="us-west-1")
