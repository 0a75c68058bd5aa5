"""Message classes of grpc.testing, made from descriptors at run time: nothing is generated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

INITIAL_KEY = "x-grpc-test-echo-initial"
TRAILING_KEY = "x-grpc-test-echo-trailing-bin"

NAMES = (
    "Empty",
    "Payload",
    "SimpleRequest",
    "SimpleResponse",
    "ResponseParameters",
    "StreamingInputCallRequest",
    "StreamingInputCallResponse",
    "StreamingOutputCallRequest",
    "StreamingOutputCallResponse",
)


def load(descriptors: Path) -> SimpleNamespace:
    """The messages by name."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return SimpleNamespace(
        **{
            name: message_factory.GetMessageClass(
                pool.FindMessageTypeByName(f"grpc.testing.{name}")
            )
            for name in NAMES
        }
    )
