"""The folder with a clusterset's certificate authorities.

Decides: its layout (``clusterset/`` and ``etcd/``, each with ``ca.crt`` and ``ca.key``), that what
is missing is made, and how long that holds.
Leaves to others: signing (``lab.authority``), what is signed (``credentials``).
Invariants: what is there is never changed; half an authority (a certificate without its key, or the
other way round) is an error, since making a new one would disown every member.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from federation.cli.context import fail
from federation.cli.credentials import Signers
from federation.cli.exit_codes import ExitCode
from federation.cli.lab.authority import Authority, AuthorityError, write_private

LIFETIME = dt.timedelta(days=3650)
"""Of an authority that is made here: members are renewed by it, it itself only by hand."""

CLUSTERSET, ETCD = "clusterset", "etcd"


def open_authorities(folder: Path) -> tuple[Signers, tuple[str, ...]]:
    """The authorities in ``folder``, and what to say about those that were made.

    Ends the command when a file is not what it should be.
    """
    said: list[str] = []
    found = {name: _open(folder / name, name, said) for name in (CLUSTERSET, ETCD)}
    return Signers(etcd=found[ETCD], clusterset=found[CLUSTERSET]), tuple(said)


def _open(folder: Path, name: str, said: list[str]) -> Authority:
    certificate, private_key = folder / "ca.crt", folder / "ca.key"
    there = [path for path in (certificate, private_key) if path.exists()]
    if len(there) == 1:
        missing = private_key if there == [certificate] else certificate
        fail(f"{missing} is missing beside {there[0].name}: bring it back", ExitCode.USAGE)
    try:
        if there:
            return Authority.load(certificate, private_key)
        made = Authority(f"federation {name}", lifetime=LIFETIME)
        write_private(private_key, made.key_pem)
        write_private(certificate, made.certificate_pem)
    except AuthorityError as error:
        fail(str(error), ExitCode.USAGE)
    except OSError as error:
        fail(f"making an authority in {folder}: {error}", ExitCode.USAGE)
    trust = "; etcd must trust it for its clients (--trusted-ca-file)" if name == ETCD else ""
    said.append(f"made an authority: {certificate}{trust}. Keep {private_key} safe")
    return made
