"""``fedctl check`` on the lab as tests ask it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.testkit.lab import Lab


def check(lab: Lab, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = lab.fedctl("check", "-o", "json", *arguments, check=False)
    assert done.out, done.err
    return done.code, json.loads(done.out)


def found(lab: Lab, area: str, subject: str, words: str) -> Callable[[], bool]:
    """Whether ``check`` says ``words`` (of what or why) about ``subject``."""

    def now() -> bool:
        code, report = check(lab, "--only", area)
        hits = [
            finding
            for finding in report["findings"]
            if finding["area"] == area
            and subject in finding["subject"]
            and words in finding["what"] + ": " + finding["why"]
            and finding["next"]
        ]
        return bool(hits) and code == 1

    return now
