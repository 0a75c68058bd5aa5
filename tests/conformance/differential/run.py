"""Batches of cases through both proxies, and what remains unexplained.

Decides: that a difference counts when it shows in every one of ``RUNS`` runs of its case; what a
busy machine does to a time-out once is no difference between proxies.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.differential import generator
from tests.conformance.differential.compare import Difference
from tests.conformance.differential.differences import explained
from tests.conformance.differential.generator import Batch, Case
from tests.conformance.differential.rig import TABLE, Rig, running_rig
from tests.conformance.results import Case as ResultCase
from tests.conformance.results import Result, Transport

RUNS = 3
CASES = 30
"""In each batch that is drawn."""


@dataclass(slots=True)
class Outcome:
    """What came of all batches."""

    cases: list[ResultCase] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    """How many cases showed each of the documented differences."""

    def result(self) -> Result:
        return Result("differential, Envoy and gateway", Transport.PLAIN, tuple(self.cases))


async def run(folder: Path, seeds: Iterable[int]) -> Outcome:
    """The directed cases, then a batch of each seed."""
    outcome = Outcome()
    batches = [generator.directed(table_name=TABLE)]
    batches += [generator.batch(seed, table_name=TABLE, cases=CASES) for seed in seeds]
    async with running_rig(folder) as rig:
        for batch in batches:
            await rig.serve(batch)
            for case in batch.cases:
                outcome.cases.append(await _judge(rig, batch, case, outcome.seen))
    return outcome


async def _judge(rig: Rig, batch: Batch, case: Case, seen: Counter[str]) -> ResultCase:
    found = await _compare(rig, batch, case, 0)
    seen.update({name for name in found.values() if name is not None})
    open_still = _unexplained(found)
    for number in range(1, RUNS):
        if open_still:
            again = _unexplained(await _compare(rig, batch, case, number))
            open_still = {field: text for field, text in open_still.items() if field in again}
    if not open_still:
        return ResultCase(case.name)
    script = re.sub(r"y{50,}", "yyy…", str(case.script))
    return ResultCase(case.name, f"{'; '.join(open_still.values())} in {script}")


async def _compare(rig: Rig, batch: Batch, case: Case, number: int) -> dict[Difference, str | None]:
    envoy, gateway = await asyncio.gather(
        *(rig.run(proxy, f"{case.name}-{number}", case.script) for proxy in ("envoy", "gateway"))
    )
    return explained(batch, case.script, envoy, gateway)


def _unexplained(found: dict[Difference, str | None]) -> dict[tuple[str, str], str]:
    return {
        (difference.where, difference.what): str(difference)
        for difference, name in found.items()
        if name is None
    }
