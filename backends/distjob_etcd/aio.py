"""The store on asyncio: connecting, and links that await, by `grpc.aio`.

    store = await distjob_etcd.aio.open_store(channel, "prod", ttl=10.0)

See `distjob_etcd.links`, which says what each link is; the verbs are in `distjob_etcd.verbs`.
GRPC's own rules hold: a channel belongs to the loop it was made in, and in a child that was forked
after `grpc.aio` had been used in the parent nothing of it works, if it does not crash at once.
Where several loops of a process use it, older releases log a BlockingIOError now and then, without
harm (grpc issue 25364).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio

from distjob.both import Lock
from distjob.errors import BackendUnavailable, ConfigError
from distjob.store import AsyncStore
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import ENDED, Failure
from distjob_etcd.links import Bell, Running, Stream, closed
from distjob_etcd.members import STATUS, Member, Metadata
from distjob_etcd.server import Server
from distjob_etcd.settings import EtcdSettings
from distjob_etcd.verbs import Verbs

_PROCESSES: set[int] = set()
"""Those, of this one and of whom it was forked from, in which such links were made."""
_PATIENCE = 1.0
"""Seconds that gRPC's own tasks may take to end once their call was cancelled."""
_CUT = Failure(
    grpc.StatusCode.CANCELLED, "the call was cancelled on our side, or its channel closed"
)


async def connect(settings: EtcdSettings, namespace: str, ttl: float) -> AsyncStore:
    """A store with channels of its own; see `distjob.store.Backend.connect_async`."""
    return await Verbs.connect(Server.by(settings, AioLinks()), namespace, ttl)


async def open_store(
    channel: grpc.aio.Channel, namespace: str, ttl: float, timeout: float = 2.0
) -> AsyncStore:
    """One client's store on the cluster that ``channel`` leads to. The channel is not closed.

    It must have been made in this event loop. ``timeout`` is in seconds, for each answer. Connects
    at once: raises `ConfigError` or `BackendUnavailable`.
    """
    _check_channel(channel)
    member = Member("the channel given", channel)
    server = Server([member], AioLinks(), timeout, owned=False)
    return await Verbs.connect(server, namespace, ttl)


def _check_channel(channel: Any) -> None:
    if not isinstance(channel, grpc.aio.Channel):
        msg = f"a {type(channel).__name__} is no grpc.aio.Channel"
        raise ConfigError(msg)
    loop = getattr(channel, "_loop", None)  # else its calls wait for ever, or die somewhere inside
    if loop is not None and loop is not asyncio.get_running_loop():
        msg = "this grpc.aio.Channel was made in another event loop; make one in this one"
        raise ConfigError(msg)


class AioLinks:
    """`distjob_etcd.links.Links` of one store in the running event loop."""

    channels: Any = grpc.aio

    def __init__(self) -> None:
        if _PROCESSES - {os.getpid()}:
            msg = (
                "this process was forked after a store on asyncio had been opened, and gRPC can't "
                "be used on asyncio in it: fork before, or start processes in another way"
            )
            raise BackendUnavailable(msg)
        _PROCESSES.add(os.getpid())
        self._loop = asyncio.get_running_loop()
        self._calls: set[grpc.aio.UnaryUnaryCall[Any, Any]] = set()
        """Those under way."""
        self._theirs: set[asyncio.Future[Any]] = set()
        """Tasks that gRPC has made for us, or that end a call which was cancelled."""

    def check(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            msg = "this store belongs to another event loop; connect a new one in this one"
            raise BackendUnavailable(msg)

    def lock(self) -> Lock:
        return asyncio.Lock()

    def bell(self) -> Bell:
        return _Bell()

    def start(self, steps: Coroutine[Any, Any, None], name: str) -> Running:
        return _Task(self._loop.create_task(steps, name=name))

    async def call(
        self, member: Member, method: str, request: Any, seconds: float, words: Metadata
    ) -> Any:
        try:
            call = member.calls[method](request, timeout=seconds, metadata=words)
            self._calls.add(call)
            try:
                return await self.outcome(call)
            finally:
                self._calls.discard(call)
        except grpc.aio.UsageError as error:
            raise closed(member, error) from error

    def stream(self, member: Member, words: Metadata) -> Stream:
        """GRPC tells nobody of the tasks it makes for a stream, and does not wait for them: we do.

        Some are made at once, one by those in their first steps, which come before ``after``.
        """
        known, before = asyncio.all_tasks(), set[asyncio.Task[Any]]()

        def after() -> None:
            self._wait_for(asyncio.all_tasks() - before)

        self._loop.call_soon(lambda: before.update(asyncio.all_tasks()))
        try:
            stream = _Stream(self, member, words)
        except grpc.aio.UsageError as error:
            raise closed(member, error) from error
        self._wait_for(asyncio.all_tasks() - known)
        self._loop.call_soon(after)
        return stream

    async def outcome(self, call: Awaitable[Any]) -> Any:
        """What comes of ``call``, as a `Failure` if need be.

        GRPC says by a CancelledError, too, that somebody else has cancelled the call. Out of here
        one comes only if the task that waits was cancelled, and then so is the call.
        """
        doing = asyncio.ensure_future(call)
        doing.add_done_callback(_looked_at)
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError:
            doing.cancel()
            self._wait_for({doing})
            raise
        try:
            return _CUT if doing.cancelled() else doing.result()
        except grpc.RpcError as error:
            return Failure.of(error)

    async def close(self, members: Sequence[Member], *, owned: bool) -> None:
        for call in self._calls:
            call.cancel()
        for member in members:
            await self._drain(member)
            if owned:
                await member.channel.close()
        if self._theirs:
            await asyncio.wait(self._theirs, timeout=_PATIENCE)

    async def _drain(self, member: Member) -> None:
        """Wait until gRPC has said the last word of calls that were cut off.

        It says it later than the call's end, and to this loop: were that closed by then, the
        process's next loop would be told of an error. What it has to say comes in turn, so a call
        that has no time, for which nothing is sent, is waited for.
        """
        with contextlib.suppress(grpc.aio.UsageError):  # the user has closed the channel
            await self.outcome(member.calls[STATUS](rpc.StatusRequest(), timeout=0))

    def _wait_for(self, futures: Iterable[asyncio.Future[Any]]) -> None:
        """In the end, if they are not done by then."""
        for one in futures:
            self._theirs.add(one)
            one.add_done_callback(self._theirs.discard)


class _Bell:
    """Between two awaits nothing else happens in a loop: there is nothing to guard."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    async def wait(self, seconds: float) -> None:
        self._rung.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return

    def ring(self) -> None:
        self._rung.set()


class _Task:
    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task
        task.add_done_callback(_report)

    async def stop(self, seconds: float) -> None:
        self._task.cancel()
        await asyncio.wait([self._task], timeout=seconds)


class _Stream:
    def __init__(self, links: AioLinks, member: Member, words: Metadata) -> None:
        self._links = links
        self._requests = _Requests()
        self._call = member.watch(self._requests, metadata=words)

    def put(self, request: rpc.WatchRequest) -> None:
        self._requests.queue.put_nowait(request)

    async def read(self) -> rpc.WatchResponse | Failure:
        answer = await self._links.outcome(self._call.read())
        if answer is grpc.aio.EOF:
            return ENDED
        found: rpc.WatchResponse | Failure = answer
        return found

    def cut(self) -> None:
        self._call.cancel()

    async def close(self) -> None:
        """What takes longer is waited for with the links' end."""
        self._requests.queue.put_nowait(None)
        self._call.cancel()


class _Requests:
    """What gRPC asks for requests; no generator, for which the loop would make a task in its end"""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[rpc.WatchRequest | None] = asyncio.Queue()

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> rpc.WatchRequest:
        if (request := await self.queue.get()) is None:
            raise StopAsyncIteration
        return request


def _report(task: asyncio.Task[None]) -> None:
    """As soon as it has happened, as of a thread: asyncio does so when nobody knows the task."""
    if not task.cancelled() and (error := task.exception()) is not None:
        told = {"message": f"{task.get_name()} has died", "exception": error, "task": task}
        task.get_loop().call_exception_handler(told)


def _looked_at(doing: asyncio.Future[Any]) -> None:
    """Whoever was cancelled is not there any more to be told of its error."""
    if not doing.cancelled():
        doing.exception()
