"""The federation's own kinds as CustomResourceDefinitions, made from their models.

Decides: how a model's fields, bounds and defaults are spelled as a structural schema, the status
schema of each kind, printer columns, and the annotations that the API groups ask for.
Leaves to others: what a kind is (``model.objects``; its ``RULES`` are the checks over several
fields), applying the result.
Invariants: a field has one description of its bounds, the model's; what the API server takes the
model takes too, and the other way round (a test compares them); output is ordered, so that equal
models give equal text.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from federation.model.duration import DURATION_FORMAT, DURATION_PATTERN, format_duration
from federation.model.objects import (
    ApiObject,
    BackendTrafficPolicy,
    DrainRequest,
    FederatedServiceImport,
    MultiClusterService,
    ObservabilityPolicy,
)
from federation.model.objects.metadata import PATTERNS, Part, Rule
from federation.model.objects.registry import plural, short_names

Schema = dict[str, Any]

_WORDS = PATTERNS
"""What a text must be, by the pattern that says so."""

ITEMS_MAX = 64
"""Bound of a list whose model states none: the server wants one to bound the cost of rules."""

TEXT_LENGTH_MAX = 4096
"""Likewise for texts."""

BUNDLE_VERSION = "v9.9.9"
"""Of these definitions for the Gateway API's admission policy ``safe-upgrades``, which refuses what
looks older than its own release in this API group."""

APPROVAL = "unapproved, these kinds are the federation's own"
"""Kinds in ``*.k8s.io`` groups need this annotation; they are no part of the Gateway API."""


_ANNOTATIONS = {
    "api-approved.kubernetes.io": APPROVAL,
    "gateway.networking.k8s.io/bundle-version": BUNDLE_VERSION,
    "gateway.networking.k8s.io/channel": "experimental",
}


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    path: str
    type: str = "string"


_ACCEPTED = _Column("Accepted", '.status.conditions[?(@.type=="Accepted")].status')
_CLUSTERS = _Column("Clusters", ".status.clusters")

_COLUMNS: Mapping[type[ApiObject], tuple[_Column, ...]] = {
    BackendTrafficPolicy: (
        _Column("TargetKind", ".spec.targetRef.kind"),
        _Column("TargetName", ".spec.targetRef.name"),
    ),
    ObservabilityPolicy: (
        _Column("TargetKind", ".spec.targetRef.kind"),
        _Column("TargetName", ".spec.targetRef.name"),
    ),
    FederatedServiceImport: (_Column("Type", ".spec.type"), _CLUSTERS),
    MultiClusterService: (
        _Column("Import", ".spec.serviceImport.name"),
        _Column("Backends", ".spec.clusterBackends"),
        _ACCEPTED,
    ),
    DrainRequest: (
        _Column("Target", ".spec.target"),
        _Column("Service", ".spec.service.name"),
        _Column("Phase", ".status.phase"),
        _Column("Moved", ".status.percentMoved", "integer"),
        _Column("Streams", ".status.streamsLeft", "integer"),
        _ACCEPTED,
        _Column("Expires", ".status.expirationTime"),
    ),
}

KINDS = tuple(_COLUMNS)
"""The kinds that are defined here."""


def custom_resource_definition(kind: type[ApiObject]) -> Schema:
    """The definition of ``kind``, as an object for the API server."""
    names = {
        "kind": kind.KIND,
        "listKind": f"{kind.KIND}List",
        "plural": plural(kind),
        "singular": kind.KIND.lower(),
        "categories": ["federation"],
    }
    if short_names(kind):
        names["shortNames"] = list(short_names(kind))
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural(kind)}.{kind.GROUP}",
            **({"annotations": _ANNOTATIONS} if kind.GROUP.endswith(".k8s.io") else {}),
        },
        "spec": {
            "group": kind.GROUP,
            "scope": "Namespaced" if kind.NAMESPACED else "Cluster",
            "names": names,
            "versions": [
                _version(kind, name, storage=name == kind.VERSIONS[0]) for name in kind.VERSIONS
            ],
        },
    }


def custom_resource_text(kind: type[ApiObject]) -> str:
    """The definition as the YAML file that is shipped."""
    head = f"# {kind.KIND} ({kind.GROUP}). Made from its model by `make crds`; do not edit.\n"
    text = yaml.safe_dump(
        custom_resource_definition(kind), sort_keys=False, width=100, allow_unicode=True
    )
    return head + text


_HEADER: Mapping[str, Schema] = {
    "apiVersion": {"type": "string", "description": "Group and version of the object's kind."},
    "kind": {"type": "string", "description": "The kind of the object."},
    # API servers describe it themselves, and refuse a description here.
    "metadata": {"type": "object"},
}


def _version(kind: type[ApiObject], name: str, *, storage: bool) -> Schema:
    columns = [*_COLUMNS[kind], _Column("Age", ".metadata.creationTimestamp", "date")]
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": column.name, "type": column.type, "jsonPath": column.path}
            for column in columns
        ],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "description": _sentence(kind.__doc__),
                "required": ["spec"],
                "properties": {
                    **_HEADER,
                    "spec": _spec(kind),
                    "status": _status(kind),
                },
            }
        },
    }


# --- the spec, from the model -----------------------------------------------------------------


def _spec(kind: type[ApiObject]) -> Schema:
    model = kind.model_fields["spec"].annotation
    assert isinstance(model, type)
    assert issubclass(model, Part)
    whole = model.model_json_schema(by_alias=True, mode="validation")
    parts = {part.__name__: part for part in _parts(model)}
    return _Converter(whole.get("$defs", {}), parts).of_part(model, whole)


def _parts(model: type[BaseModel]) -> Iterator[type[Part]]:
    """``model`` and every part below it."""
    assert issubclass(model, Part)
    yield model
    for field in model.model_fields.values():
        for part in _models_in(field.annotation):
            yield from _parts(part)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


@dataclass(frozen=True, slots=True)
class _Converter:
    """From pydantic's JSON schema to a structural one."""

    definitions: Mapping[str, Schema]
    parts: Mapping[str, type[Part]]

    def of_part(self, part: type[Part], schema: Schema) -> Schema:
        told = _field_docs(part)
        names = {(field.alias or name): name for name, field in part.model_fields.items()}
        properties = {}
        for alias, value in schema.get("properties", {}).items():
            bounds = _bounds(part.model_fields[names[alias]])
            properties[alias] = self.of({**value, **bounds})
            if doc := told.get(names[alias]):
                properties[alias]["description"] = doc
        result: Schema = {"type": "object", "description": _sentence(part.__doc__)}
        if required := schema.get("required"):
            result["required"] = list(required)
        result["properties"] = properties
        if part.RULES:
            result["x-kubernetes-validations"] = [_validation(rule) for rule in part.RULES]
        return result

    def of(self, schema: Schema) -> Schema:
        """One field's schema, without its place in a part."""
        if "anyOf" in schema:
            choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
            assert len(choices) == 1, f"a field of several types cannot be structural: {schema}"
            outer = {name: value for name, value in schema.items() if name != "anyOf"}
            return self.of({**outer, **choices[0]})
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name in self.parts:
                result = self.of_part(self.parts[name], self.definitions[name])
            else:
                result = self.of(self.definitions[name])
            return _with_default(result, schema)
        if schema.get("format") == DURATION_FORMAT:
            return _with_default(_duration(schema), schema)
        return _with_default(self._plain(schema), schema)

    def _plain(self, schema: Schema) -> Schema:
        kind = schema.get("type", "object")
        result: Schema = {"type": kind}
        for name in ("enum", "minLength", "maxLength"):
            if name in schema:
                result[name] = schema[name]
        if "const" in schema:
            result["enum"] = [schema["const"]]
        if kind == "string":
            _add_text(result, schema)
        if kind in ("integer", "number"):
            _add_number(result, schema)
        if kind == "array":
            self._add_list(result, schema)
        if kind == "object":
            values = schema.get("additionalProperties")
            if isinstance(values, dict):
                result["additionalProperties"] = self.of(values)
                if "maxProperties" in schema:
                    result["maxProperties"] = schema["maxProperties"]
            else:
                result["x-kubernetes-preserve-unknown-fields"] = True
        return result

    def _add_list(self, result: Schema, schema: Schema) -> None:
        result["items"] = self.of(schema["items"])
        result["maxItems"] = schema.get("maxItems", ITEMS_MAX)
        if least := schema.get("minItems"):
            entries = "1 entry" if least == 1 else f"{least} entries"
            _check(result, f"self.size() >= {least}", f"needs at least {entries}")


# Bounds are rules and no keywords of the schema, so that they are told in the words of `fedctl`.


def _add_text(result: Schema, schema: Schema) -> None:
    if "enum" not in result:
        result.setdefault("maxLength", TEXT_LENGTH_MAX)
    if "pattern" not in schema:
        return
    told = _WORDS.get(schema["pattern"])
    if told is None:
        result["pattern"] = schema["pattern"]
    else:
        result.pop("minLength", None)
        _check(result, f"self.matches({_cel(schema['pattern'])})", told)


def _add_number(result: Schema, schema: Schema) -> None:
    least, most = schema.get("minimum"), schema.get("maximum")
    if result["type"] == "integer":
        wide = (most or 0) > 2**31 - 1
        result["format"] = "int64" if wide else "int32"
    rules = []
    if least is not None:
        rules.append(f"self >= {_literal(least, result)}")
    if most is not None:
        rules.append(f"self <= {_literal(most, result)}")
    if rules:
        _check(result, " && ".join(rules), _range(least, most))


def _literal(number: float, schema: Schema) -> str:
    return str(int(number)) if schema["type"] == "integer" else str(float(number))


def _range(least: object, most: object) -> str:
    if least is not None and most is not None:
        return f"must be between {least} and {most}"
    return f"must be at least {least}" if most is None else f"must be at most {most}"


def _check(result: Schema, rule: str, message: str) -> None:
    found = _validation(Rule(rule, message))
    result.setdefault("x-kubernetes-validations", []).append(found)


def _validation(rule: Rule) -> Schema:
    result = {"rule": rule.expression, "message": rule.message}
    if rule.says:
        result["messageExpression"] = rule.says
    if rule.field:
        result["fieldPath"] = f".{rule.field}"
    return result


def _cel(text: str) -> str:
    """``text`` as a literal of CEL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _bounds(field: FieldInfo) -> Schema:
    """Bounds of the field, which the JSON schema of a duration leaves out."""
    found: Schema = {}
    for constraint in field.metadata:
        if isinstance(constraint, Ge):
            found["ge"] = constraint.ge
        elif isinstance(constraint, Le):
            found["le"] = constraint.le
    return found


def _duration(schema: Schema) -> Schema:
    result: Schema = {"type": "string", "maxLength": 64}
    pattern = _cel(f"^{DURATION_PATTERN}$")
    message = "not a duration; write it like 100ms, 30s or 1h30m"
    _check(result, f"self.matches({pattern})", message)
    least, most = schema.get("ge") or None, schema.get("le")
    bounds = [
        f"duration(self) {sign} duration('{format_duration(bound)}')"
        for sign, bound in ((">=", least), ("<=", most))
        if bound is not None
    ]
    if bounds:
        low, high = (bound and format_duration(bound) for bound in (least, most))
        if most is not None and least is None:
            low = format_duration(schema["ge"]) if "ge" in schema else None
        rule = f"!self.matches({pattern}) || ({' && '.join(bounds)})"
        _check(result, rule, _range(low, high))
    return result


def _with_default(result: Schema, schema: Schema) -> Schema:
    default = schema.get("default")
    if default is None or default in ([], ""):
        return result
    if schema.get("format") == DURATION_FORMAT:
        default = format_duration(default)
    return {**result, "default": default}


def _field_docs(part: type[BaseModel]) -> dict[str, str]:
    """The texts below fields of ``part`` and its bases, by the field's Python name."""
    docs: dict[str, str] = {}
    for cls in reversed(part.__mro__):
        if not (issubclass(cls, Part) and cls is not Part):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[field.target.id] = _sentence(str(text.value.value))
    return docs


def _sentence(text: str | None) -> str:
    """A docstring as one paragraph, with the names that fields have outside."""
    told = re.sub(r"\s+", " ", (text or "").replace("``", "`")).strip()
    return re.sub(r"`([a-z]+(?:_[a-z]+)+)`", lambda found: f"`{to_camel(found[1])}`", told)


# --- the status -------------------------------------------------------------------------------


def _text(description: str, **bounds: Any) -> Schema:
    return {"type": "string", **bounds, "description": description}


_CONDITION: Schema = {
    "type": "object",
    "description": "One aspect of the object's state.",
    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    "properties": {
        "type": _text("Name of the aspect, such as Accepted.", maxLength=316),
        "status": _text("Whether it holds.", enum=["True", "False", "Unknown"]),
        "observedGeneration": {
            "type": "integer",
            "format": "int64",
            "minimum": 0,
            "description": "The generation of the object that this was concluded from.",
        },
        "lastTransitionTime": _text("When `status` last changed.", format="date-time"),
        "reason": _text("Why, as a word for machines.", minLength=1, maxLength=1024),
        "message": _text("Why, as a sentence for people.", maxLength=32768),
    },
}

_CONDITIONS: Schema = {
    "type": "array",
    "description": "The aspects of the object's state, one of each type.",
    "maxItems": 16,
    "items": _CONDITION,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
}

_ANCESTOR_REF: Schema = {
    "type": "object",
    "description": "The object that the policy reaches.",
    "required": ["name"],
    "properties": {
        "group": _text("API group of the object."),
        "kind": _text("Kind of the object."),
        "namespace": _text("Namespace of the object; left out, that of the policy."),
        "name": _text("Name of the object."),
        "sectionName": _text("The part of the object, if it is not the whole."),
        "port": {
            "type": "integer",
            "format": "int32",
            "description": "The port of the object, if it is not the whole.",
        },
    },
}

_ANCESTORS: Schema = {
    "type": "array",
    "description": "What controllers concluded, for each object that the policy reaches (GEP-713).",
    "maxItems": 16,
    "x-kubernetes-list-type": "atomic",
    "items": {
        "type": "object",
        "required": ["ancestorRef", "controllerName", "conditions"],
        "properties": {
            "ancestorRef": _ANCESTOR_REF,
            "controllerName": _text("The controller that wrote this entry.", maxLength=253),
            "conditions": _CONDITIONS,
        },
    },
}

_STATUS_CLUSTERS: Schema = {
    "type": "array",
    "description": "The clusters that export the service.",
    "maxItems": 1024,
    "items": {
        "type": "object",
        "required": ["cluster"],
        "properties": {"cluster": _text("Name of the cluster in the clusterset.", maxLength=63)},
    },
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["cluster"],
}


_DRAIN_PROGRESS: Schema = {
    "phase": {
        "type": "string",
        "enum": [
            *("Pending", "Refused", "Ramping", "Draining", "Drained", "Returning", "Expired"),
        ],
        "description": "Where the drain stands: waiting for a resolver, refused, ramping down, "
        "waiting for open streams, done, or ended by its expiry.",
    },
    "percentMoved": {
        "type": "integer",
        "format": "int32",
        "minimum": 0,
        "maximum": 100,
        "description": "How much of the target's traffic is moved away.",
    },
    "streamsLeft": {
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "description": "How many calls go on at the target, as the gateways of all clusters report "
        "it every few seconds; absent while that is not known.",
    },
    "startTime": {
        "type": "string",
        "format": "date-time",
        "description": "When the leading resolver began it, by that resolver's clock.",
    },
    "expirationTime": {
        "type": "string",
        "format": "date-time",
        "description": "When it ends by itself, by the same clock.",
    },
}


def _status(kind: type[ApiObject]) -> Schema:
    properties = {"conditions": _CONDITIONS}
    if kind is DrainRequest:
        properties |= _DRAIN_PROGRESS
    if kind in (BackendTrafficPolicy, ObservabilityPolicy):
        properties = {"ancestors": _ANCESTORS}
    if kind is FederatedServiceImport:
        properties["clusters"] = _STATUS_CLUSTERS
    return {
        "type": "object",
        "description": "What the federation concluded about the object.",
        "properties": properties,
    }
