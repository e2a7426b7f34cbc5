"""Which faults a simulated world has, and how many: one profile for each kind, one for all at once.

Numbers only. What each fault does is in faults.py (the store and the network) and disasters.py
(controllers).
"""

from __future__ import annotations

import msgspec


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Which faults a world has. Shares are of the requests or messages, counts are at most."""

    name: str
    refused: float = 0.0
    """Requests that never leave: connection refused."""
    unsent: float = 0.0
    """Requests lost on the way there: unanswered, not applied."""
    unheard: float = 0.0
    """Replies lost on the way back: unanswered, applied."""
    late: float = 0.0
    """Changes applied after the client was told that they are unanswered."""
    resent: float = 0.0
    """Changes that the client library sends twice: applied twice, the second reply counts."""
    deaf: float = 0.0
    """Wake-ups lost; half of them in silence, half followed by `Missed`."""
    slow: float = 0.0
    """Wake-ups that take up to a TTL."""
    doubled: float = 0.0
    """Wake-ups that come twice."""
    crashes: int = 0
    cuts: int = 0
    """Times that one controller can't reach the store."""
    restarts: int = 0
    """Times that nobody can."""
    wipes: int = 0
    """Restarts at which the store loses all data; its versions go on rising."""
    sleeps: int = 0
    """Times that a controller is stopped, its monotonic clock going on."""
    jumps: int = 0
    """Times that a wall clock is set to an hour before or after."""
    closes: int = 0
    """Controllers closed while they work."""
    drift: float = 0.0
    """How far the rate of a monotonic clock is from the store's."""
    cancels: float = 0.0
    """Begins and ends that are cancelled, some of them twice."""

    @property
    def lossy(self) -> bool:
        """Whether single requests fail."""
        return bool(self.refused or self.unsent or self.unheard or self.late)


_ALL = (
    Profile(name="calm", cancels=0.1),
    Profile(name="lossy", refused=0.04, unsent=0.04, unheard=0.06, cancels=0.05),
    Profile(name="late", late=0.08, resent=0.08, cancels=0.1),
    Profile(name="crash", crashes=4, cancels=0.05),
    Profile(name="cut", cuts=3, restarts=1, cancels=0.05),
    Profile(name="wipe", restarts=2, wipes=2, cuts=1),
    Profile(name="sleep", sleeps=4, cancels=0.05),
    Profile(name="deaf", deaf=0.4, slow=0.2, doubled=0.2, crashes=1, cancels=0.05),
    Profile(name="clocks", jumps=4, drift=0.03, crashes=1, closes=1, cancels=0.05),
    Profile(
        name="storm",
        refused=0.02,
        unsent=0.02,
        unheard=0.03,
        late=0.03,
        resent=0.03,
        deaf=0.2,
        slow=0.1,
        doubled=0.1,
        crashes=2,
        cuts=2,
        restarts=1,
        wipes=1,
        sleeps=2,
        jumps=2,
        closes=1,
        drift=0.03,
        cancels=0.08,
    ),
)
PROFILES = {profile.name: profile for profile in _ALL}
