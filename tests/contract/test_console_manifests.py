"""The console's manifests: they hang together, and say who may look before anything starts."""

from __future__ import annotations

from typer.testing import CliRunner

from federation.cli.main import app
from tests.testkit.manifests import kustomized, objects, of_kind


def test_the_console_stands_behind_tls_and_does_not_start_open() -> None:
    found = objects(kustomized("console"))
    (deployment,) = of_kind(found, "Deployment")
    (service,) = of_kind(found, "Service")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] in {entry["name"] for entry in container["ports"]}
    secrets = {entry["secret"]["secretName"] for entry in pod["spec"]["volumes"]}
    assert secrets == {"federation-console", "federation-console-tls"}
    started = CliRunner().invoke(app, container["args"], env={"COLUMNS": "400"})
    assert started.exit_code == 2
    assert "nobody is asked who he is" in " ".join(started.output.replace("\u2502", " ").split())
