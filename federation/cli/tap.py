"""``fedctl tap``: live calls of all gateways as one stream.

Decides: options, layout, how streams of gateways become one, the share of each.
Leaves to others: which calls are drawn and what is told of them (the gateways' cores).
Invariants: bounded at each gateway; what was left out is told; the taps end when this does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from federation.cli.context import CommandError, Context, complain, current, run
from federation.cli.exit_codes import ExitCode
from federation.cli.explain import OutputForm, OutputOption
from federation.cli.gateways import (
    AdminClient,
    GatewayAt,
    GatewayAway,
    GatewayOption,
    admin_client,
    find_gateways,
)

app = typer.Typer()

PER_S_MAX = 10_000
"""Calls a second that one gateway shows at most."""


@app.command("tap", epilog="Example: fedctl tap --to-cluster us-east-1 --code UNAVAILABLE")
def tap(
    ctx: typer.Context,
    route: Annotated[str | None, typer.Option(help="Calls of this route or rule.")] = None,
    to_cluster: Annotated[
        str | None, typer.Option(help="Calls whose last try went to this cluster.")
    ] = None,
    code: Annotated[
        str | None, typer.Option(help="Calls that ended so: a gRPC status, as UNAVAILABLE or 14.")
    ] = None,
    header: Annotated[
        str | None, typer.Option(metavar="NAME=VALUE", help="Calls with this header.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Calls of this method: package.Service/Method.")
    ] = None,
    max_per_second: Annotated[
        int,
        typer.Option(
            min=1,
            max=PER_S_MAX,
            help="Calls shown in a second; of more they are drawn evenly.",
        ),
    ] = 100,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many calls. Default: at Ctrl-C.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="End after this time, such as 10s.")
    ] = None,
    gateway: GatewayOption = None,
    output: OutputOption = OutputForm.TABLE,
) -> None:
    """Show calls as they end, of all gateways that can be reached.

    A gateway has one tap at a time: who asks for the same filter shares it, another one is refused.
    Sensitive headers are never told.
    """
    wanted = {"route": route, "to_cluster": to_cluster, "code": code, "method": method}
    chosen: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    if header is not None:
        name, equals, value = header.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f'"{header}" is not NAME=VALUE', param_hint="--header")
        chosen["header"] = [name.lower(), value]
    ending = Ending(count, _seconds(duration))
    run(_tap(current(ctx), chosen, max_per_second, ending, gateway or (), output))


def _seconds(text: str | None) -> float | None:
    from federation.model.duration import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text) / 1000
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from error


class Ending:
    """When enough was seen."""

    def __init__(self, calls: int | None, seconds: float | None) -> None:
        self._left = calls
        self.seconds = seconds

    @property
    def reached(self) -> bool:
        """Whether no call is wanted any more: other gateways' calls come until all streams end."""
        return self._left is not None and self._left <= 0

    def count_down(self) -> None:
        """A call was shown."""
        if self._left is not None:
            self._left -= 1


class _Enough(Exception):  # noqa: N818 - ends the streams
    """The last call that was wanted has been shown."""


async def _tap(
    context: Context,
    chosen: Mapping[str, Any],
    per_second: int,
    ending: Ending,
    named: Sequence[str],
    output: OutputForm,
) -> ExitCode:
    known = await find_gateways(context, named)
    if not known:
        raise CommandError(
            "no gateway is known; start one, or name its admin endpoint with --gateway HOST:PORT",
            ExitCode.NOT_FOUND,
        )
    # An even part for each, so that no gateway is seen more than its calls are worth.
    each = {**chosen, "calls_per_s_max": max(1, per_second // len(known))}
    show: Callable[[str, dict[str, Any]], str] = as_line if output is OutputForm.TABLE else as_json
    failures: list[str] = []
    async with admin_client() as client:

        async def one(at: GatewayAt) -> None:
            try:
                await _follow(client, at, each, show, ending)
            except GatewayAway as away:
                failures.append(str(away))
                complain(f"error: tapping {at}: {away}")

        with suppress(TimeoutError):
            async with asyncio.timeout(ending.seconds):
                try:
                    async with asyncio.TaskGroup() as group:
                        for at in known:
                            group.create_task(one(at))
                except* _Enough:
                    pass
    return ExitCode.FAILED if len(failures) == len(known) else ExitCode.OK


async def _follow(
    client: AdminClient,
    at: GatewayAt,
    wanted: Mapping[str, Any],
    show: Callable[[str, dict[str, Any]], str],
    ending: Ending,
) -> None:
    async with client.stream(at, "/tap", {"filter": json.dumps(wanted)}) as lines:
        while line := await lines.readline():
            if not line.strip():
                continue
            call = json.loads(line)
            if "left_out" in call:
                complain(f"{at.name}: {call['left_out']} calls were not told: it was too slow here")
                continue
            if ending.reached:
                return
            typer.echo(show(at.name, call))
            ending.count_down()
            if ending.reached:
                raise _Enough


def as_json(gateway: str, call: dict[str, Any]) -> str:
    """A call for programs: the access log's fields, and which gateway told it."""
    return json.dumps({"gateway": gateway, **call}, ensure_ascii=False)


def as_line(gateway: str, call: dict[str, Any]) -> str:
    """A call for people."""
    at = str(call.get("start_time", ""))[11:23] or time.strftime("%H:%M:%S")
    code = call.get("grpc_status") or call.get("http_status") or "-"
    where = call.get("destination_cluster") or call.get("answered_by") or "-"
    took_ms = float(call.get("duration_us") or 0) / 1000
    said = f"{at} {gateway}: {call.get('method', '-')} {code} {took_ms:.1f} ms > {where}"
    tries = int(call.get("tries") or 0)
    if call.get("endpoint"):
        said += f" ({call['endpoint']})"
    if tries > 1:
        said += f", {tries} tries"
    if call.get("reason") not in (None, "", "-"):
        said += f", {call['reason']}"
    if call.get("rule"):
        said += f" [{call['rule']}]"
    drawn = int(call.get("sampled_per_million") or 1_000_000)
    return said if drawn >= 1_000_000 else f"{said} (1 of {1_000_000 / drawn:.0f})"
