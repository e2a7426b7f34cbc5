"""Forked children: their copy of a store is refused, and writes nothing on its parent's sockets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Woken
from distjob_redis import RedisSettings
from on_redis import TTL, connected
from proxy import Proxy
from servers import RedisServer

_FORK = """
import asyncio, os, sys
from distjob.backend.world import now
from distjob.config import load, open_backend, open_backend_async
from distjob.errors import BackendUnavailable
settings = load({"backend": "redis", "namespace": sys.argv[2], "redis": {"url": sys.argv[1]}})

def refused(verbs):
    for verb in verbs:
        try:
            now(verb)
        except BackendUnavailable as error:
            assert "fork" in str(error), error
        else:
            raise AssertionError
"""
_IN_THREADS = """
store = open_backend(settings)
me = store.open_session(10.0, "me")
if not (child := os.fork()):
    verbs = store.verbs
    refused([verbs.read("vm"), verbs.receive(me, 5.0), verbs.commit("vm", 0, b"child", me, ()),
             verbs.keep_alive(me), verbs.close_session(me), verbs.settle(me)])
    store.interrupt()
    store.close()
    anew = open_backend(settings)
    assert anew.remaining([me])[me] > 0
    anew.close()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
reply = store.commit("vm", 0, b"x", me, (me,))
assert [event.version for event in store.receive(me, 5.0)] == [reply.version]
assert store.keep_alive(me)
"""
_ON_ASYNCIO = """
async def parent():
    store = await open_backend_async(settings)
    me = await store.open_session(10.0, "me")
    if not (child := os.fork()):
        refused([store.read("vm"), store.receive(me, 5.0), store.keep_alive(me)])
        store.interrupt()
        now(store.close())
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    reply = await store.commit("vm", 0, b"x", me, (me,))
    assert [event.version for event in await store.receive(me, 5.0)] == [reply.version]
    assert await store.keep_alive(me)
    await store.close()

asyncio.run(parent())
"""


@pytest.mark.parametrize("world", [_IN_THREADS, _ON_ASYNCIO], ids=["threads", "asyncio"])
def test_a_forked_child_does_not_disturb(
    redis_server: RedisServer, fresh_namespace: str, world: str
) -> None:
    """It may open a store of its own."""
    command = [sys.executable, "-c", _FORK + world, redis_server.url, fresh_namespace]
    subprocess.run(command, timeout=60, check=True)


@pytest.mark.forks
def test_a_forked_child_writes_nothing_on_its_parents_sockets(
    redis_server: RedisServer, fresh_namespace: str
) -> None:
    with Proxy((redis_server.host, redis_server.port)) as proxy:
        store = connected(RedisSettings(url=f"redis://{proxy.address}/0"), fresh_namespace)
        me = store.open_session(TTL, "me")
        before = proxy.requests
        if not (child := os.fork()):
            code = 1
            try:
                store.commit("vm", ABSENT, b"child", me, (me,))
            except BackendUnavailable as error:
                code = 7 if "fork" in str(error) else 2
            store.close()
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert proxy.requests == before
        reply = store.commit("vm", ABSENT, b"x", me, (me,))
        assert isinstance(reply, Committed)
        assert list(store.receive(me, 5.0)) == [Woken("vm", reply.version, b"x")]
        store.close()
