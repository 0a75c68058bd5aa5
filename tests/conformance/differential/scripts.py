"""What a case does and what was seen of it: plain values without I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum

Header = tuple[str, str]

CASE_HEADER = "x-case"
"""Says to the upstream which script it follows."""


class At(Enum):
    """When an upstream acts."""

    HEADERS = "on the request's headers"
    END = "on the request's end"


class After(Enum):
    """How far an answer got before a fault."""

    NOTHING = "nothing"
    HEADERS = "its headers"
    MESSAGE = "a message"


@dataclass(frozen=True, slots=True)
class Answer:
    """Headers, ``messages`` of these sizes, trailers; without messages and with ``trailers_only``
    all is one block.
    """

    at: At = At.END
    status: int = 200
    content_type: str = "application/grpc"
    headers: tuple[Header, ...] = ()
    messages: tuple[int, ...] = (8,)
    trailers: tuple[Header, ...] = (("grpc-status", "0"),)
    trailers_only: bool = False
    delay_s: float = 0.0
    reads_after_s: float = 0.0
    """How long the request's body is left unread, so that its sender's windows run dry."""


@dataclass(frozen=True, slots=True)
class Reset:
    """RST_STREAM with ``code``."""

    code: int
    after: After = After.NOTHING
    at: At = At.END


@dataclass(frozen=True, slots=True)
class Hangup:
    """The connection is closed under the call."""

    after: After = After.NOTHING
    at: At = At.END


@dataclass(frozen=True, slots=True)
class Leave:
    """GOAWAY: this call is still served, or (``refuse``) it is above the last stream taken."""

    refuse: bool


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer, ever."""

    after: After = After.NOTHING


Deed = Answer | Reset | Hangup | Leave | Silence


@dataclass(frozen=True, slots=True)
class ClientReset:
    """The client ends its call by RST_STREAM."""

    code: int
    after_answer_headers: bool
    """Else when the request has reached its upstream."""


@dataclass(frozen=True, slots=True)
class Script:
    """One request and what upstreams do with its tries; the last deed goes for further tries."""

    path: str
    authority: str = "differential.example.com"
    headers: tuple[Header, ...] = ()
    content_type: str | None = "application/grpc"
    chunks: tuple[int, ...] = (13,)
    trailers: tuple[Header, ...] = ()
    ends: bool = True
    """False: the request stays open."""

    window: int = 65_535
    """The client's receive window per stream; the client reads as fast as it can otherwise."""

    reads_after_s: float = 0.0
    reset: ClientReset | None = None
    deeds: tuple[Deed, ...] = (Answer(),)


@dataclass(slots=True)
class Body:
    """Size and digest of bytes that went by."""

    size: int = 0
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self._digest.update(data)

    def __str__(self) -> str:
        return f"{self.size} bytes {self._digest.hexdigest()[:8]}"


@dataclass(slots=True)
class Side:
    """What one end of a call received; ``end`` is how its side of the stream ended."""

    headers: list[Header] = field(default_factory=list)
    body: Body = field(default_factory=Body)
    trailers: list[Header] = field(default_factory=list)
    end: str = "open"


@dataclass(slots=True)
class Seen:
    """A case as seen from both ends of one proxy."""

    answer: Side
    tries: list[Side]


def content(size: int) -> bytes:
    """A gRPC message of ``size`` bytes in all (5 at least): always the same bytes."""
    body = bytes(index * 7 % 251 for index in range(max(0, size - 5)))
    return b"\0" + len(body).to_bytes(4, "big") + body
