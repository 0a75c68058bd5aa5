"""A real OpenTelemetry Collector, built from ``tests/integration/collector``: it takes OTLP, and
keeps what came as JSON lines for tests to read.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from federation.cli.lab.kubernetes.go_programs import GoPrograms
from tests.testkit.ports import free_port
from tests.testkit.processes import running

COLLECTOR = GoPrograms(
    module=Path(__file__).parents[1] / "integration" / "collector",
    name="collector",
    packages=(".",),
    build_timeout_s=1800,
    environment=(("CGO_ENABLED", "0"),),
    flags=("-ldflags=-s -w",),
)

SIGNALS = ("traces", "logs", "metrics")


@dataclass(frozen=True, slots=True)
class Span:
    """One span as the collector received it; ids are lower-case hex, ``parent`` empty at a root."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One log record as the collector received it."""

    body: Any
    trace: str
    span: str
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of one request; ``points`` are OTLP's data points in their JSON form."""

    name: str
    kind: str
    points: list[dict[str, Any]]
    resource: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Collector:
    """A running collector and what it received so far."""

    grpc_port: int
    http_port: int
    directory: Path
    process: subprocess.Popen[bytes]

    def requests(self, signal: str) -> list[dict[str, Any]]:
        """All requests of a signal, oldest first, in OTLP's JSON form."""
        path = self.directory / f"{signal}.jsonl"
        if not path.exists():
            return []
        whole, _, _half = path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def spans(self) -> list[Span]:
        """All spans so far."""
        return [
            _span(span, scoped["scope"].get("name", ""), plain(of["resource"].get("attributes")))
            for request in self.requests("traces")
            for of in request["resourceSpans"]
            for scoped in of["scopeSpans"]
            for span in scoped["spans"]
        ]

    def traces(self) -> dict[str, list[Span]]:
        """All spans so far by their trace."""
        found: dict[str, list[Span]] = {}
        for span in self.spans():
            found.setdefault(span.trace, []).append(span)
        return found

    def logs(self) -> list[LogRecord]:
        """All log records so far."""
        return [
            LogRecord(
                body=_value(record.get("body", {})),
                trace=record.get("traceId", ""),
                span=record.get("spanId", ""),
                attributes=plain(record.get("attributes")),
                resource=plain(of["resource"].get("attributes")),
            )
            for request in self.requests("logs")
            for of in request["resourceLogs"]
            for scoped in of["scopeLogs"]
            for record in scoped["logRecords"]
        ]

    def metrics(self) -> list[Metric]:
        """All metrics so far, one for each request that had it."""
        return [
            _metric(metric, plain(of["resource"].get("attributes")))
            for request in self.requests("metrics")
            for of in request["resourceMetrics"]
            for scoped in of["scopeMetrics"]
            for metric in scoped["metrics"]
        ]


def plain(attributes: list[dict[str, Any]] | None) -> dict[str, Any]:
    """OTLP's attributes as a dict."""
    return {each["key"]: _value(each["value"]) for each in attributes or []}


def _value(value: dict[str, Any]) -> Any:
    for kind, content in value.items():
        match kind:
            case "intValue":
                return int(content)
            case "arrayValue":
                return [_value(each) for each in content.get("values", [])]
            case "kvlistValue":
                return plain(content.get("values"))
            case _:
                return content
    return None


def _span(span: dict[str, Any], scope: str, resource: dict[str, Any]) -> Span:
    return Span(
        name=span["name"],
        trace=span["traceId"],
        id=span["spanId"],
        parent=span.get("parentSpanId", ""),
        kind=span.get("kind", 0),
        start_ns=int(span["startTimeUnixNano"]),
        end_ns=int(span["endTimeUnixNano"]),
        status=span.get("status", {}).get("code", 0),
        attributes=plain(span.get("attributes")),
        resource=resource,
        scope=scope,
    )


def _metric(metric: dict[str, Any], resource: dict[str, Any]) -> Metric:
    kinds = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
    kind = next(kind for kind in kinds if kind in metric)
    return Metric(metric["name"], kind, metric[kind].get("dataPoints", []), resource)


def program() -> Path:
    """The collector's program, built once.

    Raises ``NoProgramsError`` where it cannot be built.
    """
    return COLLECTOR.build() / "collector"


@contextlib.contextmanager
def running_collector(directory: Path, *, host: str = "127.0.0.1") -> Iterator[Collector]:
    """A collector that listens for OTLP by gRPC and HTTP on free ports of ``host``.

    Raises ``NoProgramsError`` where it cannot be built.
    """
    binary = program()
    directory.mkdir(parents=True, exist_ok=True)
    grpc_port, http_port = free_port(), free_port()
    settings = directory / "collector.yaml"
    settings.write_text(yaml.safe_dump(_settings(directory, host, grpc_port, http_port)))
    command = [str(binary), f"--config={settings}"]
    with running(command, [grpc_port, http_port], directory / "collector.log", host=host) as child:
        yield Collector(grpc_port, http_port, directory, child)


def _settings(directory: Path, host: str, grpc_port: int, http_port: int) -> dict[str, Any]:
    pipeline = {"receivers": ["otlp"], "exporters": ["lines"]}
    return {
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": f"{host}:{grpc_port}"},
                    "http": {"endpoint": f"{host}:{http_port}"},
                }
            }
        },
        "exporters": {"lines": {"directory": str(directory)}},
        "service": {
            "pipelines": dict.fromkeys(SIGNALS, pipeline),
            # Its own metrics would want a port of their own.
            "telemetry": {"metrics": {"level": "none"}},
        },
    }


def validated(settings: Path) -> str:
    """What the collector finds wrong with a configuration; empty: nothing."""
    done = subprocess.run(
        [str(program()), "validate", f"--config={settings}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return "" if done.returncode == 0 else done.stderr or done.stdout
