"""The clocks: one for deadlines, one for people. Nothing else in distjob may ask for the time.

Deadlines use CLOCK_BOOTTIME where there is one: unlike CLOCK_MONOTONIC it goes on while the host
is suspended, so that a holder whose machine slept finds its lease lost on waking.
"""

from __future__ import annotations

import time

_DEADLINES = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic() -> float:
    """Seconds since the host booted; the same clock in all processes of the host."""
    return time.clock_gettime(_DEADLINES)


def wall() -> float:
    """Seconds since 1970, for people: safety never rests on it."""
    return time.time()  # noqa: TID251  the one place that may


def boot_id() -> str:
    """Names this boot of this host, so that `monotonic` readings are compared only within it.

    Raises OSError where the system has none (it is Linux's /proc/sys/kernel/random/boot_id).
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
        return file.read().strip()
