"""The backend: answers, floods, holds streams open, and tells which odd requests it got.

Started with HOST:PORT, and ``attacked`` for the one that attackers call: it has less of the
processor, as they have. Messages are plain bytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

SERVICE = "abuse.Backend"
ECHO = f"/{SERVICE}/Echo"
FLOOD = f"/{SERVICE}/Flood"
HOLD = f"/{SERVICE}/Hold"
IGNORE = f"/{SERVICE}/Ignore"
CASES = f"/{SERVICE}/Cases"
CASE_KEY = "x-case"

CALM_SERVICE = "abuse.Calm"
"""The same at another backend."""
CALM_ECHO = f"/{CALM_SERVICE}/Echo"
NICENESS = 10

PART_BYTES = 64 << 10
CASES_MAX = 1_000


class Backend:
    """See the module."""

    def __init__(self) -> None:
        self._cases: list[str] = []

    def handler(self, service: str) -> grpc.GenericRpcHandler:
        """The five methods."""
        return grpc.method_handlers_generic_handler(
            service,
            {
                "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
                "Flood": grpc.unary_stream_rpc_method_handler(self.flood),
                "Hold": grpc.stream_stream_rpc_method_handler(self.hold),
                "Ignore": grpc.stream_stream_rpc_method_handler(self.ignore),
                "Cases": grpc.unary_unary_rpc_method_handler(self.cases),
            },
        )

    async def echo(self, request: bytes, context: Any) -> bytes:
        """The request; a case that it carries is noted."""
        metadata = dict(context.invocation_metadata())
        if case := metadata.get(CASE_KEY):
            self._cases = [*self._cases, str(case)][-CASES_MAX:]
        return request

    async def flood(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        """As many bytes as the request says, in parts."""
        for _ in range(int(request) // PART_BYTES):
            yield bytes(PART_BYTES)

    async def hold(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Nothing, until the client ends its side."""
        async for _ in requests:
            pass
        yield b""

    async def ignore(self, _requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Nothing, without reading what the client sends, until the call is cancelled."""
        await asyncio.Event().wait()
        yield b""

    async def cases(self, _request: bytes, _context: Any) -> bytes:
        """The cases seen so far."""
        return json.dumps(self._cases).encode()


async def main(address: str) -> None:
    """Serve until ended."""
    server = grpc.aio.server()
    backend = Backend()
    server.add_generic_rpc_handlers((backend.handler(SERVICE), backend.handler(CALM_SERVICE)))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    if "attacked" in sys.argv:
        os.nice(NICENESS)
    asyncio.run(main(sys.argv[1]))
