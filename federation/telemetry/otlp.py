"""Traces and metrics of a control-plane process sent by OTLP, when asked.

Decides: what asks for it (an endpoint, or OpenTelemetry's own environment variables), how metrics
that Prometheus would read become OTLP's.
Leaves to others: sampling, batches, retries, TLS and headers: the SDK, with its ``OTEL_*``
variables.
Invariants: without an endpoint the SDK is not even imported; a slow or dead collector costs one
bounded queue of spans (``OTEL_BSP_MAX_QUEUE_SIZE``, what does not fit is dropped) and one metrics
request at a time, and never waits on the event loop.

By HTTP and JSON: the protobuf exporters cannot be imported beside xds-protos (see pyproject.toml).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Tracer
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

ENDPOINT_VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
EVERY_VARIABLE = "OTEL_METRIC_EXPORT_INTERVAL"
EVERY_MS = 60_000
FLUSH_S_MAX = 5.0
"""Longest wait for the last spans at the end."""


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """``endpoint`` is the collector's base URL; ``None``: the ``OTEL_*`` variables say."""

    endpoint: str | None
    every_s: float = EVERY_MS / 1000

    @classmethod
    def read(cls, endpoint: str | None, environment: Mapping[str, str]) -> OtlpSettings | None:
        """The settings, or ``None`` where nothing asks for sending. Raises ``ValueError``."""
        if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        if endpoint is None and not any(environment.get(name) for name in ENDPOINT_VARIABLES):
            return None
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError(
                f'"{endpoint}" is no URL of an OTLP/HTTP receiver, such as '
                "http://otel-collector.infra:4318"
            )
        every_ms = environment.get(EVERY_VARIABLE) or str(EVERY_MS)
        if not every_ms.isdigit() or int(every_ms) < 1:
            raise ValueError(f"{EVERY_VARIABLE} is {every_ms!r}, not a number of milliseconds")
        return cls(endpoint.rstrip("/") if endpoint else None, int(every_ms) / 1000)

    def url(self, signal: str) -> str | None:
        """Where a signal goes; ``None``: where the variables say."""
        return f"{self.endpoint}/v1/{signal}" if self.endpoint else None


@asynccontextmanager
async def sending(
    settings: OtlpSettings | None,
    registry: CollectorRegistry,
    *,
    service: str,
    instance: str,
    attributes: Mapping[str, str],
) -> AsyncGenerator[Tracer | None, None]:
    """Send ``registry`` and what the yielded tracer is given, until left; ``None``: nothing."""
    if settings is None:
        yield None
        return
    from opentelemetry.exporter.otlp.json.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or service}
    resource = Resource.create({**attributes, **named, "service.instance.id": instance})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.url("traces"))))
    exporter = OTLPMetricExporter(settings.url("metrics"))
    pushing = asyncio.create_task(_push(exporter, registry, resource, settings.every_s))
    try:
        yield provider.get_tracer("federation")
    finally:
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)
        try:
            async with asyncio.timeout(FLUSH_S_MAX):
                await asyncio.to_thread(provider.shutdown)
        except TimeoutError:
            log.warning("the last spans were not sent in time", extra={"wait_s": FLUSH_S_MAX})


async def _push(
    exporter: MetricExporter, registry: CollectorRegistry, resource: Resource, every_s: float
) -> None:
    from opentelemetry.sdk.metrics.export import MetricExportResult

    from federation.telemetry.otlp_metrics import metrics_data

    start_ns, failing = time.time_ns(), False
    while True:
        await asyncio.sleep(every_s)
        data = metrics_data(registry, resource, start_ns=start_ns, now_ns=time.time_ns())
        result = await asyncio.to_thread(exporter.export, data)
        if failing != (result is not MetricExportResult.SUCCESS):
            failing = not failing
            log.warning("metrics are not sent" if failing else "metrics are sent again")
