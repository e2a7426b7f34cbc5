"""Channels that a program makes itself, or has already: `EtcdRecipe`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

import distjob.aio
from distjob import Job
from distjob.config import Settings
from distjob.errors import ConfigError
from distjob.store import ABSENT, Committed, Store, Woken
from distjob_etcd import EtcdRecipe, EtcdSettings
from on_etcd import TTL, failed, opened, received
from proxy import Proxy
from servers import EtcdNode

Open = Callable[[EtcdSettings, str, float], Store]


class Recipe:
    """Makes channels, and remembers which."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    def __call__(self, channels: Any, name: str) -> Any:
        self.made.append((channels.__name__, name))
        return channels.insecure_channel(name, [("grpc.enable_retries", 0)])


def test_channels_are_made_by_the_recipe(
    open_store: Open, etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    """One for calls and the watch; on asyncio one for each."""
    recipe = Recipe()
    section = EtcdRecipe(endpoints=(etcd_server.address,), make=recipe)
    with contextlib.closing(open_store(section, fresh_namespace, TTL)) as store:
        me = store.open_session(TTL, "me")
        reply = store.commit("vm", ABSENT, b"x", me, (me,))
        assert isinstance(reply, Committed)
        assert received(store, me, Woken("vm", reply.version, b"x"))
        kinds = [kind for kind, name in recipe.made if name == etcd_server.address]
        assert kinds in (["grpc"], ["grpc.aio", "grpc"])


def test_a_recipe_that_makes_something_else(open_store: Open) -> None:
    section = EtcdRecipe(make=lambda _channels, name: name)
    with pytest.raises(ConfigError, match=r"EtcdRecipe\.make.*a str, no grpc"):
        open_store(section, "ns", TTL)


class Signing(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds a word to each request, as a cloud's credentials do."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen.add(details.method)
        return continuation(details, request)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        self.seen.add(details.method)
        return continuation(details, requests)


def test_jobs_by_a_recipe_with_interceptors(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    """As docs/reference/backends.md has it: by the one `connect` that there is."""
    signing = Signing()

    def make(channels: Any, name: str) -> Any:
        return grpc.intercept_channel(channels.insecure_channel(name), signing)

    section = EtcdRecipe(endpoints=(etcd_server.address,), make=make)
    settings = Settings(backend="etcd", namespace=fresh_namespace, section=section)
    with distjob.connect(settings) as jobs, jobs.begin("vm", Job.MODIFY) as lease:
        lease.check()
    assert signing.seen >= {"/etcdserverpb.KV/Txn", "/etcdserverpb.Watch/Watch"}


# -- channels that are there already ------------------------------------------------------------


@pytest.fixture
def opened_by(fresh_namespace: str) -> Iterator[Callable[[Any], Store]]:
    with contextlib.ExitStack() as closing:

        def opened_by(client: Any) -> Store:
            store = opened(EtcdRecipe(client=client, timeout=5.0), fresh_namespace)
            closing.callback(store.close)
            return store

        yield opened_by


def test_the_users_channel_is_shared_and_not_closed(
    etcd_server: EtcdNode, opened_by: Callable[[Any], Store]
) -> None:
    with grpc.insecure_channel(etcd_server.address) as channel:
        for _ in range(2):
            store = opened_by(channel)
            me = store.open_session(TTL, "me")
            assert store.keep_alive(me)
            store.close()
        store = opened_by(channel)
        channel.close()
        error = failed(lambda: store.commit("vm", ABSENT, b"x", me, ()))
        assert not error.unanswered
        assert "the channel was closed" in str(error)


def test_a_channel_that_retries_sends_no_commit_twice(
    proxy: Proxy, opened_by: Callable[[Any], Store]
) -> None:
    with grpc.insecure_channel(proxy.address) as channel:
        store = opened_by(channel)
        me = store.open_session(TTL, "me")
        first = store.commit("vm", ABSENT, b"one", me, ())
        assert isinstance(first, Committed)
        for _ in range(5):
            proxy.drop_next_reply(to=b"/vm/vm")
            assert failed(lambda: store.commit("vm", first.version, b"two", me, ())).unanswered
            if (second := store.read("vm")).version != first.version:
                break
        assert second.value == b"two"
        assert second.version == first.version + 1
        store.close()


def test_many_large_wake_ups_come_in_pieces(
    proxy: Proxy, etcd_server: EtcdNode, opened_by: Callable[[Any], Store], fresh_namespace: str
) -> None:
    """More, after a cut, than a channel of the user's takes at once."""
    section = EtcdSettings(endpoints=(etcd_server.address,))
    with (
        contextlib.closing(opened(section, fresh_namespace)) as direct,
        grpc.insecure_channel(proxy.address) as channel,
    ):
        store = opened_by(channel)
        me, other = store.open_session(60.0, "me"), direct.open_session(60.0, "other")
        proxy.refuse()
        version, value = ABSENT, b"x" * 60_000
        for _ in range(100):
            reply = direct.commit("vm", version, value, other, (me,))
            assert isinstance(reply, Committed)
            version = reply.version
        proxy.accept()
        events = received(store, me, Woken("vm", version, value))
        assert len([event for event in events if isinstance(event, Woken)]) == 100
        store.close()


def test_a_channel_that_takes_little_scans_in_small_steps(
    etcd_server: EtcdNode, opened_by: Callable[[Any], Store]
) -> None:
    little = [("grpc.max_receive_message_length", 100_000)]
    with grpc.insecure_channel(etcd_server.address, little) as channel:
        store = opened_by(channel)
        me = store.open_session(TTL, "me")
        for number in range(20):
            store.commit(f"vm-{number}", ABSENT, b"x" * 30_000, me, ())
        assert len(list(store.scan())) == 20
        store.close()


def test_what_is_no_client(open_store: Open) -> None:
    with pytest.raises(ConfigError, match=r"EtcdRecipe\.client.*grpc\.Channel"):
        open_store(EtcdRecipe(client=object()), "ns", TTL)


def test_a_blocking_channel_is_refused_on_asyncio(etcd_server: EtcdNode) -> None:
    async def steps() -> None:
        with grpc.insecure_channel(etcd_server.address) as channel:
            settings = Settings(backend="etcd", section=EtcdRecipe(client=channel))
            with pytest.raises(ConfigError, match=r"EtcdRecipe\.make"):
                await distjob.aio.connect(settings)

    asyncio.run(steps())


_BESIDE = """
import sys
import {first}, {second}
import {library} as library
from distjob.config import Settings, open_backend
from distjob_etcd import EtcdRecipe
host, _, port = sys.argv[1].rpartition(":")
client = library.client(host=host, port=int(port))
section = EtcdRecipe(client=client)
store = open_backend(Settings(backend="etcd", namespace=sys.argv[2], section=section))
me = store.open_session(10.0, "me")
reply = store.commit("vm", 0, b"x", me, (me,))
assert [event.version for event in store.receive(me, 5.0)] == [reply.version]
store.close()
client.put("distjob-test", "still open")
assert client.get("distjob-test")[0] == b"still open"
client.delete("distjob-test")
"""


@pytest.mark.parametrize("library", ["pyetcd", "etcd3"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_another_client_in_one_process(
    etcd_server: EtcdNode, fresh_namespace: str, library: str, ours_first: bool
) -> None:
    """Both have registered an rpc.proto with protobuf; the other's client is used, and left."""
    if subprocess.run(
        [sys.executable, "-c", f"import {library}"], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"{library} can't be imported here")
    first, second = ("distjob_etcd.source", library)[:: 1 if ours_first else -1]
    script = _BESIDE.format(first=first, second=second, library=library)
    subprocess.run(
        [sys.executable, "-c", script, etcd_server.address, fresh_namespace],
        timeout=30,
        check=True,
        env=os.environ,
    )
