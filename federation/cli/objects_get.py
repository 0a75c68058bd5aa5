"""``fedctl get`` and ``fedctl describe``: the clusters' objects with their statuses.

Decides: which objects are shown and in which order, and what is said when there are none.
Leaves to others: layout (``output``), columns (``columns``), reading (``adapters.universal``).
Invariants: objects are shown by cluster, namespace and name; a named object that one of several
clusters lacks is shown where it is, and is an error only where no cluster has it; a stored object
that cannot be read is named with the reason and hides no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from federation.cli.context import complain
from federation.cli.exit_codes import ExitCode
from federation.cli.objects_clusters import ClusterObjects
from federation.cli.objects_names import Wanted, reference
from federation.cli.output import (
    Found,
    Layout,
    as_json,
    as_yaml,
    description,
    document,
    listing,
    table,
)
from federation.model.base import ClusterId
from federation.model.objects import ObjectKey
from federation.model.status import ObjectStatus


class OutputForm(StrEnum):
    """Values of ``-o``."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Query:
    """Which objects; ``namespace`` ``None`` and empty ``clusters`` mean all of them."""

    wanted: tuple[Wanted, ...]
    namespace: str | None
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stored object of the query that is no valid object, by its key as far as it has one."""

    cluster: ClusterId
    key: ObjectKey | str
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found, by kind as asked, what cannot be read, what was named but is nowhere."""

    groups: tuple[tuple[Found, ...], ...]
    missing: tuple[ObjectKey, ...]
    clusters: tuple[ClusterId, ...]
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def found(self) -> tuple[Found, ...]:
        """All objects found."""
        return tuple(entry for group in self.groups for entry in group)


async def fetch(objects: ClusterObjects, query: Query) -> Answer:
    """Look the query up."""
    clusters = await objects.to_read(query.clusters)
    everything: list[Found] = []
    unreadable: list[Unreadable] = []
    for cluster in clusters:
        of_cluster = objects.of(cluster)
        statuses = await of_cluster.statuses()
        contents = await of_cluster.contents()
        everything += [
            Found(cluster, entry, statuses.get(key, ObjectStatus()))
            for key, entry in contents.objects.items()
        ]
        unreadable += [
            Unreadable(cluster, key, why.message)
            for key, why in contents.rejected.items()
            if any(_is_asked(key, wanted, query.namespace) for wanted in query.wanted)
        ]
    groups = [_chosen(everything, wanted, query.namespace) for wanted in query.wanted]
    bad_keys = {entry.key for entry in unreadable}
    missing = [
        key
        for wanted, group in zip(query.wanted, groups, strict=True)
        for key in wanted.keys(query.namespace or "")
        if key not in bad_keys
        and not any(entry.object.metadata.name == key.name for entry in group)
    ]
    return Answer(tuple(groups), tuple(missing), clusters, tuple(unreadable))


def _chosen(
    everything: Sequence[Found], wanted: Wanted, namespace: str | None
) -> tuple[Found, ...]:
    found = (entry for entry in everything if _is_asked(entry.object.key, wanted, namespace))
    return tuple(sorted(found, key=lambda entry: (entry.cluster, entry.object.key)))


def _is_asked(key: ObjectKey | str, wanted: Wanted, namespace: str | None) -> bool:
    if isinstance(key, str):  # not even its kind can be read: it may be what was asked for
        return True
    return (
        (key.group, key.kind) == (wanted.cls.GROUP, wanted.cls.KIND)
        and (not wanted.names or key.name in wanted.names)
        and (not wanted.cls.NAMESPACED or namespace in (None, key.namespace))
    )


async def get(objects: ClusterObjects, query: Query, form: OutputForm) -> ExitCode:
    """Print what the query finds."""
    answer = await fetch(objects, query)
    several = len(answer.clusters) > 1
    match form:
        case OutputForm.JSON | OutputForm.YAML:
            write = as_json if form is OutputForm.JSON else as_yaml
            if len(answer.found) == 1 and any(wanted.names for wanted in query.wanted):
                print(write(document(answer.found[0])))
            elif not answer.missing:
                print(write(listing(answer.found, clusters=several)))
        case OutputForm.NAME:
            for name in dict.fromkeys(reference(entry.object.key) for entry in answer.found):
                print(name)
        case OutputForm.TABLE | OutputForm.WIDE:
            _print_tables(answer, query, wide=form is OutputForm.WIDE)
    return report_failures(answer)


async def describe(objects: ClusterObjects, query: Query) -> ExitCode:
    """Print what the query finds in words."""
    answer = await fetch(objects, query)
    now = datetime.now(UTC)
    if answer.found:
        print("\n\n\n".join(description(entry, now) for entry in answer.found))
    elif not answer.missing and not answer.unreadable:
        _report_none(query)
    return report_failures(answer)


def _print_tables(answer: Answer, query: Query, *, wide: bool) -> None:
    layout = Layout(
        clusters=len(answer.clusters) > 1,
        namespaces=query.namespace is None,
        wide=wide,
        qualified=len(answer.groups) > 1,
    )
    now = datetime.now(UTC)
    tables = [table(group, layout, now) for group in answer.groups if group]
    if tables:
        print("\n\n".join(tables))
    elif not answer.missing and not answer.unreadable:
        _report_none(query)


def _report_none(query: Query) -> None:
    scoped = any(wanted.cls.NAMESPACED for wanted in query.wanted)
    where = f" in {query.namespace} namespace" if scoped and query.namespace else ""
    complain(f"No resources found{where}.")


def not_found(key: ObjectKey, clusters: Sequence[str]) -> str:
    """The sentence for an object that none of ``clusters`` has."""
    return f"error: {key} not found in {', '.join(clusters) or 'any cluster'}"


def report_failures(answer: Answer) -> ExitCode:
    """Say what cannot be read and what was named and is nowhere, and the exit code for that."""
    for entry in answer.unreadable:
        complain(
            f"error: {entry.key} ({entry.cluster}): the stored object cannot be read: "
            f"{entry.reason}; apply it again, or delete it"
        )
    for key in answer.missing:
        complain(not_found(key, answer.clusters))
    if answer.missing:
        return ExitCode.NOT_FOUND
    return ExitCode.FAILED if answer.unreadable else ExitCode.OK
