"""Findings of the models (pydantic) as sentences about fields of a manifest.

Decides: the wording: what is wrong at which field, what stands there, what would be right.
Leaves to others: what is wrong (``model.objects``), lines and objects (``wire.manifests``).
Invariants: a sentence quotes at most ``QUOTE_MAX`` characters of input, and nothing of a Secret;
bounds are told as a whole (``between 0 and 1000000``), never one side alone.
"""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import annotated_types
from pydantic import BaseModel, PlainSerializer
from pydantic_core import ErrorDetails

from federation.model.duration import format_duration
from federation.wire.manifest_yaml import FieldPath

QUOTE_MAX = 60
"""Characters of input quoted in a sentence."""

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "mapping_type": "a map of fields",
    "dict_type": "a map of fields",
    "model_type": "a map of fields",
    "model_attributes_type": "a map of fields",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about one field."""

    path: FieldPath
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """What the model says about a field: its type without wrappers, and its bounds."""

    type: object
    constraints: tuple[Any, ...]


def explain(root: type[BaseModel], error: ErrorDetails, *, quote: bool) -> Finding:
    """The sentence for one of pydantic's errors; ``quote`` off keeps the input out of it."""
    path = _path(error)
    got = f", got {_quoted(error['input'])}" if quote else ""
    context = error.get("ctx", {})
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_field(root, path)
    if kind == "missing":
        return Finding(path, "required field is missing")
    if kind == "value_error":
        return Finding(path, _without_quotes_of_input(str(context["error"]), quote=quote))
    if kind == "enum":
        return _wrong_choice(root, path, error["input"], got)
    if kind in ("greater_than_equal", "less_than_equal"):
        return _out_of_bounds(root, path, error["input"], quote=quote)
    if kind in ("too_short", "too_long"):
        return Finding(path, _length(context))
    if kind == "string_too_short":
        return Finding(path, "must not be empty")
    if kind == "string_too_long":
        return Finding(path, f"must be at most {context['max_length']} characters long")
    if kind in _EXPECTED:
        return _wrong_type(path, kind, error["input"], got)
    return Finding(path, f"{error['msg'][:1].lower()}{error['msg'][1:]}{got}")


def field_path_text(path: FieldPath) -> str:
    """``path`` as people write it: ``spec.rules[0].backendRefs``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _path(error: ErrorDetails) -> FieldPath:
    # pydantic appends the member of a union (`targetPort.int`), which is no field.
    loc = error["loc"]
    return loc[:-1] if len(loc) > 1 and loc[-1] in ("int", "str") else loc


def _quoted(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= QUOTE_MAX else f"{text[: QUOTE_MAX - 1]}…"


def _without_quotes_of_input(message: str, *, quote: bool) -> str:
    return message if quote else message.partition(", got ")[0]


def _unknown_field(root: type[BaseModel], path: FieldPath) -> Finding:
    place = _place(root, path[:-1])
    known = _field_names(place.type) if place else []
    near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.75)
    return Finding(
        path,
        f"unknown field; known fields here: {', '.join(known)}",
        f"did you mean {near[0]}?" if near else "",
    )


def _wrong_choice(root: type[BaseModel], path: FieldPath, given: object, got: str) -> Finding:
    place = _place(root, path)
    if place is None or not isinstance(place.type, type) or not issubclass(place.type, Enum):
        return Finding(path, f"is not one of the known values{got}")
    choices = [str(member.value) for member in place.type]
    near = difflib.get_close_matches(str(given), choices, n=1, cutoff=0.75)
    return Finding(
        path,
        f"must be {choices[0]}{got}"
        if len(choices) == 1
        else f"must be one of {', '.join(choices)}{got}",
        f"did you mean {near[0]}?" if near else "",
    )


def _out_of_bounds(
    root: type[BaseModel], path: FieldPath, given: object, *, quote: bool
) -> Finding:
    place = _place(root, path)
    constraints = place.constraints if place else ()
    write = _duration if _is_duration(constraints) else str
    low = next((write(c.ge) for c in constraints if isinstance(c, annotated_types.Ge)), None)
    high = next((write(c.le) for c in constraints if isinstance(c, annotated_types.Le)), None)
    got = f", got {write(given)}" if quote else ""
    if low is not None and high is not None:
        return Finding(path, f"must be between {low} and {high}{got}")
    return Finding(path, f"must be {f'at least {low}' if high is None else f'at most {high}'}{got}")


def _is_duration(constraints: tuple[Any, ...]) -> bool:
    return any(
        isinstance(entry, PlainSerializer) and entry.func is format_duration
        for entry in constraints
    )


def _duration(bound: object) -> str:
    """As people write it: what was given may still be text."""
    return bound if isinstance(bound, str) else format_duration(int(str(bound)))


def _length(context: Mapping[str, Any]) -> str:
    if "min_length" in context:
        return f"needs at least {_entries(context['min_length'])}"
    return f"takes at most {_entries(context['max_length'])}"


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _wrong_type(path: FieldPath, kind: str, given: object, got: str) -> Finding:
    quotable = kind == "string_type" and isinstance(given, int | float)
    hint = "put it in quotes" if quotable else ""
    return Finding(path, f"must be {_EXPECTED[kind]}{got}", hint)


def _field_names(model: object) -> list[str]:
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        return []
    return sorted(info.alias or name for name, info in model.model_fields.items())


def _place(root: type[BaseModel], path: FieldPath) -> _Place | None:
    """What the model declares at ``path``, or ``None`` below a free-form map."""
    place = _Place(root, ())
    for part in path:
        step = _element(place.type) if isinstance(part, int) else _field(place.type, part)
        if step is None:
            return None
        place = step
    return place


def _field(model: object, name: str) -> _Place | None:
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        return None
    for python_name, info in model.model_fields.items():
        if name in (info.alias, python_name):
            return _unwrap(info.annotation, tuple(info.metadata))
    return None


def _element(sequence: object) -> _Place | None:
    arguments = typing.get_args(sequence)
    return _unwrap(arguments[0], ()) if typing.get_origin(sequence) is tuple else None


def _unwrap(annotation: object, constraints: tuple[Any, ...]) -> _Place:
    """The bare type behind ``Annotated`` and ``| None``, with the bounds met on the way."""
    if typing.get_origin(annotation) is typing.Annotated:
        inside, *metadata = typing.get_args(annotation)
        return _unwrap(inside, (*constraints, *_bounds_in(metadata)))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(inner) == 1:
            return _unwrap(inner[0], constraints)
    return _Place(annotation, constraints)


def _bounds_in(metadata: list[Any]) -> tuple[Any, ...]:
    """Constraints of an ``Annotated``; pydantic's ``Field`` carries its own inside."""
    return tuple(
        constraint for entry in metadata for constraint in getattr(entry, "metadata", (entry,))
    )
