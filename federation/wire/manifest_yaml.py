"""YAML (and JSON) text to documents that remember where each of their fields stands.

Decides: which YAML is taken (maps with text keys, lists, plain scalars), where a value stands,
bounds against hostile text.
Leaves to others: what a document means (``wire.manifests``).
Invariants: a document that cannot be read is a ``ManifestProblem`` and hides no other document;
dates stay text, as in Kubernetes; a key that stands twice is an error, never the last one wins;
aliases are expanded under a bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

TEXT_BYTES_MAX = 16 * 1024 * 1024
"""Larger text is refused: etcd takes 1.5 MiB an object, and a file of ten thousand is generated."""

NODES_MAX = 500_000
"""Nodes of one text after expansion of aliases; stops a small text that means a huge one."""

FieldPath = tuple[str | int, ...]

_PLAIN_TAGS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_MARKER = re.compile(r"---(\s|$)")


@dataclass(frozen=True, slots=True)
class ManifestProblem:
    """One thing wrong in a manifest; ``str`` is the line that people read.

    ``object`` is ``Kind ns/name`` as far as it is known, ``field_path`` like
    ``spec.rules[0].name``, ``hint`` what to do; each may be empty. ``line`` and ``column`` 0 mean
    unknown.
    """

    origin: str
    line: int
    object: str
    field_path: str
    message: str
    hint: str = ""
    column: int = 0

    def __str__(self) -> str:
        place = [self.origin]
        if self.line:
            place.append(str(self.line))
        if self.column:
            place.append(str(self.column))
        said = f"{self.message}; {self.hint}" if self.hint else self.message
        return ": ".join(
            part for part in (":".join(place), self.object, self.field_path, said) if part
        )


@dataclass(frozen=True, slots=True)
class Document:
    """One document: a tree of plain values, or the problem why there is none.

    ``lines`` maps paths of fields to lines of ``origin``; it may be empty (an object of the store).
    """

    origin: str
    line: int
    raw: Mapping[str, Any] | ManifestProblem
    lines: Mapping[FieldPath, int] = field(default_factory=dict)

    def line_of(self, path: FieldPath) -> int:
        """The line of the field at ``path``, or of the nearest one around it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return self.line


def parse_documents(text: str, *, origin: str) -> list[Document]:
    """All documents of ``text``; a ``List`` counts as its items, empty documents not at all."""
    if len(text) > TEXT_BYTES_MAX:
        return [_broken(origin, f"larger than {TEXT_BYTES_MAX // 1024**2} MiB", "split the file")]
    documents: list[Document] = []
    budget = _Budget()
    try:
        for line, chunk in _chunks(text):
            documents.extend(_parse_chunk(chunk, _Place(origin, line), budget))
    except _TooMuchError:
        documents.append(_broken(origin, f"means more than {NODES_MAX} values", "split the file"))
    return documents


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """The documents' texts with the number of lines before each.

    Cut at the markers before parsing, as kubectl does, so that a broken document hides no other.
    """
    start, chunk = 0, list[str]()
    for number, line in enumerate(text.splitlines(keepends=True)):
        if _MARKER.match(line):
            yield start, "".join(chunk)
            start, chunk = number, []
        chunk.append(line)
    yield start, "".join(chunk)


def _parse_chunk(text: str, place: _Place, budget: _Budget) -> list[Document]:
    if all(line.startswith(("#", "%")) or not line.strip() for line in text.splitlines()):
        return []
    documents: list[Document] = []
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            if not _is_null(node):
                documents.extend(_documents_of(node, place, budget))
    except yaml.MarkedYAMLError as problem:
        documents.append(_malformed(place, problem))
    except yaml.YAMLError as problem:
        # A ReaderError: bytes that no YAML has. It knows no line, only what it met.
        documents.append(_broken(place.origin, f"not valid YAML: {_first_line(problem)}", ""))
    except RecursionError:
        documents.append(_broken(place.origin, "not valid YAML: nested too deep", "flatten it"))
    return documents


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a chunk stands: its file, and the lines before it."""

    origin: str
    lines_before: int

    def line(self, mark: yaml.Mark) -> int:
        return self.lines_before + mark.line + 1


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def _broken(origin: str, message: str, hint: str) -> Document:
    return Document(origin, 0, ManifestProblem(origin, 0, "", "", message, hint))


def _malformed(place: _Place, problem: yaml.MarkedYAMLError) -> Document:
    mark = problem.problem_mark or problem.context_mark
    line, column = (place.line(mark), mark.column + 1) if mark else (0, 0)
    said = problem.problem or problem.context or "cannot be read"
    where = f" ({problem.context})" if problem.problem and problem.context else ""
    message = f"not valid YAML: {said}{where}"
    return Document(
        place.origin,
        line,
        ManifestProblem(place.origin, line, "", "", message, column=column),
    )


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _documents_of(node: yaml.Node, place: _Place, budget: _Budget) -> list[Document]:
    line = place.line(node.start_mark)
    if not isinstance(node, yaml.MappingNode):
        message = "an object is a map with apiVersion, kind and metadata"
        return [Document(place.origin, line, ManifestProblem(place.origin, line, "", "", message))]
    items = _items_of_list(node)
    if items is not None:
        return [document for item in items for document in _documents_of(item, place, budget)]
    reader = _Reader(place, budget)
    try:
        raw = reader.mapping(node, ())
    except yaml.MarkedYAMLError as problem:
        return [_malformed(place, problem)]
    return [Document(place.origin, line, raw, reader.lines)]


def _items_of_list(node: yaml.MappingNode) -> list[yaml.Node] | None:
    """The items of a Kubernetes ``List`` (what ``get -o yaml`` prints), else ``None``."""
    fields = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    kind, items = fields.get("kind"), fields.get("items")
    if isinstance(kind, yaml.ScalarNode) and kind.value == "List":
        return list(items.value) if isinstance(items, yaml.SequenceNode) else []
    return None


class _TooMuchError(Exception):
    """The budget of nodes is spent."""


class _Budget:
    """Counts nodes over a whole text."""

    def __init__(self) -> None:
        self._left = NODES_MAX

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError


class _Reader:
    """Turns nodes into plain values and notes their lines."""

    def __init__(self, place: _Place, budget: _Budget) -> None:
        self.lines: dict[FieldPath, int] = {}
        self._place = place
        self._budget = budget
        self._scalars = yaml.constructor.SafeConstructor()
        self._open: set[int] = set()

    def mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, object]:
        self._enter(node)
        values: dict[str, object] = {}
        merged: dict[str, object] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error(key, "a field's name is plain text")
            if key.tag == "tag:yaml.org,2002:merge":
                merged |= self._merged(value, path)
                continue
            if key.value in values:
                raise _error(key, f'field "{key.value}" stands twice')
            self.lines[(*path, key.value)] = self._place.line(key.start_mark)
            values[key.value] = self._value(value, (*path, key.value))
        self._open.discard(id(node))
        return {name: value for name, value in (merged | values).items() if value is not None}

    def _merged(self, node: yaml.Node, path: FieldPath) -> dict[str, object]:
        """What `<<` brings in; of several maps the first has precedence."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, object] = {}
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise _error(source, "`<<` takes a map, or a list of maps")
            self._budget.spend()
            merged = self.mapping(source, path) | merged
        return merged

    def _value(self, node: yaml.Node, path: FieldPath) -> object:
        self._budget.spend()
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, path)
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _sequence(self, node: yaml.SequenceNode, path: FieldPath) -> list[object]:
        self._enter(node)
        values: list[object] = []
        for position, item in enumerate(node.value):
            self.lines[(*path, position)] = self._place.line(item.start_mark)
            values.append(self._value(item, (*path, position)))
        self._open.discard(id(node))
        return values

    def _enter(self, node: yaml.Node) -> None:
        if node.tag not in _PLAIN_TAGS:
            raise _error(node, f"the tag {node.tag} is not taken; write plain values")
        if id(node) in self._open:
            raise _error(node, "an alias contains itself")
        self._open.add(id(node))

    def _scalar(self, node: yaml.ScalarNode) -> object:
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "str" | "timestamp" | "value":
                return str(node.value)
            case "null":
                return None
            case "bool":
                return bool(self._scalars.construct_yaml_bool(node))
            case "int":
                return int(self._scalars.construct_yaml_int(node))
            case "float":
                number = float(self._scalars.construct_yaml_float(node))
                if not math.isfinite(number):
                    raise _error(node, f"{node.value} is not a number that JSON has")
                return number
            case _:
                raise _error(node, f"the tag {node.tag} is not taken; write plain values")


def _error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
