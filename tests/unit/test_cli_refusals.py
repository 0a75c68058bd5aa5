"""Options that do not fit together are refused before anything is opened, with what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.adapters.kubernetes import ConnectionSettings, KubeconfigError, connected
from federation.cli.main import app

AGENT = ("agent", "--cluster", "west", "--region", "west")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("access", "enable"), "give one whose common name is root (--etcd-cert, --etcd-key)"),
        (("access", "grant", "us_west"), '"us_west" is no DNS label'),
        (("access", "revoke", "a/b"), '"a/b" is no DNS label'),
        ((*AGENT, "--kubeconfig", "file"), "go with --source kubernetes"),
        ((*AGENT, "--source", "universal", "--kube-context", "c"), "go with --source kubernetes"),
        ((*AGENT, "--source", "kubernetes", "--kube-context", "c"), "name it with --kubeconfig"),
    ],
)
def test_refused(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "400", "NO_COLOR": "1"})
    assert done.exit_code == 2, done.output
    assert said in re.sub(r"[\s│]+", " ", done.output)


@pytest.mark.parametrize("text", ["a: [", "", "[]", "clusters: 3\n", "\0"])
async def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(KubeconfigError, match=r"reading credentials for Kubernetes: .*kubeconfig"):
        async with connected(ConnectionSettings(path)):
            pass


@pytest.mark.parametrize("text", ["west", "west=", "=east", "west=us east", "WEST=east", "a=b=c"])
def test_a_right_to_drain_names_a_cluster_and_a_target(text: str) -> None:
    done = CliRunner().invoke(app, ["resolver", "--may-drain", text], env={"COLUMNS": "400"})
    assert done.exit_code == 2, done.output
    assert "is not CLUSTER=TARGET" in done.output


def test_certificates_hold_an_hour_at_least(tmp_path: Path) -> None:
    adds = ("cluster", "add", "west", "--region", "west", "--authority", str(tmp_path))
    done = CliRunner().invoke(app, [*adds, "--lifetime", "5m"], env={"COLUMNS": "400"})
    assert done.exit_code == 2, done.output
    assert "at least 1h" in done.output
