"""The lab's own client: steady unary calls through its region's gateways, and what became of them.

Decides: the load (an open loop: calls start on a fixed beat whatever the earlier ones do) and the
figures kept of it.
Leaves to others: showing them (``view``).
Invariants: at most ``IN_FLIGHT_MAX`` calls are open; a beat that finds them all taken is counted as
skipped, never silently left out. The figures are written whole, once a second.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import grpc
from pydantic import Field

from federation.cli.lab.protos import user_service_pb2 as pb
from federation.model.base import Value

AUTHORITY = "grpc.example.com"
METHOD = "/com.example.api.UserService/GetUser"
IN_FLIGHT_MAX = 2_000
WINDOW_S = 5.0
CALL_TIMEOUT_S = 10.0


class ClientFigures(Value):
    """What the client saw during the last ``window_s`` seconds, and in all since it started.

    ``by_cluster`` counts answers by the cluster that gave them, ``by_service`` by the service in it
    (``CLUSTER/SERVICE``); ``errors`` by gRPC status name with the newest message of each in
    ``messages``. Latencies are milliseconds over the window. Totals begin, for each gateway, with
    the first call that it had answered: before it there is no route that could fail.
    """

    window_s: float
    rate: int
    by_cluster: dict[str, int] = Field(default_factory=dict)
    by_service: dict[str, int] = Field(default_factory=dict)
    errors: dict[str, int] = Field(default_factory=dict)
    messages: dict[str, str] = Field(default_factory=dict)
    p50_ms: float | None = None
    p99_ms: float | None = None
    over_1s: int = 0
    skipped: int = 0
    total_ok: int = 0
    total_errors: int = 0


class _Sample:
    __slots__ = ("at", "cluster", "error", "message", "service", "took_s")

    def __init__(
        self,
        at: float,
        took_s: float,
        *,
        cluster: str = "",
        service: str = "",
        error: str = "",
        message: str = "",
    ) -> None:
        self.at = at
        self.took_s = took_s
        self.cluster = cluster
        self.service = service
        self.error = error
        self.message = message


class Client:
    """Calls ``targets`` in turn, ``rate`` times a second."""

    def __init__(self, targets: list[str], *, rate: int, ca: bytes) -> None:
        credentials = grpc.ssl_channel_credentials(ca)
        options = (
            ("grpc.ssl_target_name_override", AUTHORITY),
            ("grpc.default_authority", AUTHORITY),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        )
        self._channels = [
            grpc.aio.secure_channel(target, credentials, options=options) for target in targets
        ]
        self._calls = [
            channel.unary_unary(
                METHOD,
                request_serializer=pb.GetUserRequest.SerializeToString,
                response_deserializer=pb.GetUserResponse.FromString,
            )
            for channel in self._channels
        ]
        self._rate = rate
        # At most a window of samples at the full rate: older ones fall out.
        self._samples: collections.deque[_Sample] = collections.deque(
            maxlen=int(rate * WINDOW_S) + IN_FLIGHT_MAX
        )
        self._open: set[asyncio.Task[None]] = set()
        self._has_answered = [False] * len(targets)
        self._skipped = self._total_ok = self._total_errors = 0

    async def run(self, *, out: Path) -> None:
        """Call and write figures until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(self._report(out))

    async def close(self) -> None:
        """Give calls in flight a moment, then close the channels."""
        for channel in self._channels:
            await channel.close(grace=1.0)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        while True:
            due += 1 / self._rate
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            number += 1
            if len(self._open) >= IN_FLIGHT_MAX:
                self._skipped += 1
                continue
            task = asyncio.create_task(self._call(number))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _call(self, number: int) -> None:
        target = number % len(self._calls)
        call = self._calls[target](pb.GetUserRequest(user_id=str(number)), timeout=CALL_TIMEOUT_S)
        started = time.monotonic()
        try:
            metadata = await call.initial_metadata()
            await call
        except grpc.aio.AioRpcError as error:
            if self._has_answered[target]:
                self._total_errors += 1
            now = time.monotonic()
            self._samples.append(
                _Sample(
                    now,
                    now - started,
                    error=error.code().name,
                    message=(error.details() or "")[:300],
                )
            )
            return
        self._total_ok += 1
        self._has_answered[target] = True
        now = time.monotonic()
        cluster, service = server_of(metadata)
        self._samples.append(_Sample(now, now - started, cluster=cluster, service=service))

    async def _report(self, out: Path) -> None:
        temporary = out.with_suffix(".new")
        while True:
            await asyncio.sleep(1.0)
            temporary.write_text(self.figures().model_dump_json(by_alias=True))
            temporary.replace(out)

    def figures(self) -> ClientFigures:
        """The window's figures now."""
        oldest = time.monotonic() - WINDOW_S
        window = [sample for sample in self._samples if sample.at >= oldest]
        answered = sorted(sample.took_s * 1000 for sample in window if not sample.error)
        return ClientFigures(
            window_s=WINDOW_S,
            rate=self._rate,
            by_cluster=collections.Counter(s.cluster for s in window if not s.error),
            by_service=collections.Counter(
                f"{s.cluster}/{s.service}" for s in window if not s.error
            ),
            errors=collections.Counter(s.error for s in window if s.error),
            messages={s.error: s.message for s in window if s.error},
            p50_ms=_quantile(answered, 0.50),
            p99_ms=_quantile(answered, 0.99),
            over_1s=sum(1 for took_ms in answered if took_ms > 1000),
            skipped=self._skipped,
            total_ok=self._total_ok,
            total_errors=self._total_errors,
        )


def server_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[str, str]:
    """The cluster and the service whose demo endpoint answered."""
    served_by = str(dict(metadata or ()).get("x-served-by", "?/?/?"))
    cluster, _, service, *_ = served_by.split("/")
    return cluster, service


def _quantile(ordered: list[float], share: float) -> float | None:
    """The nearest-rank quantile, or ``None`` of nothing."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None


async def _main(options: argparse.Namespace) -> None:
    client = Client(options.targets, rate=options.rate, ca=options.ca.read_bytes())
    running = asyncio.create_task(client.run(out=options.out))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        await client.close()


def main() -> None:
    """``client --rate N --ca FILE --out FILE HOST:PORT ...``"""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True, help="shown in process lists")
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("targets", nargs="+")
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
