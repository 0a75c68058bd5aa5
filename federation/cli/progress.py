"""Progress of what takes longer than a second, on a terminal only.

Decides: when it shows and that it leaves nothing behind.
Invariants: it is on standard error, so that results can be piped; without a terminal it is silent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

SHOWN_AFTER_S = 1.0


class Steps:
    """Counts steps of a bar, if there is one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total) if progress else None

    def step(self, what: str, *, done: int = 1) -> None:
        """``done`` more steps are over; ``what`` comes next."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=done, description=what)


@contextmanager
def steps(total: int) -> Iterator[Steps]:
    """A bar of ``total`` steps, which appears once the work has taken ``SHOWN_AFTER_S``."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Steps(None, total)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
    progress = Progress(*columns, console=console, transient=True)
    # By the clock and not at a step: the step that takes long is the one that people wait for.
    showing = threading.Timer(SHOWN_AFTER_S, progress.start)
    showing.daemon = True
    showing.start()
    try:
        yield Steps(progress, total)
    finally:
        showing.cancel()
        showing.join()
        progress.stop()
