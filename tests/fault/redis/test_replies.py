"""Replies and requests that are lost, and servers that hang: what is said of a change."""

from __future__ import annotations

from typing import Any

import redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from distjob.store import ABSENT, Committed, Store
from distjob_redis import RedisRecipe
from distjob_redis.faults import Why, meaning
from on_redis import TTL, Connect, failed
from proxy import Proxy


def test_a_connection_cut_while_idle_costs_nothing(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.cut()
    assert isinstance(through.commit("vm", ABSENT, b"one", me, ()), Committed)


def test_a_driver_that_would_send_a_command_again_does_not(
    connect: Connect, proxy: Proxy, world: str
) -> None:
    """A recipe may make clients that try again: nothing is sent by their commands."""

    def make(module: Any, options: dict[str, Any]) -> Any:
        kind = AsyncRetry if world == "asyncio" else Retry
        return module.Redis(**{**options, "retry": kind(NoBackoff(), 3)})

    store = connect(f"redis://{proxy.address}/0", kind=RedisRecipe, make=make)
    me = store.open_session(TTL, "me")
    proxy.drop_next_reply(to=b"EVALSHA")
    assert failed(lambda: store.commit("vm", ABSENT, b"one", me, ())).unanswered
    assert store.read("vm").value == b"one"


def test_a_host_name_is_not_taken_for_an_answer() -> None:
    lost = redis.ConnectionError("Error while reading from ROOM-MISCONF:6379")
    fault = meaning(lost, "here", change=True)
    assert (fault.why, fault.made) == (Why.LOST, "unknown")
