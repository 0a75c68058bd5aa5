"""What shells are told to complete, by the very call that their scripts make."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.model.base import ClusterId, Region
from federation.model.facts import Member
from federation.ports import Put
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys
from tests.testkit.etcd import EtcdServer
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(120)

FEDCTL = Path(sys.executable).with_name("fedctl")


def completed(line: str, **environment: str) -> list[str]:
    """What ``fedctl`` answers bash for ``line``, whose last word is not yet whole."""
    asked = {
        "_FEDCTL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = subprocess.run(
        [str(FEDCTL)],
        env={key: value for key, value in os.environ.items() if "FEDERATION" not in key}
        | {"FEDERATION_LAB_DIR": "/nonexistent"}
        | asked
        | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def joined(etcd_server: EtcdServer) -> dict[str, str]:
    """Environment of an etcd with two clusters, two services and one value that is none."""
    keys = Keys(f"/test/{uuid4().hex}/")

    async def write() -> None:
        store = EtcdStore(EtcdSettings(endpoints=(etcd_server.endpoint,)))
        members = (("us-west-1", "west"), ("us-east-1", "east"))
        await store.commit(
            [
                *(
                    Put(
                        keys.member(ClusterId(name)),
                        to_bytes(
                            Member(cluster=ClusterId(name), region=Region(region), instance="i")
                        ),
                    )
                    for name, region in members
                ),
                Put(keys.member(ClusterId("broken")), b"{"),
                *(
                    Put(f"{keys.resolved_services}{name}", b"{}")
                    for name in ("app/users", "app/orders")
                ),
            ]
        )
        await store.close()

    asyncio.run(write())
    return {"FEDERATION_ETCD": etcd_server.endpoint, "FEDERATION_PREFIX": keys.prefix}


def test_commands_and_options() -> None:
    assert completed("fedctl ch") == ["check"]
    assert completed("fedctl lab kil") == ["kill", "kill-etcd"]
    assert "--log" in completed("fedctl trace --lo")
    assert completed("fedctl check --only cl") == ["clocks", "clusters"]


def test_names_of_the_federation(joined: dict[str, str]) -> None:
    assert completed("fedctl drain ", **joined) == [
        "broken",
        "east",
        "us-east-1",
        "us-west-1",
        "west",
    ]
    assert completed("fedctl undrain us-e", **joined) == ["us-east-1"]
    assert completed("fedctl trace --from us-", **joined) == ["us-east-1", "us-west-1"]
    assert completed("fedctl logs --cluster us-w", **joined) == ["us-west-1"]
    assert completed("fedctl explain app/", **joined) == ["app/orders", "app/users"]
    typed = f"fedctl --etcd {joined['FEDERATION_ETCD']} --prefix {joined['FEDERATION_PREFIX']}"
    assert completed(f"{typed} top --service app/u") == ["app/users"]


def test_without_etcd_nothing_is_said_and_the_prompt_comes_back() -> None:
    began = time.monotonic()
    assert completed("fedctl drain ", FEDERATION_ETCD=f"127.0.0.1:{free_port()}") == []
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_calls_us(shell: str) -> None:
    done = subprocess.run(
        [str(FEDCTL)],
        env=os.environ | {"_FEDCTL_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_FEDCTL_COMPLETE=complete_" + shell in done.stdout


def test_bash_takes_the_script_that_is_installed(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    subprocess.run(
        [str(FEDCTL), "--install-completion", "bash"],
        env=environment,
        capture_output=True,
        check=True,
    )
    script = (
        "set -e; . ~/.bashrc; complete -p fedctl; COMP_WORDS=(fedctl suppo); COMP_CWORD=1;"
        ' _fedctl_completion fedctl; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment | {"PATH": f"{FEDCTL.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "support-bundle"
