"""Where gateways' admin endpoints are, and asking them.

Decides: whom ``fedctl`` asks: those named with ``--gateway``, else the running lab's, else those
that the clusters' traffic reports name; how long it waits.
Leaves to others: what they answer (``gateway.admin``), what it means.
Invariants: a gateway that does not answer is told with the reason and holds no other up. Admin
endpoints listen where their Pods or machines are: from elsewhere they are reached by a port
forwarded (``kubectl port-forward``) and named with ``--gateway``.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import aiohttp
import typer

from federation.cli.context import (
    CommandError,
    Context,
    etcd_of_lab,
    lab_clusters,
)
from federation.cli.exit_codes import ExitCode
from federation.ports import StoreUnavailable
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import TrafficReader

ANSWER_S = 10.0
"""For one answer: a gateway that tries all its peers takes a few seconds."""

CONNECT_S = 2.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""Largest answer that is read: the configuration of 10,000 services is a few MB."""

GatewayOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gateway",
        metavar="[NAME=]HOST:PORT",
        help="Admin endpoint of a gateway to ask; may be given again. Default: the lab's, else "
        "those that the clusters report. For Pods: kubectl port-forward POD 15000",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, order=True)
class GatewayAt:
    """A gateway and where its admin endpoint listens. ``cluster`` is empty until it is asked."""

    cluster: str
    name: str
    admin: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.name}" if self.cluster else self.name


class GatewayAway(Exception):  # noqa: N818 - reads as a fact where it is caught
    """A gateway's admin endpoint does not answer as it should; the message says why."""


async def find_gateways(context: Context, named: Sequence[str]) -> tuple[GatewayAt, ...]:
    """The gateways to ask. Raises ``StoreUnavailable`` where etcd has to be asked and is away."""
    if named:
        return tuple(_named(text) for text in named)
    if context.etcd == (etcd_of_lab(os.environ),):
        return tuple(sorted(_of_lab(context)))
    async with context.open_store() as store:
        keys = Keys(context.prefix)
        listing = await store.list(keys.traffic)
        reports = TrafficReader(keys).read(listing.entries).reports
    return tuple(
        sorted(
            GatewayAt(str(cluster), gateway.name, gateway.admin)
            for cluster, report in reports.items()
            for gateway in report.gateways
            if gateway.admin
        )
    )


def _named(text: str) -> GatewayAt:
    name, equals, address = text.rpartition("=")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or (equals and not name):
        raise CommandError(
            f'--gateway: "{text}" is not [NAME=]HOST:PORT, such as gw-1=127.0.0.1:15000',
            ExitCode.USAGE,
        )
    return GatewayAt("", name or address, address)


def _of_lab(context: Context) -> list[GatewayAt]:
    return [
        GatewayAt(cluster["name"], gateway["name"], gateway["admin"])
        for cluster in lab_clusters(context)
        for gateway in cluster["gateways"]
    ]


class AdminClient:
    """Asks admin endpoints; made by ``admin_client``."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def get(self, at: GatewayAt, path: str) -> Any:
        """The JSON at ``path``, whatever its HTTP status. Raises ``GatewayAway``."""
        what = f"GET http://{at.admin}{path}"
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._http.get(f"http://{at.admin}{path}") as answer,
            ):
                if answer.status == 404:
                    raise GatewayAway(f"{what}: 404: an older gateway that cannot say")
                body = await _bounded(answer, what)
                if answer.status == 403:
                    raise GatewayAway(f"{what}: {_why(body)}")
                return json.loads(body)
        except TimeoutError as error:
            raise GatewayAway(f"{what}: no answer within {ANSWER_S:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise GatewayAway(f"{what}: {str(error) or type(error).__name__}") from error

    @asynccontextmanager
    async def stream(
        self, at: GatewayAt, path: str, query: dict[str, str]
    ) -> AsyncGenerator[aiohttp.StreamReader, None]:
        """The lines at ``path`` for as long as they are read. Raises ``GatewayAway``."""
        what = f"GET http://{at.admin}{path}"
        unlimited = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        url = f"http://{at.admin}{path}"
        try:
            async with self._http.get(url, params=query, timeout=unlimited) as answer:
                if answer.status != 200:
                    raise GatewayAway(f"{what}: {_why(await answer.content.read(2_000))}")
                yield answer.content
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise GatewayAway(f"{what}: {str(error) or type(error).__name__}") from error


def _why(body: bytes) -> str:
    """What a refusal says."""
    text = body.decode(errors="replace").strip()
    try:
        return str(json.loads(text)["why"])
    except (ValueError, KeyError, TypeError):
        return text


async def _bounded(answer: aiohttp.ClientResponse, what: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_chunked(64 * 1024):
        size += len(chunk)
        if size > ANSWER_BYTES_MAX:
            raise GatewayAway(f"{what}: more than {ANSWER_BYTES_MAX} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


@asynccontextmanager
async def admin_client() -> AsyncGenerator[AdminClient, None]:
    """A client for many admin endpoints."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        yield AdminClient(http)


async def gateways_or_nothing(
    context: Context, named: Sequence[str]
) -> tuple[tuple[GatewayAt, ...], str]:
    """The gateways, or why they cannot be found."""
    try:
        return await find_gateways(context, named), ""
    except StoreUnavailable as error:
        return (), str(error)
