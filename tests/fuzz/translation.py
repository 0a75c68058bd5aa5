"""xDS ingest of the gateway's shell: resources of our own control plane, with places changed.

Whatever comes, ``translate`` gives a piece or refuses with words and a path; it never fails in
another way, gives the same answer twice, and gives nothing that cannot be sent to the core.
"""

from __future__ import annotations

import json
from functools import cache

from google.protobuf import any_pb2
from google.protobuf.message import Message

from federation.wire.xds import NodeView, to_resources
from gateway.xds_translate import Kind, Piece, UnsupportedFieldError, translate
from tests.fuzz.mutation import Tape, mutate
from tests.golden.test_golden import CASES, CERTIFICATE, federation
from tests.testkit.routing import certificate, compiled, parse

CHANGES_MAX = 6


@cache
def resources() -> tuple[tuple[Kind, str, Message], ...]:
    """Every resource that the golden cases come to."""
    found = []
    for case in sorted(CASES.iterdir()):
        text = (case / "in.yaml").read_text()
        certificates = [certificate(name) for name in CERTIFICATE.findall(text)]
        result = compiled([*parse(text), *certificates], federation(case / "federation.yaml"))
        made = to_resources(result.snapshot, NodeView())
        for kind, by_name in (
            (Kind.LISTENERS, made.listeners),
            (Kind.ROUTE_TABLES, made.routes),
            (Kind.CLUSTERS, made.clusters),
            (Kind.ENDPOINTS, made.endpoints),
            (Kind.SECRETS, made.secrets),
        ):
            found += [(kind, name, message) for name, message in by_name.items()]
    return tuple(found)


def check(decisions: bytes) -> Piece | UnsupportedFieldError:
    """One resource, changed as ``decisions`` say; what became of it."""
    tape = Tape(decisions)
    kind, name, original = tape.one_of(resources())
    message = type(original)()
    message.CopyFrom(original)
    for _ in range(CHANGES_MAX):
        if not tape:
            break
        mutate(message, tape)
    packed = any_pb2.Any()
    packed.Pack(message)
    first, second = _outcome(kind, name, packed), _outcome(kind, name, packed)
    assert str(first) == str(second) != ""
    return first


def _outcome(kind: Kind, name: str, packed: any_pb2.Any) -> Piece | UnsupportedFieldError:
    try:
        piece = translate(kind, name, packed)
    except UnsupportedFieldError as refusal:
        return refusal
    json.dumps(piece.body, allow_nan=False)
    return piece
