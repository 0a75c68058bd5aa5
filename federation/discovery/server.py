"""The xDS server: delta ADS for the gateways (and stock Envoys) of one cluster.

Decides: how a publication reaches every stream: the newest one wakes all streams, each sends what
its client lacks; nothing queues between publisher and streams.
Leaves to others: the order and content of responses (``stream``), how a snapshot becomes resources
(``render``, by default ``wire.xds``), what the answers mean for conditions (readers of ``acks``).
Invariants: before the first publication streams are open and silent, since an agent that has not
synced must not be believed to say "nothing"; one misbehaving client ends its own stream only.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message

from federation.aio import Latest
from federation.discovery.catalog import Catalog, Sealer
from federation.discovery.node import ANY_ADDRESS, NodeIdentity, read_node
from federation.discovery.settings import DiscoverySettings, TlsFiles
from federation.discovery.stream import Stream
from federation.discovery.subscription import SubscriptionError
from federation.discovery.tls import server_credentials
from federation.model.acks import AckView, NodeAcks, RefusedResource
from federation.telemetry import catalogue, count
from federation.wire.xds import NodeView, XdsResources, whole_name

log = logging.getLogger("federation.discovery")

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"

S = TypeVar("S")
_Request = discovery_pb2.DeltaDiscoveryRequest
_Context = grpc.aio.ServicerContext[
    discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DeltaDiscoveryResponse
]
_CLIENT_LEFT = (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError)
"""What grpcio raises when writing to a call whose client is gone."""


class DiscoveryError(Exception):
    """The server could not do what was asked; the message says what, where and why."""


@dataclass(slots=True, eq=False)
class _Client:
    """A connected stream: its state and the means to wake its writer."""

    stream: Stream
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    node: NodeIdentity | None = None


@dataclass(frozen=True, slots=True)
class SideService:
    """A method of another service on the same port, for the same clients."""

    service: str
    method: str
    serve: Callable[[Any, Any], Awaitable[None]]
    request: type[Message]
    response: type[Message]


class DiscoveryServer(Generic[S]):
    """Serves the newest published snapshot to every connected node, and ``beside`` to the same.

    ``publish`` and ``acks`` belong to the event loop that ``start`` ran on.
    """

    def __init__(
        self,
        settings: DiscoverySettings,
        *,
        render: Callable[[S, NodeView], XdsResources],
        beside: Sequence[SideService] = (),
    ) -> None:
        self._settings = settings
        self._beside = tuple(beside)
        self._render = render
        self._generation = 0
        self._snapshot: S | None = None
        self._catalogs: dict[NodeView, Catalog] = {}
        # Each remembers the resources of one form and part.
        self._sealers: dict[tuple[bool, str], Sealer] = {}
        self._rendering = asyncio.Lock()
        self._one_at_a_time = threading.Lock()
        self._clients: list[_Client] = []
        self._left: dict[str, None] = {}
        self._streams_opened = 0
        self._acks: Latest[AckView] = Latest(AckView())
        self._server: grpc.aio.Server | None = None
        self._address = settings.address

    def __repr__(self) -> str:
        return (
            f"DiscoveryServer({self._address}, generation={self._generation}, "
            f"streams={len(self._clients)})"
        )

    @property
    def address(self) -> str:
        """``HOST:PORT`` the server listens on; the real port once started."""
        return self._address

    @property
    def acks(self) -> Latest[AckView]:
        """What the connected nodes have answered."""
        return self._acks

    async def start(self) -> None:
        """Listen. Raises ``DiscoveryError`` when the address cannot be had."""
        settings = self._settings
        server = grpc.aio.server(options=_options(settings))
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=_Request.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),
                *(self._handlers(side) for side in self._beside),
            )
        )
        host = settings.address.rpartition(":")[0]
        try:
            port = (
                server.add_insecure_port(settings.address)
                if settings.tls is None
                else server.add_secure_port(settings.address, _credentials(settings.tls))
            )
        except RuntimeError as failure:
            raise DiscoveryError(
                f"cannot serve xDS on {settings.address}: {failure}; "
                "is the port taken by another process?"
            ) from failure
        await server.start()
        self._server = server
        self._address = f"{host}:{port}"
        log.info("xds server started", extra={"address": self._address})

    async def stop(self, *, grace_s: float = 0.2) -> None:
        """End all streams; clients go on with what they have."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace_s)

    def publish(self, snapshot: S) -> int:
        """Serve ``snapshot`` from now on; returns its generation. An equal one changes nothing."""
        if self._generation and snapshot == self._snapshot:
            return self._generation
        self._snapshot = snapshot
        self._generation += 1
        self._catalogs.clear()
        used = {_form(client.node) for client in self._clients if client.node is not None}
        self._sealers = {form: it for form, it in self._sealers.items() if form in used}
        for client in self._clients:
            client.wake.set()
        self._tell_acks()
        return self._generation

    def _handlers(self, side: SideService) -> grpc.GenericRpcHandler:
        async def admitted(requests: object, context: _Context) -> None:
            await self._refuse_strangers(context)
            await side.serve(requests, context)

        handler = grpc.stream_stream_rpc_method_handler(
            admitted,
            request_deserializer=side.request.FromString,
            response_serializer=side.response.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(side.service, {side.method: handler})

    async def _refuse_strangers(self, context: _Context) -> None:
        if (stranger := _stranger(context, self._settings.tls)) is not None:
            log.warning("xds stream refused", extra={"peer": context.peer(), "why": stranger})
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, stranger)

    # One stream.

    async def _serve(self, _requests: object, context: _Context) -> None:
        await self._refuse_strangers(context)
        if len(self._clients) >= self._settings.streams_max:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{len(self._clients)} xDS streams are open, the most this agent serves",
            )
        self._streams_opened += 1
        client = _Client(
            Stream(str(self._streams_opened), response_bytes=self._settings.response_bytes_max)
        )
        self._clients.append(client)
        refused: SubscriptionError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(client, context))
                refused = await self._read(client, context)
                writer.cancel()
        finally:
            self._clients.remove(client)
            self._tell_acks()
            log.info("xds stream ended", extra={"node": client.node and client.node.name})
        if refused is not None:
            log.warning("xds stream refused", extra={"peer": context.peer(), "why": str(refused)})
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refused))

    async def _read(self, client: _Client, context: _Context) -> SubscriptionError | None:
        clock = asyncio.get_running_loop().time
        while True:
            request = await context.read()
            if request is grpc.aio.EOF:
                return None
            assert isinstance(request, _Request)
            try:
                if client.node is None:
                    client.node = read_node(request.node, cluster=self._settings.cluster)
                    await context.send_initial_metadata(())  # tells the client that it is let in
                    log.info("xds stream opened", extra={"node": client.node.name})
                error = client.stream.receive(request, now_s=clock())
            except SubscriptionError as refused:
                return refused
            if error is not None:
                count(catalogue.REFUSALS)
                log.warning(
                    "resources refused by a gateway",
                    extra={"node": client.node.name, "type": request.type_url, "why": error},
                )
            if client.stream.left:
                self._note_leave(client.node)
            else:
                self._left.pop(client.node.name, None)
            client.wake.set()

    async def _write(self, client: _Client, context: _Context) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            client.wake.clear()
            catalog = await self._catalog(client.node)
            while catalog is not None:
                response = client.stream.next_response(catalog, now_s=clock())
                if response is None:
                    break
                try:
                    await context.write(response)
                except _CLIENT_LEFT:
                    return
                catalog = await self._catalog(client.node)
            self._tell_acks()
            wait_s = client.stream.retry_at_s() - clock()
            try:
                async with asyncio.timeout(wait_s if wait_s > 0 else None):
                    await client.wake.wait()
            except TimeoutError:
                continue

    async def _catalog(self, node: NodeIdentity | None) -> Catalog | None:
        if node is None:
            return None
        view = NodeView(
            node.address, node.port_offset, shards=node.endpoint_shards, serves=node.serves
        )
        async with self._rendering:
            if self._snapshot is None:
                return None
            if (known := self._catalogs.get(view)) is not None:
                return known
            snapshot, generation = self._snapshot, self._generation
            sealer = self._sealers.setdefault(_form(node), Sealer())
            # Beside the loop, since a first time takes a second for thousands of routes.
            catalog = await asyncio.to_thread(self._made, snapshot, view, sealer, generation)
            if generation == self._generation:  # else it is sent once, and the newer one after it
                # As many as there are streams at most: views of nodes that left go with a
                # publication.
                if len(self._catalogs) >= self._settings.streams_max:
                    self._catalogs.clear()
                self._catalogs[view] = catalog
            return catalog

    def _made(self, snapshot: S, view: NodeView, sealer: Sealer, generation: int) -> Catalog:
        with self._one_at_a_time:  # a stream that ends leaves its thread behind
            return sealer.seal(self._render(snapshot, view), generation=generation)

    def _note_leave(self, node: NodeIdentity) -> None:
        """Remember who left; beyond the bound the one who left first is forgotten (and stays
        advertised, as if its connection had been lost)."""
        if node.name not in self._left:
            log.info("a gateway takes its leave", extra={"node": node.name})
        self._left[node.name] = None
        while len(self._left) > self._settings.streams_max:
            del self._left[next(iter(self._left))]
        self._tell_acks()

    def _tell_acks(self) -> None:
        nodes = {
            c.node.name: _node_acks(c.node, c.stream)
            for c in self._clients
            if c.node and not c.stream.left
        }
        self._acks.set(
            AckView(
                generation=self._generation,
                nodes=tuple(nodes[name] for name in sorted(nodes)),
                left=tuple(sorted(self._left)),
            )
        )


def _form(node: NodeIdentity) -> tuple[bool, str]:
    """What two nodes have in common whose resources differ in listeners' addresses at most."""
    return node.endpoint_shards, node.serves


def _node_acks(node: NodeIdentity, stream: Stream) -> NodeAcks:
    return NodeAcks(
        node=node.name,
        kind=node.kind,
        generation=stream.generation(),
        eastwest_address=node.eastwest_address,
        address=None if node.address in ANY_ADDRESS else node.address,
        port_offset=node.port_offset,
        serves=node.serves,
        refused=tuple(
            RefusedResource(resource_type.word, whole_name(name), refusals[name].message)
            for resource_type, refusals in stream.refusals()
            for name in sorted(refusals)
        ),
    )


def _stranger(context: _Context, tls: TlsFiles | None) -> str | None:
    """Why the client is not let in; ``None`` when it is."""
    if tls is None or not tls.allowed_spiffe:
        return None
    shown = context.auth_context().get("x509_subject_alternative_name", ())
    names = [name.decode(errors="replace") for name in shown]
    if tls.allowed_spiffe.intersection(names):
        return None
    return f"the certificate's names {names} are not of a gateway that this agent serves"


def _options(settings: DiscoverySettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a taken port is an error, not a shared port
        ("grpc.max_receive_message_length", settings.request_bytes_max),
        ("grpc.max_send_message_length", -1),  # a single resource may exceed response_bytes_max
        ("grpc.keepalive_time_ms", int(settings.keepalive_interval_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ]


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    try:
        return server_credentials(tls)
    except OSError as failure:
        raise DiscoveryError(f"cannot use the xDS server's TLS files: {failure}") from failure
