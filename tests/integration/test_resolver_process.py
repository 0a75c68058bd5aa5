"""``fedctl resolver`` as a process: what it says of its health."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, process, until
from tests.testkit.ports import free_port


def asked(address: str, path: str) -> tuple[int, str]:
    """Status and text of ``path``; status 0: nobody listens yet."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode().strip()
    except OSError:
        return 0, ""


def test_a_resolver_is_ready_from_etcds_first_answer_on(tmp_path: Path) -> None:
    at, waiting_at = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with running_etcd() as etcd:
        etcd.kill()
        options = ("--etcd", etcd.endpoint, "resolver", "--health")
        with process(tmp_path / "one.log", *FEDCTL, *options, at) as one:
            until(lambda: asked(at, "/healthz") == (200, "ok"), one.output)
            assert asked(at, "/readyz") == (503, "etcd has not answered yet")
            etcd.start()
            until(lambda: asked(at, "/readyz") == (200, "ok"), one.output)
            with process(tmp_path / "two.log", *FEDCTL, *options, waiting_at) as two:
                until(lambda: asked(waiting_at, "/readyz") == (200, "ok"), two.output)
                events = [json.loads(line)["event"] for line in two.output().splitlines()]
                assert "leading" not in events  # a standby is as ready as a leader
            etcd.kill()
            assert asked(at, "/readyz") == (200, "ok")
