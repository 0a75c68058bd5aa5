"""Hostnames: what listeners and routes have in common, and which is more specific.

Decides: intersection and specificity as the Gateway API defines them.
Leaves to others: which routes and listeners are compared.
Invariants: ``*.a.b`` matches one label or more before ``.a.b``, never ``a.b`` itself; ``*`` alone
is every host and the least specific.
"""

from __future__ import annotations

ANY = "*"
"""Every host."""


def covers(pattern: str, hostname: str) -> bool:
    """Whether every host that ``hostname`` means is also meant by ``pattern``."""
    if pattern in (ANY, hostname):
        return True
    return pattern.startswith("*.") and hostname.removeprefix("*").endswith(pattern[1:])


def covering(hostname: str) -> tuple[str, ...]:
    """All patterns that cover ``hostname``: as many as it has labels, however many are in use."""
    rest = hostname.removeprefix("*")
    wider = [f"*{rest[at:]}" for at, letter in enumerate(rest) if letter == "."]
    return tuple(dict.fromkeys((hostname, *wider, ANY)))


def intersect(listener: str | None, route: tuple[str, ...]) -> tuple[str, ...]:
    """The hostnames that both ask for, sorted; no route hostnames take the listener's."""
    of_listener = listener or ANY
    found: set[str] = set()
    for hostname in route or (ANY,):
        if covers(of_listener, hostname):
            found.add(hostname)
        elif covers(hostname, of_listener):
            found.add(of_listener)
    return tuple(sorted(found))


def specificity(hostname: str) -> tuple[int, int]:
    """Larger is more specific: characters if precise, then characters at all."""
    if hostname == ANY:
        return (0, 0)
    return (0 if hostname.startswith("*.") else len(hostname), len(hostname))
