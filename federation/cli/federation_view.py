"""The federation's view for commands that look once.

Decides: that values which cannot be read are complained about.
Leaves to others: reading (``operations.view``), what the view means (``derive``).
"""

from __future__ import annotations

from federation.cli.context import complain
from federation.operations import view
from federation.operations.view import Read, parse_service
from federation.ports import Store
from federation.wire.etcd_keys import Keys

__all__ = ["Read", "parse_service", "read_view"]


async def read_view(store: Store, keys: Keys) -> Read:
    """The view now. Raises ``StoreUnavailable``."""
    read = await view.read_view(store, keys)
    warn(read)
    return read


def warn(read: Read) -> None:
    """Complain about what could not be read."""
    for problem in read.problems:
        complain(f"warning: {problem}")
