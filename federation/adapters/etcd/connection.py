"""The connection to etcd: one channel at a time, replaced when it has gone deaf.

Decides: which endpoint is used, how long a call may take, and what a failure is called.
Leaves to others: what is asked (``store``, ``mirror``, ``lease``).
Invariants: every call ends within ``call_timeout_s``; no gRPC exception leaves this package; an
error names what was attempted and the endpoints.

aetcd gives the protocol (its messages and stubs). Its ``Client`` is not used: it hides the revision
in a watch's header and in a transaction's answer, and both are what resuming rests on.

A black-holed etcd is noticed by deadlines and by probes of each watch, not by HTTP/2 pings: etcd
answers pings more often than every 5 s with GOAWAY "too_many_pings" unless it is told otherwise,
and a probe also finds a server that answers pings but sends no events. The next try then dials
anew, because a channel that lost its path may not notice for minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from aetcd import rpc
from grpc import ChannelCredentials, ssl_channel_credentials
from grpc.aio import Channel, insecure_channel, secure_channel

from federation.ports import PortError, StoreRefused, StoreUnavailable

Message: TypeAlias = Any
"""A message or call of aetcd, which ships no types; such values stay inside this package."""

_REFUSALS = frozenset(
    {
        rpc.StatusCode.INVALID_ARGUMENT,
        rpc.StatusCode.PERMISSION_DENIED,
        rpc.StatusCode.UNAUTHENTICATED,
        rpc.StatusCode.UNIMPLEMENTED,
        rpc.StatusCode.NOT_FOUND,
        rpc.StatusCode.FAILED_PRECONDITION,
    }
)

_NOT_ALLOWED = frozenset({rpc.StatusCode.PERMISSION_DENIED, rpc.StatusCode.UNAUTHENTICATED})
"""Refusals that end when somebody gives us rights."""

_NEXT_STEP = "who shows a certificate has what `fedctl access grant` gave to its common name"

_MESSAGE_BYTES_MAX = 64 * 1024 * 1024

_CHANNEL_OPTIONS = [
    # Channels of one target share connections unless told not to; a new channel is made because
    # the old connection is not trusted any more.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """PEM files of TLS to etcd, read anew for each connection, so that renewed ones are taken up.

    ``authority`` signs etcd's certificate (``None``: the system's authorities do). ``certificate``
    and ``private_key`` go together and are who we are: etcd with authentication takes the
    certificate's common name as the user.
    """

    authority: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    def credentials(self) -> ChannelCredentials:
        """The files as they are now. Raises ``StoreUnavailable`` when one cannot be read."""
        return ssl_channel_credentials(
            root_certificates=_read(self.authority),
            private_key=_read(self.private_key),
            certificate_chain=_read(self.certificate),
        )


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise StoreUnavailable(f"TLS to etcd: reading {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """How to reach etcd; times in seconds.

    ``endpoints`` are tried in turn, ``host:port`` or ``http://host:port``, or ``https://host:port``
    for TLS, in which case all are. ``tls`` holds its files. ``call_timeout_s``
    bounds each call; ``probe_every_s`` is how often a watch asks for a sign of life, and after
    ``deaf_after_s`` without one its connection is given up; ``relist_every_s`` is the period of
    the comparison against lost events; ``retry_wait_s_max`` the longest wait between tries.
    """

    endpoints: tuple[str, ...]
    call_timeout_s: float = 2.0
    probe_every_s: float = 1.0
    deaf_after_s: float = 3.0
    relist_every_s: float = 60.0
    retry_wait_s_max: float = 0.5
    tls: EtcdTls = EtcdTls()

    @property
    def encrypted(self) -> bool:
        """Whether the endpoints speak TLS. Raises ``EndpointError`` when only some do."""
        secure = [endpoint.startswith("https://") for endpoint in self.endpoints]
        if any(secure) != all(secure):
            raise EndpointError(
                f"etcd endpoints {', '.join(self.endpoints)}: some are https and some are not; "
                "name all with https://"
            )
        if self.tls != EtcdTls() and not any(secure):
            raise EndpointError(
                f"etcd endpoints {', '.join(self.endpoints)}: files of TLS are given, but no "
                "endpoint is https://HOST:PORT"
            )
        return any(secure)

    def targets(self) -> tuple[str, ...]:
        """The endpoints as gRPC targets. Raises ``EndpointError`` for what cannot be one."""
        return tuple(_target(endpoint) for endpoint in self.endpoints)


class EndpointError(PortError):
    """An endpoint is not one."""


def _target(endpoint: str) -> str:
    target = endpoint.removeprefix("http://").removeprefix("https://").rstrip("/")
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        raise EndpointError(
            f"etcd endpoint {endpoint}: expected HOST:PORT, http://HOST:PORT or https://HOST:PORT"
        )
    return target


class Link:
    """One channel and its stubs."""

    def __init__(self, target: str, credentials: ChannelCredentials | None = None) -> None:
        self.target = target
        self.channel: Channel = (
            insecure_channel(target, options=_CHANNEL_OPTIONS)
            if credentials is None
            else secure_channel(target, credentials, options=_CHANNEL_OPTIONS)
        )
        kv = rpc.KVStub(self.channel)
        lease = rpc.LeaseStub(self.channel)
        self.calls: Mapping[type, Message] = {
            rpc.RangeRequest: kv.Range,
            rpc.TxnRequest: kv.Txn,
            rpc.CompactionRequest: kv.Compact,
            rpc.LeaseGrantRequest: lease.LeaseGrant,
            rpc.LeaseRevokeRequest: lease.LeaseRevoke,
        }
        self.keep_alive = lease.LeaseKeepAlive
        self.watch = rpc.WatchStub(self.channel).Watch


class Connection:
    """Unary calls to etcd, and the link that streams use."""

    def __init__(self, settings: EtcdSettings) -> None:
        if not settings.endpoints:
            raise EndpointError("no etcd endpoint given")
        self.settings = settings
        self._targets = settings.targets()
        self._encrypted = settings.encrypted
        self._turn = 0
        self._link: Link | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._link else "not dialled"
        return f"Connection({self.name}, {state})"

    @property
    def name(self) -> str:
        """The endpoints, for messages."""
        return "etcd at " + ", ".join(self._targets)

    def link(self) -> Link:
        """The link in use; dialled lazily."""
        if self._closed:
            raise StoreUnavailable(f"{self.name}: the connection was closed")
        if self._link is None:
            credentials = self.settings.tls.credentials() if self._encrypted else None
            self._link = Link(self._targets[self._turn % len(self._targets)], credentials)
        return self._link

    async def distrust(self, link: Link) -> None:
        """Drop ``link`` if it is still the one in use; the next call dials the next endpoint."""
        if self._link is link:
            self._link = None
            self._turn += 1
            await link.channel.close()

    async def call(self, request: Message, attempt: str) -> Message:
        """Send one request. ``attempt`` says what is tried, for the error."""
        link = self.link()
        try:
            return await link.calls[type(request)](request, timeout=self.settings.call_timeout_s)
        except (rpc.AioRpcError, asyncio.CancelledError) as error:
            raise await self.failure(link, error, attempt) from error

    async def failure(self, link: Link, error: BaseException, attempt: str) -> PortError:
        """What a gRPC failure on ``link`` is to our callers. Re-raises our own cancellation."""
        if isinstance(error, asyncio.CancelledError):
            # gRPC ends calls of a closed channel with CancelledError although nobody cancelled us.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise error
            return StoreUnavailable(f"{attempt}: {self.name}: the connection was closed")
        if not isinstance(error, rpc.AioRpcError):
            return StoreUnavailable(f"{attempt}: {self.name}: {error}")
        code = error.code()
        if code in _REFUSALS:
            todo = f"; {_NEXT_STEP}" if code in _NOT_ALLOWED else ""
            return StoreRefused(f"{attempt}: {self.name} refused: {error.details()}{todo}")
        if code is rpc.StatusCode.DEADLINE_EXCEEDED or len(self._targets) > 1:
            await self.distrust(link)
        return StoreUnavailable(f"{attempt}: {self.name} is away: {error.details()}")

    async def close(self) -> None:
        """Close the channel; calls that still run end with ``StoreUnavailable``."""
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            await link.channel.close()
