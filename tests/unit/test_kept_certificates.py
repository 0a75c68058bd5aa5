"""A Secret that is no certificate any more changes nothing for clients."""

from __future__ import annotations

from federation.derive.compile import CompileInputs, Compiler, compile_cluster
from federation.derive.kept_certificates import KeptCertificates, good_secrets, keep_certificates
from federation.model.base import Region
from federation.model.objects import ObjectKey, ObjectSnapshot, Secret
from federation.model.snapshot import TlsSecret
from tests.testkit.routing import WEST, certificate, key_pair, parse, snapshot_of, spelled

KEY = ObjectKey("", "Secret", "app", "cert")
GATEWAY = parse(
    """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: app}
spec:
  gatewayClassName: istio
  listeners:
  - {name: grpc, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
"""
)
GOOD = certificate("app/cert")


def broken(data: bytes = b"nonsense") -> Secret:
    return GOOD.model_copy(update={"data": {"tls.crt": data, "tls.key": key_pair()[1]}})


def after(*states: Secret | None) -> KeptCertificates:
    """What is kept after the source has shown these, one after the other."""
    kept = KeptCertificates()
    for state in states:
        kept = keep_certificates(kept, shown(state))
    return kept


def shown(secret: Secret | None) -> ObjectSnapshot:
    return snapshot_of([*GATEWAY, *([secret] if secret is not None else [])])


def compiled(kept: KeptCertificates) -> tuple[list[bytes], dict[str, str]]:
    """The certificates that gateways get, and the listener's conditions."""
    result = compile_cluster(
        CompileInputs(WEST, Region(WEST), kept.snapshot, kept_certificates=kept.faults)
    )
    (status,) = (entry for key, entry in result.statuses.items() if key.kind == "Gateway")
    secrets = [it.certificate_pem for it in result.snapshot.secrets if isinstance(it, TlsSecret)]
    return secrets, dict(spelled(status.listeners[0].conditions))


def test_the_last_good_certificate_stays_and_it_is_said() -> None:
    secrets, conditions = compiled(after(GOOD, broken()))
    assert secrets == [key_pair()[0]]
    assert conditions["ResolvedRefs"] == "False/InvalidCertificateRef"
    assert conditions["Accepted"] == "True/Accepted"
    assert conditions["Programmed"] == "False/Pending"  # until gateways have answered
    kept = after(GOOD, broken(), broken(b"other nonsense"))
    assert kept.faults == {KEY: "has a tls.crt that is no certificate in PEM"}
    assert kept.snapshot.objects[KEY] is GOOD


def test_what_was_never_good_or_was_deleted_is_not_kept() -> None:
    for states in ((broken(),), (GOOD, None), (GOOD, None, broken())):
        kept = after(*states)
        assert not kept.faults
        assert kept.snapshot == shown(states[-1])
        secrets, conditions = compiled(kept)
        assert not secrets
        assert conditions["ResolvedRefs"] == "False/InvalidCertificateRef"


def test_a_repaired_secret_counts_again() -> None:
    kept = after(GOOD, broken(), GOOD)
    assert not kept.faults
    assert compiled(kept)[1]["ResolvedRefs"].startswith("True")


def test_a_new_agent_goes_on_with_what_was_saved() -> None:
    saved = after(GOOD, broken()).snapshot
    again = keep_certificates(KeptCertificates(good=good_secrets(saved.objects)), shown(broken()))
    assert again.snapshot.objects[KEY] is GOOD
    assert KEY in again.faults


def test_a_secret_that_did_not_change_is_judged_once() -> None:
    first = after(GOOD)
    assert keep_certificates(first, first.snapshot).judged[KEY] is not None
    marked = KeptCertificates(good=first.good, judged={KEY: (GOOD, "judged before")})
    assert keep_certificates(marked, first.snapshot).faults == {KEY: "judged before"}


def test_a_compiler_that_remembers_follows_what_is_kept() -> None:
    compiler, kept = Compiler(), KeptCertificates()
    for state in (GOOD, broken(), GOOD, broken(), None):
        kept = keep_certificates(kept, shown(state))
        inputs = CompileInputs(WEST, Region(WEST), kept.snapshot, kept_certificates=kept.faults)
        assert compiler.compile(inputs) == compile_cluster(inputs)
