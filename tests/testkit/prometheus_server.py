"""A real Prometheus (Debian's) that scrapes what a test names and evaluates rules."""

from __future__ import annotations

import contextlib
import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.testkit.federation import until
from tests.testkit.ports import free_port
from tests.testkit.processes import running

MISSING = "prometheus is not installed: apt-get install prometheus (it need not run by itself)"
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason=MISSING)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector of an instant query: ``metric`` and ``value`` each."""
        found = self._ask(f"query?{urllib.parse.urlencode({'query': expression})}")["result"]
        assert isinstance(found, list)
        return found

    def alerts(self) -> dict[str, str]:
        """The state (``pending`` or ``firing``) of alerts by name."""
        return {
            alert["labels"]["alertname"]: alert["state"] for alert in self._ask("alerts")["alerts"]
        }

    def rules(self) -> dict[str, str]:
        """Each rule's last error by its name; empty: it was evaluated."""
        return {
            rule["name"]: rule.get("lastError", "") or rule["health"].replace("ok", "")
            for group in self._ask("rules")["groups"]
            for rule in group["rules"]
        }

    def targets(self) -> dict[str, str]:
        """Each scraped address with its last error; empty: it is up."""
        return {
            target["labels"]["instance"]: target["lastError"] or target["health"].replace("up", "")
            for target in self._ask("targets")["activeTargets"]
        }

    def is_ready(self) -> bool:
        """Whether it answers queries; it listens before it does."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=10
        ) as it:
            return json.load(it)["data"]


@contextlib.contextmanager
def running_prometheus(
    directory: Path, *, targets: Mapping[str, Sequence[str]], rules: Sequence[Path] = ()
) -> Iterator[Prometheus]:
    """A server that scrapes ``targets`` (addresses by job) each second."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = directory / "prometheus.yml"
    settings.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(path) for path in rules],
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                    for job, addresses in targets.items()
                ],
            }
        )
    )
    port = free_port()
    command = [
        *("prometheus", f"--config.file={settings}", f"--storage.tsdb.path={directory / 'data'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, [port], directory / "prometheus.log"):
        found = Prometheus(port)
        until(found.is_ready, lambda: (directory / "prometheus.log").read_text()[-2000:])
        yield found
