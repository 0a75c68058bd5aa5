"""A support bundle has no secrets in it: they are planted everywhere, and none comes out."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from federation.cli import bundle_scrub as scrub
from federation.cli.bundle import ANSWERS, FILE_BYTES_MAX, Bundle, pack, write_bundle
from federation.cli.bundle_scrub import REMOVED, Scrubber, Shape, is_clean
from federation.cli.context import CommandError
from federation.cli.lab.authority import Authority

PAIR = Authority("an authority").issue("somebody")
KEY = PAIR.key_pem.decode()
SECRETS = {
    "PEM": KEY,
    "cut PEM": KEY[:120],
    "base64 PEM": "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t",
    "JWT": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlc2lnbmF0dXJl",
    "bearer": "Bearer abcdef0123456789",
    "basic": "authorization: Basic YWxpY2U6c2VjcmV0",
    "password": "password=hunter2hunter2",
    "JSON": '{"apiKey": "k-0123456789"}',
    "URL": "redis://alice:hunter2hunter2@10.0.0.1:6379",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "cookie": "cookie: session=0123456789abcdef",
}
TOLD = ("hunter2hunter2", "c2lnbmF0dXJl", "abcdef0123456789", "YWxpY2U6", "k-0123456789")
TOLD += ("AKIAIOSFODNN7EXAMPLE", "LS0tLS1CRUdJ", "0123456789abcdef", KEY.splitlines()[1][:40])
SHAPES: dict[str, Shape] = dict(ANSWERS) | {
    "status": scrub.STATUS,
    "check": scrub.CHECK,
    "objects": scrub.OBJECTS,
    "log": scrub.LOG,
}


def planted(shape: Shape, text: str) -> Any:
    """A document that fits ``shape``, with ``text`` at each place and beside each."""
    if shape is True:
        return f"before {text} after"
    if isinstance(shape, dict):
        named = {key: planted(inside, text) for key, inside in shape.items() if key != "*"}
        if "*" in shape:
            named |= {"anything": planted(shape["*"], text), "password": text}
        return named | {"unnamed": text, "data": {"tls.key": text}}
    assert isinstance(shape, list)
    return [planted(shape[0], text), text]


@pytest.mark.parametrize("document", SHAPES)
@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_comes_out_of_any_document(document: str, secret: str) -> None:
    bundle = Bundle()
    bundle.add("it.json", planted(SHAPES[document], SECRETS[secret]), SHAPES[document])
    out = b"".join(bundle.files.values()).decode()
    assert bundle.scrubber.left_out > 0
    assert REMOVED in out, "the places that are named are kept, cleaned"
    assert is_clean(out)
    assert not [told for told in TOLD if told in out]


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_comes_out_of_a_log(secret: str) -> None:
    bundle = Bundle()
    line = {"time": "t", "event": SECRETS[secret], "fields": {"why": SECRETS[secret], "x": KEY}}
    bundle.add_lines("logs.jsonl", [line], scrub.LOG)
    out = b"".join(bundle.files.values()).decode()
    assert REMOVED in out
    assert not [told for told in TOLD if told in out]


def test_what_is_needed_stays() -> None:
    ready = {"name": "gw-1", "state": "InSync", "age_s": 0.5, "listeners": {"a/b/443": None}}
    assert Scrubber().document(ready, scrub.READY) == ready
    text = "UNAVAILABLE: failed to connect to ipv4:10.0.0.1:9090; token bucket is empty"
    assert Scrubber().text(text) == text


def test_values_of_headers_stay_behind() -> None:
    route = {"name": "r", "match": {"headers": [{"name": "x-tenant", "exact": "acme"}]}}
    route |= {"request_headers": {"set": [["x-upstream", "value"]]}}
    host = {"name": "h", "hostnames": ["*"], "routes": [route]}
    dump = {"route_tables": [{"name": "t", "version": "1", "body": {"virtual_hosts": [host]}}]}
    out = json.dumps(Scrubber().document(dump, scrub.CONFIG))
    assert "x-tenant" in out
    assert "acme" not in out
    assert "x-upstream" not in out


def test_a_bundle_is_bounded_and_says_what_is_missing() -> None:
    bundle = Bundle()
    line = {"time": "t", "event": "x" * 1_000}
    bundle.add_lines("logs.jsonl", [line | {"level": str(n)} for n in range(5_000)], scrub.LOG)
    assert len(bundle.files["logs.jsonl"]) <= FILE_BYTES_MAX
    assert '"4999"' in bundle.files["logs.jsonl"].decode().splitlines()[-1]
    bundle.add("big.json", [{"at": "x" * 1_500}] * 3_000, scrub.EVENTS)
    assert "big.json" not in bundle.files
    with tarfile.open(fileobj=io.BytesIO(pack(bundle))) as archive:
        names = archive.getnames()
        manifest = archive.extractfile("fedctl-bundle/manifest.json")
        assert manifest is not None
        told = json.load(manifest)
    assert names == ["fedctl-bundle/manifest.json", "fedctl-bundle/logs.jsonl"]
    assert set(told["missing"]) == {"logs.jsonl (older lines)", "big.json"}


def test_a_bundle_is_its_owners_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    write_bundle(path, b"content")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandError, match="File exists; name another with --out"):
        write_bundle(path, b"other")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Cookie: a=b; session=XYZ", "XYZ"),
        ("Authorization: Negotiate YII0abc", "YII0abc"),
        ("password=my pass phrase", "phrase"),
        ("password: 123456", "123456"),
        ("password:\n  123456", "123456"),
        ("password: [abc", "abc"),
        ("fedctl --token abc --etcd e", "abc"),
        ('{"token": 123456}', "123456"),
    ],
)
def test_secrets_of_any_form_are_removed(text: str, hidden: str) -> None:
    bundle = Bundle(missing={"it": f"asking: {text}"})
    bundle.add("it.json", [{"event": text}], scrub.EVENTS)
    bundle.add_lines("log.jsonl", [{"event": text}], scrub.LOG)
    bundle.add("stats.json", {"core": {"numbers": {"token": 123456, "calls": 7}}}, scrub.STATS)
    assert set(bundle.files) == {"it.json", "log.jsonl", "stats.json"}
    out = b"".join(bundle.files.values()).decode() + json.dumps(bundle.manifest()["missing"])
    assert hidden not in out
    assert out.count(REMOVED) == 4
    assert '"calls": 7' in out


def test_a_line_that_cannot_be_cleaned_is_counted_and_reasons_add_up() -> None:
    bundle = Bundle()
    # Only together do the name and its value look like a secret.
    shape: Shape = {"secret": [True]}
    bundle.add_lines("log.jsonl", [{"secret": ["abc"]}] * 2, shape)
    bundle.lack("log.jsonl", "one")
    bundle.lack("log.jsonl", "other")
    told = bundle.manifest()
    assert told["unwritten"] == {"log.jsonl": 2}
    assert told["missing"]["log.jsonl (2 lines)"] == "something in them looks like a secret"
    assert told["missing"]["log.jsonl"] == "one; other"
