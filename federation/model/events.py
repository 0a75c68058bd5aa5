"""Events: what happened to an object that a person should see (``kubectl describe``).

Decides: the shape of an event.
Leaves to others: which there are (``derive.events``), keeping them (an ``EventSink``).
Invariants: an event is for people; nothing follows from one, and one that is lost changes nothing.
"""

from __future__ import annotations

from federation.model.base import Value
from federation.model.objects import ApiObject

NOTE_MAX = 1024
"""Bytes of a note that an API server takes."""


class ObjectEvent(Value):
    """Something that happened to ``regarding``.

    ``reason`` is a word for machines, ``action`` what the federation did or tried, ``note`` a
    sentence. ``known`` says that it may have been told before, so that telling it once is enough.
    """

    regarding: ApiObject
    warning: bool
    reason: str
    action: str
    note: str
    known: bool = False
