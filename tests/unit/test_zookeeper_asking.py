"""How kazoo is asked: results that come late, twice, at once, or never; room; no private names."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kazoo
import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadVersionError,
    ConnectionLoss,
    NoAuthError,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import (
    AsyncResult,
    KazooTimeoutError,
    SequentialThreadingHandler,
)
from kazoo.protocol.states import KeeperState

import distjob_zookeeper
from distjob.backend.source import Fault
from distjob.backend.tasks import Tasks
from distjob.backend.threads import Threads
from distjob.backend.world import World, now
from distjob.errors import ConfigError
from distjob_zookeeper import ZookeeperRecipe, ZookeeperSettings
from distjob_zookeeper.client import asking
from distjob_zookeeper.client.asking import Answer, Asking, Refused, Room
from distjob_zookeeper.client.making import recipe
from distjob_zookeeper.client.sockets import Sockets

PATIENCE = 20.0
Play = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]


def in_threads(steps: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    world = Threads()
    now(steps(world))
    world.close()


def in_tasks(steps: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        world = Tasks()
        async with asyncio.timeout(PATIENCE):
            await steps(world)
        world.close()

    asyncio.run(main())
    assert complaints == []


@pytest.fixture(params=[in_threads, in_tasks], ids=["threads", "tasks"])
def play(request: pytest.FixtureRequest) -> Play:
    found: Play = request.param
    return found


@pytest.fixture
def handler() -> Iterator[SequentialThreadingHandler]:
    handler = SequentialThreadingHandler()
    handler.start()
    yield handler
    handler.stop()


@pytest.fixture
def answer(handler: SequentialThreadingHandler) -> Callable[[], Answer]:
    return partial(Answer, handler)


def later(call: Callable[[], object]) -> None:
    """In another thread, soon."""
    timer = threading.Timer(0.02, call)
    timer.daemon = True
    timer.start()


def client(heard: float = float("inf"), sever: Callable[[], object] = print) -> Any:
    """kazoo's, as far as it is asked here; what is asked is answered by the tests."""
    wire = SimpleNamespace(heard=heard, sever=sever, severed=False)
    return SimpleNamespace(
        handler=SimpleNamespace(wire=wire),
        logger=SimpleNamespace(last=""),
        hosts=[("there", 2181)],
        connected=True,
    )


# -- answers --------------------------------------------------------------------------------------


def test_it_is_told_once_and_at_once_in_the_thread_that_has_it(
    answer: Callable[[], Answer],
) -> None:
    told: list[object] = []

    def tell() -> None:
        told.append(threading.current_thread())

    first, second = answer(), answer()
    first.then(tell)
    first.set(1)
    first.set_exception(RuntimeError())  # kazoo does so with what was queued as a connection broke
    assert told == [threading.current_thread()]
    second.set_exception(ConnectionLoss())
    second.then(tell)
    assert len(told) == 2


def test_it_is_told_although_the_handler_was_stopped(
    handler: SequentialThreadingHandler, answer: Callable[[], Answer]
) -> None:
    """kazoo throws away what its thread has not called yet."""
    told = threading.Event()
    waiting = answer()
    waiting.then(told.set)
    handler.stop()
    waiting.set(1)
    assert told.is_set()


@pytest.mark.parametrize("before", [0, 1, 2, 3])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_all_answers_are_awaited(
    play: Play, answer: Callable[[], Answer], before: int, order: tuple[int, ...]
) -> None:
    async def steps(world: World) -> None:
        asks = Asking(client(), world, PATIENCE)
        answers = [answer() for _ in order]
        for place in order[:before]:
            answers[place].set(place)

        def rest() -> None:
            for place in order[before:]:
                answers[place].set(place)

        later(rest)
        assert await asks.ask(*(lambda _, one=one: one for one in answers)) == [0, 1, 2]

    play(steps)


@pytest.mark.parametrize("change", [False, True])
def test_nobody_waits_longer_than_is_said(
    play: Play, answer: Callable[[], Answer], change: bool
) -> None:
    async def steps(world: World) -> None:
        asks = Asking(client(), world, 0.05)
        with pytest.raises(Fault, match=r"there:2181 did not answer within 0\.05 s") as caught:
            await asks.ask(lambda _: answer(), change=change)
        assert caught.value.made == ("unknown" if change else "no")

    play(steps)


def test_what_a_multi_was_refused_for(answer: Callable[[], Answer]) -> None:
    async def steps(world: World) -> None:
        asks = Asking(client(), world, PATIENCE)

        async def outcome(*results: object) -> object:
            done = answer()
            done.set(list(results))
            (found,) = await asks.ask(lambda _: done, change=True)
            return found

        bad = BadVersionError()
        refused = await outcome(RolledBackError(), bad, RuntimeInconsistency())
        assert refused == Refused(1, bad)
        assert await outcome("/path", 1) == ["/path", 1]
        assert await outcome() == []
        with pytest.raises(Fault, match="NoAuthError") as caught:
            await outcome(RolledBackError(), NoAuthError(), RuntimeInconsistency())
        assert caught.value.made == "no"
        assert caught.value.unfit
        with pytest.raises(Fault):
            await outcome(RolledBackError(), RuntimeInconsistency())

    in_threads(steps)


def test_what_errors_mean(answer: Callable[[], Answer]) -> None:
    async def steps(world: World) -> None:
        asks = Asking(client(), world, PATIENCE)
        for error, made in ((ConnectionLoss(), "unknown"), (RuntimeError("xids"), "unknown")):
            done = answer()
            done.set_exception(error)
            with pytest.raises(Fault) as caught:
                await asks.ask(lambda _, done=done: done, change=True)
            assert caught.value.made == made
            assert caught.value.__cause__ is error
            with pytest.raises(Fault) as caught:
                await asks.ask(lambda _, done=done: done)
            assert caught.value.made == "no"
        gone = answer()
        gone.set_exception(NoNodeError())
        (found,) = await asks.ask(lambda _: gone)
        assert isinstance(found, NoNodeError)

    in_threads(steps)


def test_a_server_is_left_if_nothing_at_all_was_heard_of_it(answer: Callable[[], Answer]) -> None:
    severed: list[bool] = []
    deaf = client(heard=0.0, sever=lambda: severed.append(True))

    async def steps(world: World) -> None:
        asks = Asking(deaf, world, 0.02)
        with pytest.raises(Fault):
            await asks.ask(lambda _: answer())
        assert len(severed) == 1
        deaf.handler.wire.heard = float("inf")  # something else came meanwhile
        with pytest.raises(Fault):
            await asks.ask(lambda _: answer())
        assert len(severed) == 1

    in_threads(steps)


# -- room -----------------------------------------------------------------------------------------


def test_there_is_room_for_so_many_and_then_one_by_one_in_order() -> None:
    async def steps(world: World) -> None:
        room = Room(world, 10)
        assert await room.enter(10, 0.0)
        let_in: list[int] = []

        async def enter(number: int, size: int) -> None:
            assert await room.enter(size, PATIENCE)
            let_in.append(number)

        tasks = [asyncio.create_task(enter(number, size)) for number, size in enumerate((1, 11, 1))]
        assert not await room.enter(1, 0.05), "not within its time"
        assert let_in == []
        later(room.leave)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert let_in == [0]
        room.leave()
        tasks[1].cancel()  # it would have waited for all of them
        await tasks[2]
        assert let_in == [0, 2]
        room.leave(10)
        assert await room.enter(11, 0.0), "alone, any batch has room"

    in_tasks(steps)


def test_whoever_is_cancelled_as_he_is_let_in_gives_it_back() -> None:
    async def steps(world: World) -> None:
        room = Room(world, 1)
        assert await room.enter(1, 0.0)
        task = asyncio.create_task(room.enter(1, PATIENCE))
        await asyncio.sleep(0)
        room.leave()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await room.enter(1, 0.0)

    in_tasks(steps)


def test_many_threads_share_the_room() -> None:
    world = Threads()
    room, inside, most = Room(world, 3), [], []

    def work() -> None:
        for _ in range(200):
            assert now(room.enter(1, PATIENCE))
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            room.leave()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(most) == 1600
    assert max(most) <= 3
    assert now(room.enter(3, 0.0))
    world.close()


# -- kazoo's names --------------------------------------------------------------------------------


def test_nothing_private_of_kazoos_is_used() -> None:
    """What it does not document may go with any release. The linter sees to the rest."""
    folder = Path(distjob_zookeeper.__file__).parent
    assert not [file for file in folder.rglob("*.py") if "SLF001" in file.read_text()]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: Answer(SequentialThreadingHandler()), lambda: AsyncResult(None)),
        (lambda: Sockets(1.0, 1.0, None), SequentialThreadingHandler),
    ],
)
def test_what_stands_on_kazoos_classes_hides_nothing_of_them(
    ours: Callable[[], Any], theirs: Callable[[], Any]
) -> None:
    made, base = ours(), theirs()
    added = set(vars(made)) - set(vars(base))
    assert added
    assert not [name for name in added if hasattr(base, name)]
    changed = {name for name in vars(type(made)) if not name.startswith("__")}
    public = {name for name in changed if hasattr(base, name)}
    assert public <= {"set", "set_exception", "async_result", "create_connection", "select", "stop"}


def test_kazoo_has_the_names_that_are_used() -> None:
    """A canary for its next release: `kazoo<3` is what these were looked up in."""
    assert int(kazoo.__version__.partition(".")[0]) < 3
    made, _ = recipe(ZookeeperSettings(hosts="a:1,[::1]:2"), 20.0)
    client = made()
    for name in (
        *("start_async", "stop", "close", "add_listener", "client_id", "client_state", "connected"),
        *("get_async", "get_children_async", "exists_async", "sync_async", "get_acls_async"),
        *("transaction", "handler", "logger", "hosts", "chroot", "use_ssl", "ca", "certfile"),
        *("keyfile", "keyfile_password", "verify_certs", "check_hostname"),
    ):
        assert hasattr(client, name), name
    steps = client.transaction()
    steps.create("/a", b"", ephemeral=True)
    steps.check("/a", 0)
    steps.set_data("/a", b"", 0)
    steps.delete("/a")
    assert len(steps.operations) == 4
    for name in ("async_result", "create_connection", "select", "stop", "sleep_func"):
        assert callable(getattr(SequentialThreadingHandler, name)), name
    assert isinstance(client.handler.async_result(), Answer)
    assert client.client_state == KeeperState.CLOSED
    with pytest.raises(KazooTimeoutError):
        client.handler.async_result().get_nowait()


def test_a_recipe_must_pass_on_what_it_is_given() -> None:
    seen: dict[str, Any] = {}

    def keeps(**options: Any) -> KazooClient:
        seen.update(options)
        return KazooClient(**options, read_only=False)

    made, _ = recipe(ZookeeperRecipe(hosts="a", make=keeps), 20.0)
    assert made() is not made()
    assert seen["timeout"] == 20.0

    def forgets(**_: Any) -> KazooClient:
        return KazooClient(hosts="a")

    def chroot(**options: Any) -> KazooClient:
        return KazooClient(**{**options, "hosts": "a/below"})

    for wrong, what in ((forgets, "handler"), (chroot, "chroot")):
        made, _ = recipe(ZookeeperRecipe(hosts="a", make=wrong), 20.0)
        with pytest.raises(ConfigError, match=what):
            made()


def test_the_limit_leaves_room_for_the_urgent() -> None:
    assert asking.MOST + 50 < 270
