"""The shipped CustomResourceDefinitions are what the models say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.model.objects import ApiObject
from federation.model.objects.registry import plural
from federation.wire.crds import KINDS, custom_resource_definition, custom_resource_text

CRDS = Path(__file__).parents[2] / "crds"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_the_file_is_what_the_model_says(kind: type[ApiObject]) -> None:
    shipped = CRDS / f"{plural(kind)}.yaml"
    assert shipped.read_text(encoding="utf-8") == custom_resource_text(kind), "run `make crds`"


def test_there_is_no_other_file() -> None:
    assert {path.name for path in CRDS.glob("*.yaml")} == {f"{plural(k)}.yaml" for k in KINDS}


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a schema, with its path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}{name}", field
        yield from fields(field, f"{path}{name}.")
        yield from fields(field.get("items", {}), f"{path}{name}[].")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_every_field_is_explained(kind: type[ApiObject]) -> None:
    """``kubectl explain`` says of each field what it does, and more than its name."""
    for version in custom_resource_definition(kind)["spec"]["versions"]:
        found = dict(fields(version["schema"]["openAPIV3Schema"]))
        assert len(found) > 10
        del found["metadata"]  # described by API servers themselves
        for path, field in found.items():
            words = field.get("description", "").split()
            assert len(words) >= 3, f"{path}: {' '.join(words) or 'no description'}"
            assert words[-1].endswith((".", ")")), f"{path}: no sentence: {' '.join(words)}"
