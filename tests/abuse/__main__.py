"""``make abuse``: run every attack, print the table and renew ``docs/abuse.md``."""

from __future__ import annotations

import contextlib
import sys

from tests.abuse import report
from tests.abuse.catalog import ATTACKS
from tests.abuse.measure import Attackers, Bystander, measure
from tests.abuse.rig import running_abuse_rig
from tests.testkit.processes import ROOT

PAGE = ROOT / "docs" / "abuse.md"


def main() -> int:
    """The exit code: 0 when nothing is amiss."""
    rows = []
    print(report.COLUMNS, report.RULE, sep="\n", flush=True)
    with contextlib.ExitStack() as stack:
        rig = stack.enter_context(running_abuse_rig())
        bystander = stack.enter_context(contextlib.closing(Bystander(rig.target.port)))
        attackers = stack.enter_context(contextlib.closing(Attackers(rig.target)))
        for attack in ATTACKS:
            row = measure(attack, rig, attackers, bystander)
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
