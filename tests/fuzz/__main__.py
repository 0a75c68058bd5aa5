"""``make fuzz``: every fuzz target for a while, and a table of what was done.

The targets of the crates (``gateway/*/fuzz``) are libFuzzer programs. They are built by the stable
toolchain: what the compiler inserts for coverage is an LLVM pass that any rustc can be told to run,
and the crates forbid `unsafe`, so that a sanitizer, which would want a nightly one, finds nothing.
They begin with the corpus beside them and leave it alone; what they find on the way is kept below
`target/fuzz/corpus` and goes on from there the next time. `--keep` takes the worthwhile part of it
over into the corpus of the repository.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.translation import check

ROOT = Path(__file__).parents[2]
WORK = ROOT / "target" / "fuzz"
SEED_BYTES_MAX = 512
"""Longer inputs are not kept in the repository."""

DECISIONS_MAX = 120
COVERAGE = (
    "--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Clink-dead-code -Cpasses=sancov-module"
    " -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
    " -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
)


@dataclass(frozen=True, slots=True)
class Target:
    """A fuzz target of a crate."""

    workspace: Path
    name: str

    @property
    def kept(self) -> Path:
        """The corpus in the repository."""
        return self.workspace / "corpus" / self.name

    @property
    def found(self) -> Path:
        """The corpus that grows."""
        return WORK / "corpus" / self.workspace.parent.name / self.name

    def __str__(self) -> str:
        return f"{self.workspace.parent.name}/{self.name}"


@dataclass(frozen=True, slots=True)
class Done:
    """What a target did; ``fault`` is the input that broke it, or why there is none."""

    name: str
    runs: int
    coverage: int
    fault: str | None


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when nothing broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="renew the corpus in the repository")
    parser.add_argument("names", nargs="*", help="CRATE/TARGET; all when none is given")
    asked = parser.parse_args(arguments)
    targets = [it for it in all_targets() if not asked.names or str(it) in asked.names]
    programs = {target: program for target in targets if (program := built(target))}
    if len(programs) < len(targets):
        return 1
    # libFuzzer works on one core; the others need not wait.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(lambda it: run(it, programs[it], asked.seconds), targets))
    if not asked.names:
        rows.append(run_translation(asked.seconds))
    print("| target | inputs | places reached | outcome |", "| --- | ---: | ---: | --- |", sep="\n")
    for row in rows:
        reached = str(row.coverage) if row.coverage else "not measured"
        print(f"| {row.name} | {row.runs} | {reached} | {row.fault or 'nothing broke'} |")
    if asked.keep:
        for target in targets:
            keep(target, programs[target])
    return 1 if any(row.fault for row in rows) else 0


def all_targets() -> Iterator[Target]:
    """The targets of all fuzz workspaces."""
    for manifest in sorted(ROOT.glob("gateway/*/fuzz/Cargo.toml")):
        for program in tomllib.loads(manifest.read_text()).get("bin", ()):
            yield Target(manifest.parent, program["name"])


def built(target: Target) -> Path | None:
    """The program, built; cargo's words are shown when it cannot be."""
    # With a target named, the flags are not for build scripts.
    host = re.search(r"host: (\S+)", _output("rustc", "-vV"))
    assert host is not None
    command = ["cargo", "build", "--release", "-q", "--bin", target.name]
    command += ["--target", host[1], "--target-dir", str(WORK)]
    environment = {**os.environ, "RUSTFLAGS": COVERAGE}
    done = subprocess.run(command, cwd=target.workspace, env=environment, check=False)
    return WORK / host[1] / "release" / target.name if done.returncode == 0 else None


def run(target: Target, program: Path, seconds: int) -> Done:
    """Run one target."""
    target.found.mkdir(parents=True, exist_ok=True)
    artifacts = WORK / "artifacts" / str(target)
    artifacts.mkdir(parents=True, exist_ok=True)
    command = [str(program), f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=10"]
    command += [f"-artifact_prefix={artifacts}/", str(target.found)]
    command += [str(target.kept)] if target.kept.is_dir() else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=WORK)
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    reached = re.findall(r"cov: (\d+)", done.stderr)
    fault = None
    if done.returncode:
        written = re.search(r"Test unit written to (\S+)", done.stderr)
        fault = f"broken by {written[1]}" if written else f"ended with {done.returncode}"
        print(*done.stderr.splitlines()[-40:], f"{target}: {fault}", sep="\n", file=sys.stderr)
    return Done(str(target), int(runs[1]) if runs else 0, int(reached[-1]) if reached else 0, fault)


def run_translation(seconds: int) -> Done:
    """Mutated resources for the gateway's shell, in this process."""
    name, runs = "gateway.xds_translate", 0
    source = random.Random()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        decisions = source.randbytes(source.randrange(DECISIONS_MAX))
        runs += 1
        try:
            check(decisions)
        except Exception as broken:  # noqa: BLE001 - any exception at all is the finding
            return Done(name, runs, 0, f"broken by {decisions!r}: {broken!r}")
    return Done(name, runs, 0, None)


def keep(target: Target, program: Path) -> None:
    """Take over into the repository what reaches more than what is there."""
    target.kept.mkdir(parents=True, exist_ok=True)
    small = WORK / "small" / str(target)
    small.mkdir(parents=True, exist_ok=True)
    for entry in target.found.iterdir():
        if entry.stat().st_size <= SEED_BYTES_MAX:
            (small / entry.name).write_bytes(entry.read_bytes())
    # The fewest that reach every place; how often each was reached would be thousands.
    command = [str(program), "-set_cover_merge=1", "-use_counters=0", str(target.kept), str(small)]
    subprocess.run(command, capture_output=True, check=True, cwd=WORK)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
