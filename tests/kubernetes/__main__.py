"""``python -m tests.kubernetes``: each file of this folder in a network namespace of its own.

They wait far more than they compute, so some run at a time; addresses and ports of one namespace
are no others'. What a file prints is shown when it ends.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.testkit.namespace import prepared

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILE_TIMEOUT_S = 1_800
SLOW = (
    "test_api_server_failures.py",
    "test_deployment.py",
    "test_mcs_traffic.py",
    "test_source.py",
    "test_progressive.py",
    "test_two_agents.py",
    "test_dedicated_gateways.py",
    "test_lab.py",
)
"""Those that take minutes: they wait for leases, silences and roll-outs. They begin first, so that
none of them is the last one alone."""


def main() -> None:
    """Run the files; ends with 1 if any of them fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes")
    parser.add_argument("--jobs", type=int, default=3, help="files that run at a time")
    parser.add_argument("--again", action="store_true", help="run once more what failed")
    parser.add_argument("--only", choices=("quick", "slow"), help="some of the files")
    options, pytest_options = parser.parse_known_args()
    if not prepared():
        return
    program = "tests.again" if options.again else "pytest"
    files = _files(options.only)
    began = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        failed = [
            file.name
            for file, passed in pool.map(lambda it: _run(it, program, pytest_options), files)
            if not passed
        ]
    took = time.monotonic() - began
    print(f"tests/kubernetes: {len(files)} files, failed: {', '.join(failed) or 'none'}")
    print(f"tests/kubernetes: {took:.0f} s, {options.jobs} at a time")
    sys.exit(1 if failed else 0)


def _files(only: str | None) -> list[Path]:
    found = sorted(HERE.glob("test_*.py"))
    slow = [file for file in found if file.name in SLOW]
    quick = [file for file in found if file.name not in SLOW]
    return {"slow": slow, "quick": quick}.get(only or "", slow + quick)


def _run(file: Path, program: str, pytest_options: list[str]) -> tuple[Path, bool]:
    command = [
        *(sys.executable, "-m", "tests.testkit.namespace", sys.executable, "-m", program),
        *("-q", str(file.relative_to(ROOT)), "-o", f"cache_dir=.pytest_cache/{file.stem}"),
        *pytest_options,
    ]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FILE_TIMEOUT_S,
        )
        output, passed = done.stdout, done.returncode == 0
    except subprocess.TimeoutExpired as late:
        output, passed = f"{late.stdout or ''}\nno end within {FILE_TIMEOUT_S} s", False
    print(f"{file.name}\n{output.rstrip()}", flush=True)
    return file, passed


if __name__ == "__main__":
    main()
