"""One delta ADS stream: subscribes, takes what comes, answers.

Decides: what is asked for (everything of each type), and when an answer is due: an ACK means in
force. A resource that waits for others (a listener for its routes) holds its answer back, for
``HOLD_S`` at most.
Leaves to others: whether resources are good (``runtime``), finding the agent (``xds_client``).
Invariants: at most one answer a type is owed; answers are bounded in size; the agent is told what
is held, and sends only the difference.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import code_pb2

from gateway.assembly import MAKE_ORDER
from gateway.runtime import OWN_SECRETS, Runtime
from gateway.settings import GatewaySettings
from gateway.xds_translate import KIND_OF_TYPE, TYPE_OF_KIND, Kind

if TYPE_CHECKING:
    from gateway.xds_client import XdsClient

log = logging.getLogger("gateway.xds")

HOLD_S = 2.0
"""Longest time an answer is held back; what a resource needs arrives within milliseconds or not."""

ADMISSION_S = 1.0
"""How long the agent's headers are waited for before the rest is asked for anyway."""

LEAVE_S = 0.5
"""Longest wait for the agent to take note that this gateway is leaving."""

QUEUE_MAX = 16
"""Responses read ahead; the agent sends one a type before it waits for an answer."""

ERROR_CHARS_MAX = 4096
"""Longest error text in a refusal."""

MESSAGE_CHARS_MIN = 40
"""What is left at least of each message in a refusal of many resources."""

NOT_HELD = "not-in-force"
"""Version given for what was sent on an earlier stream and is not in force; no resource has it."""

Call = grpc.aio.StreamStreamCall[
    discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DeltaDiscoveryResponse
]


@dataclass(frozen=True, slots=True)
class _Due:
    """An answer that is due for a response."""

    kind: Kind
    nonce: str
    names: tuple[str, ...]
    hold_until_s: float


class Session:
    """One stream: subscribes, reads, applies, answers."""

    def __init__(self, call: Call, client: XdsClient) -> None:
        self._call = call
        self._client = client
        self._runtime = client.runtime
        self._due: dict[Kind, _Due] = {}
        self._unheard = set(MAKE_ORDER)
        self._asked_again: set[str] = set()
        self._writing = asyncio.Lock()
        self._responses: asyncio.Queue[discovery_pb2.DeltaDiscoveryResponse | None] = asyncio.Queue(
            QUEUE_MAX
        )

    async def run(self) -> None:
        """Run until the stream ends. Raises ``grpc.aio.AioRpcError`` with the stream's status."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read())
                requests = self._subscriptions()
                await self._write(requests[0])
                await self._admission(group.create_task(self._call.initial_metadata()))
                for request in requests[1:]:
                    await self._write(request)
                group.create_task(self._ask_again())
                await self._process()
        except* grpc.aio.AioRpcError as failures:
            raise failures.exceptions[0] from None
        finally:
            self._call.cancel()

    async def leave(self) -> None:
        """Want no listeners any more, which says that this gateway is leaving, and end the stream.

        The agent ends its side when it has read this; an agent that does not is not waited for.
        """
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=TYPE_OF_KIND[Kind.LISTENERS],
            resource_names_unsubscribe=["*", *sorted(self._asked_again)],
        )
        with suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(LEAVE_S):
                await self._write(request)
                await self._call.done_writing()
                await self._call.code()

    async def _read(self) -> None:
        """Read ahead; ``None`` stands for the end of the stream.

        A task of its own, since cancelling a read ends the call; it never raises, since an error of
        a child would hide the cancellation of its parent.
        """
        while True:
            try:
                response = await self._call.read()
            except grpc.aio.AioRpcError:
                response = grpc.aio.EOF
            await self._responses.put(None if response is grpc.aio.EOF else response)
            if response is grpc.aio.EOF:
                return

    def _subscriptions(self) -> list[discovery_pb2.DeltaDiscoveryRequest]:
        held = held_versions(self._runtime)
        return [
            discovery_pb2.DeltaDiscoveryRequest(
                node=node_message(self._client.settings, admin=self._client.admin()),
                type_url=TYPE_OF_KIND[kind],
                resource_names_subscribe=["*"],
                initial_resource_versions=held[kind],
            )
            for kind in MAKE_ORDER
        ]

    async def _admission(self, headers: asyncio.Task[grpc.aio.Metadata]) -> None:
        """Wait until the agent has let us in, or not: writing to an ended call hides its status.

        An agent of another make may send its headers with the first response only.
        """
        await asyncio.wait([headers], timeout=ADMISSION_S)
        if self._call.done():
            await self._raise_ended()

    async def _ask_again(self) -> None:
        client = self._client
        while True:
            await client.again.wait()
            client.again.clear()
            names, client.listeners_again = sorted(client.listeners_again), set()
            self._asked_again.update(names)
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=TYPE_OF_KIND[Kind.LISTENERS], resource_names_subscribe=names
            )
            try:
                await self._write(request)
            except grpc.aio.AioRpcError:
                return  # the reader ends the session

    async def _process(self) -> None:
        """Take responses as they come, all that are there at once, then answer what can be."""
        while True:
            for response in await self._arrived():
                await self._take(response)
            await self._answer()

    async def _arrived(self) -> list[discovery_pb2.DeltaDiscoveryResponse | None]:
        """What has arrived, at least one; none when an answer has been held back long enough."""
        hold_until_s = min((due.hold_until_s for due in self._due.values()), default=None)
        try:
            async with asyncio.timeout_at(hold_until_s):
                arrived = [await self._responses.get()]
        except TimeoutError:
            return []
        while not self._responses.empty():
            arrived.append(self._responses.get_nowait())
        return arrived

    async def _raise_ended(self) -> NoReturn:
        code, details = await self._call.code(), await self._call.details()
        raise grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details or "the stream ended"
        )

    async def _take(self, response: discovery_pb2.DeltaDiscoveryResponse | None) -> None:
        if response is None:
            await self._raise_ended()
        self._client.heard()
        kind = KIND_OF_TYPE.get(response.type_url)
        if kind is None:
            log.warning("a type that was not asked for", extra={"type": response.type_url})
            return
        await self._runtime.accept(kind, response.resources, response.removed_resources)
        self._due[kind] = _Due(
            kind,
            response.nonce,
            tuple(resource.name for resource in response.resources),
            asyncio.get_running_loop().time() + HOLD_S,
        )
        self._unheard.discard(kind)
        if not self._unheard and not self._client.contact.synced:
            self._client.contact.synced = True
            self._client.on_synced()

    async def _answer(self) -> None:
        now = asyncio.get_running_loop().time()
        for due in list(self._due.values()):
            verdict = self._runtime.verdict(due.kind, due.names)
            if verdict.waiting and now < due.hold_until_s:
                continue
            del self._due[due.kind]
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=TYPE_OF_KIND[due.kind], response_nonce=due.nonce
            )
            if verdict.refused:
                request.error_detail.code = code_pb2.INVALID_ARGUMENT
                request.error_detail.message = error_text(verdict.refused)
                log.error("resources refused", extra={"why": request.error_detail.message})
            await self._write(request)

    async def _write(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        try:
            async with self._writing:
                await self._call.write(request)
        except asyncio.InvalidStateError:  # the call has ended; the reader says why
            await self._raise_ended()


def error_text(refused: Mapping[str, str]) -> str:
    """Text of a refusal: ``NAME: MESSAGE`` for each resource, messages cut to fit the bound.

    A reader takes what is not named for accepted. So where not even the names fit, none is named,
    and the whole response counts as refused.
    """
    for chars in (ERROR_CHARS_MAX, ERROR_CHARS_MAX // len(refused), MESSAGE_CHARS_MIN):
        text = "; ".join(f"{name}: {_cut(refused[name], chars)}" for name in sorted(refused))
        if len(text) <= ERROR_CHARS_MAX:
            return text
    return f"{len(refused)} resources are refused; the gateway's /config_dump says which and why"


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def held_versions(runtime: Runtime) -> dict[Kind, dict[str, str]]:
    """Names and versions of what came by xDS, for a new stream.

    What is refused or waits is named too, by a version that none has: it is sent and answered anew,
    or removed if it has gone meanwhile. What is in force but wanted no longer is not named.
    """
    held: dict[Kind, dict[str, str]] = {kind: {} for kind in MAKE_ORDER}
    refused = runtime.refusals().keys() - OWN_SECRETS
    for piece_id in refused:
        held[piece_id.kind][piece_id.name] = NOT_HELD
    for piece_id, piece in runtime.assembly.wanted.items():
        if piece.origin is not None and piece_id not in refused:
            good = runtime.in_force.get(piece_id) == piece
            held[piece_id.kind][piece_id.name] = piece.origin.version if good else NOT_HELD
    return held


def held_resources(runtime: Runtime) -> Iterable[discovery_pb2.Resource]:
    """The resources in force that came by xDS, sorted."""
    pieces = (runtime.in_force[piece_id] for piece_id in sorted(runtime.in_force))
    return [piece.origin for piece in pieces if piece.origin is not None]


def node_message(settings: GatewaySettings, *, admin: str = "") -> base_pb2.Node:
    """Who this gateway is, for the agent; ``admin`` is where its admin endpoint listens."""
    node = base_pb2.Node(
        id=settings.name, cluster=settings.cluster, user_agent_name="grpc-federation-gateway"
    )
    node.metadata.update(
        {
            "kind": "gateway",
            "address": settings.address,
            "port_offset": settings.port_offset,
            "eastwest_address": settings.eastwest_address or "",
            "endpoint_shards": True,
            "serves": settings.serves,
            "admin": admin,
        }
    )
    return node
