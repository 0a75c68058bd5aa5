"""gRPC's interop cases with grpcio's asyncio client, as their public descriptions have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc

from tests.conformance import protos
from tests.conformance.backends import SERVICE
from tests.conformance.results import Case, Result, Transport
from tests.conformance.rig import SERVER_NAME, Rig
from tests.testkit.processes import HOST

CASE_TIMEOUT_S = 30
REQUEST_SIZES = (27182, 8, 1828, 45904)
RESPONSE_SIZES = (31415, 9, 2653, 58979)
STATUS_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
METADATA = (
    (protos.INITIAL_KEY, "test_initial_metadata_value"),
    (protos.TRAILING_KEY, b"\xab\xab\xab"),
)


class Client:
    """The service's methods on a channel."""

    def __init__(self, channel: grpc.aio.Channel, messages: SimpleNamespace) -> None:
        m = self.messages = messages
        self._channel = channel
        self.empty = self.method("unary_unary", "EmptyCall", m.Empty)
        self.unary = self.method("unary_unary", "UnaryCall", m.SimpleResponse)
        self.output = self.method(
            "unary_stream", "StreamingOutputCall", m.StreamingOutputCallResponse
        )
        self.input = self.method("stream_unary", "StreamingInputCall", m.StreamingInputCallResponse)
        self.duplex = self.method("stream_stream", "FullDuplexCall", m.StreamingOutputCallResponse)

    def method(self, kind: str, name: str, answer: Any, *, service: str = SERVICE) -> Any:
        """A method by its name."""
        return getattr(self._channel, kind)(
            f"/{service}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    def payload(self, size: int) -> Any:
        """``size`` zeros."""
        return self.messages.Payload(body=bytes(size))

    def asking_for(self, *sizes: int, payload_size: int = 0, **more: Any) -> Any:
        """A streaming request for answers of these sizes."""
        m = self.messages
        return m.StreamingOutputCallRequest(
            response_parameters=[m.ResponseParameters(size=size) for size in sizes],
            payload=self.payload(payload_size),
            **more,
        )


async def empty_unary(client: Client) -> None:
    assert await client.empty(client.messages.Empty()) == client.messages.Empty()


async def large_unary(client: Client) -> None:
    request = client.messages.SimpleRequest(response_size=314159, payload=client.payload(271828))
    assert len((await client.unary(request)).payload.body) == 314159


async def client_streaming(client: Client) -> None:
    requests = (
        client.messages.StreamingInputCallRequest(payload=client.payload(size))
        for size in REQUEST_SIZES
    )
    assert (await client.input(requests)).aggregated_payload_size == sum(REQUEST_SIZES)


async def server_streaming(client: Client) -> None:
    answers = client.output(client.asking_for(*RESPONSE_SIZES))
    assert tuple([len(answer.payload.body) async for answer in answers]) == RESPONSE_SIZES


async def ping_pong(client: Client) -> None:
    call = client.duplex()
    for asked, sent in zip(RESPONSE_SIZES, REQUEST_SIZES, strict=True):
        await call.write(client.asking_for(asked, payload_size=sent))
        assert len((await call.read()).payload.body) == asked
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def empty_stream(client: Client) -> None:
    async def nothing() -> AsyncIterator[Any]:
        return
        yield

    assert [answer async for answer in client.duplex(nothing())] == []


async def timeout_on_sleeping_server(client: Client) -> None:
    call = client.duplex(timeout=0.001)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def cancel_after_begin(client: Client) -> None:
    call = client.input()
    assert call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def cancel_after_first_response(client: Client) -> None:
    call = client.duplex()
    await call.write(client.asking_for(RESPONSE_SIZES[0], payload_size=REQUEST_SIZES[0]))
    assert len((await call.read()).payload.body) == RESPONSE_SIZES[0]
    assert call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def status_code_and_message(client: Client) -> None:
    status = {"code": 2, "message": "test status message"}
    unary = client.unary(client.messages.SimpleRequest(response_status=status))
    assert await _ending(unary) == (grpc.StatusCode.UNKNOWN, status["message"])
    stream = client.duplex()
    await stream.write(client.asking_for(response_status=status))
    await stream.done_writing()
    assert await _ending(stream) == (grpc.StatusCode.UNKNOWN, status["message"])


async def special_status_message(client: Client) -> None:
    status = {"code": 2, "message": STATUS_MESSAGE}
    call = client.unary(client.messages.SimpleRequest(response_status=status))
    assert await _ending(call) == (grpc.StatusCode.UNKNOWN, STATUS_MESSAGE)


async def custom_metadata(client: Client) -> None:
    unary = client.unary(client.messages.SimpleRequest(response_size=1), metadata=METADATA)
    assert len((await unary).payload.body) == 1
    stream = client.duplex(metadata=METADATA)
    await stream.write(client.asking_for(1, payload_size=1))
    await stream.done_writing()
    assert len([answer async for answer in stream]) == 1
    for call in (unary, stream):
        (initial_key, initial), (trailing_key, trailing) = METADATA
        assert dict(await call.initial_metadata())[initial_key] == initial
        assert dict(await call.trailing_metadata())[trailing_key] == trailing


async def unimplemented_method(client: Client) -> None:
    method = client.method("unary_unary", "UnimplementedCall", client.messages.Empty)
    assert await method(client.messages.Empty()).code() is grpc.StatusCode.UNIMPLEMENTED


async def unimplemented_service(client: Client) -> None:
    service = "grpc.testing.UnimplementedService"
    empty = client.messages.Empty
    method = client.method("unary_unary", "UnimplementedCall", empty, service=service)
    assert await method(empty()).code() is grpc.StatusCode.UNIMPLEMENTED


CASES: tuple[Callable[[Client], Awaitable[None]], ...] = (
    empty_unary,
    large_unary,
    client_streaming,
    server_streaming,
    ping_pong,
    empty_stream,
    timeout_on_sleeping_server,
    cancel_after_begin,
    cancel_after_first_response,
    status_code_and_message,
    special_status_message,
    custom_metadata,
    unimplemented_method,
    unimplemented_service,
)


async def run(rig: Rig, transport: Transport, *, descriptors: Path, server: str) -> Result:
    """All cases, on one channel."""
    messages = protos.load(descriptors)
    async with _channel(rig, transport) as channel:
        client = Client(channel, messages)
        done = [Case(case.__name__, await _fault(case, client)) for case in CASES]
    return Result(f"grpcio asyncio client, {server} server", transport, tuple(done))


async def _fault(case: Callable[[Client], Awaitable[None]], client: Client) -> str | None:
    try:
        async with asyncio.timeout(CASE_TIMEOUT_S):
            await case(client)
    except (AssertionError, grpc.RpcError, TimeoutError) as fault:
        return repr(fault)[-500:]
    return None


def _channel(rig: Rig, transport: Transport) -> grpc.aio.Channel:
    address = f"{HOST}:{rig.port(transport)}"
    if transport is Transport.PLAIN:
        return grpc.aio.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(rig.authority.read_bytes())
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    return grpc.aio.secure_channel(address, credentials, options=options)


async def _ending(call: Any) -> tuple[grpc.StatusCode, str]:
    return await call.code(), await call.details()
