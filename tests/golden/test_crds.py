"""The shipped CustomResourceDefinitions are what the models say."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.model.objects import ApiObject
from federation.model.objects.registry import plural
from federation.wire.crds import KINDS, custom_resource_text

CRDS = Path(__file__).parents[2] / "crds"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_the_file_is_what_the_model_says(kind: type[ApiObject]) -> None:
    shipped = CRDS / f"{plural(kind)}.yaml"
    assert shipped.read_text(encoding="utf-8") == custom_resource_text(kind), "run `make crds`"


def test_there_is_no_other_file() -> None:
    assert {path.name for path in CRDS.glob("*.yaml")} == {f"{plural(k)}.yaml" for k in KINDS}
