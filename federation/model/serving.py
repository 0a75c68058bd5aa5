"""What one gateway process serves of its cluster's snapshot.

Decides: the words for it, in node metadata and on command lines, and which listeners they name.
Leaves to others: what else of a snapshot those listeners need (``derive.serving``).
Invariants: a word that is not known serves nothing: it is refused before it comes here.

    all                  every listener: gateways that all Gateways share, and a stock Envoy
    gateway:NS/NAME      the listeners of that Gateway alone
    east-west            what belongs to no Gateway: the entrance for other clusters, and imports
"""

from __future__ import annotations

import re

from federation.model.snapshot import Listener

EVERYTHING = "all"
EAST_WEST = "east-west"
_GATEWAY = "gateway:"

_FORM = re.compile(rf"{EVERYTHING}|{EAST_WEST}|{_GATEWAY}[-a-z0-9]+/[-.a-z0-9]+")

FORMS = f"`{EVERYTHING}`, `{EAST_WEST}` or `{_GATEWAY}NAMESPACE/NAME`"
"""What can be said, for messages."""


def only_gateway(qualified_name: str) -> str:
    """The word for one Gateway, by its ``NAMESPACE/NAME``."""
    return f"{_GATEWAY}{qualified_name}"


def is_known(serves: str) -> bool:
    """Whether ``serves`` is one of the words."""
    return _FORM.fullmatch(serves) is not None


def serves_gateway(serves: str, qualified_name: str) -> bool:
    """Whether the Gateway ``NAMESPACE/NAME`` is served by those who say ``serves``."""
    return serves in (EVERYTHING, only_gateway(qualified_name))


def serves_listener(serves: str, listener: Listener) -> bool:
    """Whether ``listener`` is opened by those who say ``serves``."""
    if listener.gateway:
        return serves_gateway(serves, listener.gateway)
    return serves in (EVERYTHING, EAST_WEST)
