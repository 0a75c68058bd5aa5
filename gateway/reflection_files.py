"""File descriptors of one backend: asked for by gRPC reflection, and looked up by symbol.

Decides: how a backend is asked (v1 first, v1alpha where it has no v1) and what is kept of it.
Leaves to others: which backends there are and whose answer counts (``reflection``).
Invariants: what one backend may cost is bounded: ``FILES_MAX`` files, ``BYTES_MAX`` bytes and
``ASK_S`` seconds; a backend that gives more is refused whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

FILES_MAX = 4_000
BYTES_MAX = 32 << 20
ASK_S = 5.0
"""Time in which a backend must have answered all that is asked of it."""

METHODS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
"""Both versions have the same messages on the wire."""

_TYPES = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}

Request: TypeAlias = reflection_pb2.ServerReflectionRequest
Response: TypeAlias = reflection_pb2.ServerReflectionResponse


class BackendError(Exception):
    """A backend did not say what it offers; the message says why."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method, and how it streams: ``unary``, ``client_stream`` and so on."""

    service: str
    method: str
    type: str


@dataclass(slots=True)
class Files:
    """Services of a backend, its files by name, and the file of each symbol."""

    services: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)
    extensions: dict[tuple[str, int], str] = field(default_factory=dict)
    _needs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, body: bytes) -> None:
        """Keep a file. Raises ``BackendError`` at a bound, or when it is none."""
        if len(self.files) >= FILES_MAX or self.size + len(body) > BYTES_MAX:
            raise BackendError(f"offers more than {FILES_MAX} files or {BYTES_MAX} bytes")
        try:
            file = descriptor_pb2.FileDescriptorProto.FromString(body)
        except DecodeError as failure:
            raise BackendError(f"sent a file that cannot be decoded: {failure}") from failure
        self.files[file.name] = body
        self._needs[file.name] = tuple(file.dependency)
        for symbol in _symbols(file):
            self.symbols.setdefault(symbol, file.name)
        for extendee, number in _extensions(file):
            self.extensions.setdefault((extendee, number), file.name)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(body) for body in self.files.values())

    @property
    def methods(self) -> list[Method]:
        """The methods of its services."""
        names = dict.fromkeys(self.symbols[it] for it in self.services if it in self.symbols)
        files = [descriptor_pb2.FileDescriptorProto.FromString(self.files[it]) for it in names]
        return [it for file in files for it in _methods(file) if it.service in self.services]

    @property
    def missing(self) -> list[str]:
        """Files that others import and that are not there."""
        needed = {name for names in self._needs.values() for name in names}
        return sorted(needed - self.files.keys())

    def with_imports(self, name: str) -> list[bytes]:
        """The file and all that it imports, itself first, each once."""
        order: dict[str, None] = {}
        todo = [name]
        while todo:
            current = todo.pop()
            if current in self.files and current not in order:
                order[current] = None
                todo += self._needs.get(current, ())
        return [self.files[entry] for entry in order]


async def ask_backend(address: str, wanted: Sequence[str] | None) -> Files:
    """What the server at ``address`` offers; ``wanted`` services only, or (``None``) all.

    Raises ``BackendError``.
    """
    options = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
    try:
        async with asyncio.timeout(ASK_S), grpc.aio.insecure_channel(address, options) as channel:
            for method in METHODS:
                try:
                    return await _ask(channel, method, wanted)
                except grpc.aio.AioRpcError as failure:
                    if failure.code() is not grpc.StatusCode.UNIMPLEMENTED:
                        raise BackendError(f"{failure.code().name}: {failure.details()}") from None
            raise BackendError("has no reflection")
    except TimeoutError:
        raise BackendError(f"did not answer within {ASK_S} s") from None


async def _ask(channel: grpc.aio.Channel, method: str, wanted: Sequence[str] | None) -> Files:
    call = channel.stream_stream(
        method,
        request_serializer=Request.SerializeToString,
        response_deserializer=Response.FromString,
    )()
    talk = _Talk(call)
    try:
        listed = await talk.say(Request(list_services="*"))
        offered = [entry.name for entry in listed.list_services_response.service]
        found = Files(services=tuple(name for name in offered if wanted is None or name in wanted))
        for service in found.services:
            if service not in found.symbols:
                await _keep(found, talk, Request(file_containing_symbol=service))
        while missing := found.missing:
            for name in missing:
                if name not in found.files:
                    await _keep(found, talk, Request(file_by_filename=name))
            if found.missing == missing:
                break
        await call.done_writing()
        return found
    finally:
        call.cancel()


async def _keep(found: Files, talk: _Talk, request: Request) -> None:
    response = await talk.say(request)
    for body in response.file_descriptor_response.file_descriptor_proto:
        found.add(body)


class _Talk:
    """Questions and answers in turn on one stream."""

    def __init__(self, call: grpc.aio.StreamStreamCall[Request, Response]) -> None:
        self._call = call
        self._answers: AsyncIterator[Response] = aiter(call)

    async def say(self, request: Request) -> Response:
        await self._call.write(request)
        try:
            return await anext(self._answers)
        except StopAsyncIteration:
            # The status says why, as an error if it is one.
            code, details = await self._call.code(), await self._call.details()
            if code is grpc.StatusCode.UNIMPLEMENTED:
                raise grpc.aio.AioRpcError(
                    code, grpc.aio.Metadata(), grpc.aio.Metadata(), details
                ) from None
            raise BackendError(f"ended its answers: {code}: {details}") from None


def _symbols(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    prefix = f"{file.package}." if file.package else ""
    for service in file.service:
        yield prefix + service.name
        yield from (f"{prefix}{service.name}.{method.name}" for method in service.method)
    yield from (prefix + enum.name for enum in file.enum_type)
    yield from (prefix + extension.name for extension in file.extension)
    yield from _of_messages(file.message_type, prefix)


def _methods(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Method]:
    prefix = f"{file.package}." if file.package else ""
    for service in file.service:
        for method in service.method:
            streams = (method.client_streaming, method.server_streaming)
            yield Method(prefix + service.name, method.name, _TYPES[streams])


def _of_messages(messages: Iterable[descriptor_pb2.DescriptorProto], prefix: str) -> Iterator[str]:
    for message in messages:
        name = prefix + message.name
        yield name
        yield from (f"{name}.{entry.name}" for entry in message.field)
        yield from (f"{name}.{entry.name}" for entry in message.enum_type)
        yield from (f"{name}.{entry.name}" for entry in message.extension)
        yield from _of_messages(message.nested_type, f"{name}.")


def _extensions(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, int]]:
    todo = list(file.message_type)
    found = list(file.extension)
    while todo:
        message = todo.pop()
        found += message.extension
        todo += message.nested_type
    return ((entry.extendee.lstrip("."), entry.number) for entry in found)
