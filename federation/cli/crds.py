"""``fedctl crds``: the CustomResourceDefinitions of the federation's own kinds.

Decides: where they are written. Leaves to others: what they say (``wire.crds``).
Invariants: the output is the same wherever it is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command("crds", epilog="Example: fedctl crds | kubectl apply --server-side -f -")
def crds(
    directory: Annotated[
        Path | None, typer.Option(help="Write a file for each kind there, not to stdout.")
    ] = None,
) -> None:
    """Print the definitions of the federation's kinds for Kubernetes API servers."""
    from federation.model.objects.registry import plural
    from federation.wire.crds import KINDS, custom_resource_text

    texts = {f"{plural(kind)}.yaml": custom_resource_text(kind) for kind in KINDS}
    if directory is None:
        typer.echo("---\n".join(texts.values()), nl=False)
        return
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
