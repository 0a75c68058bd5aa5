"""Manifests to objects: what people and tools write, checked, with errors that point at the field.

Decides: whether a document is an object of ours, and which; what a document without namespace
means; which fields of an API server are dropped on reading.
Leaves to others: YAML (``wire.manifest_yaml``), wording (``wire.manifest_errors``), fields and
their bounds (``model.objects``), references between objects (``derive``).
Invariants: reading never raises; one bad document stops no other; unknown fields and kinds are
errors; reading what ``ApiObject.to_document`` wrote gives an equal object.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from federation.model.objects import KINDS, WITHOUT_EFFECT, ApiObject, ObjectKey, Secret, find_kind
from federation.wire.manifest_errors import Finding, explain, field_path_text
from federation.wire.manifest_yaml import Document, FieldPath, ManifestProblem, parse_documents

__all__ = [
    "DEFAULT_NAMESPACE",
    "Decoded",
    "Document",
    "ManifestProblem",
    "Rejected",
    "Skipped",
    "decode",
    "decode_all",
    "decode_value",
    "parse_documents",
]

UnknownFields = Literal["forbid", "ignore"]
"""What becomes of an object with fields that its kind does not have here."""

DEFAULT_NAMESPACE = "default"
"""Where a namespaced object without namespace goes, as in Kubernetes."""

PROBLEMS_MAX = 20
"""Problems told about one object; the rest would not help."""

_SERVER_METADATA = frozenset(
    {
        "managedFields",
        "ownerReferences",
        "finalizers",
        "selfLink",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    }
)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A document of a kind that is known but without effect here."""

    notice: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document that is no valid object: what is wrong, and its key as far as it has one."""

    problems: tuple[ManifestProblem, ...]
    key: ObjectKey | None = None

    @property
    def message(self) -> str:
        """All problems, one a line."""
        return "\n".join(str(problem) for problem in self.problems)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The outcome for many documents. ``origins`` says where (``file:line``) each object stands."""

    objects: tuple[ApiObject, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    origins: Mapping[ObjectKey, str] = field(default_factory=dict)


def decode(
    document: Document,
    *,
    default_namespace: str = DEFAULT_NAMESPACE,
    unknown_fields: UnknownFields = "forbid",
) -> ApiObject | Skipped | Rejected:
    """The object that ``document`` is, or why it is none."""
    raw = document.raw
    if isinstance(raw, ManifestProblem):
        return Rejected((raw,))
    header = _Header.read(raw, default_namespace)
    missing = [name for name in ("apiVersion", "kind") if not isinstance(raw.get(name), str)]
    if missing:
        return _rejected(document, header, [Finding((missing[0],), "required field is missing")])
    if (header.group, header.kind) in WITHOUT_EFFECT:
        return Skipped(_notice(document, header))
    cls = find_kind(header.group, header.kind)
    if cls is None:
        return _unknown_kind(document, header)
    if header.version not in cls.VERSIONS:
        finding = Finding(
            ("apiVersion",),
            f"{header.api_version} is not known for {cls.KIND}; "
            f"known versions: {', '.join(_api_versions(cls))}",
        )
        return _rejected(document, header, [finding])
    return _validate(document, header, cls, unknown_fields)


def decode_value(
    raw: Mapping[str, Any], *, origin: str, unknown_fields: UnknownFields = "forbid"
) -> ApiObject | Skipped | Rejected:
    """The object that a JSON value is (from a store or an API server, which know no lines).

    ``ignore`` unknown fields of what an API server has already checked against its own, perhaps
    newer, schema: there they are no typing errors.
    """
    present = {name: _without_nulls(part) for name, part in raw.items() if part is not None}
    return decode(Document(origin, 0, present), unknown_fields=unknown_fields)


def _without_nulls(value: object) -> object:
    """API servers write ``null`` for what is absent; YAML is read so too."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def decode_all(
    documents: Iterable[Document], *, default_namespace: str = DEFAULT_NAMESPACE
) -> Decoded:
    """All objects of ``documents``; of two with one identity the first is kept."""
    objects: list[ApiObject] = []
    rejected: list[Rejected] = []
    skipped: list[Skipped] = []
    origins: dict[ObjectKey, str] = {}
    for document in documents:
        outcome = decode(document, default_namespace=default_namespace)
        if isinstance(outcome, Skipped):
            skipped.append(outcome)
        elif isinstance(outcome, Rejected):
            rejected.append(outcome)
        elif outcome.key in origins:
            rejected.append(_duplicate(document, outcome.key, origins[outcome.key]))
        else:
            origins[outcome.key] = f"{document.origin}:{document.line}"
            objects.append(outcome)
    return Decoded(tuple(objects), tuple(rejected), tuple(skipped), origins)


@dataclass(frozen=True, slots=True)
class _Header:
    """What a document says about itself before it is known to be valid."""

    api_version: str
    group: str
    version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def read(cls, raw: Mapping[str, Any], default_namespace: str) -> _Header:
        api_version = _text(raw, "apiVersion")
        group, _, version = api_version.rpartition("/")
        kind = _text(raw, "kind")
        metadata = raw.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        known = find_kind(group, kind)
        scoped = known is None or known.NAMESPACED
        namespace = _text(metadata, "namespace") or (default_namespace if scoped else "")
        return cls(api_version, group, version, kind, namespace, _text(metadata, "name"))

    def __str__(self) -> str:
        if not self.name:
            return self.kind
        return str(ObjectKey(self.group, self.kind, self.namespace, self.name))

    @property
    def key(self) -> ObjectKey | None:
        return ObjectKey(self.group, self.kind, self.namespace, self.name) if self.name else None


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


def _validate(
    document: Document, header: _Header, cls: type[ApiObject], unknown_fields: UnknownFields
) -> ApiObject | Rejected:
    assert not isinstance(document.raw, ManifestProblem)
    findings = _scope_findings(document.raw, cls)
    try:
        # By way of JSON, since strict JSON is what API servers take: "9090" is no number there.
        decoded = cls.model_validate_json(
            json.dumps(_prepared(document.raw, header, cls)),
            strict=True,
            by_alias=True,
            by_name=False,
            extra=unknown_fields,
        )
    except ValidationError as problem:
        findings += [
            explain(cls, error, quote=cls is not Secret)
            for error in _first_causes(problem.errors(include_url=False))
        ]
    else:
        if not findings:
            return decoded
    return _rejected(document, header, findings)


def _first_causes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without lists that seem too short only because an entry of theirs is wrong itself."""
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(
            other is not error and other["loc"][: len(error["loc"])] == error["loc"]
            for other in errors
        )
    ]


def _scope_findings(raw: Mapping[str, Any], cls: type[ApiObject]) -> list[Finding]:
    metadata = raw.get("metadata")
    if cls.NAMESPACED or not isinstance(metadata, Mapping) or not metadata.get("namespace"):
        return []
    return [
        Finding(
            ("metadata", "namespace"),
            f"a {cls.KIND} belongs to no namespace",
            "remove the field",
        )
    ]


def _prepared(raw: Mapping[str, Any], header: _Header, cls: type[ApiObject]) -> dict[str, Any]:
    """``raw`` without what only API servers use, and with its namespace."""
    kept_status = "status" in cls.model_fields
    prepared = {name: value for name, value in raw.items() if name != "status" or kept_status}
    metadata = raw.get("metadata")
    if isinstance(metadata, Mapping):
        kept = {name: value for name, value in metadata.items() if name not in _SERVER_METADATA}
        if cls.NAMESPACED and kept.get("namespace", "") == "":  # as API servers read it
            kept["namespace"] = header.namespace
        prepared["metadata"] = kept
    return prepared


def _rejected(document: Document, header: _Header, findings: list[Finding]) -> Rejected:
    told: dict[FieldPath, ManifestProblem] = {}
    for finding in findings:
        told.setdefault(
            finding.path,
            ManifestProblem(
                origin=document.origin,
                line=document.line_of(finding.path),
                object=str(header),
                field_path=field_path_text(finding.path),
                message=finding.message,
                hint=finding.hint,
            ),
        )
    by_line = sorted(told.values(), key=lambda problem: problem.line)
    return Rejected(tuple(by_line[:PROBLEMS_MAX]), header.key)


def _notice(document: Document, header: _Header) -> str:
    why = WITHOUT_EFFECT[(header.group, header.kind)]
    place = f"{document.origin}:{document.line}" if document.line else document.origin
    return f"{place}: {header}: skipped, without effect here: {why}"


def _unknown_kind(document: Document, header: _Header) -> Rejected:
    known = sorted({cls.KIND for cls in KINDS})
    elsewhere = [
        version for cls in KINDS if header.kind == cls.KIND for version in _api_versions(cls)
    ]
    near = difflib.get_close_matches(header.kind, known, n=1, cutoff=0.75)
    hint = ""
    if elsewhere:
        hint = f"{header.kind} is known in {', '.join(elsewhere)}"
    elif near:
        hint = f"did you mean {near[0]}?"
    problem = ManifestProblem(
        origin=document.origin,
        line=document.line_of(("kind",)),
        object="",
        field_path="",
        message=f'Kind "{header.kind}" in {header.api_version} is not known; '
        f"known kinds: {', '.join(known)}",
        hint=hint,
    )
    return Rejected((problem,), header.key)


def _api_versions(cls: type[ApiObject]) -> list[str]:
    return [f"{cls.GROUP}/{version}" if cls.GROUP else version for version in cls.VERSIONS]


def _duplicate(document: Document, key: ObjectKey, first: str) -> Rejected:
    problem = ManifestProblem(
        origin=document.origin,
        line=document.line_of(("metadata", "name")),
        object=str(key),
        field_path="metadata.name",
        message=f"stands already at {first}, which is kept",
        hint="rename or remove one of the two",
    )
    return Rejected((problem,), key)
