"""etcd over mutual TLS: who is let in, renewed files, and what a wrong setting is called."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.adapters.etcd import EtcdSettings, EtcdStore, EtcdTls
from federation.adapters.etcd.connection import EndpointError
from federation.cli.lab.authority import Authority
from federation.cli.main import app
from federation.ports import Put, StoreUnavailable
from tests.testkit.etcd import TlsFiles, running_etcd
from tests.testkit.ports import free_port


def written(authority: Authority, directory: Path, name: str) -> TlsFiles:
    """Files of an identity that ``authority`` signed."""
    pair = authority.issue(name, addresses=("127.0.0.1",))
    directory.mkdir(exist_ok=True)
    files = TlsFiles(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    files.authority.write_bytes(authority.certificate_pem)
    files.certificate.write_bytes(pair.certificate_pem)
    files.private_key.write_bytes(pair.key_pem)
    return files


def tls(files: TlsFiles) -> EtcdTls:
    return EtcdTls(files.authority, files.certificate, files.private_key)


async def test_our_certificate_lets_us_in_and_another_does_not(tmp_path: Path) -> None:
    authority, stranger = Authority("ours"), Authority("theirs")
    server = written(authority, tmp_path / "server", "etcd")
    ours = written(authority, tmp_path / "ours", "agent")
    theirs = written(stranger, tmp_path / "theirs", "agent")
    shutil.copy(ours.authority, theirs.authority)
    with running_etcd(server) as etcd:
        endpoint = f"https://{etcd.endpoint}"
        store = EtcdStore(EtcdSettings((endpoint,), tls=tls(ours)))
        await store.commit([Put("/a", b"1")])
        entry = await store.get("/a")
        assert entry is not None
        assert entry.value == b"1"
        await store.close()
        refused = EtcdStore(EtcdSettings((endpoint,), tls=tls(theirs)))
        with pytest.raises(StoreUnavailable, match="is away"):
            await refused.get("/a")
        # Renewed files are taken up by the next connection.
        shutil.copy(ours.certificate, theirs.certificate)
        shutil.copy(ours.private_key, theirs.private_key)
        renewed = EtcdStore(EtcdSettings((endpoint,), tls=tls(theirs)))
        assert await renewed.get("/a") is not None
        await renewed.close()
        await refused.close()


async def test_fedctl_speaks_tls(tmp_path: Path) -> None:
    authority = Authority("ours")
    server = written(authority, tmp_path / "server", "etcd")
    ours = written(authority, tmp_path / "ours", "operator")
    with running_etcd(server) as etcd:
        options = [
            *("--etcd", f"https://{etcd.endpoint}", "--etcd-ca", str(ours.authority)),
            *("--etcd-cert", str(ours.certificate), "--etcd-key", str(ours.private_key)),
        ]
        shown = await asyncio.to_thread(CliRunner().invoke, app, [*options, "status"])
        assert shown.exit_code == 0, shown.output
        alone = await asyncio.to_thread(CliRunner().invoke, app, [*options[:-2], "status"])
        assert "--etcd-cert and --etcd-key go together" in alone.output


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = EtcdTls(tmp_path / "no-such-ca.pem")
    store = EtcdStore(EtcdSettings((f"https://127.0.0.1:{free_port()}",), tls=missing))
    with pytest.raises(StoreUnavailable, match=r"reading .*no-such-ca.pem: No such file"):
        await store.get("/a")


def test_mixed_and_useless_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="some are https and some are not"):
        EtcdStore(EtcdSettings(("https://a:1", "b:1")))
    with pytest.raises(EndpointError, match="files of TLS are given"):
        EtcdStore(EtcdSettings(("b:1",), tls=EtcdTls(tmp_path)))
