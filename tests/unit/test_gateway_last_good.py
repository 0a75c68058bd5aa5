"""The last good file: whole or not at all, checked when read, readable by its owner only."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from gateway.last_good import FILE_NAME, LastGoodError, LastGoodWriter, load, save


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def resource(name: str) -> discovery_pb2.Resource:
    return discovery_pb2.Resource(name=name, version="1")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    save(folder, [resource("a"), resource("b")], cluster="west")
    save(folder, [resource("c")], cluster="west")
    stored = load(folder, cluster="west")
    assert stored is not None
    assert [entry.name for entry in stored.resources] == ["c"]
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600


def test_no_file_is_no_configuration(tmp_path: Path) -> None:
    assert load(tmp_path, cluster="west") is None


@pytest.mark.parametrize("keep", [0, 10, 40, 60])
def test_a_torn_file_is_reported_and_not_used(tmp_path: Path, keep: int) -> None:
    save(tmp_path, [resource("a")], cluster="west")
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LastGoodError, match="it is not used"):
        load(tmp_path, cluster="west")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LastGoodError, match="cannot write"):
        save(tmp_path / "file" / "state", [], cluster="west")


def written(directory: Path) -> int:
    """When the file was written last, in nanoseconds; 0: never."""
    path = directory / FILE_NAME
    return path.stat().st_mtime_ns if path.exists() else 0


async def test_a_writer_that_is_cancelled_leaves_a_whole_file(tmp_path: Path) -> None:
    resources = [resource(str(number)) for number in range(20_000)]
    for _ in range(5):
        writer = LastGoodWriter(tmp_path, lambda: resources, cluster="west")
        writer.changed()
        before = written(tmp_path)
        task = asyncio.create_task(writer.run())
        # A busy machine may never show the file under its passing name.
        while (  # noqa: ASYNC110 - a file wakes nobody
            f"{FILE_NAME}.new" not in files_in(tmp_path) and written(tmp_path) == before
        ):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert files_in(tmp_path) == [FILE_NAME]
        assert load(tmp_path, cluster="west") is not None


def test_a_file_of_another_cluster_is_not_used(tmp_path: Path) -> None:
    save(tmp_path, [resource("a")], cluster="east")
    with pytest.raises(LastGoodError, match='is of cluster "east", and this gateway stands in "w'):
        load(tmp_path, cluster="west")
