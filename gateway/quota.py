"""Shared rate limits: reports to the agent what was asked for, and takes this gateway's shares.

Decides: when to report (twice a second while there are such limits), and what is said while the
agent is away: the last shares stay in force.
Leaves to others: counting (the core), dividing (the agent). The protocol is Envoy's Rate Limit
Quota Service; a bucket is a limit, or one key of it.
Invariants: without shared limits there is no connection; what is reported is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from envoy.service.rate_limit_quota.v3 import rlqs_pb2

from gateway.runtime import Core
from gateway.settings import GatewaySettings
from gateway.xds_client import AgentAway, agent_channel

log = logging.getLogger("gateway.quota")

METHOD = "/envoy.service.rate_limit_quota.v3.RateLimitQuotaService/StreamRateLimitQuotas"
DOMAIN = "federation"
GATEWAY_METADATA = "x-federation-gateway"

REPORT_EVERY_S = 0.5
RETRY_S = 1.0
"""Wait before the agent is tried again."""

LEAVE_S = 0.5
"""How long the agent has to answer a leave."""

KEYS_MAX = 1024
"""Keys of one limit in a report, those asked for most."""

BUCKETS_MAX = 10_000
"""Buckets in one message, about a megabyte."""

_Call = grpc.aio.StreamStreamCall[
    rlqs_pb2.RateLimitQuotaUsageReports, rlqs_pb2.RateLimitQuotaResponse
]


@dataclass(slots=True)
class _Shares:
    """What the agent said of one limit: calls in its unit, for it and for keys."""

    own: int | None = None
    keys: dict[str, int] = field(default_factory=dict)


class QuotaClient:
    """Reports for one gateway."""

    def __init__(self, settings: GatewaySettings, core: Core) -> None:
        self._settings = settings
        self._core = core
        self._demand: list[dict[str, Any]] = []
        self._reported: dict[str, tuple[int, int]] = {}
        self._shares: dict[str, _Shares] = {}
        self._heard = False
        self._session_ended: asyncio.Event | None = None
        self._leaving = False
        self._away: str | None = None
        self._turn = 0

    @property
    def why(self) -> str | None:
        """What is wrong, for the admin endpoint; ``None``: nothing."""
        if self._away is None or not self._demand:
            return None
        return f"shared rate limits go on with their last shares: {self._away}"

    async def run(self) -> None:
        """Report while there is something to report, for ever."""
        while not self._leaving:
            self._take_demand()
            if self._demand:
                try:
                    await self._session()
                except (grpc.aio.AioRpcError, AgentAway) as failure:
                    self._lost(_reason(failure))
                await asyncio.sleep(RETRY_S)
            else:
                await asyncio.sleep(REPORT_EVERY_S)

    async def leave(self) -> None:
        """Tell the agent that this gateway takes no more calls."""
        self._leaving = True
        if self._session_ended is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * LEAVE_S):
                    await self._session_ended.wait()

    async def _session(self) -> None:
        """One stream, until it ends or there are no such limits any more."""
        metadata = ((GATEWAY_METADATA, self._settings.name),)
        turn, self._turn = self._turn, self._turn + 1
        async with agent_channel(self._settings, turn) as channel:
            call: _Call = channel.stream_stream(
                METHOD,
                request_serializer=rlqs_pb2.RateLimitQuotaUsageReports.SerializeToString,
                response_deserializer=rlqs_pb2.RateLimitQuotaResponse.FromString,
            )(metadata=metadata)
            self._heard, self._reported, self._shares = False, {}, {}
            ended = self._session_ended = asyncio.Event()
            reader = asyncio.create_task(self._read(call))
            try:
                await self._report(call, reader)
                await call.done_writing()  # the agent sees that this gateway was not lost
                await asyncio.wait([reader], timeout=LEAVE_S)
            except asyncio.InvalidStateError:
                pass  # the stream has ended meanwhile; the reader knows why
            finally:
                self._session_ended = None
                ended.set()
                reader.cancel()
                await asyncio.wait([reader])
            if not reader.cancelled():
                reader.result()

    async def _report(self, call: _Call, reader: asyncio.Task[None]) -> None:
        sent_at = time.monotonic()
        self._take_demand(all_of_it=True)
        while self._demand and not self._leaving and not reader.done():
            now = time.monotonic()
            for message in self._messages(now - sent_at):
                await call.write(message)
            sent_at = now
            if self._heard:
                self._confirm()
            await asyncio.wait([reader], timeout=REPORT_EVERY_S)
            self._take_demand()

    async def _read(self, call: _Call) -> None:
        async for response in call:
            if not self._heard:
                log.info("rate limits shared by the agent", extra={"agent": self._settings.agent})
            self._heard, self._away = True, None
            changed = {self._take(action) for action in response.bucket_action}
            self._apply(changed - {""})

    def _take_demand(self, *, all_of_it: bool = False) -> None:
        self._demand = json.loads(self._core.take_limit_demand(KEYS_MAX, all_of_it))

    def _messages(self, elapsed_s: float) -> Iterator[rlqs_pb2.RateLimitQuotaUsageReports]:
        message = rlqs_pb2.RateLimitQuotaUsageReports(domain=DOMAIN)
        for limit, key, passed, refused, before in self._usages():
            usage = message.bucket_quota_usages.add(
                num_requests_allowed=passed, num_requests_denied=refused
            )
            usage.bucket_id.bucket["limit"] = limit
            if key:
                usage.bucket_id.bucket["key"] = key
            usage.time_elapsed.FromMilliseconds(0 if before else max(1, int(elapsed_s * 1000)))
            if len(message.bucket_quota_usages) >= BUCKETS_MAX:
                yield message
                message = rlqs_pb2.RateLimitQuotaUsageReports(domain=DOMAIN)
        if message.bucket_quota_usages:
            yield message

    def _usages(self) -> Iterator[tuple[str, str, int, int, bool]]:
        """Limits with their calls since the last report, and keys; true: what passed before it.

        The first report has all limits, with what counts still of what passed before.
        """
        for entry in self._demand:
            name, totals = entry["name"], (entry["passed"], entry["refused"])
            known = self._reported.get(name)
            if known is None:
                yield name, "", 0, 0, True
                for key, calls in entry["outstanding"]:
                    yield name, key, calls, 0, True
            elif known != totals:
                # A limit whose configuration changed counts from zero again.
                base = known if known <= totals else (0, 0)
                yield name, "", max(0, totals[0] - base[0]), max(0, totals[1] - base[1]), False
            self._reported[name] = totals
            if known is not None:
                for key, passed, refused in entry["keys"]:
                    yield name, key, passed, refused, False

    def _take(self, action: rlqs_pb2.RateLimitQuotaResponse.BucketAction) -> str:
        """Note one assignment; the limit's name."""
        bucket: dict[str, str] = dict(action.bucket_id.bucket)
        limit, key = bucket.get("limit", ""), bucket.get("key", "")
        shares = self._shares.setdefault(limit, _Shares())
        if action.HasField("quota_assignment_action"):
            strategy = action.quota_assignment_action.rate_limit_strategy
            share = strategy.requests_per_time_unit.requests_per_time_unit
            if key:
                shares.keys[key] = share
            else:
                shares.own = share
        elif key:
            shares.keys.pop(key, None)
        return limit

    def _apply(self, changed: Iterable[str]) -> None:
        requests = {entry["name"]: entry["requests"] for entry in self._demand}
        document = []
        for limit in changed:
            shares, whole = self._shares[limit], requests.get(limit)
            if whole is None or shares.own is None:
                continue
            document.append(
                {
                    "limit": limit,
                    "share_per_million": per_million(shares.own, whole),
                    "keys": {key: per_million(share, whole) for key, share in shares.keys.items()},
                }
            )
        if document:
            self._core.set_limit_shares(json.dumps(document).encode())

    def _confirm(self) -> None:
        """The shares in force are as good as new; a limit that was made anew is told its own."""
        told = {name for name, shares in self._shares.items() if shares.own is not None}
        self._apply(told & {it["name"] for it in self._demand if not it["has_share"]})
        if told:
            document = [{"limit": name} for name in sorted(told)]
            self._core.set_limit_shares(json.dumps(document).encode())

    def _lost(self, why: str) -> None:
        if self._away is None:
            log.warning(
                "shared rate limits go on with their last shares",
                extra={"agent": self._settings.agent, "why": why},
            )
        self._away = why


def per_million(share: int, whole: int) -> int:
    """A share in millionths, rounded up: a share of whole calls stays one."""
    return min(1_000_000, -(-share * 1_000_000 // whole))


def _reason(failure: BaseException) -> str:
    if isinstance(failure, grpc.aio.AioRpcError):
        return f"{failure.code().name}: {failure.details()}"
    return str(failure)
