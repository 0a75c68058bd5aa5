"""Logs of several parts as one story."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from federation.cli.logs import _added, tail
from federation.cli.logs_merge import Choice, Source, as_document, as_text, merged, read_lines

AGENT, ETCD = Source("agent-west", "agent", "us-west-1"), Source("etcd", "etcd")


def ours(second: int, event: str, level: str = "info", **fields: object) -> str:
    at = f"2026-11-23T21:31:{second:02}.000+00:00"
    return json.dumps({"time": at, "level": level, "logger": "x", "event": event, **fields})


def etcds(second: int, message: str, level: str = "warn") -> str:
    at = f"2026-11-23T21:31:{second:02}.500Z"
    return json.dumps({"level": level, "ts": at, "caller": "a.go:1", "msg": message})


def story(choice: Choice) -> list[str]:
    agent = [ours(1, "one"), "Traceback (most recent call last):", ours(3, "three", "error", n=7)]
    logs = [list(read_lines(AGENT, agent)), list(read_lines(ETCD, [etcds(2, "two")]))]
    return [line.event for line in merged(logs, choice)]


def test_lines_come_by_time_and_those_without_stay_behind_theirs() -> None:
    assert story(Choice()) == ["one", "Traceback (most recent call last):", "two", "three"]


@pytest.mark.parametrize(
    ("choice", "events"),
    [
        (Choice(level="warning"), ["two", "three"]),
        (Choice(fields={"n": "7"}), ["three"]),
        (Choice(fields={"n": "8"}), []),
        (
            Choice(since_s=dt.datetime(2026, 11, 23, 21, 31, 3, tzinfo=dt.UTC).timestamp()),
            ["three"],
        ),
    ],
)
def test_lines_are_chosen(choice: Choice, events: list[str]) -> None:
    assert story(choice) == events


def test_a_line_for_people_and_for_programs() -> None:
    (line,) = read_lines(AGENT, [ours(3, "three", "error", n=7)])
    assert as_text(line) == "21:31:03.000 error   agent-west: three n=7"
    found = as_document(line)
    assert (found["component"], found["cluster"]) == ("agent", "us-west-1")
    assert found["fields"]["n"] == 7


def test_the_end_of_a_long_file_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "long.log"
    path.write_text("".join(f"line {number} {'x' * 200}\n" for number in range(5_000)))
    found = tail(path, 700)
    assert len(found) == 700
    assert found[0].startswith("line 4300 ")
    assert found[-1].startswith("line 4999 ")


def test_what_is_added_is_read_in_whole_lines_and_a_new_file_from_its_beginning(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.log"
    path.write_text("one\ntw")
    assert _added(path, 0) == (["one"], 4)
    path.write_text("one\ntwo\n")
    assert _added(path, 4) == (["two"], 8)
    path.write_text("new\n")
    assert _added(path, 8) == (["new"], 4)
