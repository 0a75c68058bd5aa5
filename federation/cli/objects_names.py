"""Kinds and names as people type them: `svc`, `grpcroute/user`, `serviceimport.GROUP`.

Decides: which kind and object a word means, and what is said about a word that means none.
Leaves to others: names of kinds (``model.objects.registry``), looking objects up.
Invariants: pure; a wrong word is an error of usage that lists the right ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from federation.cli.context import CommandError
from federation.cli.exit_codes import ExitCode
from federation.model.objects import (
    KINDS,
    ApiObject,
    ObjectKey,
    find_kind_by_name,
    names_of,
    plural,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Objects of one kind: all, or those named."""

    cls: type[ApiObject]
    names: tuple[str, ...] = ()

    def keys(self, namespace: str) -> list[ObjectKey]:
        """The keys of the objects named."""
        scope = namespace if self.cls.NAMESPACED else ""
        return [ObjectKey(self.cls.GROUP, self.cls.KIND, scope, name) for name in self.names]


def parse_wanted(words: Sequence[str]) -> list[Wanted]:
    """What `KIND[,KIND...] [NAME...]` or `KIND/NAME...` means."""
    if any("/" in word for word in words):
        return [_pair(word) for word in words]
    kinds = [parse_kind(text) for text in words[0].split(",") if text]
    if not kinds:
        raise CommandError("name a kind, such as grpcroute", ExitCode.USAGE)
    return [Wanted(cls, tuple(words[1:])) for cls in dict.fromkeys(kinds)]


def parse_kind(text: str) -> type[ApiObject]:
    """The kind called ``text``."""
    found = find_kind_by_name(text)
    if found is not None:
        return found
    names = [name for cls in KINDS for name in names_of(cls)]
    near = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.7)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = ", ".join(_full_names())
    raise CommandError(
        f'the kind "{text}" is not known; known kinds: {known}{hint}', ExitCode.USAGE
    )


def complete_kind(incomplete: str) -> list[str]:
    """Kinds that begin with ``incomplete``, for the shell."""
    return [name for name in _full_names() if name.startswith(incomplete.lower())]


def reference(key: ObjectKey) -> str:
    """``kind.group/name``, as kubectl calls an object in its answers."""
    kind = key.kind.lower()
    return f"{kind}.{key.group}/{key.name}" if key.group else f"{kind}/{key.name}"


def _pair(word: str) -> Wanted:
    kind, slash, name = word.partition("/")
    if not slash or not name or "/" in name:
        raise CommandError(
            f'"{word}" is no KIND/NAME; write either KIND NAME... or KIND/NAME...', ExitCode.USAGE
        )
    return Wanted(parse_kind(kind), (name,))


def _full_names() -> list[str]:
    """Every kind by its plural, with its group where the plural alone means another kind."""
    return [
        plural(cls) if find_kind_by_name(plural(cls)) is cls else f"{plural(cls)}.{cls.GROUP}"
        for cls in KINDS
    ]
