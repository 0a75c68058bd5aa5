"""The delta ADS client: keeps one stream to the agent.

Decides: how a lost agent is found again, or another one of the cluster's, and what is known about
it meanwhile.
Leaves to others: a stream while it lasts (``xds_session``), the configuration (``runtime``).
Invariants: while the agent is away nothing changes; waits between tries are random and bounded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_never,
    wait_random_exponential,
)

from gateway.runtime import Runtime
from gateway.settings import AgentTls, GatewaySettings
from gateway.xds_session import Call, Session

log = logging.getLogger("gateway.xds")

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
"""Waits between tries are random up to a bound that doubles from the first to this."""

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""Largest response: our agent cuts at 2 MiB; a single resource may be larger."""


class AgentAway(Exception):  # noqa: N818 - a state more than an error
    """The agent did not answer, or its stream ended."""


@dataclass(slots=True)
class Contact:
    """What is known about the connection to the agent."""

    connected: bool = False
    synced: bool = False
    last_heard_at: float | None = None
    error: str | None = None


@dataclass(slots=True)
class XdsClient:
    """One gateway's subscription at its agent."""

    settings: GatewaySettings
    runtime: Runtime
    contact: Contact = field(default_factory=Contact)
    on_synced: Callable[[], None] = lambda: None
    admin: Callable[[], str] = lambda: ""
    listeners_again: set[str] = field(default_factory=set)
    again: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: bool = False
    session: Session | None = None
    turn: int = 0

    async def run(self) -> None:
        """Stay subscribed until ``leave``."""
        retrying = AsyncRetrying(
            wait=wait_random_exponential(multiplier=RETRY_FIRST_S, max=RETRY_MAX_S),
            stop=stop_never,
            retry=retry_if_exception_type(AgentAway),
            before_sleep=self._away,
        )
        while not self.leaving:
            # A session that has worked returns, so that the waits start anew after it.
            await retrying(self._session)
            await asyncio.sleep(RETRY_FIRST_S)

    def _away(self, state: RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        if str(failure) != self.contact.error:
            self.contact.error = str(failure)
            log.warning(
                "agent is away, serving what is in force",
                extra={"agent": self.settings.agent, "why": str(failure)},
            )

    async def leave(self) -> None:
        """Take leave of the agent if it is there, and connect no more."""
        self.leaving = True
        if self.session is not None and self.contact.connected:
            await self.session.leave()

    async def _session(self) -> None:
        """One connection, until it ends. Raises ``AgentAway`` if it never worked."""
        if self.leaving:
            return
        turn, self.turn = self.turn, self.turn + 1
        async with agent_channel(self.settings, turn) as channel:
            call: Call = channel.stream_stream(
                METHOD,
                request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
                response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
            )()
            self.session = Session(call, self)
            try:
                await self.session.run()
            except grpc.aio.AioRpcError as failure:
                if not self.contact.connected:
                    raise AgentAway(f"{failure.code().name}: {failure.details()}") from failure
                log.warning(
                    "xds stream lost", extra={"why": f"{failure.code().name}: {failure.details()}"}
                )
            finally:
                self.session = None
                self.contact.connected = False
                self.contact.synced = False

    def ask_again(self, listeners: Iterable[str]) -> None:
        """Ask for listeners that are held already, so as to answer them anew."""
        self.listeners_again.update(listeners)
        self.again.set()

    def heard(self) -> None:
        """Note that the agent has sent something."""
        if not self.contact.connected:
            log.info("agent connected", extra={"agent": self.settings.agent})
        self.contact.connected = True
        self.contact.error = None
        self.contact.last_heard_at = time.time()


def agent_channel(settings: GatewaySettings, turn: int) -> grpc.aio.Channel:
    """A connection to an agent, of several to another one with each ``turn``.

    Raises ``AgentAway`` when its TLS files cannot be read.
    """
    agent = settings.agents[turn % len(settings.agents)]
    options = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        # An agent that vanished without a FIN is noticed and the stream ended.
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if settings.agent_tls is None:
        return grpc.aio.insecure_channel(agent, options=options)
    return grpc.aio.secure_channel(agent, _credentials(settings.agent_tls), options=options)


def _credentials(tls: AgentTls) -> grpc.ChannelCredentials:
    try:
        return grpc.ssl_channel_credentials(
            root_certificates=tls.ca.read_bytes(),
            private_key=tls.private_key.read_bytes(),
            certificate_chain=tls.certificate.read_bytes(),
        )
    except OSError as failure:
        raise AgentAway(f"cannot read the TLS files for the agent: {failure}") from failure
