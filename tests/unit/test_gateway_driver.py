"""A core built from other sources than those beside it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import _native
from gateway.driver import is_stale, open_core, source_digest
from gateway.errors import GatewayError
from gateway.settings import CoreSettings


def sources(root: Path, text: str) -> Path:
    """The four crates with one file each."""
    for crate in ("binding", "core", "h1", "h2", "proxy"):
        (root / crate / "src").mkdir(parents=True, exist_ok=True)
        (root / crate / "Cargo.toml").write_text("[package]\n")
        (root / crate / "src" / "lib.rs").write_text(text)
    return root


def test_a_core_of_other_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match=f"sources in {tmp_path}: run `make build`"):
        open_core(CoreSettings(), sources=sources(tmp_path, "// newer"))


def test_an_installed_package_has_nothing_to_compare(tmp_path: Path) -> None:
    assert not is_stale(tmp_path)
    assert isinstance(open_core(CoreSettings(), sources=tmp_path), _native.Core)


def test_the_digest_sees_every_change(tmp_path: Path) -> None:
    before = source_digest(sources(tmp_path, "// one"))
    assert source_digest(sources(tmp_path, "// one")) == before
    assert source_digest(sources(tmp_path, "// two")) != before
    (tmp_path / "core" / "src" / "added.rs").write_text("")
    assert source_digest(sources(tmp_path, "// one")) != before
