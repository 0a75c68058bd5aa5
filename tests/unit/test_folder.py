"""A folder of manifests as a source: what appears, what stays when something breaks, what goes."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from federation.adapters.folder import FolderError, FolderSettings, FolderSource, source
from federation.adapters.folder.files import RESTLESS_SCANS_MAX, Stamp, Watched, manifest_files
from federation.model.objects import Namespace, ObjectSnapshot, Service

Snapshots = AsyncGenerator[ObjectSnapshot, None]


def service(name: str, port: int = 9090) -> str:
    return (
        "---\napiVersion: v1\nkind: Service\n"
        f"metadata: {{name: {name}, namespace: app}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )


def names(snapshot: ObjectSnapshot) -> list[str]:
    return [entry.metadata.name for entry in snapshot.of(Service)]


def said(snapshot: ObjectSnapshot) -> list[str]:
    return [entry.message for entry in snapshot.rejected.values()]


async def until(snapshots: Snapshots, holds: Callable[[ObjectSnapshot], bool]) -> ObjectSnapshot:
    """The first snapshot for which ``holds``; the test's time-out is the deadline."""
    async for snapshot in snapshots:
        if holds(snapshot):
            return snapshot
    raise AssertionError("the source ended")


@pytest.fixture
async def snapshots(tmp_path: Path) -> AsyncIterator[Snapshots]:
    """Snapshots of ``tmp_path``, which holds `a.yaml` with two services at the start."""
    (tmp_path / "a.yaml").write_text(service("one") + service("two"))
    folder = FolderSource(FolderSettings(tmp_path, poll_every_s=0.005))
    async with aclosing(folder.snapshots()) as found:
        yield found


class TestAtTheStart:
    async def test_the_first_snapshot_is_complete(self, snapshots: Snapshots) -> None:
        first = await anext(snapshots)
        assert first.synced
        assert names(first) == ["one", "two"]
        assert [entry.creation_order for entry in first.of(Service)] == [1, 2]

    async def test_a_missing_folder_is_an_error(self, tmp_path: Path) -> None:
        missing = FolderSource(FolderSettings(tmp_path / "no"))
        with pytest.raises(FolderError) as caught:
            await anext(missing.snapshots())
        assert str(caught.value) == (
            f"reading manifests from {tmp_path / 'no'}: No such file or directory; "
            "name a folder with .yaml, .yml or .json files"
        )

    async def test_a_single_file_is_a_folder_of_one(self, tmp_path: Path) -> None:
        file = tmp_path / "only.txt"
        file.write_text(service("one"))
        assert names(await anext(FolderSource(FolderSettings(file)).snapshots())) == ["one"]

    async def test_a_broken_file_stops_no_other(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("x: [\n")
        (tmp_path / "b.yaml").write_text(service("one"))
        first = await anext(FolderSource(FolderSettings(tmp_path)).snapshots())
        assert names(first) == ["one"]
        assert said(first)[0].startswith(f"{tmp_path / 'a.yaml'}:2:1: not valid YAML: ")

    async def test_of_two_files_with_one_object_the_first_rules(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(service("one", 1))
        (tmp_path / "b.yaml").write_text(service("one", 2))
        first = await anext(FolderSource(FolderSettings(tmp_path)).snapshots())
        assert [entry.spec.ports[0].port for entry in first.of(Service)] == [1]
        assert said(first) == [
            (
                f"{tmp_path / 'b.yaml'}:2: Service app/one: stands already at "
                f"{tmp_path / 'a.yaml'}:2, which is kept"
            )
        ]


class TestChanges:
    async def test_a_new_file_appears(self, snapshots: Snapshots, tmp_path: Path) -> None:
        await anext(snapshots)
        (tmp_path / "b.json").write_text(
            '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}'
        )
        newer = await until(snapshots, lambda snapshot: bool(snapshot.of(Namespace)))
        assert newer.revision == 2

    async def test_a_change_raises_the_generation_of_what_changed(
        self, snapshots: Snapshots, tmp_path: Path
    ) -> None:
        await anext(snapshots)
        (tmp_path / "a.yaml").write_text(service("one") + service("two", 9091))
        newer = await anext(snapshots)
        assert [entry.metadata.generation for entry in newer.of(Service)] == [1, 2]

    async def test_a_removed_object_goes(self, snapshots: Snapshots, tmp_path: Path) -> None:
        await anext(snapshots)
        (tmp_path / "a.yaml").write_text(service("two"))
        assert names(await anext(snapshots)) == ["two"]

    async def test_a_removed_file_takes_its_objects(
        self, snapshots: Snapshots, tmp_path: Path
    ) -> None:
        await anext(snapshots)
        (tmp_path / "a.yaml").unlink()
        assert names(await anext(snapshots)) == []

    async def test_a_change_that_shows_in_no_stamp_is_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stamp = Stamp(1, 1, 1, 1)
        monkeypatch.setattr(source, "stamp_of", lambda path: stamp if path.exists() else None)
        (tmp_path / "a.yaml").write_text(service("one"))
        folder = FolderSource(FolderSettings(tmp_path, poll_every_s=0.001))
        async with aclosing(folder.snapshots()) as found:
            await anext(found)
            (tmp_path / "a.yaml").write_text(service("two"))
            assert names(await anext(found)) == ["two"]


class TestLastGood:
    async def test_of_a_file_that_is_no_yaml(self, snapshots: Snapshots, tmp_path: Path) -> None:
        await anext(snapshots)
        (tmp_path / "a.yaml").write_text(service("three") + "---\nx: [\n")
        newer = await anext(snapshots)
        assert sorted(names(newer)) == ["one", "three", "two"]
        assert "not valid YAML" in said(newer)[0]

    async def test_of_one_object(self, snapshots: Snapshots, tmp_path: Path) -> None:
        await anext(snapshots)
        (tmp_path / "a.yaml").write_text(service("two", 70000))
        newer = await anext(snapshots)
        assert names(newer) == ["two"]
        assert newer.of(Service)[0].spec.ports[0].port == 9090
        assert said(newer) == [
            (
                f"{tmp_path / 'a.yaml'}:5: Service app/two: spec.ports[0].port: must be between "
                "1 and 65535, got 70000; its last good version stays"
            )
        ]

    async def test_is_forgotten_once_mended(self, snapshots: Snapshots, tmp_path: Path) -> None:
        await anext(snapshots)
        (tmp_path / "a.yaml").write_text("x: [\n")
        await anext(snapshots)
        (tmp_path / "a.yaml").write_text(service("one"))
        newer = await anext(snapshots)
        assert (names(newer), said(newer)) == (["one"], [])

    async def test_of_a_file_that_cannot_be_read(
        self, snapshots: Snapshots, tmp_path: Path
    ) -> None:
        await anext(snapshots)
        (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
        newer = await anext(snapshots)
        assert names(newer) == ["one", "two"]
        file = tmp_path / "a.yaml"
        assert said(newer) == [
            (
                f"{file}: cannot be read: not UTF-8 text: invalid start byte at byte 0; "
                "its last good objects stay"
            )
        ]

    async def test_of_a_folder_that_vanished(self, snapshots: Snapshots, tmp_path: Path) -> None:
        await anext(snapshots)
        away = tmp_path.with_name("away")
        tmp_path.rename(away)  # noqa: ASYNC240
        newer = await anext(snapshots)
        away.rename(tmp_path)
        assert names(newer) == ["one", "two"]
        assert said(newer) == [
            f"{tmp_path}: cannot be read: No such file or directory; the last good objects stay"
        ]
        assert said(await anext(snapshots)) == []


class TestFiles:
    def test_hidden_and_foreign_files_are_left_out(self, tmp_path: Path) -> None:
        for name in ("b.yml", "a.yaml", ".hidden.yaml", "README.md", "c.JSON"):
            (tmp_path / name).touch()
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "d.yaml").touch()
        assert [file.name for file in manifest_files(tmp_path)] == ["a.yaml", "b.yml", "c.JSON"]
        found = manifest_files(tmp_path, recursive=True)
        assert [file.name for file in found] == ["a.yaml", "b.yml", "c.JSON", "d.yaml"]

    async def test_more_files_than_the_bound_are_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(source, "FILES_MAX", 1)
        (tmp_path / "a.yaml").write_text(service("one"))
        (tmp_path / "b.yaml").write_text(service("two"))
        first = await anext(FolderSource(FolderSettings(tmp_path)).snapshots())
        assert names(first) == ["one"]
        assert said(first) == [f"{tmp_path}: 2 files, only the first 1 are read; join some of them"]

    @pytest.mark.skipif(os.name != "posix", reason="symbolic links")
    def test_links_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "..data").mkdir()
        (tmp_path / "..data" / "a.yaml").touch()
        (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
        assert [file.name for file in manifest_files(tmp_path)] == ["a.yaml"]


class TestWatched:
    OLD, HALF, NEW = Stamp(1, 1, 1, 1), Stamp(2, 2, 2, 1), Stamp(3, 3, 3, 1)

    def test_a_file_is_read_once_it_has_settled(self) -> None:
        watched = Watched(self.OLD, self.OLD)
        watched, reads = watched.look(self.HALF)
        assert not reads
        watched, reads = watched.look(self.NEW)
        assert not reads
        watched, reads = watched.look(self.NEW)
        assert reads
        assert watched == Watched(self.NEW, self.NEW)

    def test_a_file_missing_for_a_moment_is_no_change(self) -> None:
        watched, reads = Watched(self.OLD, self.OLD).look(None)
        assert not reads
        watched, reads = watched.look(self.OLD)
        assert not reads
        assert watched == Watched(self.OLD, self.OLD)

    def test_a_file_that_never_settles_is_read_after_a_bound(self) -> None:
        watched, looks, reads = Watched(self.OLD, self.OLD), 0, False
        while not reads:
            looks += 1
            watched, reads = watched.look(Stamp(10 + looks, 0, 0, 0))
        assert looks == RESTLESS_SCANS_MAX + 1
