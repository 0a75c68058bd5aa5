"""Progress of what takes longer than a second, on a terminal only.

Decides: when it shows and that it leaves nothing behind.
Invariants: it is on standard error, so that results can be piped; without a terminal it is silent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

SHOWN_AFTER_S = 1.0


class Steps:
    """Counts steps; the bar appears once the work has taken ``SHOWN_AFTER_S``."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._began = time.monotonic()
        self._task = progress.add_task("", total=total) if progress else None
        self._shown = False

    def step(self, what: str, *, done: int = 1) -> None:
        """``done`` more steps are over; ``what`` comes next."""
        if self._progress is None or self._task is None:
            return
        if not self._shown and time.monotonic() - self._began >= SHOWN_AFTER_S:
            self._progress.start()
            self._shown = True
        self._progress.update(self._task, advance=done, description=what)


@contextmanager
def steps(total: int) -> Iterator[Steps]:
    """A bar of ``total`` steps."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Steps(None, total)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
    progress = Progress(*columns, console=console, transient=True)
    try:
        yield Steps(progress, total)
    finally:
        progress.stop()
