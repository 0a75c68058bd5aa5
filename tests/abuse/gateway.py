"""``fedctl standalone`` with limits small enough to be reached in a moment.

Decides: how many clients may connect, how long one may take to begin, and how much may be held for
them. All else is as shipped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from federation.cli.standalone import StandaloneSettings, serve
from federation.model.base import ClusterId
from gateway import _native

CONNECTIONS_MAX = 400
HANDSHAKE_TIMEOUT_MS = 1_500
BUFFERS_MAX_BYTES = 48 << 20


def main(arguments: list[str]) -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--manifests", type=Path, required=True)
    parser.add_argument("--admin", required=True)
    asked = parser.parse_args(arguments)
    core = _native.Core(
        json.dumps(
            {
                "max_connections": CONNECTIONS_MAX,
                "handshake_timeout_ms": HANDSHAKE_TIMEOUT_MS,
                "buffers_max_bytes": BUFFERS_MAX_BYTES,
            }
        ).encode()
    )
    settings = StandaloneSettings(
        manifests=asked.manifests,
        cluster=ClusterId("standalone"),
        address="127.0.0.1",
        port_offset=0,
        workers=1,
        admin=asked.admin,
        gateway_classes=frozenset({"istio"}),
    )
    asyncio.run(serve(settings, core=core, say=print))


if __name__ == "__main__":
    main(sys.argv[1:])
