"""Each attack: the other client has no error and hardly waits longer, the memory stays bounded, the
attack is counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.abuse.attack import Attack
from tests.abuse.catalog import ATTACKS
from tests.abuse.measure import Attackers, Bystander, measure
from tests.abuse.report import line
from tests.abuse.rig import AbuseRig, running_abuse_rig


@pytest.fixture(scope="module")
def rig() -> Iterator[AbuseRig]:
    with running_abuse_rig() as made:
        yield made


@pytest.fixture(scope="module")
def bystander(rig: AbuseRig) -> Iterator[Bystander]:
    made = Bystander(rig.target.port)
    yield made
    made.close()


@pytest.fixture(scope="module")
def attackers(rig: AbuseRig) -> Iterator[Attackers]:
    made = Attackers(rig.target)
    yield made
    made.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, rig: AbuseRig, attackers: Attackers, bystander: Bystander) -> None:
    row = measure(attack, rig, attackers, bystander)
    print(line(row))
    assert row.faults == ()
