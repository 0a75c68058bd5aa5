"""The two kind clusters: made from ``kind-config/``, given the image, removed.

Decides: their names and kubeconfigs, the image's name, where released kinds are fetched from.
Leaves to others: what is installed in them (``install``).
Invariants: clusters that are there are not touched: they are removed by ``down`` alone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

from federation.cli.kind.site import CHECKOUT, Member, Site, manifests, of_environment
from federation.cli.kind.tools import ToolError, need_kind, run, run_shown
from federation.cli.lab.kubernetes.crds import RELEASED

IMAGE = "federation:kind"
ENTRANCES = {"us-west-1": "127.0.0.1:18443", "us-east-1": "127.0.0.1:28443"}
"""By region, where kind-config/ maps the gateways' HTTPS to."""
ETCD = "127.0.0.1:12379"
RELEASES = {
    "sigs.k8s.io/gateway-api": (
        "https://github.com/kubernetes-sigs/gateway-api/releases/download/{}/standard-install.yaml",
    ),
    "sigs.k8s.io/mcs-api": tuple(
        "https://raw.githubusercontent.com/kubernetes-sigs/mcs-api/{}/config/crd/"
        f"multicluster.x-k8s.io_{kind}.yaml"
        for kind in ("serviceexports", "serviceimports")
    ),
}

Say = Callable[[str], None]


def create(say: Say) -> Site:
    """Make both clusters with the image in them. Raises ``ToolError``."""
    need_kind()
    site = _site()
    if running := _running(site):
        raise ToolError(
            f"kind clusters {', '.join(running)} are there already; remove them with `fedctl kind "
            "down` (make kind-down) first"
        )
    manifests("Dockerfile")
    say("building the image")
    run_shown("docker", "build", "-t", IMAGE, str(CHECKOUT))
    for member in site.members:
        say(f"making cluster {_name(member)}")
        member.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        config = str(manifests(f"kind-config/{member.region}.yaml"))
        command = ("kind", "create", "cluster", "--wait", "5m", "--config", config)
        run_shown(*command, "--kubeconfig", str(member.kubeconfig))
        run_shown("kind", "load", "docker-image", IMAGE, "--name", _name(member))
    return site


def there() -> Site:
    """The clusters that are there. Raises ``ToolError`` when they are not."""
    need_kind()
    site = _site()
    running = _running(site)
    missing = [name for member in site.members if (name := _name(member)) not in running]
    if missing:
        raise ToolError(
            f"kind clusters {', '.join(missing)} are not there; make them with `fedctl kind up` "
            "(make kind-up)"
        )
    return site


def delete() -> None:
    """Remove both clusters and their files; what is not there is no error."""
    need_kind()
    site = _site()
    for member in site.members:
        run_shown("kind", "delete", "cluster", "--name", _name(member))
    shutil.rmtree(site.directory, ignore_errors=True)


def released_urls() -> list[str]:
    """Where the kinds of the Gateway API and the MCS API are, in the versions that ours go with."""
    text = (RELEASED / "go.mod").read_text()
    found = []
    for module, urls in RELEASES.items():
        version = re.search(rf"{re.escape(module)} (v\S+)", text)
        if version is None:
            raise ToolError(f"{RELEASED / 'go.mod'} names no version of {module}")
        found += [url.format(version[1]) for url in urls]
    return found


def _site() -> Site:
    directory = of_environment()
    members = tuple(
        Member(region, directory / f"{region}.kubeconfig", entrance)
        for region, entrance in ENTRANCES.items()
    )
    return Site(directory, members, ETCD)


def _name(member: Member) -> str:
    return f"federation-{member.region}"


def _running(site: Site) -> list[str]:
    found = run("kind", "get", "clusters").split()
    return [name for member in site.members if (name := _name(member)) in found]
