"""Forked children, other processes, and the end of the interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
from typing import Any

import grpc

from distjob.store import ABSENT
from distjob_etcd import EtcdSettings, backend
from on_etcd import TTL, commit_waking, opened, opened_async
from servers import EtcdNode
from until import until


def test_nothing_of_the_watch_is_left_to_the_end_of_the_interpreter(
    etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    """There, with its threads gone, gRPC may wait for ever for a lock of the call's."""
    before = {id(call) for call in calls_of_grpc()}
    gc.disable()
    try:
        section = EtcdSettings(endpoints=(etcd_server.address,))
        with contextlib.closing(opened(section, fresh_namespace)) as store:
            me = store.open_session(TTL, "me")
            commit_waking(store, me)
            assert store.receive(me, 5.0)
        until(lambda: {id(call) for call in calls_of_grpc()} <= before)
    finally:
        gc.enable()


def calls_of_grpc() -> list[Any]:
    kinds = {grpc.Call, grpc.RpcError}
    return [one for one in gc.get_objects() if kinds <= set(type(one).__mro__)]


_FORK_AIO = """
import asyncio, os, signal, sys
from distjob.config import load, open_backend_async
from distjob.errors import BackendUnavailable
settings = load({"backend": "etcd", "namespace": sys.argv[2], "etcd": {"endpoints": [sys.argv[1]]}})

def connect():
    return open_backend_async(settings)

async def fails(words, *verbs):
    for verb in verbs:
        try:
            await verb
        except BackendUnavailable as error:
            assert words in str(error), error
        else:
            raise AssertionError

async def one():
    store = await connect()
    await store.read("vm")
    await store.close()

def ended(child, *how):
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (7, *how), code

def forked(does, *how):
    if not (child := os.fork()):
        asyncio.run(does())
        os._exit(7)
    ended(child, *how)

async def parent():
    store = await connect()
    me = await store.open_session(10.0, "me")
    child = os.fork()
    if not child:
        await fails("before a fork", store.read("vm"), store.receive(me, 5.0))
        await fails("forked under one", connect())
        store.interrupt()
        await store.close()
        os._exit(7)
    ended(child, -signal.SIGSEGV)
    reply = await store.commit("vm", 0, b"x", me, (me,))
    assert [event.version for event in await store.receive(me, 5.0)] == [reply.version]
    await store.close()

forked(one)
asyncio.run(parent())
forked(lambda: fails("forked", connect()), -signal.SIGSEGV)
"""


_ABANDONED = """
import asyncio, sys
from distjob.config import load, open_backend_async
settings = load({"backend": "etcd", "namespace": sys.argv[2], "etcd": {"endpoints": [sys.argv[1]]}})

async def main():
    store = await open_backend_async(settings)
    me = await store.open_session(10.0, "me")
    await store.commit("vm", 0, b"x", me, (me,))

for _ in range(3):
    asyncio.run(main())
"""


def test_a_loop_that_ends_before_its_store(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    command = [sys.executable, "-c", _ABANDONED, etcd_server.address, fresh_namespace]
    ended = subprocess.run(command, timeout=60, check=True, capture_output=True, text=True)
    assert "Traceback" not in ended.stderr


def test_a_forked_child_is_told_on_asyncio(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    """One that was forked before its parent had a store may have its own.

    Later ones gRPC may crash in `os.fork`, before they can be told; they neither hang nor disturb.
    """
    command = [sys.executable, "-c", _FORK_AIO, etcd_server.address, fresh_namespace]
    subprocess.run(command, timeout=60, check=True, capture_output=True)


def test_a_blocking_store_beside_one_on_asyncio(
    etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    """Both kinds side by side in one process, and under a running loop."""
    section = EtcdSettings(endpoints=(etcd_server.address,))

    async def steps() -> None:
        store = await opened_async(section, fresh_namespace)
        me = await store.open_session(TTL, "me")
        with contextlib.closing(opened(section, fresh_namespace)) as blocking:
            await store.commit("vm", ABSENT, b"x", me, ())
            assert [vm for vm, _ in blocking.scan()] == ["vm"]
            assert backend.examine is not None
            assert list(backend.examine(blocking))
        await store.close()

    asyncio.run(steps())
