"""The lab's processes: starting them, knowing them by pid, ending exactly those.

Decides: how a process is started, recognised and ended.
Leaves to others: which processes there are (``plan``).
Invariants: a pid is acted on only if the process that has it now was started when ours was: a pid
that the system gave to a stranger is never signalled. Nothing restarts a process by itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
from pydantic import TypeAdapter

from federation.cli.lab.plan import LabPlan, ProcessPlan, Role
from federation.model.base import Value

LOG_TAIL_LINES = 15
END_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 5.0
GONE_POLL_S = 0.02
START_TIME_SLACK_S = 1.0


class LabError(Exception):
    """Something about the lab failed; the message says what, where to look and what to do."""


class Running(Value):
    """A started process: ``started`` is the system's start time of ``pid``, Unix seconds."""

    name: str
    pid: int
    started: float

    def process(self) -> psutil.Process | None:
        """The live process, or ``None`` when it has ended."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            same = abs(process.create_time() - self.started) < START_TIME_SLACK_S
        except psutil.NoSuchProcess:
            return None
        return process if same else None


_RUNNING = TypeAdapter(dict[str, Running])


class Processes:
    """All processes of one lab, remembered in ``processes.json`` of its directory."""

    def __init__(self, plan: LabPlan) -> None:
        self._plan = plan
        self._path = plan.directory / "processes.json"

    def running(self) -> dict[str, Running]:
        """The last known process of each name, dead ones included."""
        try:
            return _RUNNING.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}

    def is_alive(self, name: str) -> bool:
        """True while the process of ``name`` runs."""
        known = self.running().get(name)
        return known is not None and known.process() is not None

    def is_whole(self, process: ProcessPlan) -> bool:
        """True while ``process`` runs, and with it every demo endpoint that it forked."""
        forked = len(self.demo_pids(process)) if process.role is Role.DEMO else 0
        running = sum(not _is_gone(live) for live in self._live(process))
        return self.is_alive(process.name) and running == forked + 1

    def start(self, process: ProcessPlan) -> None:
        """Start ``process`` in a session of its own; its output goes to ``logs/NAME.log``."""
        if self.is_alive(process.name):
            return
        if process.role is Role.DEMO:
            self._demo_pids_path(process).unlink(missing_ok=True)
        log_path = self.log_path(process.name)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            child = subprocess.Popen(
                process.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._plan.directory,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"},
            )
        started = psutil.Process(child.pid).create_time()
        known = self.running() | {
            process.name: Running(name=process.name, pid=child.pid, started=started)
        }
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(_RUNNING.dump_json(known))
        temporary.replace(self._path)
        # Popen warns about children it has not waited for; these outlive this command on purpose.
        child.returncode = 0

    def end(self, processes: Iterable[ProcessPlan], *, number: signal.Signals) -> None:
        """Signal ``processes`` and the demo endpoints under them, then wait until they are gone.

        After ``END_TIMEOUT_S`` what is left of them is killed.
        """
        ending = [live for process in processes for live in self._live(process)]
        for process in ending:
            _signal(process, number)
        left = _wait_gone(ending, timeout_s=END_TIMEOUT_S)
        for process in left:
            _signal(process, signal.SIGKILL)
        _wait_gone(left, timeout_s=KILL_TIMEOUT_S)

    def demo_pids(self, process: ProcessPlan) -> dict[str, int]:
        """Pids of the demo endpoints that ``process`` forked, by address."""
        try:
            found = json.loads(self._demo_pids_path(process).read_text())
        except FileNotFoundError:
            return {}
        return {str(address): int(pid) for address, pid in found.items()}

    def _live(self, process: ProcessPlan) -> Iterator[psutil.Process]:
        known = self.running().get(process.name)
        if process.role is Role.DEMO:
            for pid in self.demo_pids(process).values():
                try:
                    child = psutil.Process(pid)
                    ours = known is not None and child.create_time() >= known.started - 1
                    if ours and child.cmdline() == list(process.command):
                        yield child
                except psutil.NoSuchProcess:
                    continue
        if known is not None and (live := known.process()) is not None:
            yield live

    def _demo_pids_path(self, process: ProcessPlan) -> Path:
        return Path(process.command[-1])

    def log_path(self, name: str) -> Path:
        """Where the process of ``name`` writes."""
        return self._plan.directory / "logs" / f"{name}.log"

    def wait_for(
        self, ready: Callable[[], bool], *, of: ProcessPlan, what: str, timeout_s: float
    ) -> None:
        """Wait until ``ready`` says so. Raises ``LabError`` with the log's end if it never does."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            dead = not self.is_alive(of.name)
            if dead or time.monotonic() > deadline:
                why = "ended" if dead else f"was not {what} after {timeout_s:.0f} s"
                tail = "\n".join(f"  | {line}" for line in self.log_tail(of.name))
                raise LabError(
                    f"{of.role} {of.name} {why}; the end of {self.log_path(of.name)}:\n{tail}"
                )
            time.sleep(0.05)

    def log_tail(self, name: str) -> list[str]:
        """The last lines that ``name`` wrote."""
        try:
            text = self.log_path(name).read_text(errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines()[-LOG_TAIL_LINES:]


def _wait_gone(processes: list[psutil.Process], *, timeout_s: float) -> list[psutil.Process]:
    """Wait until ``processes`` have ended; returns those that have not.

    A zombie has ended. They are no children of this command, and init may take seconds to reap
    them, which ``psutil.wait_procs`` would wait for.
    """
    deadline = time.monotonic() + timeout_s
    while left := [process for process in processes if not _is_gone(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(GONE_POLL_S)
    return left


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
