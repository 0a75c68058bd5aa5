"""Bars of what takes long: on a terminal, on standard error, and nowhere else."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testkit.etcd import running_etcd

pytestmark = pytest.mark.timeout(120)

FEDCTL = Path(sys.executable).with_name("fedctl")
BAR = "━"
QUICK = """
from federation.cli.progress import steps
with steps(2) as progress:
    progress.step("one")
    progress.step("two")
print("done")
"""


def on_a_terminal(*command: str) -> tuple[str, str]:
    """What a command writes to a pipe as its standard output, and to a terminal as its other."""
    terminal, end = pty.openpty()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=end,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                part = os.read(terminal, 65_536)
            except OSError:  # Linux ends a terminal without writers so
                break
            if not part:
                break
            shown += part
        assert process.stdout is not None
        told = process.stdout.read()
    os.close(terminal)
    return told.decode(), shown.decode()


def test_a_bar_shows_while_one_step_takes_long() -> None:
    with running_etcd() as etcd:
        command = (str(FEDCTL), "--etcd", etcd.endpoint, "check", "--only", "etcd", "-o", "json")
        etcd.freeze()
        try:
            told, shown = on_a_terminal(*command)
            piped = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            etcd.thaw()
    assert BAR in shown
    assert "etcd" in shown
    assert BAR not in told
    assert json.loads(told)["findings"][0]["what"] == "etcd does not answer"
    assert piped.returncode == 3
    assert piped.stderr == ""
    assert json.loads(piped.stdout)["findings"][0]["area"] == "etcd"


def test_what_is_quick_shows_none() -> None:
    assert on_a_terminal(sys.executable, "-c", QUICK) == ("done\n", "")
