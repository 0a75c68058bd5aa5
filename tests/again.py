"""``python -m tests.again ARGUMENTS…``: pytest, and what failed once more.

A fault that comes back fails the run; one that doesn't is printed with its output, to be made
steady.
"""

from __future__ import annotations

import subprocess
import sys

SOME_FAILED = 1
"""pytest's exit code; others mean that it could not do its work, which another try won't change."""


def main() -> None:
    """Run, and end with pytest's exit code."""
    command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    code = subprocess.run(command, check=False).returncode
    if code == SOME_FAILED:
        print("again: what failed runs once more", flush=True)
        code = subprocess.run([*command, "--last-failed"], check=False).returncode
        if code == 0:
            print("again: it passed the second time: see above for what is not steady", flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
