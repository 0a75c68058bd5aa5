"""``make bench``: CPU per call beside peers, then propagation through the lab."""

from __future__ import annotations

import sys
from dataclasses import asdict

from tests.bench import cpu_per_call, propagation
from tests.bench.machine import keep, machine_line
from tests.bench.proxies import missing_programs

BENCHES = ("cpu_per_call", "propagation")


def main(arguments: list[str]) -> int:
    """Run all benches, or those named."""
    if unknown := set(arguments) - set(BENCHES):
        print(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(BENCHES)}")
        return 2
    chosen = arguments or list(BENCHES)
    machine = machine_line()
    print(f"{machine}\n")
    if "cpu_per_call" in chosen:
        run_cpu_per_call(machine)
    if "propagation" in chosen:
        run_propagation(machine)
    return 0


def run_cpu_per_call(machine: str) -> None:
    """The gateway beside its peers, if the programs of the harness are there."""
    if missing := missing_programs():
        print(f"CPU per call is left out: not installed: {', '.join(missing)} (see README.md)\n")
        return
    kept = {}
    for tls in (False, True):
        samples = cpu_per_call.measure(tls=tls)
        print(f"{cpu_per_call.table(samples, tls=tls)}\n")
        kept["tls" if tls else "plain"] = {
            name: [asdict(sample) for sample in runs] for name, runs in samples.items()
        }
    print(f"kept in {keep('cpu_per_call', machine, {'samples': kept})}\n")


def run_propagation(machine: str) -> None:
    """Changes of endpoints through the whole lab."""
    changes = propagation.measure()
    print(f"{propagation.table(changes)}\n")
    figures = {"changes": [asdict(change) for change in changes]}
    print(f"kept in {keep('propagation', machine, figures)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
