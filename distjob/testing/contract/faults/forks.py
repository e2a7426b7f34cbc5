"""Forked children: each store there is a copy, of which nothing may be touched."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from distjob.testing.contract.faults.base import TIMEOUT, TTL, Faults
from distjob.testing.contract.faults.harness import At, Harness

_THREADS = """
import json, os, sys
from distjob.config import load, open_backend
from distjob.errors import BackendUnavailable
settings, does = load(json.loads(sys.argv[1])), sys.argv[2]
store = open_backend(settings)
me = store.open_session(10.0, "me")
if not (child := os.fork()):
    if does == "verbs":
        verbs = (
            lambda: store.read("vm"),
            lambda: store.commit("vm", 0, b"child", me, ()),
            lambda: store.receive(me, 5.0),
            lambda: store.keep_alive(me),
            lambda: store.settle(me),
            lambda: store.close_session(me),
            lambda: list(store.scan()),
        )
        for verb in verbs:
            try:
                verb()
            except BackendUnavailable as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("a child has used the store of its parent")
        store.interrupt()
        store.close()
    if does == "anew":
        anew = open_backend(settings)
        assert anew.remaining([me])[me] > 0
        anew.close()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert store.read("vm").version == 0
reply = store.commit("vm", 0, b"x", me, (me,))
assert [event.version for event in store.receive(me, 5.0)] == [reply.version]
assert store.keep_alive(me)
"""

_TASKS = """
import asyncio, json, os, sys
from distjob.config import load, open_backend_async
from distjob.errors import BackendUnavailable
settings = load(json.loads(sys.argv[1]))

async def parent():
    store = await open_backend_async(settings)
    me = await store.open_session(10.0, "me")
    if not (child := os.fork()):
        for verb in (store.read("vm"), store.receive(me, 5.0), store.keep_alive(me)):
            try:
                await verb
            except BackendUnavailable as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("a child has used the store of its parent")
        store.interrupt()
        await store.close()
        os._exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in map(int, sys.argv[2].split(",")), code
    reply = await store.commit("vm", 0, b"x", me, (me,))
    assert [event.version for event in await store.receive(me, 5.0)] == [reply.version]
    await store.close()

asyncio.run(parent())
"""


class Forks(Faults):
    """They are told so, and the parent goes on; each in a process of its own."""

    @pytest.mark.parametrize("does", ["exit", "verbs", "anew"])
    def test_a_forked_child_does_not_hang_nor_disturb(
        self, harness: Harness, namespace: str, does: str
    ) -> None:
        """The parent ends without closing its store: that must not hang, either."""
        harness.need("fork")
        run(harness, namespace, _THREADS, does)

    def test_a_forked_child_is_told_on_asyncio(self, harness: Harness, namespace: str) -> None:
        harness.need("fork")
        run(harness, namespace, _TASKS, ",".join(map(str, harness.ends_of_a_forked_child)))


def run(harness: Harness, namespace: str, program: str, *arguments: str) -> None:
    """Run it in a process of its own, with the settings of the server."""
    at = At(address=harness.address, namespace=namespace, ttl=TTL, timeout=TIMEOUT)
    command = [sys.executable, "-W", "ignore", "-c", program]
    command += [json.dumps(harness.settings(at)), *arguments]
    done = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
