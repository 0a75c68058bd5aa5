"""Regular expressions that every gateway reads alike.

Decides: which expressions are taken: what RE2 (Envoy), Rust's regex and Python agree on.
Leaves to others: where they are used (``matches``).
Invariants: an expression that passes is accepted by each of them and matches in linear time, so
that one bad route cannot make a gateway refuse its whole configuration.
"""

from __future__ import annotations

import re

MAX_LENGTH = 1024
"""Characters; the Gateway API bounds service and method alike."""

MAX_REPEAT = 100
"""Bound of all counted repetitions multiplied: engines unroll them and refuse what grows large."""

_SET = r"&&|--|~~|\|\|"
"""Set operations in classes, which engines read differently."""

_CLASS = rf"\[\^?(?:\\[dwsDWS\\.\-\]\[^$|?*+(){{}}/]|(?!{_SET})[^\]\[\\])+\]"
_TOKEN = re.compile(
    rf"""  \(\?: | [(|^$] | \\[bB]              # groups, alternatives, anchors: not repeated
       | (?: {_CLASS}
           | \\[dwsDWS]                      # classes
           | \\[.\-\]\[^$|?*+(){{}}/\\]       # escaped punctuation
           | [).]
           | [^\\\[\](){{}}|^$.*+?]           # any other character is itself
         ) (?: (?: [*+?] | \{{(?P<repeat>[0-9]{{1,3}})(?:,(?P<up_to>[0-9]{{0,3}}))?\}} ) \?? )?""",
    re.VERBOSE,
)


def regex_fault(expression: str) -> str:
    """What is wrong with ``expression``; empty if it can be used."""
    if len(expression) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    position, repeats = 0, 1
    while position < len(expression):
        token = _TOKEN.match(expression, position)
        if token is None:
            return (
                f"is not a supported regular expression at character {position + 1} "
                "(RE2 without look-around, back-references, flags and named groups)"
            )
        position = token.end()
        repeats *= max(1, int(token["repeat"] or 1), int(token["up_to"] or 1))
    if repeats > MAX_REPEAT:
        return f"repeats more than {MAX_REPEAT} times"
    try:
        re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is not a regular expression: {error}"
    return ""
