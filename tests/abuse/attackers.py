"""The attackers' process: runs the attacks that it is told, and prints what became of each.

A process of its own with less of the processor than the others, for what is measured is the
gateway and not which of four processes gets one of two cores. Started with the target as JSON; a
line of its input is an attack's name, or ``enough`` when one that lasts was seen long enough.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path

from tests.abuse.attack import Fate, Stage, Target
from tests.abuse.catalog import ATTACKS

IN_PLACE = "in place"
ENOUGH = "enough"
NICENESS = 10
SEEN_TIMEOUT_S = 30.0
"""An attack that nobody ends goes on for no longer."""


class _Told(Stage):
    def __init__(self) -> None:
        self._enough = threading.Event()

    def in_place(self) -> None:
        print(json.dumps(IN_PLACE), flush=True)

    def over(self, wait_s: float) -> bool:
        return self._enough.wait(wait_s)

    def end(self) -> None:
        self._enough.set()


def main(target: Target) -> None:
    """Obey the input until it ends."""
    os.nice(NICENESS)
    commands: queue.Queue[tuple[str, _Told]] = queue.Queue()
    threading.Thread(target=_read_commands, args=(commands,), daemon=True).start()
    by_name = {attack.name: attack for attack in ATTACKS}
    print(json.dumps("ready"), flush=True)
    while True:
        name, stage = commands.get()
        if not name:
            return
        try:
            fate = by_name[name].run(target, stage)
        except Exception:  # noqa: BLE001 - it is told to whoever measures
            fate = Fate("failed", traceback.format_exc())
        print(json.dumps(dataclasses.asdict(fate)), flush=True)


def _read_commands(commands: queue.Queue[tuple[str, _Told]]) -> None:
    stage = _Told()
    for line in sys.stdin:
        if line.strip() == ENOUGH:
            stage.end()
        else:
            stage = _Told()
            commands.put((line.strip(), stage))
    stage.end()
    commands.put(("", stage))


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    main(Target(**{**told, "authority": Path(told["authority"])}))
