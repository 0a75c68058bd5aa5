"""One client's subscription to one resource type: what it asked for, holds, and was told.

Decides: which resources are owed, which are gone, and what an answer to a response means.
Leaves to others: the order between types (``stream``), sending (``server``).
Invariants: at most one response is outstanding; a version that was refused is not sent again until
it changes; a name that does not exist is reported as removed once.

    idle --take--> outstanding --ACK/NACK--> idle        (a stale nonce changes nothing)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from federation.discovery.catalog import LEGACY_WILDCARD, Resource, ResourceType

WILDCARD = "*"
_ABSENT = ""
"""Version of a name that the client knows not to exist."""

NAMES_MAX = 100_000
"""Names one client may subscribe to for one type: far above any gateway, far below trouble."""


ERROR_CHARS_MAX = 16_384
"""Longest text of a refusal that is searched for names; of a longer one the beginning is kept."""


class SubscriptionError(Exception):
    """The client asked for something this server does not do; the stream ends with the message."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A resource version that the client refused, in its words."""

    version: str
    message: str


@dataclass(frozen=True, slots=True)
class Pending:
    """What the client has to be told: resources new to it, changed ones, and ones that are gone."""

    introduced: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Nothing to tell."""
        return not (self.introduced or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class Outstanding:
    """The response that has not been answered yet."""

    nonce: str
    versions: Mapping[str, str]
    introduces: bool
    removes: bool


@dataclass(slots=True)
class Subscription:
    """State of one type on one stream; see the diagram above."""

    resource_type: ResourceType
    wildcard: bool = False
    opened: bool = False
    first_answer_owed: bool = False
    names: set[str] = field(default_factory=set)
    known: dict[str, str] = field(default_factory=dict)
    outstanding: Outstanding | None = None
    refusals: dict[str, Refusal] = field(default_factory=dict)

    # What the client says.

    def subscribe(
        self,
        names: Sequence[str],
        unsubscribe: Sequence[str],
        held: Mapping[str, str],
    ) -> None:
        """Take the subscription part of a request. ``held`` counts in the first one only."""
        if not self.opened:
            self.opened = True
            self.first_answer_owed = True
            self.known = dict(held)
            self.wildcard = not names and self.resource_type in LEGACY_WILDCARD
        else:
            for name in names:  # asking again for what one has means: send it again
                self.known.pop(name, None)
        for name in names:
            if name == WILDCARD:
                self.wildcard = True
            else:
                self.names.add(name)
        if len(self.names) > NAMES_MAX:
            raise SubscriptionError(
                f"more than {NAMES_MAX} names of {self.resource_type.word} subscribed"
            )
        self._unsubscribe(unsubscribe)

    def _unsubscribe(self, names: Sequence[str]) -> None:
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
                self.known = {n: v for n, v in self.known.items() if n in self.names}
            else:
                self.names.discard(name)
                if not self.wildcard:
                    self.known.pop(name, None)

    def answer(self, nonce: str, error: str | None) -> bool:
        """Take the client's answer to a response; says whether it was to the outstanding one."""
        if self.outstanding is None or nonce != self.outstanding.nonce:
            return False
        versions, self.outstanding = self.outstanding.versions, None
        if error is None:
            for name in versions:
                self.refusals.pop(name, None)
            return True
        if len(error) > ERROR_CHARS_MAX:  # what it does not name any more may be refused as well
            error, named = error[:ERROR_CHARS_MAX] + "…", list(versions)
        else:
            named = [name for name in versions if _names(error, name)] or list(versions)
        for name in versions:
            if name in named:
                self.refusals[name] = Refusal(versions[name], _part_on(name, error, named))
            else:
                self.refusals.pop(name, None)
        return True

    # What the client has to be told.

    def pending(self, resources: Mapping[str, Resource]) -> Pending:
        """The difference between ``resources`` and what the client knows."""
        if not self.opened:
            return Pending((), (), ())
        selected = {*resources, *self.names} if self.wildcard else self.names
        introduced: list[str] = []
        changed: list[str] = []
        removed: list[str] = []
        for name in selected:
            known = self.known.get(name)
            resource = resources.get(name)
            if resource is None:
                if known != _ABSENT:
                    removed.append(name)
            elif not known:
                introduced.append(name)
            elif known != resource.version:
                changed.append(name)
        removed += [
            name
            for name, known in self.known.items()
            if known != _ABSENT and name not in resources and name not in self.names
        ]
        return Pending(
            tuple(sorted(introduced)), tuple(sorted(changed)), tuple(sorted(set(removed)))
        )

    def sent(
        self, nonce: str, versions: Mapping[str, str], removed: Sequence[str], *, introduces: bool
    ) -> None:
        """Record a response as sent and outstanding."""
        assert self.outstanding is None, "one outstanding response per type"
        self.first_answer_owed = False
        self.known.update(versions)
        for name in removed:
            self.refusals.pop(name, None)
            if name in self.names:
                self.known[name] = _ABSENT
            else:
                self.known.pop(name, None)
        self.outstanding = Outstanding(nonce, dict(versions), introduces, bool(removed))


def _part_on(name: str, error: str, named: Sequence[str]) -> str:
    """What ``error`` says on one resource, if it lists them as ``NAME: MESSAGE; NAME: MESSAGE``."""
    _, found, part = f"; {error}".partition(f"; {name}: ")
    if not found:
        return error
    ends = [at for other in named if (at := part.find(f"; {other}: ")) >= 0]
    return part[: min(ends)] if ends else part


def _names(text: str, name: str) -> bool:
    """Whether ``text`` names the resource, and not merely one whose name it is a part of."""
    return re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-])", text) is not None
