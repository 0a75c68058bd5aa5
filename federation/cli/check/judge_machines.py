"""Findings about machines: etcd, clocks, versions, gateways, certificates, who reaches whom.

Decides: what is a fault, how grave it is, and the next step.
Leaves to others: asking (``gather``), what clusters and objects say (``judge_federation``).
Invariants: pure; sorted evidence gives findings in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from federation.cli.check.evidence import Evidence, SeenCertificate, SeenGateway
from federation.cli.check.finding import Area, Finding, Severity
from federation.cli.lab.authority import TRUST_DOMAIN, gateway_identity

SKEW_S = 2.0
"""Clocks that differ by more make ages, expiries and timelines wrong for people."""

SKEW_GRAVE_S = 60.0
"""Beyond it new certificates are not valid yet on the other side."""

EXPIRES_SOON_S = 7 * 86_400
EXPIRES_GRAVE_S = 86_400
_DOMAIN = f"spiffe://{TRUST_DOMAIN}"

FRAGMENTED_BYTES = 256 << 20
"""A store of at least this size of which less than half is used wants to be defragmented."""


def etcd(seen: Evidence) -> Iterator[Finding]:
    """Members, quorum, alarms, authentication, history, space."""
    if seen.etcd_away:
        yield Finding(
            severity=Severity.ERROR,
            area=Area.ETCD,
            what="etcd does not answer",
            subject="etcd",
            why=seen.etcd_away,
            next="start etcd, or name it with --etcd; traffic goes on as it is meanwhile",
        )
    if seen.etcd is None:
        return
    for member in seen.etcd.members:
        if member.why:
            yield _etcd(
                Severity.WARNING,
                "a member cannot be reached from here",
                member.endpoint,
                member.why,
                "start it, or run this where its client address can be reached",
            )
        elif not member.leader:
            yield _etcd(
                *(Severity.ERROR, "a member knows no leader", member.endpoint),
                ", ".join(member.errors) or "it is cut off from the others, or most are gone",
                "look at its log and at the network between members",
            )
        if member.size_bytes >= FRAGMENTED_BYTES and member.used_bytes * 2 < member.size_bytes:
            yield _etcd(
                *(Severity.WARNING, "more than half of the file is unused", member.endpoint),
                f"{member.used_bytes} of {member.size_bytes} bytes are in use",
                f"etcdctl defrag --endpoints {member.endpoint}",
            )
    yield from _quorum(seen)
    for alarm in seen.etcd.alarms:
        yield _etcd(
            *(Severity.ERROR, f"the alarm {alarm} is raised", "etcd"),
            "it refuses writes until the alarm is disarmed: weights and drains stand still",
            "compact, etcdctl defrag, raise --quota-backend-bytes, then etcdctl alarm disarm"
            if alarm == "NOSPACE"
            else "remove the member whose data is corrupt and add it anew",
        )
    if seen.etcd.long_history:
        yield _etcd(
            *(Severity.WARNING, "history is not compacted", "etcd"),
            "over 100,000 old revisions are kept and the store grows",
            "start etcd with --auto-compaction-mode=revision --auto-compaction-retention=10000",
        )
    yield from _rights(seen)


def _quorum(seen: Evidence) -> Iterator[Finding]:
    assert seen.etcd is not None
    voting = [member for member in seen.etcd.members if not member.learner]
    well = sum(not member.why and bool(member.leader) for member in voting)
    needed = seen.etcd.voters // 2 + 1
    if seen.etcd.voters > 1 and well == needed and well < seen.etcd.voters:
        yield _etcd(
            *(Severity.WARNING, "one more lost member loses the quorum", "etcd"),
            f"{well} of {seen.etcd.voters} voting members are well and {needed} are needed",
            "bring the others back first",
        )
    if seen.etcd.voters == 1:
        yield _etcd(
            *(Severity.NOTE, "etcd has one member", "etcd"),
            "no other takes over when it is away; traffic does not need it, changes do",
            "three members on three machines carry one loss",
        )


def _rights(seen: Evidence) -> Iterator[Finding]:
    assert seen.etcd is not None
    if seen.etcd.authentication is False:
        yield _etcd(
            Severity.NOTE if seen.on_loopback else Severity.WARNING,
            "everybody who reaches etcd may write every key",
            "etcd",
            "authentication is off, so that a cluster can write another one's keys",
            "fedctl access grant CLUSTER for each cluster, then fedctl access enable",
        )
    for role in seen.etcd.roles_missing:
        yield _etcd(
            *(Severity.ERROR, "a cluster has no rights", role),
            "authentication is on and there is no role of its name",
            f"fedctl access grant {role}",
        )
    if seen.etcd.rights_unread:
        yield _etcd(
            *(Severity.NOTE, "rights cannot be looked at", "etcd"),
            seen.etcd.rights_unread,
            "run this with root's certificate to have them checked",
        )


def _etcd(severity: Severity, what: str, subject: str, why: str, todo: str) -> Finding:
    return Finding(
        severity=severity, area=Area.ETCD, what=what, subject=subject, why=why, next=todo
    )


def clocks(seen: Evidence) -> Iterator[Finding]:
    """Clocks that differ from this machine's, or from each other's."""
    for reading in seen.clocks:
        apart = abs(reading.ahead_s) - reading.unsure_s
        if apart <= SKEW_S:
            continue
        direction = "ahead of" if reading.ahead_s > 0 else "behind"
        yield Finding(
            severity=Severity.ERROR if apart > SKEW_GRAVE_S else Severity.WARNING,
            area=Area.CLOCKS,
            what="a clock differs from this machine's",
            subject=reading.whose,
            why=f"it is {abs(reading.ahead_s):.1f} s {direction} ours; precedence and failover "
            "rest on no clock, but certificates, expiries and ages do",
            next="set both by NTP (timedatectl, chronyc tracking)",
        )


def versions(seen: Evidence) -> Iterator[Finding]:
    """Programs of different versions."""
    found = {"fedctl": seen.release}
    if seen.view is not None:
        found |= {
            f"agent of {cluster}": beat.version for cluster, beat in seen.view.heartbeats.items()
        }
        if seen.view.resolved_manifest is not None:
            found["resolver"] = seen.view.resolved_manifest.release
    found |= {
        f"gateway {it.at}": str(it.ready.get("release", "")) for it in seen.gateways if it.ready
    }
    found = {who: version for who, version in found.items() if version not in ("", "unknown")}
    if len(set(found.values())) < 2:
        return
    most, _ = Counter(found.values()).most_common(1)[0]
    for who, version in sorted(found.items()):
        if version != most:
            yield Finding(
                severity=Severity.WARNING,
                area=Area.VERSIONS,
                what=f"runs {version} while most run {most}",
                subject=who,
                why="neighbouring versions work together, and only the same ones do all of it",
                next="finish the rollout: gateways after their agent, fedctl last",
            )


def gateways(seen: Evidence) -> Iterator[Finding]:
    """Gateways that do not answer, are not in sync, refuse resources or cannot listen."""
    for gateway in seen.gateways:
        where = str(gateway.at)
        if not gateway.ready:
            yield Finding(
                severity=Severity.ERROR,
                area=Area.GATEWAYS,
                what="the admin endpoint does not answer",
                subject=where,
                why=gateway.why,
                next="start the gateway; or forward its port and name it with --gateway",
            )
            continue
        yield from _state(gateway, where)
        for name, why in sorted(gateway.ready.get("refused", {}).items()):
            yield Finding(
                severity=Severity.ERROR,
                area=Area.GATEWAYS,
                what=f"refused {name}",
                subject=where,
                why=f"{why}; what it had before stays in force",
                next="change the object that it is made of; `fedctl config dump` shows what is in "
                "force",
            )


def _state(gateway: SeenGateway, where: str) -> Iterator[Finding]:
    state = str(gateway.ready.get("state"))
    if state in ("AgentAway", "ServingFromSnapshot", "Starting"):
        age = gateway.ready.get("age_s")
        yield Finding(
            severity=Severity.ERROR if state == "Starting" else Severity.WARNING,
            area=Area.GATEWAYS,
            what=f"is {state}",
            subject=where,
            why=(str(gateway.ready.get("why") or "its agent is not connected"))
            + (f"; its configuration was confirmed {age:.0f} s ago" if age else ""),
            next="look at its cluster's agent: `fedctl logs --component agent`",
        )


def certificates(seen: Evidence) -> Iterator[Finding]:
    """What has expired or will, whose identity is another's, and who trusts whom not."""
    for each in sorted(_all_certificates(seen), key=lambda each: each.where):
        yield from _validity(each, seen.now_s)
    for gateway in seen.gateways:
        yield from _identity(gateway)
    for ours in seen.gateways:
        for theirs in seen.gateways:
            if ours.at.cluster != theirs.at.cluster:
                yield from _trust(ours, theirs)


def _all_certificates(seen: Evidence) -> Iterable[SeenCertificate]:
    yield from seen.certificates
    for gateway in seen.gateways:
        if gateway.identity is not None:
            yield gateway.identity
        yield from gateway.trusted
        yield from gateway.others


def _certificate(severity: Severity, what: str, subject: str, why: str, todo: str) -> Finding:
    return Finding(
        severity=severity, area=Area.CERTIFICATES, what=what, subject=subject, why=why, next=todo
    )


def _validity(each: SeenCertificate, now_s: float) -> Iterator[Finding]:
    renew = "renew it where it comes from (`fedctl cluster add` again, cert-manager, your PKI)"
    if each.unreadable:
        yield _certificate(
            Severity.ERROR, "cannot be read", each.where, each.unreadable, "give it as PEM"
        )
        return
    left_s = each.not_after_s - now_s
    if left_s <= 0:
        why = f"{each.subject} ended {_span(-left_s)} ago; connections that need it fail"
        yield _certificate(Severity.ERROR, "has expired", each.where, why, renew)
    elif left_s < EXPIRES_SOON_S:
        grave = Severity.ERROR if left_s < EXPIRES_GRAVE_S else Severity.WARNING
        why = f"{each.subject} ends in {_span(left_s)}"
        yield _certificate(grave, "expires soon", each.where, why, renew)
    if each.not_before_s > now_s:
        yield _certificate(
            *(Severity.ERROR, "is not valid yet", each.where),
            f"{each.subject} begins in {_span(each.not_before_s - now_s)}",
            "compare clocks (`fedctl check --only clocks`)",
        )


def _identity(gateway: SeenGateway) -> Iterator[Finding]:
    shown = gateway.identity
    cluster = gateway.at.cluster or str(gateway.ready.get("cluster", ""))
    if shown is None:
        if gateway.ready and not gateway.why:
            yield _certificate(
                *(Severity.WARNING, "has no identity", str(gateway.at)),
                "it was started without --identity-cert, so it takes part in no cross-cluster call",
                "issue one with `fedctl cluster add`, or by cert-manager, and start it with it",
            )
        return
    wanted = gateway_identity(cluster)
    if shown.unreadable or wanted in shown.uris:
        return
    said = ", ".join(shown.uris) or "no SPIFFE id"
    if any(uri.endswith(wanted.removeprefix(_DOMAIN)) for uri in shown.uris):
        yield _certificate(
            *(Severity.ERROR, "is of another trust domain", shown.where),
            f"it says {said}; peers accept {wanted} alone and refuse its calls",
            f"issue it with the id {wanted}",
        )
        return
    yield _certificate(
        *(Severity.ERROR, "is of another cluster", shown.where),
        f"it says {said}, the gateway stands in {cluster}",
        f"issue the certificate for {cluster}; peers accept gateways by the id {wanted}",
    )


def _trust(ours: SeenGateway, theirs: SeenGateway) -> Iterator[Finding]:
    """Whether ``ours`` trusts the identity that ``theirs`` shows."""
    shown = theirs.identity
    if shown is None or not shown.pem or not ours.trusted:
        return
    if not any(_signed(shown, authority) for authority in ours.trusted):
        known = ", ".join(authority.subject for authority in ours.trusted)
        yield _certificate(
            *(Severity.ERROR, "is not trusted by a peer", shown.where),
            f"{ours.at} trusts {known}; this one is signed by {shown.issuer}, which is none of "
            "these keys",
            "put both authorities into both trust bundles while one is replaced",
        )


def _signed(shown: SeenCertificate, authority: SeenCertificate) -> bool:
    try:
        leaf = x509.load_pem_x509_certificate(shown.pem.encode())
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem.encode()))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def reachability(seen: Evidence) -> Iterator[Finding]:
    """Peers that a gateway could not speak to when it tried just now."""
    for gateway in seen.gateways:
        for peer in gateway.peers:
            if not peer.why:
                continue
            core = "its calls avoid it" if peer.down else "the core still has a connection to it"
            yield Finding(
                severity=Severity.ERROR,
                area=Area.REACHABILITY,
                what=f"does not reach {peer.cluster} at {peer.address}",
                subject=str(gateway.at),
                why=f"{peer.why}; {core}",
                next="is that gateway up, its address (--eastwest-address) reachable from here, "
                "and its certificate in order (`fedctl check --only certificates`)?",
            )


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
