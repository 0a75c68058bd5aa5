"""``fedctl support-bundle``: what somebody who helps needs to know, in one file, without secrets.

Decides: what is in it, and its bounds.
Leaves to others: what may leave (``bundle_scrub``), asking (``check``, ``gateways``, ``logs``).
Invariants: read only; nothing is written that was not scrubbed; what could not be had or did not
fit is told in ``manifest.json``; the file is readable by its owner alone.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.cli import bundle_scrub as scrub
from federation.cli.api_servers import KubeconfigOption, named_contexts
from federation.cli.bundle_scrub import Scrubber, Shape, is_clean
from federation.cli.check.command import report
from federation.cli.check.evidence import Evidence
from federation.cli.check.finding import Area
from federation.cli.check.gather import Asked, gather
from federation.cli.check.judge import judge, unexamined
from federation.cli.context import CommandError, Context, current, kubeconfig_for, run
from federation.cli.gateways import AdminClient, GatewayAt, GatewayAway, GatewayOption, admin_client
from federation.cli.logs import Wanted, file_logs, lab_files, pods_logs
from federation.cli.logs_merge import Choice, as_document, merged
from federation.cli.progress import steps
from federation.cli.release import release
from federation.derive.explain_status import summarize

app = typer.Typer()

FILE_BYTES_MAX = 2 << 20
"""Of one document; a larger one is left out. Of logs the newest lines that fit are kept."""

TOTAL_BYTES_MAX = 32 << 20
"""Of all documents before they are packed; what comes after is left out."""

GATEWAYS_MAX = 32
LOG_LINES = 2_000
"""Newest lines of each log."""

ANSWERS: tuple[tuple[str, Shape], ...] = (
    ("ready", scrub.READY),
    ("stats", scrub.STATS),
    ("config_dump", scrub.CONFIG),
    ("events", scrub.EVENTS),
    ("peers", scrub.PEERS),
    ("certificates", scrub.CERTIFICATES),
)
"""What each gateway is asked for."""


@dataclass(slots=True)
class Bundle:
    """The files so far; bounded."""

    scrubber: Scrubber = field(default_factory=Scrubber)
    files: dict[str, bytes] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any, shape: Shape) -> None:
        """Put a document in, cleaned, if it fits."""
        cleaned = self.scrubber.document(value, shape)
        self._put(name, json.dumps(cleaned, indent=1, ensure_ascii=False))

    def add_lines(self, name: str, documents: Sequence[Any], shape: Shape) -> None:
        """Put the newest lines in that fit."""
        lines: list[str] = []
        size = unclean = 0
        for document in reversed(documents):
            line = json.dumps(self.scrubber.document(document, shape), ensure_ascii=False)
            size += len(line.encode()) + 1
            if size > FILE_BYTES_MAX:
                self.missing[f"{name} (older lines)"] = f"more than {FILE_BYTES_MAX} bytes"
                break
            if is_clean(line):
                lines.append(line)
            else:
                self.scrubber.unwritten.append(name)
                unclean += 1
        if unclean:
            self.lack(f"{name} ({unclean} lines)", "something in them looks like a secret")
        self._put(name, "\n".join(reversed(lines)))

    def lack(self, name: str, why: str) -> None:
        """Say that something is missing; a second reason stands beside the first."""
        known = self.missing.get(name)
        self.missing[name] = f"{known}; {why}" if known else why

    def _put(self, name: str, text: str) -> None:
        content = text.encode()
        total = sum(map(len, self.files.values()))
        if not is_clean(text):
            self.scrubber.unwritten.append(name)
            self.lack(name, "something in it looks like a secret")
        elif len(content) > FILE_BYTES_MAX:
            self.lack(name, f"{len(content)} bytes, more than {FILE_BYTES_MAX}")
        elif total + len(content) > TOTAL_BYTES_MAX:
            self.lack(name, f"the bundle would have more than {TOTAL_BYTES_MAX} bytes")
        else:
            self.files[name] = content

    def manifest(self) -> dict[str, Any]:
        """What is in it, what is not, and why."""
        return {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "fedctl": release(),
            "files": {name: len(content) for name, content in sorted(self.files.items())},
            "missing": {
                self.scrubber.text(name): self.scrubber.text(why)
                for name, why in self.missing.items()
            },
            "unwritten": dict(Counter(self.scrubber.unwritten)),
            "fields_left_out": self.scrubber.left_out,
            "secrets_removed": self.scrubber.removed,
        }


@app.command("support-bundle", epilog="Example: fedctl support-bundle --out bundle.tar.gz")
def support_bundle(
    ctx: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", "-O", help="Default: fedctl-bundle-TIME.tar.gz here.")
    ] = None,
    gateway: GatewayOption = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="[CLUSTER=]CONTEXT",
            help="Also ask this context's API server: kinds, statuses, Pods' logs; repeatable.",
        ),
    ] = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Pack what a helper needs into one file, without secrets.

    In it: versions, the federation's status, objects' statuses (not the objects), what `check`
    finds, and of each gateway state, counters, configuration, events, peers and certificates'
    names and dates, and the newest lines of the logs. Each document has named fields alone, and all
    that is left is scanned for keys, tokens and passwords. `manifest.json` in it says what is there
    and what is not. Look into it before you give it away: it has names and addresses of yours.
    """
    path = out or Path(time.strftime("fedctl-bundle-%Y%m%d-%H%M%S.tar.gz"))
    run(_support_bundle(current(ctx), path, gateway or (), context or (), kubeconfig))


async def _support_bundle(
    context: Context,
    path: Path,
    named: Sequence[str],
    contexts: Sequence[str],
    kubeconfig: Path | None,
) -> None:
    by_cluster = named_contexts(contexts)
    bundle = Bundle()
    with steps(8) as progress:
        kubeconfig = kubeconfig_for(kubeconfig, context)
        asked = Asked(tuple(Area), named, kubeconfig=kubeconfig, contexts=by_cluster)
        seen = await gather(context, asked, progress)
        add_evidence(bundle, seen)
        progress.step("gateways")
        async with admin_client() as client:
            for gateway in seen.gateways[:GATEWAYS_MAX]:
                await _add_gateway(bundle, client, gateway.at)
        for gateway in seen.gateways[GATEWAYS_MAX:]:
            bundle.missing[f"gateways/{gateway.at.name}"] = f"more than {GATEWAYS_MAX} gateways"
        progress.step("logs")
        await _add_logs(bundle, context, by_cluster, kubeconfig)
        progress.step("packing")
        packed = pack(bundle)
    write_bundle(path, packed)
    typer.echo(f"{path}: {len(packed)} bytes")
    for name, content in sorted(bundle.files.items()):
        typer.echo(f"  {name} ({len(content)} bytes)")
    for name, why in sorted(bundle.missing.items()):
        typer.echo(f"  without {name}: {why}")
    typer.echo(
        f"{bundle.scrubber.left_out} fields that are not needed were left out, "
        f"{bundle.scrubber.removed} values that look like secrets removed"
    )


def add_evidence(bundle: Bundle, seen: Evidence) -> None:
    """What ``check`` saw and finds."""
    bundle.add(
        "check.json", report(judge(seen, tuple(Area)), unexamined(seen, tuple(Area))), scrub.CHECK
    )
    if seen.view is None:
        bundle.missing["status.json"] = seen.etcd_away
    else:
        status = summarize(seen.view, leader=seen.leader, now_ms=int(seen.now_s * 1000))
        bundle.add("status.json", status.model_dump(mode="json", by_alias=True), scrub.STATUS)
    if seen.objects is None:
        bundle.missing["objects.json"] = "; ".join(seen.objects_unread) or "etcd is away"
    else:
        bundle.add("objects.json", [asdict(each) for each in seen.objects], scrub.OBJECTS)


async def _add_gateway(bundle: Bundle, client: AdminClient, at: GatewayAt) -> None:
    for path, shape in ANSWERS:
        name = f"gateways/{at.name}/{path}.json"
        try:
            bundle.add(name, _renamed(path, await client.get(at, f"/{path}")), shape)
        except GatewayAway as away:
            bundle.missing[name] = bundle.scrubber.text(str(away))


def _renamed(path: str, answer: Any) -> Any:
    """Certificates under a word that the scan does not take for what it looks for."""
    if path == "config_dump":
        return {**answer, "certificates": answer.get("secrets")}
    if path == "certificates":
        return [{**entry, "name": entry.get("secret")} for entry in answer]
    return answer


async def _add_logs(
    bundle: Bundle,
    context: Context,
    contexts: dict[str, str | None],
    kubeconfig: Path | None,
) -> None:
    from federation.cli.credentials import NAMESPACE

    wanted = Wanted(
        components=(),
        clusters=(),
        tail=LOG_LINES,
        contexts=contexts,
        kubeconfig=kubeconfig,
        namespace=NAMESPACE,
    )
    if contexts:
        logs, problems = await pods_logs(wanted)
        for problem in problems:
            bundle.lack("logs.jsonl", bundle.scrubber.text(problem))
    else:
        try:
            logs = file_logs(lab_files(context, wanted), wanted)
        except CommandError:
            bundle.missing["logs.jsonl"] = "whose? name the clusters' API servers with --context"
            return
    lines = [as_document(line) for line in merged(logs, Choice(level="info"))]
    bundle.add_lines("logs.jsonl", lines, scrub.LOG)


def pack(bundle: Bundle) -> bytes:
    """All files as one archive, the manifest first."""
    manifest = json.dumps(bundle.manifest(), indent=1, ensure_ascii=False)
    files = {"manifest.json": manifest.encode(), **bundle.files}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"fedctl-bundle/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def write_bundle(path: Path, content: bytes) -> None:
    """Write a new file that its owner alone may read. Raises ``CommandError``."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"writing {path}: {error.strerror}; name another with --out") from error
    with os.fdopen(handle, "wb") as file:
        file.write(content)
