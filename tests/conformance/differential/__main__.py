"""``python -m tests.conformance.differential [FIRST [LAST]]``: these seeds, 0 to 39 if not said."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.conformance.differential.run import run


def main(arguments: list[str]) -> int:
    first = int(arguments[0]) if arguments else 0
    last = int(arguments[1]) if len(arguments) > 1 else (first if arguments else 39)
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(run(Path(folder), range(first, last + 1)))
    result = outcome.result()
    for case in result.failed:
        print(f"{case.name}: {case.fault}")
    print(f"{result.passed} of {len(result.cases)} cases differ in nothing but:")
    for name, count in outcome.seen.most_common():
        print(f"  {count:5} {name}")
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
