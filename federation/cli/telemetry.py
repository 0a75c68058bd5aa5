"""``--otlp`` of the commands that run in Pods.

Decides: the option's words and what a wrong one says.
Leaves to others: sending (``telemetry.otlp``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from federation.telemetry.otlp import OtlpSettings

OTLP_OPTION: Any = typer.Option(
    "--otlp",
    metavar="URL",
    help="Send traces and metrics by OTLP/HTTP to this collector, such as http://collector:4318. "
    "The OTEL_* environment variables hold, too; without either nothing is sent.",
    show_default=False,
)


def otlp_settings(endpoint: str | None) -> OtlpSettings | None:
    """Where telemetry goes, if anywhere. Raises ``typer.BadParameter``."""
    from federation.telemetry.otlp import OtlpSettings

    try:
        return OtlpSettings.read(endpoint, os.environ)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--otlp") from error
