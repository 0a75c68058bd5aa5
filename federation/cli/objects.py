"""``fedctl apply``, ``get``, ``describe``, ``patch`` and ``delete``: words, options and examples.

Decides: the command lines.
Leaves to others: what they do (``objects_apply``, ``objects_get``, ``objects_change``).
Invariants: a command acts on all clusters unless ``--cluster`` names some; namespaces default to
``default``, as with kubectl.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from federation.cli import objects_apply, objects_change, objects_get
from federation.cli.completion import complete_cluster
from federation.cli.context import CommandError, Context, current, fail, run
from federation.cli.exit_codes import ExitCode
from federation.cli.objects_apply import Manifests
from federation.cli.objects_change import PatchType
from federation.cli.objects_clusters import ClusterObjects, open_objects
from federation.cli.objects_get import OutputForm, Query
from federation.cli.objects_names import complete_kind, parse_wanted
from federation.wire.manifests import DEFAULT_NAMESPACE

ParsedT = TypeVar("ParsedT")

app = typer.Typer(no_args_is_help=True, add_completion=False)

KindAndNames = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND [NAME...]",
        help="A kind (`grpcroute`, `svc`, `serviceimport.multicluster.x-k8s.io`), then names; or "
        "KIND/NAME.",
        autocompletion=complete_kind,
        show_default=False,
    ),
]
Files = Annotated[
    list[str],
    typer.Option("-f", "--filename", help="File, folder, or - for stdin.", show_default=False),
]
Recursive = Annotated[bool, typer.Option("-R", "--recursive", help="Folders inside folders too.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Namespace of the objects.")]
AllNamespaces = Annotated[bool, typer.Option("-A", "--all-namespaces", help="All namespaces.")]
Clusters = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster",
        help="Act on this cluster alone (may be repeated).",
        autocompletion=complete_cluster,
    ),
]


@app.command()
def apply(
    ctx: typer.Context,
    filename: Files,
    recursive: Recursive = False,
    namespace: Annotated[
        str | None,
        typer.Option(
            "-n", "--namespace", help="For objects that name no namespace; others must match it."
        ),
    ] = None,
    cluster: Clusters = None,
) -> None:
    """Create objects from manifests, or bring them to what the manifests say.

    Objects go to every cluster unless --cluster names some. A bad object is reported with file and
    line and stops no other; the exit code is then 1.

    Example: fedctl apply -f manifests/6-multi-cluster.yaml
    """
    manifests = Manifests(tuple(filename), recursive, namespace)
    _act(ctx, lambda objects: objects_apply.apply(objects, manifests, clusters=cluster or ()))


@app.command()
def get(
    ctx: typer.Context,
    what: KindAndNames,
    namespace: Namespace = DEFAULT_NAMESPACE,
    all_namespaces: AllNamespaces = False,
    output: Annotated[
        OutputForm, typer.Option("-o", "--output", help="Form of the output.")
    ] = OutputForm.TABLE,
    cluster: Clusters = None,
) -> None:
    """List objects, or print them as YAML or JSON with their status.

    Example: fedctl get grpcroutes -A -o wide
    """
    query = _query(what, None if all_namespaces else namespace, cluster)
    _act(ctx, lambda objects: objects_get.get(objects, query, output))


@app.command()
def describe(
    ctx: typer.Context,
    what: KindAndNames,
    namespace: Namespace = DEFAULT_NAMESPACE,
    all_namespaces: AllNamespaces = False,
    cluster: Clusters = None,
) -> None:
    """Show objects in words: what they ask for and what the federation says about them.

    Example: fedctl describe grpcroute user-service-multi-cluster -n app --cluster us-west-1
    """
    query = _query(what, None if all_namespaces else namespace, cluster)
    _act(ctx, lambda objects: objects_get.describe(objects, query))


@app.command()
def patch(
    ctx: typer.Context,
    what: KindAndNames,
    change: Annotated[
        str, typer.Option("-p", "--patch", help="The patch, JSON or YAML.", show_default=False)
    ],
    kind: Annotated[
        PatchType,
        typer.Option("--type", help="`json`: a list of operations; `merge`: fields to set."),
    ] = PatchType.MERGE,
    namespace: Namespace = DEFAULT_NAMESPACE,
    cluster: Clusters = None,
) -> None:
    """Change fields of an object in all clusters that have it, or in none if one cannot.

    Example: fedctl patch multiclusterservice user-service-global -n app --type=json -p
    '[{"op":"replace","path":"/spec/clusterBackends/0/weight","value":80}]'
    """
    query = _named(_query(what, namespace, cluster))
    parsed = _checked(lambda: objects_change.parse_patch(change, kind))
    _act(ctx, lambda objects: objects_change.patch(objects, query, parsed, kind))


@app.command()
def delete(
    ctx: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KIND NAME...]", help="As for get.", autocompletion=complete_kind),
    ] = None,
    filename: Annotated[
        list[str] | None,
        typer.Option("-f", "--filename", help="Delete what these manifests hold."),
    ] = None,
    recursive: Recursive = False,
    namespace: Namespace = DEFAULT_NAMESPACE,
    cluster: Clusters = None,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is gone already is no error.")
    ] = False,
) -> None:
    """Delete objects by name, or those of manifests.

    Example: fedctl delete grpcroute user-service-canary -n app
    """
    if bool(what) == bool(filename):
        fail("name either KIND NAME... or -f FILE", ExitCode.USAGE)
    if what:
        query = _named(_query(what, namespace, None))
        keys = [key for wanted in query.wanted for key in wanted.keys(namespace)]
        failures = 0
    else:
        loaded = _checked(lambda: objects_apply.load(Manifests(tuple(filename or ()), recursive)))
        keys = [entry.key for entry in loaded.objects]
        failures = loaded.failures

    async def work(objects: ClusterObjects) -> ExitCode:
        code = await objects_change.delete(
            objects, keys, clusters=cluster or (), ignore_not_found=ignore_not_found
        )
        return code or (ExitCode.FAILED if failures else ExitCode.OK)

    _act(ctx, work)


def _act(
    ctx: typer.Context, work: Callable[[ClusterObjects], Coroutine[Any, Any, ExitCode]]
) -> None:
    context: Context = current(ctx)
    if context.kubeconfig is not None:
        fail(
            "this lab's clusters keep their objects on Kubernetes API servers; use kubectl: "
            f"export KUBECONFIG={context.kubeconfig}; kubectl --context REGION ...",
            ExitCode.USAGE,
        )

    async def with_objects() -> ExitCode:
        async with open_objects(context) as objects:
            return await work(objects)

    run(with_objects())


def _query(words: list[str], namespace: str | None, clusters: list[str] | None) -> Query:
    return _checked(lambda: Query(tuple(parse_wanted(words)), namespace, tuple(clusters or ())))


def _named(query: Query) -> Query:
    if not all(wanted.names for wanted in query.wanted):
        fail("name the object: KIND NAME, or KIND/NAME", ExitCode.USAGE)
    return query


def _checked(parse: Callable[[], ParsedT]) -> ParsedT:
    """What ``parse`` returns; its ``CommandError`` ends the command."""
    try:
        return parse()
    except CommandError as error:
        fail(str(error), error.code)
