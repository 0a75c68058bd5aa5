"""Settings of the division of shared rate limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """How often limits are divided, and what bounds it."""

    step_s: float = 0.25
    """Shares are computed anew at most this often; gateways report twice a second."""

    idle_step_s: float = 1.0
    """And at least this often, since demand fades by itself."""

    settle_s: float = 2.5
    """A new agent divides nothing for this long: gateways that it does not see yet go on with the
    shares of its predecessor. They try to connect again every 2 s at most."""

    hold_s: float = 10.0
    """The shares of a gateway that vanished (not: took its leave) are given to nobody for this
    long, since it may go on with them. The same holds for a cluster that the store does not hear
    of."""

    half_life_s: float = 2.0
    """What was asked for counts half after this time."""

    keys_max: int = 1024
    """Keys of one limit that have shares of their own, those asked for most, and at most as many
    again of which a gateway has used more than an even share; the others have even shares."""

    used_max: int = 16_384
    """Keys of which it is known what a gateway has used, those used most; a gateway counts about
    as many apart."""

    streams_max: int = 512
    """Gateways at once, each with one stream; one more is refused with RESOURCE_EXHAUSTED."""

    board_every_s: float = 1.0
    """How often clusters tell each other what is asked for; one window of the board."""
