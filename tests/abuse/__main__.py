"""``make abuse``: run every attack, print the table and renew ``docs/abuse.md``."""

from __future__ import annotations

import contextlib
import sys

from tests.abuse import report
from tests.abuse.catalog import ATTACKS
from tests.abuse.measure import Bystander, measure
from tests.abuse.rig import running_abuse_rig
from tests.testkit.processes import ROOT

PAGE = ROOT / "docs" / "abuse.md"


def main() -> int:
    """The exit code: 0 when nothing is amiss."""
    rows = []
    print(report.COLUMNS, report.RULE, sep="\n", flush=True)
    with running_abuse_rig() as rig, contextlib.closing(Bystander(rig.target.port)) as bystander:
        for attack in ATTACKS:
            row = measure(attack, rig, bystander)
            print(report.line(row), flush=True)
            for fault in row.faults:
                print(f"  failed: {fault}", flush=True)
            rows.append(row)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(report.text(rows))
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 1 if any(row.faults for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
