"""What a `Fault` is to those who use a store: the one place where errors of the boundary are made.

Callers see `BackendUnavailable` and `ConfigError`, caused by the client library's own error. A
`Fault` never leaves this package.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from distjob.backend.source import Fault
from distjob.errors import BackendUnavailable, ConfigError, DistjobError

T = TypeVar("T")


async def told(steps: Coroutine[Any, Any, T]) -> T:
    """What a verb returns, or its fault as an error of the boundary."""
    try:
        return await steps
    except Fault as fault:
        raise meaning(fault) from fault.__cause__


async def told_connecting(steps: Coroutine[Any, Any, T]) -> T:
    """The same while connecting, where what is unfit is a mistake in the settings."""
    try:
        return await steps
    except Fault as fault:
        raise meaning(fault, connecting=True) from fault.__cause__


def meaning(fault: Fault, *, connecting: bool = False) -> DistjobError:
    """``fault`` as an error of the boundary."""
    if connecting and fault.unfit:
        return ConfigError(str(fault))
    return BackendUnavailable(str(fault), unanswered=fault.made == "unknown")
