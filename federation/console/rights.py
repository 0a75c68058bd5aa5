"""Who asks, and what he may do.

Decides: what a grant means, which rights follow from grants, the sentence for a right that is
missing.
Leaves to others: finding out who asks (``guard``), checking tokens (``tokens``).
Invariants: pure; without a grant there is no right; who may write may read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from federation.console.settings import Access


class Via(StrEnum):
    """How somebody said who he is."""

    BEARER = "bearer"
    CERTIFICATE = "certificate"
    LOOPBACK = "loopback"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who asks. ``names`` are what grants can name him by; ``expires_at`` is when his word
    ends (Unix seconds; ``None``: with his connection)."""

    user: str
    via: Via
    names: frozenset[str]
    expires_at: float | None = None


ANYBODY = Principal("loopback", Via.LOOPBACK, frozenset())
"""Who reaches a console that asks nobody who he is."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do; an empty reason means that he may."""

    why_not_read: str = ""
    why_not_write: str = ""


def checked_grant(text: str) -> str:
    """``text`` if it is a grant. Raises ``ValueError``."""
    known = ("user:", "sub:", "group:", "cn:", "spiffe://")
    if text == "*" or any(text.startswith(start) and len(text) > len(start) for start in known):
        return text
    raise ValueError(
        f'"{text}" is none of *, user:NAME, sub:SUBJECT, group:NAME, cn:NAME, spiffe://...'
    )


def rights_of(principal: Principal | None, access: Access) -> Rights:
    """What ``principal`` (``None``: nobody said who he is) may do."""
    if principal is None:
        sentence = "sign in first: this console wants " + _ways(access)
        return Rights(sentence, sentence)
    if access.open:
        closed = (
            "this console was started without --write, so that it changes nothing; "
            "start it with --write, or use `fedctl drain`"
        )
        return Rights("", "" if access.open_write else closed)
    writes = _granted(principal, access.writers)
    reads = writes or _granted(principal, access.readers)
    return Rights(
        "" if reads else _without(principal, "--reader or --writer"),
        "" if writes else _without(principal, "--writer"),
    )


def _granted(principal: Principal, grants: Iterable[str]) -> bool:
    return any(grant == "*" or _fits(grant, name) for grant in grants for name in principal.names)


def _fits(grant: str, name: str) -> bool:
    if grant.startswith("spiffe://") and grant.endswith("*"):
        return name.startswith(grant[:-1])
    return grant == name


def _ways(access: Access) -> str:
    ways = []
    if access.oidc is not None:
        ways.append(f"a bearer token of {access.oidc.issuer}")
    if access.certificates:
        ways.append("a client certificate")
    return " or ".join(ways)


def _without(principal: Principal, option: str) -> str:
    return (
        f"{principal.user} has no right to do this: no {option} of the console names him or one "
        "of his groups"
    )
