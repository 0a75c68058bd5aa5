"""docs/fedctl.md, made from the commands themselves: ``python -m federation.cli.reference``.

Decides: the page's layout.
Leaves to others: every word in it (the commands' own help texts).
Invariants: the same commands give the same page on every machine.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import typer

from federation.cli.main import COMMANDS, Entry

HEAD = """# fedctl

Made from the commands by `python -m federation.cli.reference > docs/fedctl.md`: what each one
says with `--help`. `fedctl --install-completion` makes a shell complete commands and options.
Global options (`--etcd`, `--prefix`, `--etcd-ca`, `--etcd-cert`, `--etcd-key`) stand before the
command.

Exit codes: 0 done, 1 refused or failed in part, 2 wrong usage, 3 etcd is away, 4 not found, 5
forbidden by a rule.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(
        [HEAD, *(line for name, entry in COMMANDS.items() for line in _of(name, entry))]
    )


def command(name: str, entry: Entry) -> Any:
    """The command of ``entry`` as click has it."""
    group: Any = typer.main.get_group(importlib.import_module(f"federation.cli.{entry.module}").app)
    return group if entry.group else group.commands[name]


def _of(name: str, entry: Entry) -> Iterator[str]:
    found = command(name, entry)
    if not entry.group:
        yield from _section(f"fedctl {name}", found, level=2)
        return
    yield from (f"## fedctl {name}", "", _text(found.help), "")
    for inner in sorted(found.commands):
        yield from _section(f"fedctl {name} {inner}", found.commands[inner], level=3)


def _section(name: str, found: Any, *, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} {name}", "", _text(found.help), "")
    if found.epilog:
        yield from (f"{_text(found.epilog)}", "")
    rows = [
        _row(parameter) for parameter in found.params if not getattr(parameter, "hidden", False)
    ]
    if rows:
        yield from ("| | |", "| --- | --- |", *rows, "")


def _row(parameter: Any) -> str:
    names = sorted([*parameter.opts, *parameter.secondary_opts], key=len, reverse=True)
    shown = names[0] if names[0].startswith("-") else (parameter.metavar or parameter.name.upper())
    text = _text(getattr(parameter, "help", None)).replace("|", "\\|")
    return f"| `{shown}` | {text} |"


def _text(text: str | None) -> str:
    """Help without rich's markup, each paragraph on one line."""
    paragraphs = re.split(r"\n\s*\n", (text or "").replace("\f", ""))
    return "\n\n".join(" ".join(part.split()) for part in paragraphs).strip()


if __name__ == "__main__":
    sys.stdout.write(page().rstrip("\n") + "\n")
