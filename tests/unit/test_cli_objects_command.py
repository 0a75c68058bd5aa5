"""The command line itself: words, exit codes, help and completion, with a real etcd behind it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from federation.cli.context import etcd_of_lab, make_context
from federation.cli.main import COMMANDS, app, split_short
from federation.cli.objects_names import complete_kind
from tests.testkit.etcd import EtcdServer
from tests.testkit.ports import free_port

MANIFESTS = Path(__file__).parent.parent / "manifests"


class Fedctl:
    """``fedctl`` on one etcd, with a prefix of its own."""

    def __init__(self, endpoint: str) -> None:
        self._options = ["--etcd", endpoint, "--prefix", f"/test/{uuid4().hex}"]

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, [*self._options, *arguments], input=stdin)


@pytest.fixture
def fedctl(etcd_server: EtcdServer) -> Fedctl:
    return Fedctl(etcd_server.endpoint)


def test_apply_get_patch_delete(fedctl: Fedctl) -> None:
    applied = fedctl("apply", "-f", str(MANIFESTS / "6-multi-cluster.yaml"), "--cluster", "west")
    assert applied.exit_code == 0
    assert applied.stdout.splitlines()[-1] == (
        "backendtrafficpolicy.gateway.networking.k8s.io/user-service-failover created (west)"
    )
    change = '-p=[{"op":"replace","path":"/spec/clusterBackends/0/weight","value":80}]'
    assert fedctl(
        "patch", "mcs/user-service-global", "-n", "app", "--type=json", change
    ).stdout == (
        "multiclusterservice.gateway.networking.k8s.io/user-service-global patched (west)\n"
    )
    found = json.loads(fedctl("get", "mcs", "user-service-global", "-n=app", "-o=json").stdout)
    assert found["spec"]["clusterBackends"][0] == {"cluster": "us-west-1", "weight": 80}
    deleted = fedctl("delete", "-f", str(MANIFESTS / "6-multi-cluster.yaml"))
    assert (deleted.exit_code, len(deleted.stdout.splitlines())) == (0, 4)
    again = fedctl("delete", "mcs", "user-service-global", "-n", "app")
    assert again.exit_code == 4


def test_exit_codes(fedctl: Fedctl) -> None:
    assert fedctl("apply", "-f", "-", "--cluster", "a", stdin="x: [\n").exit_code == 1
    assert fedctl("get", "nonsense").exit_code == 2
    assert fedctl("nonsense").exit_code == 2
    assert fedctl("patch", "svc", "-p", "{}").exit_code == 2
    assert fedctl("delete").exit_code == 2
    assert fedctl("get", "svc", "a").exit_code == 4


def test_etcd_away_is_said_clearly() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    result = Fedctl(endpoint)("get", "svc")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: etcd is away: ")
    assert endpoint in result.stderr
    assert result.stderr.endswith(
        "; traffic goes on as it is. Is it up, and is --etcd (FEDERATION_ETCD) right?\n"
    )


def test_etcd_away_says_what_to_do_by_who_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDERATION_LAB_DIR", str(tmp_path))
    assert "start a lab (fedctl lab up)" in make_context(None, "/p").if_away
    (tmp_path / "lab.json").write_text(f'{{"etcd": "127.0.0.1:{free_port()}"}}')
    result = CliRunner().invoke(app, ["get", "svc"])
    assert result.exit_code == 3
    assert result.stderr.endswith("This is the lab's; start it: fedctl lab start-etcd\n")


INSTALLED = [
    name
    for name, entry in COMMANDS.items()
    if importlib.util.find_spec(f"federation.cli.{entry.module}") is not None
]


@pytest.mark.parametrize("name", INSTALLED)
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Example:" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from federation.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'grpc', 'kubernetes', 'aiohttp', 'pydantic', 'aetcd'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_short_options_take_an_equals_sign() -> None:
    assert split_short(["-p=[1]", "--type=json", "-n=app", "--", "-p=x"]) == [
        *("-p", "[1]", "--type=json", "-n", "app", "--", "-p=x")
    ]


def test_kinds_complete() -> None:
    assert complete_kind("serviceim") == [
        "serviceimports",
        "serviceimports.multicluster.x-k8s.io",
    ]


class TestContext:
    def test_option_then_lab_then_localhost(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEDERATION_LAB_DIR", str(tmp_path))
        assert make_context(None, "/p").etcd == ("http://127.0.0.1:2379",)
        (tmp_path / "lab.json").write_text('{"etcd": "127.0.0.1:4001"}')
        assert make_context(None, "/p").etcd == ("127.0.0.1:4001",)
        assert make_context("a:1, b:2", "p/").etcd == ("a:1", "b:2")
        assert make_context(None, "p").prefix == "/p/"

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"etcd": 5}', "\xff"])
    def test_an_unreadable_lab_state_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "lab.json").write_text(text, encoding="latin-1")
        assert etcd_of_lab({"FEDERATION_LAB_DIR": str(tmp_path)}) is None
