"""gRPC reflection through the gateway: the union of what a host's routes lead to.

Decides: which backends are asked, whose answer counts, and how long answers are kept.
Leaves to others: asking one backend (``reflection_files``), routes (``reach``), the server
(``own_services``).
Invariants: a service is shown only where a route leads to it, from the first cluster in the order
of routes that has it; files of one answer come from one backend, so that backends with different
files of one name do not mix; a backend that does not answer is left out, logged and counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.reach import OWN_SERVICES, REFLECTION, Way, ways_at
from gateway.reflection_files import BackendError, Files, Method, Request, Response, ask_backend
from gateway.xds_translate import Kind, Piece, PieceId

log = logging.getLogger("gateway.reflection")

KEPT_S = 10.0
"""How long a backend's answer counts."""

KEPT_FAILED_S = 1.0
"""How soon a backend that did not answer is asked again."""

BACKENDS_MAX = 256
"""Clusters of a host that are asked, and answers kept; further ones are left out."""

ADDRESSES_MAX = 3
"""Endpoints of a cluster that are asked in turn until one answers."""


@dataclass(slots=True)
class _Kept:
    until_s: float
    files: Files


@dataclass(slots=True)
class Reflection:
    """Answers for all hosts; ``in_force`` gives the configuration of the moment."""

    in_force: Callable[[], Mapping[PieceId, Piece]]
    learned: Callable[[Sequence[Method]], None] = lambda _: None
    """Told all methods of backends that were asked, when there are others than before; it may take
    its time."""

    left_out: int = 0
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _methods: dict[str, tuple[Method, ...]] = field(default_factory=dict)
    _asking: dict[str, asyncio.Task[Files]] = field(default_factory=dict)

    async def answers(
        self, table: str, host: str, requests: AsyncIterator[Request]
    ) -> AsyncIterator[Response]:
        """The answers on one stream that came by virtual host ``host`` of ``table``."""
        view: _View | None = None
        async for request in requests:
            if view is None:
                view = await self._view(table, host)
            yield view.answer(request)

    async def _view(self, table: str, host: str) -> _View:
        """What the host offers now; one stream sees one state."""
        ways = ways_at(self.in_force(), table, host)
        clusters = list(dict.fromkeys(name for way in ways for name in way.clusters))
        for name in clusters[BACKENDS_MAX:]:
            self._leave_out(name, f"more than {BACKENDS_MAX} backends")
        clusters = clusters[:BACKENDS_MAX]
        files = await asyncio.gather(*(self._files(name) for name in clusters))
        return _View(ways, dict(zip(clusters, files, strict=True)))

    async def _files(self, cluster: str) -> Files:
        kept = self._kept.get(cluster)
        if kept is not None and time.monotonic() < kept.until_s:
            return kept.files
        task = self._asking.get(cluster)
        if task is None:
            task = asyncio.create_task(self._ask(cluster))
            self._asking[cluster] = task
            task.add_done_callback(lambda _: self._asking.pop(cluster, None))
        return await asyncio.shield(task)

    async def _ask(self, cluster: str) -> Files:
        failures = []
        files, kept_s = Files(), KEPT_S
        for address in self._addresses(cluster)[:ADDRESSES_MAX]:
            try:
                files = await ask_backend(address, None)
                break
            except BackendError as failure:
                failures.append(f"{address} {failure}")
        else:
            kept_s = KEPT_FAILED_S
            self._leave_out(cluster, "; ".join(failures) or "no endpoint in this cluster")
        while len(self._kept) >= BACKENDS_MAX:
            self._kept.pop(next(iter(self._kept)))
        self._kept.pop(cluster, None)
        self._kept[cluster] = _Kept(time.monotonic() + kept_s, files)
        if files.services:
            await self._learn(cluster, tuple(files.methods))
        return files

    async def _learn(self, cluster: str, methods: tuple[Method, ...]) -> None:
        """Keep the methods of a backend for as long as the configuration has its cluster."""
        if self._methods.get(cluster) == methods:
            return
        self._methods[cluster] = methods
        there = {i.name for i in self.in_force() if i.kind is Kind.CLUSTERS}
        self._methods = {name: kept for name, kept in self._methods.items() if name in there}
        known = dict.fromkeys(it for kept in self._methods.values() for it in kept)
        await asyncio.to_thread(self.learned, list(known))

    def _leave_out(self, cluster: str, why: str) -> None:
        self.left_out += 1
        log.warning("reflection: backend left out", extra={"cluster": cluster, "why": why})

    def _addresses(self, cluster: str) -> list[str]:
        """Endpoints here, the healthy first; other clusters' gateways show no reflection."""
        found = [
            (endpoint.get("health", "healthy") != "healthy", endpoint["address"])
            for piece_id, piece in self.in_force().items()
            if piece_id.kind is Kind.ENDPOINTS and piece_id.cluster == cluster
            for locality in piece.body["localities"]
            for endpoint in locality["endpoints"]
            if not endpoint.get("peer")
        ]
        return [address for _, address in sorted(found)]


class _View:
    """What one stream is told."""

    def __init__(self, ways: list[Way], backends: Mapping[str, Files]) -> None:
        self._order = [*backends.values(), own_files()]
        self._owners: dict[str, Files] = dict.fromkeys(OWN_SERVICES, self._order[-1])
        for way in ways:
            for cluster in way.clusters:
                for service in backends[cluster].services if cluster in backends else ():
                    if way.takes(service):
                        self._owners.setdefault(service, backends[cluster])
        self._last: Files | None = None

    def answer(self, request: Request) -> Response:
        """The answer to one question."""
        response = Response(valid_host=request.host, original_request=request)
        match request.WhichOneof("message_request"):
            case "list_services":
                names = sorted(self._owners)
                services = [reflection_pb2.ServiceResponse(name=name) for name in names]
                response.list_services_response.service.extend(services)
            case "file_containing_symbol":
                symbol = request.file_containing_symbol
                self._give(response, self._owner_of(symbol), lambda f: f.symbols.get(symbol))
            case "file_by_filename":
                name = request.file_by_filename
                first = [self._last] if self._last is not None else []
                having = [f for f in (*first, *self._order) if name in f.files]
                self._give(response, having[:1], lambda _: name)
            case "file_containing_extension":
                asked = request.file_containing_extension
                key = (asked.containing_type, asked.extension_number)
                having = [f for f in self._order if key in f.extensions]
                self._give(response, having[:1], lambda f: f.extensions.get(key))
            case "all_extension_numbers_of_type":
                self._give_numbers(response, request.all_extension_numbers_of_type)
            case _:
                _refuse(response, grpc.StatusCode.INVALID_ARGUMENT, "nothing is asked")
        return response

    def _owner_of(self, symbol: str) -> list[Files]:
        """The backend of the service that ``symbol`` is (in), else the first that has it."""
        owner = self._owners.get(symbol) or self._owners.get(symbol.rpartition(".")[0])
        if owner is not None:
            return [owner]
        reached = list(self._owners.values())
        first = [self._last] if self._last is not None else []
        return [f for f in (*first, *self._order) if symbol in f.symbols and f in reached][:1]

    def _give(
        self, response: Response, having: list[Files], name_of: Callable[[Files], str | None]
    ) -> None:
        name = name_of(having[0]) if having else None
        if not having or name is None:
            _refuse(response, grpc.StatusCode.NOT_FOUND, "not found at any backend of this host")
            return
        self._last = having[0]
        bodies = having[0].with_imports(name)
        response.file_descriptor_response.file_descriptor_proto.extend(bodies)

    def _give_numbers(self, response: Response, extendee: str) -> None:
        numbers = {n for f in self._order for name, n in f.extensions if name == extendee}
        known = any(extendee in f.symbols for f in self._order)
        if not numbers and not known:
            _refuse(response, grpc.StatusCode.NOT_FOUND, f"{extendee} is not known")
            return
        answer = response.all_extension_numbers_response
        answer.base_type_name = extendee
        answer.extension_number.extend(sorted(numbers))


def _refuse(response: Response, code: grpc.StatusCode, message: str) -> None:
    response.error_response.error_code = code.value[0]
    response.error_response.error_message = message


def own_files() -> Files:
    """Descriptors of the gateway's own services."""
    found = Files(services=OWN_SERVICES)
    for module in (health_pb2, reflection_pb2):
        found.add(module.DESCRIPTOR.serialized_pb)
    found.add(_reflection_v1())
    return found


def _reflection_v1() -> bytes:
    """The file of version 1, which differs from v1alpha in its package alone."""
    text = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(text)
    old, new = text.package, REFLECTION[0].rpartition(".")[0]
    text.name, text.package = "grpc/reflection/v1/reflection.proto", new
    for message in text.message_type:
        for entry in message.field:
            entry.type_name = entry.type_name.replace(f".{old}.", f".{new}.")
    for service in text.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{old}.", f".{new}.")
            method.output_type = method.output_type.replace(f".{old}.", f".{new}.")
    return text.SerializeToString()
