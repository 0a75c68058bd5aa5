"""The gateway's command line: what goes together, and errors in one sentence."""

from __future__ import annotations

import json
import logging

import pytest
import typer
from typer.testing import CliRunner

from gateway.command import run_gateway
from gateway.logs import JsonLines

APPLICATION = typer.Typer()
APPLICATION.command()(run_gateway)
NEEDED = ["--name", "gw", "--cluster", "c", "--agent", "127.0.0.1:1", "--state-dir", "state"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--identity-cert", "a"], "go together; give all or none"),
        (["--agent-ca", "a"], "--agent-ca needs --identity-cert"),
        (["--workers", "0"], "--workers"),
        (["--port-offset", "70000"], "--port-offset"),
        (["--serves", "gateway:edge"], '"gateway:edge" is none of `all`'),
    ],
)
def test_what_does_not_fit_is_a_usage_error(options: list[str], text: str) -> None:
    result = CliRunner(env={"TERM": "dumb", "COLUMNS": "400"}).invoke(
        APPLICATION, [*NEEDED, *options]
    )
    assert result.exit_code == 2
    assert text in result.output


def test_a_log_line_is_json_with_its_fields() -> None:
    record = logging.LogRecord("gateway.x", logging.WARNING, "", 0, "port %s", ("80",), None)
    record.cluster_id = "us-west-1"
    line = json.loads(JsonLines().format(record))
    assert line["event"] == "port 80"
    assert line["level"] == "warning"
    assert line["cluster_id"] == "us-west-1"
    assert set(line) == {"time", "level", "logger", "event", "cluster_id"}
