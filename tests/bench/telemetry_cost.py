"""What traces, access logs and taps cost a call: CPU beside the same gateway without them."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.bench.growth import configuration, gateway
from tests.bench.loads import Sample, median, paced, unary
from tests.bench.proxies import backend
from tests.bench.setting import Security, make_tls

CALLS = 240_000
"""So many that the clock of CPU time, which ticks every 10 ms, is within 2 %."""

ROUNDS = 7
OFF: Final = "nothing"
PACE_PER_S = 20_000
"""A load that leaves the gateway time to wait; whoever watches it should not be noticed."""

PACED_OFF: Final = f"nothing, {PACE_PER_S:,} calls/s"

TAP: Final = {"calls_per_s_max": 100}

Samples = dict[str, list[Sample]]


def variants(log: Path) -> dict[str, dict[str, Any]]:
    """What each row adds to the update: a listener's telemetry, a tap."""

    def traced(per_million: int) -> dict[str, Any]:
        tracing = {"collector": "otel", "sampling_per_million": per_million, "tags": []}
        return {"tracing": tracing, "access_logs": []}

    def logged(sink: dict[str, str]) -> dict[str, Any]:
        return {"tracing": None, "access_logs": [{"sink": sink, "format": "json"}]}

    return {
        OFF: {},
        "traces, none sampled": {"telemetry": traced(0)},
        "traces, 10 %": {"telemetry": traced(100_000)},
        "traces, 100 %": {"telemetry": traced(1_000_000)},
        "access log, file": {"telemetry": logged({"file": str(log)})},
        "access log, OTLP": {"telemetry": logged({"otlp": "otel"})},
        "tap, 100 calls/s shown": {"tap": TAP},
        PACED_OFF: {"paced": True},
        f"tap, 100 of {PACE_PER_S:,} calls/s shown": {"tap": TAP, "paced": True},
    }


def measure(*, calls: int, rounds: int) -> Samples:
    """All variants in turn, ``rounds`` times after one warm-up."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(backend(directory))
        tls = make_tls(directory)
        subject = stack.enter_context(gateway(directory))
        log = directory / "access.log"
        samples: Samples = {name: [] for name in variants(log)}

        def load(added: dict[str, Any]) -> Sample:
            update = configuration([port], routes=1, endpoints=1)
            for listener in update["listeners"]:
                listener["telemetry"] = added.get("telemetry")
            proxy = subject.proxy(update | {"tap": added.get("tap")})
            if added.get("tap"):
                # In its first second a tap looks at every call, to learn how many there are.
                paced(proxy, calls=2 * PACE_PER_S, per_s=PACE_PER_S)
            if added.get("paced"):
                return paced(proxy, calls=min(calls, 5 * PACE_PER_S), per_s=PACE_PER_S)
            return unary(proxy, Security.PLAIN, tls, calls=calls)

        load({})
        for _ in range(rounds):
            for name, added in variants(log).items():
                samples[name].append(load(added))
                log.unlink(missing_ok=True)
        return samples


def table(samples: Samples) -> str:
    """The medians as Markdown, with each one's ratio to that without telemetry."""
    lines = [
        f"Unary calls, {Security.PLAIN.value}, one worker, median of {len(samples[OFF])} runs:",
        "",
        "| told about calls | CPU µs a call | min–max | of that without |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, runs in samples.items():
        if name in (OFF, PACED_OFF):
            off = median(runs, "cpu_us")
        cpu = [run.cpu_us for run in runs]
        middle = median(runs, "cpu_us")
        lines.append(
            f"| {name} | {middle:.2f} | {min(cpu):.2f}–{max(cpu):.2f} | {middle / off:.2f} × |"
        )
    return "\n".join(lines)
