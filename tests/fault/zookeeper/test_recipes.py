"""A client of the user's making: what settings can't say gets in, and the rest stays ours."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

import distjob
import distjob.aio
from distjob import AsyncJob, Job
from distjob.config import Settings, backends
from distjob.errors import ConfigError
from distjob.store import Store
from distjob.testing.contract import committed, receive_woken, try_until
from distjob_zookeeper import ZookeeperRecipe
from distjob_zookeeper.layout import Layout
from zookeeper_stores import TTL, kazoo_of, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGIN = ("digest", "theirs:s3cret")


class Recipe:
    """Counts the clients that it makes; they log in by what distjob knows nothing of."""

    def __init__(self) -> None:
        self.made: list[KazooClient] = []

    def __call__(self, **options: Any) -> KazooClient:
        acl = [make_digest_acl(*LOGIN[1].split(":"), all=True)]
        self.made.append(KazooClient(auth_data=[LOGIN], default_acl=acl, **options))
        return self.made[-1]


@pytest.fixture
def layout(fresh_namespace: str) -> Layout:
    """Below a node of its own: who makes ``/distjob`` on a new server has that for itself."""
    return Layout(fresh_namespace, f"/{fresh_namespace}")


def connect(hosts: str, namespace: str, make: Any, ttl: float = TTL) -> Store:
    section = ZookeeperRecipe(hosts=f"{hosts}/{namespace}", timeout=1.0, make=make)
    return backends.connect("zookeeper", section, namespace, ttl)


@pytest.fixture
def recipe() -> Iterator[Recipe]:
    recipe = Recipe()
    yield recipe
    for client in recipe.made:
        assert not client.connected, "all were let go of"


def test_all_is_done_with_the_clients_that_it_makes(
    hosts: str, fresh_namespace: str, recipe: Recipe, admin: KazooClient, layout: Layout
) -> None:
    store = connect(hosts, fresh_namespace, recipe)
    assert kazoo_of(store) is recipe.made[0]
    me = store.open_session(TTL, "me")
    version = committed(store, "vm", b"x", me, me)
    receive_woken(store, me, version)
    assert store.keep_alive(me)
    admin.add_auth(*LOGIN)
    assert admin.get_acls(layout.session(me))[0][0].id.id.startswith("theirs:")
    store.close()


def test_jobs_on_it(hosts: str, fresh_namespace: str, recipe: Recipe) -> None:
    section = ZookeeperRecipe(hosts=f"{hosts}/{fresh_namespace}", make=recipe)
    settings = Settings(backend="zookeeper", namespace=fresh_namespace, section=section)
    with distjob.connect(settings) as jobs, jobs.begin("vm", Job.MODIFY) as lease:
        assert jobs.status("vm").holders[0].token == lease.token

    async def steps() -> None:
        async with (
            distjob.aio.connect(settings) as jobs,
            jobs.begin_async("vm", AsyncJob.BACKUP) as lease,
        ):
            assert lease.token > 0

    asyncio.run(steps())


def test_it_is_asked_again_for_the_next_session(
    hosts: str, fresh_namespace: str, recipe: Recipe
) -> None:
    store = connect(hosts, fresh_namespace, recipe, 1.0)
    store.open_session(1.0, "me")
    assert len(recipe.made) == 1
    recipe.made[0].last_zxid = 2**62  # as if the servers had been restored
    source_of(store).connection.cut()
    again = try_until(lambda: store.open_session(1.0, "again"))
    assert len(recipe.made) > 1
    assert store.keep_alive(again)
    store.close()


@pytest.mark.parametrize("started", [True, False])
def test_one_that_gives_away_a_client_of_its_own(
    hosts: str, fresh_namespace: str, started: bool, layout: Layout
) -> None:
    """It is not used, and not touched."""
    theirs = KazooClient(hosts=hosts)
    if started:
        theirs.start()
    with pytest.raises(ConfigError, match="recipe"):
        connect(hosts, fresh_namespace, lambda **_: theirs)
    assert theirs.connected is started
    assert not theirs.state_listeners
    theirs.stop()
    theirs.close()


def test_one_that_starts_it(hosts: str, fresh_namespace: str) -> None:
    made: list[KazooClient] = []

    def starts(**options: Any) -> KazooClient:
        made.append(KazooClient(**options))
        made[-1].start()
        return made[-1]

    with pytest.raises(ConfigError, match="must not start"):
        connect(hosts, fresh_namespace, starts)
    made[0].stop()
    made[0].close()


def test_settings_that_do_not_go_with_the_ttl(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=r"zookeeper\.timeout: must be at most session\.ttl"):
        connect("a", "default", recipe, 0.5)
    assert recipe.made == []
