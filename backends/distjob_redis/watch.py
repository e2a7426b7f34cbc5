"""What makes a server unsafe: a clock that was set, a policy that evicts, a way that others read.

TTLs follow the server's wall clock. One that is set forward ends sessions before their holders
know; one that is set back keeps the jobs of dead controllers. So does a server that takes over with
another time. Clock and policy are looked at with each renewal, in its round trip.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import redis
import redis.asyncio

STEP = 10
"""The part of a TTL by which a clock may be set: a lease ends as much before its session."""
_LOOPBACK = ("localhost", "127.", "::1")
_TLS = (redis.SSLConnection, redis.asyncio.SSLConnection)
NO_EVICTION = "set maxmemory-policy noeviction, or use another server"


class Watch:
    """How far the clock of the server is from ours, as far as that can be told from here."""

    def __init__(self) -> None:
        self._between = -inf, inf

    def step(self, time: Sequence[Any], sent: float, come: float) -> float:
        """Seconds by which it was set since the last time, at least; ``time``: what TIME answered.

        It was asked at ``sent`` and had answered at ``come``, of our monotonic clock.
        """
        there = int(time[0]) + int(time[1]) / 1e6
        (least, most), self._between = self._between, (there - come, there - sent)
        return max(0.0, there - come - most) or min(0.0, there - sent - least)


def evicting(facts: Mapping[str, Any]) -> str:
    """What is wrong with a server whose INFO says so of its memory; "" if it evicts nothing.

    Every volatile-* policy does, too: session keys are just those that carry a TTL.
    """
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or not facts.get("maxmemory"):
        return ""
    return (
        f"has maxmemory-policy {policy}, which throws away sessions and jobs when memory is short"
    )


def is_near(client: Any) -> bool:
    """Whether all that is sent stays on this host."""
    options = client.connection_pool.connection_kwargs
    return "path" in options or str(options.get("host") or "localhost").startswith(_LOOPBACK)


def secret_of(client: Any) -> object:
    """By what it logs in; None: it does not."""
    options = client.connection_pool.connection_kwargs
    return options.get("password") or options.get("credential_provider")


def exposed(client: Any) -> tuple[str, str] | None:
    """What others can read on the way to a server, or pretend, and what to do about it."""
    pool = client.connection_pool
    if is_near(client):
        return None
    if not issubclass(pool.connection_class, _TLS):
        what = "the password and all jobs" if secret_of(client) else "all jobs"
        return f"is reached without TLS: {what} can be read on the way", "use TLS"
    if pool.connection_kwargs.get("ssl_cert_reqs", "required") in ("none", None, ssl.CERT_NONE):
        return (
            "need not show a certificate (ssl_cert_reqs): whoever is on the way can take its place",
            "leave ssl_cert_reqs out, and set redis.ca_file",
        )
    return None
