"""The DNS server: datagrams and connections in, answers out.

Decides: how messages are read and written, and every bound: datagrams are answered at once and none
waits; connections are limited in number, in queries and in idle time.
Leaves to others: the answer (``answer``), the table (a ``TableSource``).
Invariants: what is not a query is never answered, so that two servers cannot talk for ever; a bad
message costs its sender the answer and nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from federation.dns.answer import UDP_PAYLOAD, answer
from federation.dns.metrics import DnsMetrics
from federation.dns.table import DnsTable

log = logging.getLogger(__name__)

_HEADER_BYTES = 12
_PLAIN_UDP_BYTES = 512
_QR_BYTE, _QR_BIT = 2, 0x80


class TableSource(Protocol):
    """Where the newest table is looked up for each query; ``None`` while nothing is known."""

    @property
    def table(self) -> DnsTable | None:
        """The newest table."""
        ...


BOTH_FREE_TRIES_MAX = 16
"""Ports asked of the system until one is free for both protocols."""


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Where and how much the server answers.

    ``host`` and ``port`` are for UDP and TCP; port 0 takes a free one.
    ``connections_max``: open TCP connections; more are closed at once.
    ``queries_max``: queries of one connection before it is closed.
    ``idle_timeout_s``: how long a connection may take for its next query.
    """

    host: str = "127.0.0.1"
    port: int = 0
    connections_max: int = 64
    queries_max: int = 256
    idle_timeout_s: float = 5.0


class DnsServer:
    """Answers on UDP and TCP between ``start`` and ``stop``."""

    def __init__(
        self, settings: DnsSettings, tables: TableSource, metrics: DnsMetrics | None = None
    ) -> None:
        self._settings = settings
        self._tables = tables
        self._metrics = metrics or DnsMetrics()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    def __repr__(self) -> str:
        return f"DnsServer({self._settings.host}, connections={len(self._connections)})"

    @property
    def port(self) -> int:
        """The port in use."""
        assert self._udp is not None, "not started"
        return int(self._udp.get_extra_info("sockname")[1])

    async def start(self) -> None:
        """Bind both sockets. Raises ``OSError`` when the port is taken.

        Port 0 takes one that is free for UDP and for TCP, which the system cannot be asked for.
        """
        tries = BOTH_FREE_TRIES_MAX if self._settings.port == 0 else 1
        for _ in range(tries - 1):
            with suppress(OSError):
                await self._bind()
                return
        await self._bind()

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        where = (self._settings.host, self._settings.port)
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._tables, self._metrics), local_addr=where
        )
        try:
            self._tcp = await asyncio.start_server(self._serve, self._settings.host, self.port)
        except OSError:
            self._udp.close()
            raise

    async def stop(self) -> None:
        """Close the sockets and all connections."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            for writer in self._connections:
                writer.close()
            await self._tcp.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._settings.connections_max:
            self._metrics.refused_connection()
            writer.close()
            return
        self._connections.add(writer)
        try:
            await self._serve_queries(reader, writer)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is slow or gone; nothing is owed to it
        finally:
            self._connections.discard(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve_queries(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for _ in range(self._settings.queries_max):
            async with asyncio.timeout(self._settings.idle_timeout_s):
                size = int.from_bytes(await reader.readexactly(2), "big")
                wire = await reader.readexactly(size)
                reply = reply_to(wire, self._tables.table, limit=None)
                self._metrics.asked("tcp", reply)
                if reply is None:
                    return
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    """One answer for each query, sent at once."""

    def __init__(self, tables: TableSource, metrics: DnsMetrics) -> None:
        self._tables = tables
        self._metrics = metrics
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The event loop's own class is no subclass of DatagramTransport in every Python.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = reply_to(data, self._tables.table, limit=UDP_PAYLOAD)
        self._metrics.asked("udp", reply)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)

    def error_received(self, exc: Exception) -> None:
        log.debug("a client went away before its answer", extra={"reason": str(exc)})


def reply_to(wire: bytes, table: DnsTable | None, *, limit: int | None) -> bytes | None:
    """The answer to the message ``wire``, cut to what the asker takes; ``None``: no answer is due.

    ``limit`` is the most that a datagram may carry; ``None`` means a connection.
    """
    if len(wire) < _HEADER_BYTES or wire[_QR_BYTE] & _QR_BIT:
        return None
    try:
        query = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return _unreadable(wire)
    reply = answer(query, table)
    if limit is None:
        return reply.to_wire(max_size=65_535)
    size = min(limit, max(_PLAIN_UDP_BYTES, query.payload)) if query.edns >= 0 else 512
    try:
        return reply.to_wire(max_size=size)
    except dns.exception.TooBig:
        return _truncated(query, reply).to_wire(max_size=size)


def _truncated(query: dns.message.Message, reply: dns.message.Message) -> dns.message.Message:
    """The question alone with TC, which sends the client to TCP."""
    short = dns.message.make_response(query, our_payload=UDP_PAYLOAD)
    short.flags = reply.flags | dns.flags.TC
    return short


def _unreadable(wire: bytes) -> bytes:
    """FORMERR with the asker's id and nothing else."""
    reply = dns.message.Message(id=int.from_bytes(wire[:2], "big"))
    reply.flags = dns.flags.QR
    reply.set_rcode(dns.rcode.FORMERR)
    return reply.to_wire()
