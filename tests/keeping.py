"""Leases that a test keeps for as long as it runs: one that is garbage ends its job."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

_kept: list[object] = []


def keep(lease: T) -> T:
    """Have ``lease`` held to the end of the tests."""
    _kept.append(lease)
    return lease
