"""docs/metrics.md: every metric, span, attribute, log field and alert, from the code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import yaml

from federation.telemetry import MetricSpec, catalogue, spans
from gateway.metrics import catalogue as gateway
from tests.docs import calls

HEAD = """\
# Metrics, spans, log fields and alerts

Made from the code by `make docs`; a test fails when it is not as the code says. How it is put to
use stands in [observability.md](observability.md), commands in [fedctl.md](fedctl.md).

Labels have bounds: no value is one that only a client thought up. Gateways have at most 10,000
series by call (then all labels but the code are `other`), the resolver's by service are of the
first 1,000 services by name.
"""


def page(rules: str) -> str:
    """The whole page."""
    lines = [HEAD]
    for title, specs in (
        ("Gateway", gateway.CATALOGUE),
        ("Agent", catalogue.AGENT),
        ("Resolver", catalogue.RESOLVER),
        ("DNS server", catalogue.DNS),
    ):
        lines += [f"## {title}", "", *_metrics(specs)]
    lines += calls.sections()
    lines += ["## Spans of the control plane", "", *_table("Span", spans.SPANS)]
    lines += [*_table("Attribute", spans.ATTRIBUTES)]
    lines += ["## Alerts", "", *_alerts(rules)]
    return "\n".join(lines).rstrip() + "\n"


def _metrics(specs: Iterable[MetricSpec | gateway.MetricSpec]) -> Iterator[str]:
    yield "| Metric | Kind | Labels | Meaning |"
    yield "| --- | --- | --- | --- |"
    for spec in specs:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        yield f"| `{spec.name}` | {spec.kind} | {labels} | {_cell(spec.help)} |"
    yield ""


def _table(title: str, words: dict[str, str]) -> Iterator[str]:
    yield f"| {title} | Meaning |"
    yield "| --- | --- |"
    for word, meaning in words.items():
        yield f"| `{word}` | {_cell(meaning)} |"
    yield ""


def _alerts(rules: str) -> Iterator[str]:
    yield "| Alert | Severity | When |"
    yield "| --- | --- | --- |"
    for group in yaml.safe_load(rules)["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                name, lasting = rule["alert"], rule.get("for")
                when = f"`{_cell(' '.join(rule['expr'].split()))}`"
                when += f" for {lasting}" if lasting else ""
                page = f"[{name}](runbooks/{name}.md)"
                yield f"| {page} | {rule['labels']['severity']} | {when} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
