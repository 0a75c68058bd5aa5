"""Who serves an agent's Gateways: ``--gateway-mode`` and ``--gateway-template``, checked.

Decides: which options go together.
Leaves to others: what a template has to have (``wire.gateway_template``).
Invariants: a wrong template ends the command before anything is started.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from federation.model.infrastructure import GatewayTemplate


class GatewayMode(StrEnum):
    """Whose gateways serve a Gateway."""

    SHARED = "shared"
    DEDICATED = "dedicated"


def checked_template(
    mode: GatewayMode, path: Path | None, *, source: str
) -> GatewayTemplate | None:
    """The template of dedicated gateways, ``None`` for shared ones. Raises ``BadParameter``."""
    from federation.wire.gateway_template import TemplateError, read_template

    if mode is GatewayMode.SHARED:
        if path is not None:
            raise typer.BadParameter(
                "goes with --gateway-mode dedicated", param_hint="--gateway-template"
            )
        return None
    if source != "kubernetes":
        raise typer.BadParameter(
            "dedicated gateways are made on Kubernetes alone: --source kubernetes",
            param_hint="--gateway-mode",
        )
    if path is None:
        raise typer.BadParameter(
            "dedicated gateways are made from a template: --gateway-template FILE",
            param_hint="--gateway-mode",
        )
    try:
        return read_template(path.read_text())
    except OSError as error:
        raise typer.BadParameter(
            f"{path}: {error.strerror}", param_hint="--gateway-template"
        ) from error
    except TemplateError as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint="--gateway-template") from error
