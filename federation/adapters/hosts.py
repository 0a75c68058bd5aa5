"""Names of hosts, resolved by the machine's own resolver.

Decides: how long a look-up may take.
Leaves to others: when to look up, what an address is for.
Invariants: no foreign exception leaves this file.
"""

from __future__ import annotations

import asyncio
import socket

from federation.ports import TemporaryError

TIMEOUT_S = 10.0
"""Longer than a resolver takes to try its second server."""


class SystemHostNames:
    """Implements ``ports.HostNames``."""

    def __repr__(self) -> str:
        return "SystemHostNames()"

    async def addresses(self, name: str) -> tuple[str, ...]:
        """The IP addresses of ``name``. Raises ``TemporaryError``."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise TemporaryError(f"resolving {name}: no answer in {TIMEOUT_S:g} s") from error
        except (OSError, UnicodeError) as error:
            raise TemporaryError(f"resolving {name}: {error}") from error
        return tuple({str(sockaddr[0]) for *_, sockaddr in found})
