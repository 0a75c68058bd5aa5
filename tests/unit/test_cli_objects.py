"""Object commands over several clusters, on the store in memory: what is done and what is said."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml

from federation.adapters.clock import SystemClock
from federation.adapters.memory import MemoryCluster, MemoryStore
from federation.cli import objects_apply, objects_change, objects_get
from federation.cli.context import CommandError
from federation.cli.exit_codes import ExitCode
from federation.cli.objects_apply import Manifests
from federation.cli.objects_change import PatchType
from federation.cli.objects_clusters import ClusterObjects
from federation.cli.objects_get import OutputForm, Query
from federation.cli.objects_names import parse_wanted
from federation.model.base import ClusterId, Region
from federation.model.facts import Member
from federation.model.objects import GRPCRoute, ObjectKey
from federation.ports import Put
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys

MANIFESTS = Path(__file__).parent.parent / "manifests"
ROUTE = "grpcroute.gateway.networking.k8s.io"
EAST, WEST = ClusterId("us-east-1"), ClusterId("us-west-1")
PREFIX = "/federation/v1/"
Output = pytest.CaptureFixture[str]


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore(MemoryCluster())
    keys = Keys(PREFIX)
    for cluster in (EAST, WEST):
        member = Member(cluster=cluster, region=Region(cluster), instance="i")
        await store.commit([Put(keys.member(cluster), to_bytes(member))])
    return store


@pytest.fixture
def objects(store: MemoryStore) -> ClusterObjects:
    return ClusterObjects(store, Keys(PREFIX), SystemClock())


async def apply(objects: ClusterObjects, *paths: str | Path, **options: object) -> ExitCode:
    manifests = Manifests(
        tuple(str(path) for path in paths),
        namespace=options.get("namespace"),  # type: ignore[arg-type]
        recursive=bool(options.get("recursive")),
    )
    clusters = options.get("clusters", ())
    return await objects_apply.apply(objects, manifests, clusters=clusters)  # type: ignore[arg-type]


def query(*words: str, namespace: str | None = "app", clusters: tuple[str, ...] = ()) -> Query:
    return Query(tuple(parse_wanted(words)), namespace, clusters)


class TestApply:
    async def test_goes_to_every_cluster(self, objects: ClusterObjects, capsys: Output) -> None:
        assert await apply(objects, MANIFESTS / "2-weighted-split.yaml") is ExitCode.OK
        assert capsys.readouterr().out.splitlines() == [
            f"{ROUTE}/user-service-weighted created (us-east-1)",
            f"{ROUTE}/user-service-weighted created (us-west-1)",
        ]

    async def test_says_created_configured_unchanged(
        self, objects: ClusterObjects, capsys: Output, tmp_path: Path
    ) -> None:
        text = (MANIFESTS / "2-weighted-split.yaml").read_text()
        file = tmp_path / "route.yaml"
        for content in (text, text, text.replace("weight: 80", "weight: 70")):
            file.write_text(content)
            await apply(objects, file, clusters=("us-west-1",))
        assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
            "created",
            "unchanged",
            "configured",
        ]

    async def test_one_bad_object_stops_no_other(
        self, objects: ClusterObjects, capsys: Output, tmp_path: Path
    ) -> None:
        (tmp_path / "a.yaml").write_text("kind: [\n")
        good = (MANIFESTS / "2-weighted-split.yaml").read_text()
        (tmp_path / "b.yaml").write_text(f"{good.replace('80', '-80')}\n---\n{good}")
        code = await apply(objects, tmp_path, tmp_path / "gone.yaml", clusters=("us-west-1",))
        said = capsys.readouterr()
        assert code is ExitCode.FAILED
        assert said.out == f"{ROUTE}/user-service-weighted created (us-west-1)\n"
        assert said.err.splitlines() == [
            f"error: reading {tmp_path / 'gone.yaml'}: No such file or directory",
            (
                f"error: {tmp_path / 'a.yaml'}:2:1: not valid YAML: expected the node content, but "
                "found '<stream end>' (while parsing a flow node)"
            ),
            (
                f"error: {tmp_path / 'b.yaml'}:12: GRPCRoute app/user-service-weighted: "
                "spec.rules[0].backendRefs[0].weight: must be between 0 and 1000000, got -80"
            ),
        ]

    async def test_kinds_of_others_are_a_notice(
        self, objects: ClusterObjects, capsys: Output
    ) -> None:
        assert await apply(objects, MANIFESTS / "7-observability.yaml") is ExitCode.OK
        said = capsys.readouterr()
        created = "observabilitypolicy.gateway.networking.k8s.io/grpc-observability created"
        assert said.out.splitlines() == [f"{created} (us-east-1)", f"{created} (us-west-1)"]
        assert [line.partition(": ")[0] for line in said.err.splitlines()] == ["notice"]

    async def test_reads_stdin(
        self, objects: ClusterObjects, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "sys.stdin", io.StringIO("{apiVersion: v1, kind: Service, metadata: {name: a, x: 1}}")
        )
        assert await apply(objects, "-") is ExitCode.FAILED
        assert capsys.readouterr().err.startswith("error: stdin:1: Service default/a: metadata.x: ")

    async def test_namespace_fills_in_and_must_match(
        self, objects: ClusterObjects, capsys: Output, tmp_path: Path
    ) -> None:
        file = tmp_path / "s.yaml"
        file.write_text(
            "{apiVersion: v1, kind: Service, metadata: {name: a}}\n---\n"
            "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: other}}\n"
        )
        assert await apply(objects, file, namespace="app", clusters=(WEST,)) is ExitCode.FAILED
        said = capsys.readouterr()
        assert said.out == "service/a created (us-west-1)\n"
        assert said.err == (
            f"error: {file}:3: Service other/b: metadata.namespace: does not match `-n app`; "
            "leave out one of the two\n"
        )

    async def test_a_folder_without_manifests_is_wrong_usage(
        self, objects: ClusterObjects, tmp_path: Path
    ) -> None:
        with pytest.raises(CommandError, match=r"no .yaml, .yml or .json files in") as caught:
            await apply(objects, tmp_path)
        assert caught.value.code is ExitCode.USAGE

    async def test_an_empty_file_is_an_error(
        self, objects: ClusterObjects, capsys: Output, tmp_path: Path
    ) -> None:
        (tmp_path / "a.yaml").write_text("# nothing\n")
        assert await apply(objects, tmp_path / "a.yaml") is ExitCode.FAILED
        assert capsys.readouterr().err == f"error: no objects in {tmp_path / 'a.yaml'}\n"

    async def test_an_unknown_cluster_is_warned_about(
        self, objects: ClusterObjects, capsys: Output
    ) -> None:
        file = MANIFESTS / "2-weighted-split.yaml"
        assert await apply(objects, file, clusters=("us-wset-1",)) is ExitCode.OK
        assert capsys.readouterr().err == (
            'warning: no cluster "us-wset-1" has joined; known clusters: us-east-1, us-west-1\n'
        )

    async def test_without_clusters_says_what_to_do(self, capsys: Output) -> None:
        empty = ClusterObjects(MemoryStore(MemoryCluster()), Keys(PREFIX), SystemClock())
        with pytest.raises(CommandError) as caught:
            await apply(empty, MANIFESTS / "2-weighted-split.yaml")
        assert str(caught.value) == (
            "no cluster has joined yet; start an agent (`fedctl agent`, or `fedctl lab up`), or "
            "name a cluster with --cluster"
        )


@pytest.fixture
async def filled(objects: ClusterObjects, capsys: Output) -> ClusterObjects:
    """Both clusters with the multi-cluster manifests, `us-west-1` with one route more."""
    await apply(objects, MANIFESTS / "6-multi-cluster.yaml")
    await apply(objects, MANIFESTS / "2-weighted-split.yaml", clusters=("us-west-1",))
    capsys.readouterr()
    return objects


class TestGet:
    async def test_a_table_over_clusters(self, filled: ClusterObjects, capsys: Output) -> None:
        code = await objects_get.get(filled, query("grpcroutes"), OutputForm.TABLE)
        assert code is ExitCode.OK
        assert [line.split()[:4] for line in capsys.readouterr().out.splitlines()] == [
            ["CLUSTER", "NAME", "HOSTNAMES", "ACCEPTED"],
            ["us-east-1", "user-service-multi-cluster", "grpc.example.com", "Unknown"],
            ["us-west-1", "user-service-multi-cluster", "grpc.example.com", "Unknown"],
            ["us-west-1", "user-service-weighted", "grpc.example.com", "Unknown"],
        ]

    async def test_one_cluster_has_no_column(self, filled: ClusterObjects, capsys: Output) -> None:
        asked = query("btp", clusters=("us-west-1",))
        await objects_get.get(filled, asked, OutputForm.TABLE)
        heading, line = capsys.readouterr().out.splitlines()
        assert heading == "NAME                    TARGETKIND   TARGETNAME                   AGE"
        assert line.startswith("user-service-failover   GRPCRoute    user-service-multi-cluster   ")

    async def test_several_kinds_in_all_namespaces(
        self, filled: ClusterObjects, capsys: Output
    ) -> None:
        asked = query("mcs,svcim", namespace=None, clusters=("us-west-1",))
        await objects_get.get(filled, asked, OutputForm.TABLE)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:2] for line in lines if line] == [
            ["NAMESPACE", "NAME"],
            ["app", "multiclusterservice.gateway.networking.k8s.io/user-service-global"],
            ["NAMESPACE", "NAME"],
            ["app", "serviceimport.gateway.networking.k8s.io/user-service-import"],
        ]
        assert "us-west-1=60,us-east-1=40" in lines[1]

    async def test_yaml_of_one_can_be_applied_again(
        self, filled: ClusterObjects, capsys: Output, tmp_path: Path
    ) -> None:
        asked = query("grpcroute/user-service-weighted")
        await objects_get.get(filled, asked, OutputForm.YAML)
        (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
        assert await apply(filled, tmp_path / "again.yaml", clusters=("us-west-1",)) is ExitCode.OK
        assert capsys.readouterr().out == f"{ROUTE}/user-service-weighted unchanged (us-west-1)\n"

    async def test_json_of_several_is_a_list_that_says_whose(
        self, filled: ClusterObjects, capsys: Output
    ) -> None:
        await objects_get.get(filled, query("mcs"), OutputForm.JSON)
        listing = json.loads(capsys.readouterr().out)
        assert listing["kind"] == "List"
        assert [item["metadata"]["annotations"] for item in listing["items"]] == [
            {"federation.dev/cluster": "us-east-1"},
            {"federation.dev/cluster": "us-west-1"},
        ]

    async def test_names_alone(self, filled: ClusterObjects, capsys: Output) -> None:
        await objects_get.get(filled, query("grpcroute"), OutputForm.NAME)
        assert capsys.readouterr().out.splitlines() == [
            f"{ROUTE}/user-service-multi-cluster",
            f"{ROUTE}/user-service-weighted",
        ]

    async def test_nothing_there_is_said(self, filled: ClusterObjects, capsys: Output) -> None:
        assert await objects_get.get(filled, query("svc"), OutputForm.TABLE) is ExitCode.OK
        assert capsys.readouterr() == ("", "No resources found in app namespace.\n")

    async def test_a_name_that_is_nowhere(self, filled: ClusterObjects, capsys: Output) -> None:
        code = await objects_get.get(filled, query("svc", "a"), OutputForm.YAML)
        assert code is ExitCode.NOT_FOUND
        assert capsys.readouterr() == (
            "",
            "error: Service app/a not found in us-east-1, us-west-1\n",
        )

    async def test_an_unknown_cluster(self, filled: ClusterObjects) -> None:
        with pytest.raises(CommandError) as caught:
            await objects_get.get(filled, query("svc", clusters=("x",)), OutputForm.TABLE)
        assert caught.value.code is ExitCode.NOT_FOUND

    async def test_describe(self, filled: ClusterObjects, capsys: Output) -> None:
        asked = query("mcs", "user-service-global", clusters=("us-west-1",))
        assert await objects_get.describe(filled, asked) is ExitCode.OK
        out = capsys.readouterr().out
        assert "Name:          user-service-global\nNamespace:     app\n" in out
        assert "Spec:\n  serviceImport:\n    name: user-service-import\n" in out
        assert "Status: none yet; does an agent run for this cluster?" in out


class TestUnreadable:
    """Stored objects that are no valid objects (any more) are named and hide no other."""

    BAD = ObjectKey(GRPCRoute.GROUP, GRPCRoute.KIND, "app", "bad")
    SAID = (
        "error: GRPCRoute app/bad (us-west-1): the stored object cannot be read: not valid JSON: "
        "Expecting value: line 1 column 1 (char 0); apply it again, or delete it\n"
    )

    @pytest.fixture
    async def broken(self, filled: ClusterObjects, store: MemoryStore) -> ClusterObjects:
        await store.commit([Put(Keys(PREFIX).object(WEST, self.BAD), b"nonsense")])
        return filled

    async def test_in_a_list(self, broken: ClusterObjects, capsys: Output) -> None:
        code = await objects_get.get(broken, query("grpcroute"), OutputForm.NAME)
        assert code is ExitCode.FAILED
        shown = [f"{ROUTE}/user-service-multi-cluster\n", f"{ROUTE}/user-service-weighted\n"]
        assert capsys.readouterr() == ("".join(shown), self.SAID)

    async def test_by_its_name(self, broken: ClusterObjects, capsys: Output) -> None:
        asked = query("grpcroute", "bad")
        assert await objects_get.get(broken, asked, OutputForm.TABLE) is ExitCode.FAILED
        assert capsys.readouterr() == ("", self.SAID)
        assert await objects_get.describe(broken, asked) is ExitCode.FAILED
        assert capsys.readouterr() == ("", self.SAID)

    @pytest.mark.parametrize("words", [("gateway",), ("grpcroute", "user-service-multi-cluster")])
    async def test_not_where_others_are_asked_for(
        self, broken: ClusterObjects, capsys: Output, words: tuple[str, ...]
    ) -> None:
        await objects_get.get(broken, query(*words), OutputForm.NAME)
        assert "cannot be read" not in capsys.readouterr().err

    async def test_what_is_stored_under_another_name(
        self, broken: ClusterObjects, store: MemoryStore, capsys: Output
    ) -> None:
        keys = Keys(PREFIX)
        good = ObjectKey(GRPCRoute.GROUP, GRPCRoute.KIND, "app", "user-service-multi-cluster")
        entry = await store.get(keys.object(WEST, good))
        assert entry is not None
        await store.commit([Put(keys.object(WEST, self.BAD), entry.value)])
        await objects_get.get(broken, query("grpcroute", "bad"), OutputForm.TABLE)
        assert "the object stored here is GRPCRoute app/user-service-multi" in (
            capsys.readouterr().err
        )

    async def test_is_not_patched_anywhere(
        self, broken: ClusterObjects, store: MemoryStore, capsys: Output
    ) -> None:
        change = {"metadata": {"labels": {"a": "b"}}}
        code = await objects_change.patch(
            broken, query("grpcroute", "bad"), change, PatchType.MERGE
        )
        assert (code, capsys.readouterr()) == (ExitCode.FAILED, ("", self.SAID))

    async def test_can_be_deleted(self, broken: ClusterObjects, capsys: Output) -> None:
        await objects_change.delete(broken, [self.BAD], clusters=(), ignore_not_found=False)
        assert capsys.readouterr().out == f"{ROUTE}/bad deleted (us-west-1)\n"


class TestPatch:
    DOCUMENTED = (
        '[{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":60},'
        '{"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":40}]'
    )

    async def patched(
        self, objects: ClusterObjects, words: list[str], text: str, kind: PatchType
    ) -> ExitCode:
        change = objects_change.parse_patch(text, kind)
        return await objects_change.patch(objects, query(*words), change, kind)

    async def weights(self, objects: ClusterObjects, cluster: ClusterId, name: str) -> list[int]:
        route = await objects.of(cluster).get(ObjectKey(GRPCRoute.GROUP, "GRPCRoute", "app", name))
        assert isinstance(route, GRPCRoute)
        return [ref.weight for ref in route.spec.rules[0].backend_refs]

    async def test_the_documented_one(self, filled: ClusterObjects, capsys: Output) -> None:
        words = ["grpcroute", "user-service-weighted"]
        code = await self.patched(filled, words, self.DOCUMENTED, PatchType.JSON)
        assert code is ExitCode.OK
        assert capsys.readouterr().out == f"{ROUTE}/user-service-weighted patched (us-west-1)\n"
        assert await self.weights(filled, WEST, "user-service-weighted") == [60, 40]

    async def test_a_default_can_be_replaced(self, objects: ClusterObjects, capsys: Output) -> None:
        await apply(objects, MANIFESTS / "1-basic-routing.yaml", clusters=("us-west-1",))
        text = '[{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":7}]'
        words = ["grpcroute", "user-service-route"]
        await self.patched(objects, words, text, PatchType.JSON)
        assert await self.weights(objects, WEST, "user-service-route") == [7]

    async def test_merge(self, filled: ClusterObjects, capsys: Output) -> None:
        text = "{metadata: {labels: {team: a}}, spec: {hostnames: null}}"
        words = ["grpcroute/user-service-weighted"]
        await self.patched(filled, words, text, PatchType.MERGE)
        asked = query("grpcroute/user-service-weighted")
        capsys.readouterr()
        await objects_get.get(filled, asked, OutputForm.YAML)
        found = yaml.safe_load(capsys.readouterr().out)
        assert found["metadata"]["labels"] == {"team": "a"}
        assert found["metadata"]["generation"] == 2
        assert "hostnames" not in found["spec"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                '[{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":-1}]',
                (
                    "patch: GRPCRoute app/user-service-multi-cluster: "
                    "spec.rules[0].backendRefs[0].weight: must be between 0 and 1000000, got -1"
                ),
            ),
            (
                '[{"op":"replace","path":"/spec/rules/9/name","value":"a"}]',
                (
                    "GRPCRoute app/user-service-multi-cluster: the patch does not apply: "
                    "replace /spec/rules/9/name: index '9' is out of bounds; "
                    "`fedctl get KIND NAME -o yaml` shows what is there"
                ),
            ),
            (
                '[{"op":"replace","path":"/metadata/name","value":"other"}]',
                (
                    "GRPCRoute app/user-service-multi-cluster: a patch cannot change kind, "
                    "namespace or name"
                ),
            ),
            (
                '[{"op":"replace","path":"","value":5}]',
                "GRPCRoute app/user-service-multi-cluster: the patch leaves no object",
            ),
        ],
    )
    async def test_a_bad_one_changes_nothing(
        self, filled: ClusterObjects, text: str, message: str
    ) -> None:
        before = [await filled.of(cluster).list() for cluster in (EAST, WEST)]
        words = ["grpcroute", "user-service-multi-cluster"]
        with pytest.raises(CommandError) as caught:
            await self.patched(filled, words, text, PatchType.JSON)
        assert str(caught.value) == message
        assert [await filled.of(cluster).list() for cluster in (EAST, WEST)] == before

    async def test_of_nothing(self, filled: ClusterObjects, capsys: Output) -> None:
        code = await self.patched(filled, ["svc", "a"], "{}", PatchType.MERGE)
        assert code is ExitCode.NOT_FOUND

    @pytest.mark.parametrize(
        ("text", "kind", "message"),
        [
            ("{a: b}", PatchType.JSON, "a json patch is a list, such as"),
            ("[]", PatchType.MERGE, "a merge patch is a map of fields"),
            ("{", PatchType.MERGE, "the patch is not valid JSON or YAML"),
        ],
    )
    def test_of_the_wrong_shape(self, text: str, kind: PatchType, message: str) -> None:
        with pytest.raises(CommandError, match=message) as caught:
            objects_change.parse_patch(text, kind)
        assert caught.value.code is ExitCode.USAGE


class TestDelete:
    KEY = ObjectKey("gateway.networking.k8s.io", "GRPCRoute", "app", "user-service-weighted")

    async def test_wherever_it_is(self, filled: ClusterObjects, capsys: Output) -> None:
        code = await objects_change.delete(filled, [self.KEY], clusters=(), ignore_not_found=False)
        assert code is ExitCode.OK
        assert capsys.readouterr().out == f"{ROUTE}/user-service-weighted deleted (us-west-1)\n"

    @pytest.mark.parametrize(("ignore", "code"), [(True, ExitCode.OK), (False, ExitCode.NOT_FOUND)])
    async def test_what_is_not_there(
        self, filled: ClusterObjects, *, ignore: bool, code: ExitCode
    ) -> None:
        key = ObjectKey("", "Service", "app", "a")
        found = await objects_change.delete(filled, [key], clusters=(), ignore_not_found=ignore)
        assert found is code
