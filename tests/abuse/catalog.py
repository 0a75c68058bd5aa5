"""All attacks, in the order of the table."""

from __future__ import annotations

from tests.abuse import floods, smuggling, stalls

ATTACKS = (*floods.ATTACKS, *stalls.ATTACKS, *smuggling.ATTACKS)
