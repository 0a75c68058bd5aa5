"""Exit codes of ``fedctl``, which scripts rely on.

Decides: the numbers and their meaning.
Leaves to others: which failure is which (each command).
Invariants: a number never changes its meaning.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command came to."""

    OK = 0
    """Everything asked for is done."""
    FAILED = 1
    """Some of it is not: objects were refused, or the process failed."""
    USAGE = 2
    """The command line itself is wrong; nothing was done."""
    STORE_AWAY = 3
    """etcd cannot be reached; traffic is not affected."""
    NOT_FOUND = 4
    """What was named does not exist."""
    REFUSED = 5
    """A rule forbids it (a drain that the rest cannot carry); ``--force`` may help."""
