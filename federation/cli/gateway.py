"""``fedctl gateway``: the same command as ``python -m gateway``."""

from __future__ import annotations

import typer

from gateway.command import EXAMPLE, run_gateway

app = typer.Typer()
app.command("gateway", epilog=f"Example: fedctl gateway {EXAMPLE}")(run_gateway)
