"""Fields of the access log, its flags, and attributes of spans stand in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from federation.model import telemetry as model
from gateway.xds_translate import telemetry as translated

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "observability.md").read_text()
PROXY = ROOT / "gateway" / "proxy" / "src"


def test_each_field_of_the_access_log_stands_there_with_its_meaning() -> None:
    source = (ROOT / "gateway" / "core" / "src" / "access.rs").read_text()
    fields = re.findall(
        r'^    \w+ "([A-Z_]+)" "[a-z_]+" (?:true|false) "(.*)",$', source, re.MULTILINE
    )
    assert len(fields) > 30
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert {name: rows.get(name) for name, _ in fields} == dict(fields)


def test_policies_and_xds_know_the_same_fields() -> None:
    source = (ROOT / "gateway" / "core" / "src" / "access.rs").read_text()
    fields = re.findall(r'^    \w+ "([A-Z_]+)" "[a-z_]+" true "', source, re.MULTILINE)
    assert list(model.FIELDS) == list(translated.FIELDS) == fields


def test_policies_and_the_core_redact_the_same_headers() -> None:
    source = (ROOT / "gateway" / "core" / "src" / "access.rs").read_text()
    listed = re.search(r"const SENSITIVE: \[&str; \d+\] = \[(.*?)\];", source, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r'"([a-z-]+)"', listed[1])) == model.SENSITIVE_HEADERS


def test_each_flag_stands_there_with_its_reason() -> None:
    source = (PROXY / "reply.rs").read_text()
    reasons = re.findall(r'^    \w+ "([a-z_]+)" "([A-Z-]+)",$', source, re.MULTILINE)
    assert len(reasons) > 20
    rows = re.findall(r"^\| `([A-Z-]+)` \| `([a-z_]+)` \|", PAGE, re.MULTILINE)
    assert {word: flag for flag, word in rows} == dict(reasons)


def test_each_attribute_of_a_span_stands_there() -> None:
    # Those that many spans repeat are encoded where they are known first.
    source = "".join(
        (PROXY / "telemetry" / name).read_text() for name in ("spans.rs", "record.rs", "told.rs")
    )
    names = set(re.findall(r'"((?:[a-z_]+\.)+[a-z_]+)"', source))
    assert {"rpc.method", "federation.retry", "network.peer.port"} <= names
    assert sorted(name for name in names if f"`{name}`" not in PAGE) == []
