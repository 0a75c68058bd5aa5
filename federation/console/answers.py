"""Answers of the API: JSON, refusals in one form, and what a request may hold.

Decides: the form of errors and their statuses, how parameters and bodies are read.
Leaves to others: who may ask (``guard``), what is answered.
Invariants: whatever a client sends, it gets a sentence and no traceback; a body is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

EnumT = TypeVar("EnumT", bound=Enum)
BodyT = TypeVar("BodyT", bound="Body")

PAGE_MAX = 200
DIGITS_MAX = 12


class RefusalError(Exception):
    """A request that is not served: status, a code for machines, a sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def response(self) -> web.Response:
        """The answer."""
        body = {"error": {"code": self.code, "message": str(self), **self.more}}
        return web.json_response(body, status=self.status, headers=self.headers)


class Body(BaseModel):
    """What a request carries; unknown fields are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
        strict=True,
    )


def bad(message: str) -> RefusalError:
    """A request that makes no sense."""
    return RefusalError(400, "bad_request", message)


def not_found(message: str) -> RefusalError:
    """Something that is not there."""
    return RefusalError(404, "not_found", message)


async def body_of(request: web.Request, kind: type[BodyT]) -> BodyT:
    """The request's JSON as ``kind``. Raises ``RefusalError``."""
    try:
        # Lists are no tuples to a strict model, and JSON has no tuples.
        raw = json.dumps(json.loads(await request.read()))
    except (ValueError, RecursionError) as error:
        raise bad(f"the body is not valid JSON: {error}") from error
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise bad(f"{where}: {first['msg']}") from error


def number_of(
    request: web.Request, name: str, default: int, *, least: int = 1, most: int = 1_000_000
) -> int:
    """A number among the query's parameters. Raises ``RefusalError``."""
    text = request.query.get(name, "")
    if not text:
        return default
    short = text.isascii() and text.isdecimal() and len(text) <= DIGITS_MAX
    if not (short and least <= int(text) <= most):
        raise bad(f'{name}: "{text[:40]}" is not a number from {least} to {most}')
    return int(text)


def choice_of(
    request: web.Request, name: str, kind: type[EnumT], default: EnumT | None
) -> EnumT | None:
    """One of ``kind`` among the query's parameters. Raises ``RefusalError``."""
    text = request.query.get(name, "")
    if not text:
        return default
    try:
        return kind(text)
    except ValueError as error:
        known = ", ".join(sorted(str(entry.value) for entry in kind))
        raise bad(f'{name}: "{text[:40]}" is none of {known}') from error


def cut(request: web.Request, rows: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """The page of ``rows`` that is asked for, with what is said about it."""
    page = number_of(request, "page", 1)
    per = number_of(request, "per", 50, most=PAGE_MAX)
    first = (page - 1) * per
    return {"matched": len(rows), "page": page, "per": per}, rows[first : first + per]


def one_of(known: Iterable[str]) -> str:
    """Names for a sentence."""
    return ", ".join(sorted(known)) or "none"
