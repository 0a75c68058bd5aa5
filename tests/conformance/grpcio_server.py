"""The interop service on grpcio's asyncio server; started with HOST:PORT and DESCRIPTORS."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc

from tests.conformance import protos
from tests.conformance.backends import SERVICE

Context = Any


class TestService:
    """grpc.testing.TestService as its interop cases ask for it."""

    def __init__(self, messages: SimpleNamespace) -> None:
        self._messages = messages

    def handler(self) -> grpc.GenericRpcHandler:
        """The four methods that the cases use."""
        m = self._messages
        kinds = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        unary, answers_stream = kinds
        asks_stream = grpc.stream_unary_rpc_method_handler
        both = grpc.stream_stream_rpc_method_handler
        out = m.StreamingOutputCallRequest
        methods = {
            "EmptyCall": unary(self.empty, m.Empty.FromString, _encode),
            "UnaryCall": unary(self.unary, m.SimpleRequest.FromString, _encode),
            "StreamingOutputCall": answers_stream(self.output, out.FromString, _encode),
            "StreamingInputCall": asks_stream(
                self.input, m.StreamingInputCallRequest.FromString, _encode
            ),
            "FullDuplexCall": both(self.duplex, out.FromString, _encode),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def empty(self, request: Any, context: Context) -> Any:
        return self._messages.Empty()

    async def unary(self, request: Any, context: Context) -> Any:
        await _echo_metadata(context)
        await _fail_if_asked(request, context)
        return self._messages.SimpleResponse(payload=self._payload(request.response_size))

    async def output(self, request: Any, context: Context) -> AsyncIterator[Any]:
        for part in request.response_parameters:
            await asyncio.sleep(part.interval_us / 1e6)
            yield self._messages.StreamingOutputCallResponse(payload=self._payload(part.size))

    async def input(self, requests: AsyncIterator[Any], context: Context) -> Any:
        size = 0
        async for request in requests:
            size += len(request.payload.body)
        return self._messages.StreamingInputCallResponse(aggregated_payload_size=size)

    async def duplex(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        await _echo_metadata(context)
        async for request in requests:
            await _fail_if_asked(request, context)
            async for answer in self.output(request, context):
                yield answer

    def _payload(self, size: int) -> Any:
        return self._messages.Payload(body=bytes(size))


def _encode(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


async def _echo_metadata(context: Context) -> None:
    asked = dict(context.invocation_metadata())
    if protos.INITIAL_KEY in asked:
        await context.send_initial_metadata(((protos.INITIAL_KEY, asked[protos.INITIAL_KEY]),))
    if protos.TRAILING_KEY in asked:
        context.set_trailing_metadata(((protos.TRAILING_KEY, asked[protos.TRAILING_KEY]),))


async def _fail_if_asked(request: Any, context: Context) -> None:
    if number := request.response_status.code:
        code = next(status for status in grpc.StatusCode if status.value[0] == number)
        await context.abort(code, request.response_status.message)


async def main(address: str, descriptors: Path) -> None:
    """Serve until ended."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((TestService(protos.load(descriptors)).handler(),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
