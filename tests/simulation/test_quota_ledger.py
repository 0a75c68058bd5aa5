"""Gateways that come, go, vanish and come back around a ledger, at a made-up time."""

from __future__ import annotations

import random

import pytest

from federation.model.quota import Bucket, SharedLimit, Usage
from federation.model.snapshot import LimitUnit
from federation.quota import Ledger, QuotaSettings

SETTINGS = QuotaSettings(keys_max=5)
ONE = SharedLimit("one", 1_000, LimitUnit.MINUTE, keyed=False)
KEYED = SharedLimit("keyed", 100, LimitUnit.SECOND, keyed=True)
TINY = SharedLimit("tiny", 2, LimitUnit.DAY, keyed=False)


class Gateway:
    """Goes on with what it was told last, whatever happens."""

    def __init__(self) -> None:
        self.shares: dict[Bucket, int] = {}

    def told(self, ledger: Ledger, name: str) -> None:
        for assignment in ledger.news(name):
            if assignment.share is None:
                self.shares.pop(assignment.bucket, None)
            else:
                self.shares[assignment.bucket] = assignment.share

    def share(self, bucket: Bucket) -> int:
        return self.shares.get(bucket, self.shares.get(Bucket(bucket.limit), 0))


def usage(bucket: Bucket, calls: int) -> Usage:
    return Usage(bucket, passed=calls // 2, refused=calls - calls // 2, elapsed_ms=500)


def tell(ledger: Ledger, gateways: dict[str, Gateway], now_s: float) -> None:
    ledger.divide(now_s)
    for name, gateway in gateways.items():
        gateway.told(ledger, name)


def test_the_share_follows_the_demand() -> None:
    ledger, gateways = Ledger(SETTINGS), {"a": Gateway(), "b": Gateway()}
    ledger.set_limits([ONE])
    for name in gateways:
        ledger.join(name)
    tell(ledger, gateways, 0)
    assert [it.share(Bucket("one")) for it in gateways.values()] == [500, 500]
    ledger.report("a", [usage(Bucket("one"), 50)], 0.5)
    tell(ledger, gateways, 0.5)
    assert [it.share(Bucket("one")) for it in gateways.values()] == [950, 50]
    ledger.report("b", [usage(Bucket("one"), 50)], 0.6)
    tell(ledger, gateways, 0.6)
    settled = [it.share(Bucket("one")) for it in gateways.values()]
    assert settled == [pytest.approx(500, abs=10)] * 2, "what was asked first has faded a little"
    tell(ledger, gateways, 60)
    assert [it.share(Bucket("one")) for it in gateways.values()] == settled, "good enough"


def test_keys_have_shares_of_their_own_while_they_are_asked_for() -> None:
    ledger, gateways = Ledger(SETTINGS), {"a": Gateway(), "b": Gateway()}
    ledger.set_limits([KEYED])
    for name in gateways:
        ledger.join(name)
    key = Bucket("keyed", "00000000000000ff")
    ledger.report("a", [usage(key, 20)], 0.5)
    tell(ledger, gateways, 0.5)
    assert [it.share(key) for it in gateways.values()] == [95, 5]
    assert [it.share(Bucket("keyed", "0")) for it in gateways.values()] == [50, 50]
    tell(ledger, gateways, 60)
    assert all(key not in it.shares for it in gateways.values()), "nobody asks any more"


def test_a_gateway_that_vanished_keeps_its_share_for_a_while() -> None:
    ledger, gateways = Ledger(SETTINGS), {"a": Gateway(), "b": Gateway()}
    ledger.set_limits([ONE])
    for name in gateways:
        ledger.join(name)
    tell(ledger, gateways, 0)
    ledger.vanish("b", 1)
    ledger.report("a", [usage(Bucket("one"), 50)], 1)
    tell(ledger, {"a": gateways["a"]}, 2)
    assert gateways["a"].share(Bucket("one")) == 500, "the other may go on with its half"
    tell(ledger, {"a": gateways["a"]}, 1 + SETTINGS.hold_s)
    assert gateways["a"].share(Bucket("one")) == 1_000
    ledger.join("b")
    tell(ledger, gateways, 12)
    assert sum(it.share(Bucket("one")) for it in gateways.values()) == 1_000
    ledger.leave("b")
    tell(ledger, {"a": gateways["a"]}, 12)
    assert gateways["a"].share(Bucket("one")) == 1_000, "who takes leave keeps nothing"


def test_a_cluster_has_its_part_only() -> None:
    ledger, gateways = Ledger(SETTINGS), {"a": Gateway()}
    ledger.set_limits([ONE, KEYED])
    ledger.join("a")
    ledger.set_parts({Bucket("one"): 300, Bucket("keyed"): 50, Bucket("keyed", "k"): 7})
    ledger.report("a", [usage(Bucket("keyed", "k"), 9), usage(Bucket("keyed", "l"), 9)], 1)
    tell(ledger, gateways, 1)
    assert gateways["a"].shares == {
        Bucket("one"): 300,
        Bucket("keyed"): 50,
        Bucket("keyed", "k"): 7,
        Bucket("keyed", "l"): 50,
    }


@pytest.mark.parametrize("seed", range(25))
def test_shares_never_sum_to_more_than_the_limit(seed: int) -> None:
    """Also with those that are lost and go on, once everyone here was told."""
    rng = random.Random(seed)
    ledger, here, lost = Ledger(SETTINGS), {}, {}  # type: ignore[var-annotated]
    ledger.set_limits([ONE, KEYED, TINY])
    buckets = [Bucket("one"), Bucket("tiny"), *(Bucket("keyed", str(k)) for k in range(12))]
    now_s = 0.0
    for _ in range(300):
        now_s += rng.random()
        name = f"gw-{rng.randrange(6)}"
        action = rng.random()
        if name not in here and action < 0.4:
            lost.pop(name, None)
            here[name] = Gateway()
            ledger.join(name)
        elif name in here and action < 0.1:
            del here[name]
            ledger.leave(name)
        elif name in here and action < 0.2:
            lost[name] = (now_s, here.pop(name))
            ledger.vanish(name, now_s)
        elif name in here:
            asked = rng.sample(buckets, rng.randrange(len(buckets)))
            ledger.report(name, [usage(b, rng.randrange(1, 200)) for b in asked], now_s)
        lost = {n: e for n, e in lost.items() if now_s - e[0] < SETTINGS.hold_s}
        tell(ledger, here, now_s)
        for bucket in buckets:
            whole = ledger.limits[bucket.limit].requests
            total = sum(it.share(bucket) for it in here.values())
            total += sum(it.share(bucket) for _, it in lost.values())
            assert total <= whole, (seed, now_s, bucket, here.keys(), lost.keys())
        for gateway in here.values():
            named = [b for b in gateway.shares if b.key]
            assert lost or len(named) <= 2 * SETTINGS.keys_max


def test_the_keys_asked_for_most_are_named() -> None:
    ledger, gateways = Ledger(SETTINGS), {"a": Gateway()}
    ledger.set_limits([KEYED])
    ledger.join("a")
    asked = [usage(Bucket("keyed", str(key)), 10 * key) for key in range(1, 10)]
    ledger.report("a", asked, 1)
    tell(ledger, gateways, 1)
    named = {bucket.key for bucket in gateways["a"].shares if bucket.key}
    assert named == {"5", "6", "7", "8", "9"}


def test_a_caller_that_moves_between_gateways_has_one_limit() -> None:
    """What it used at one it cannot use at another: the sum over gateways is the limit."""
    limit = SharedLimit("daily", 200, LimitUnit.DAY, keyed=True)
    key = Bucket("daily", "ff")
    names = ("a", "b", "c")
    ledger, gateways = Ledger(SETTINGS), {name: Gateway() for name in names}
    ledger.set_limits([limit])
    for name in names:
        ledger.join(name)
    tell(ledger, gateways, 0)
    passed = dict.fromkeys(names, 0)
    for step in range(1, 120):
        name = names[step // 5 % 3]
        now = min(30, max(0, gateways[name].share(key) - passed[name]))
        passed[name] += now
        ledger.report(name, [Usage(key, now, 30 - now, 500)], step)
        tell(ledger, gateways, step)
    assert 195 <= sum(passed.values()) <= 200, passed


def test_what_a_gateway_has_used_is_known_to_a_new_agent() -> None:
    ledger, gateways = Ledger(SETTINGS), {"a": Gateway(), "b": Gateway()}
    ledger.set_limits([KEYED, ONE])
    for name in gateways:
        ledger.join(name)
    key = Bucket("keyed", "ff")
    ledger.report("a", [Usage(key, 70, 0, 0), Usage(Bucket("one"), 900, 0, 0)], 0)
    ledger.report("b", [Usage(key, 0, 9, 500), Usage(Bucket("one"), 0, 9, 500)], 0)
    tell(ledger, gateways, 0)
    assert gateways["a"].share(key) >= 70
    assert gateways["a"].share(Bucket("one")) == 900 + 50
    assert sum(it.share(key) for it in gateways.values()) == 100
