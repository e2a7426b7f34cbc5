"""The asyncio client: a thin shell that runs the protocol's operations in the caller's task.

It adds to them the tasks in the background, the check of the loop, and the arguments' checks.
All rules are in rules/, all waiting and retrying in protocol/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from distjob import client as blocking
from distjob.aio.lease import AsyncJobLease, Lease
from distjob.aio.leases import BeginsMany
from distjob.aio.opening import like, opens
from distjob.drive import arguments
from distjob.drive.blocking import BACKGROUND, log
from distjob.drive.names import Seconds, check_vm
from distjob.drive.tasks import AsyncRunner, Signal
from distjob.errors import ClientClosed, DistjobError
from distjob.hooks import Hook
from distjob.protocol.closing import close
from distjob.protocol.hands import make_calls
from distjob.protocol.heart import open_session
from distjob.protocol.look import JobStatus, VMStatus, orphans, status, statuses
from distjob.protocol.outside import discard, evict
from distjob.rules.jobs import AgentJobLike, AsyncJobLike, JobLike, OnOwnerLoss, OnOwnerLossLike
from distjob.store import AsyncStore, Guarantees


class AsyncClient(BeginsMany):
    """A controller's access to the jobs of all VMs of a namespace: one session.

    For the tasks of one event loop; from elsewhere it refuses to work. Made by `connect`, or for a
    store that is at hand: ``async with AsyncClient(store) as jobs``, which closes it in the end, or
    ``jobs = await AsyncClient(store)``.
    """

    def __init__(
        self,
        store: AsyncStore,
        *,
        controller: str = "",
        ttl: float = 10.0,
        wait: float = 30.0,
        max_queued: int = 0,
        hooks: Iterable[Hook] = (),
    ) -> None:
        """For ``store``, which the client closes in the end; the arguments are those of `Client`.

        Sends nothing: the session is opened by entering, or awaiting, the client.
        Raises BadRequest; the store is not closed then.
        """
        self._store = store
        self._me = arguments.controller(
            store.guarantees,
            Signal,
            name=controller,
            ttl=ttl,
            wait=wait,
            max_queued=max_queued,
            hooked=bool(hooks := tuple(hooks)),
        )
        self._runner = AsyncRunner(self._me, store, hooks)
        self._background: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None

    @property
    def guarantees(self) -> Guarantees:
        """What the store promises, and what not, as it was found at connect."""
        return self._store.guarantees

    # -- jobs ----------------------------------------------------------------------------------

    @opens
    @like(blocking.Client.begin)
    async def begin(
        self,
        vm: str,
        job: JobLike,
        *,
        agent: AgentJobLike | None = None,
        api: str = "",
        wait: Seconds | None = None,
    ) -> Lease:
        wish = arguments.sync(vm, job, agent, api)
        return Lease(
            self._runner, await self._runner.run(arguments.begin(self._me, vm, wish, wait))
        )

    @like(blocking.Client.try_begin)
    async def try_begin(
        self,
        vm: str,
        job: JobLike,
        *,
        agent: AgentJobLike | None = None,
        api: str = "",
    ) -> Lease | None:
        op = arguments.begin_now(self._me, vm, arguments.sync(vm, job, agent, api))
        held = await self._runner.run(op)
        return Lease(self._runner, held) if held else None

    @opens
    @like(blocking.Client.begin_agent)
    async def begin_agent(
        self, vm: str, job: AgentJobLike, *, api: str = "", wait: Seconds | None = None
    ) -> Lease:
        wish = arguments.agent(vm, job, api)
        return Lease(
            self._runner, await self._runner.run(arguments.begin(self._me, vm, wish, wait))
        )

    @opens
    @like(blocking.Client.begin_async)
    async def begin_async(
        self,
        vm: str,
        kind: AsyncJobLike,
        *,
        on_owner_loss: OnOwnerLossLike = OnOwnerLoss.RELEASE,
        api: str = "",
        wait: Seconds | None = None,
    ) -> AsyncJobLease:
        wish = arguments.long(vm, kind, on_owner_loss, api)
        held = await self._runner.run(arguments.begin(self._me, vm, wish, wait))
        return AsyncJobLease(self._runner, held)

    # -- async jobs of others ------------------------------------------------------------------

    @opens
    @like(blocking.Client.adopt)
    async def adopt(self, vm: str, kind: AsyncJobLike, *, api: str = "") -> AsyncJobLease:
        held = await self._runner.run(arguments.adopt(self._me, vm, kind, api))
        return AsyncJobLease(self._runner, held)

    @like(blocking.Client.abort)
    async def abort(
        self, vm: str, *, reason: str = "", api: str = "", wait: Seconds | None = None
    ) -> JobStatus:
        return await self._runner.run(arguments.abort(self._me, vm, reason, api, wait))

    @like(blocking.Client.discard)
    async def discard(self, vm: str) -> JobStatus:
        return await self._runner.run(discard(self._me, check_vm(vm)))

    @like(blocking.Client.evict)
    async def evict(self, vm: str, tickets: Iterable[str]) -> Sequence[JobStatus]:
        named = arguments.tickets(vm, tickets)
        return await self._runner.run(evict(self._me, check_vm(vm), named))

    # -- looking -------------------------------------------------------------------------------

    @like(blocking.Client.status)
    async def status(self, vm: str) -> VMStatus:
        return await self._runner.run(status(self._me, check_vm(vm)))

    @like(blocking.Client.list)
    async def list(self) -> Sequence[VMStatus]:
        return await self._runner.run(statuses(self._me))

    @like(blocking.Client.orphans)
    async def orphans(self) -> Sequence[VMStatus]:
        return await self._runner.run(orphans(self._me))

    # -- beginning and end ---------------------------------------------------------------------

    async def _open(self) -> Self:
        """Open the session, once; if that fails, the store is closed, and so is the client."""
        self._me.check_open()
        if self._background:
            self._runner.check_process()
            return self
        if self._runner.loop is not None:
            raise ClientClosed("this client is not open yet: another task is opening it")
        self._runner.loop = asyncio.get_running_loop()
        try:
            await self._runner.run(open_session(self._me))
        except BaseException:
            self._me.close()
            await self._store.close()
            raise
        self._background = [asyncio.create_task(self._keep(name), name=name) for name in BACKGROUND]
        return self

    @like(blocking.Client.close)
    async def close(self) -> None:
        if self._runner.forked or not self._background:
            return
        self._runner.check_process()
        if self._closing is not None and self._closing.done():
            return
        if self._closing is None:
            self._me.close()
            self._closing = asyncio.create_task(self._close(), name="distjob-close")
        # Whoever is cancelled while it waits leaves the closing to go on.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            self._store.interrupt()
            await asyncio.wait(self._background)
            await self._runner.run(close(self._me))
        finally:
            await self._runner.run(make_calls(self._me))
            self._me.over = True
            await self._store.close()

    async def _of(self, vm: str) -> AsyncClient:  # noqa: ARG002  there is but this one
        return self

    async def _keep(self, name: str) -> None:
        """A task in the background. It must never die silently: leases depend on it."""
        try:
            await self._runner.run(BACKGROUND[name](self._me))
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)  # as the loop's end does
            if not cancelled:
                log.exception("distjob: %s has died; all leases of this client are lost", name)
            if self._me.session:
                why = "was cancelled" if cancelled else "has died, see the log"
                self._me.lose(self._me.session, f"the task {name} {why}")
            self._me.close()
            await self._runner.run(make_calls(self._me))
            if cancelled:
                raise

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except DistjobError as also:
            if error is None:
                raise
            error.add_note(f"and then closing the client failed: {also}")

    def __repr__(self) -> str:
        owner = self._me.owner
        state = "closed" if self._me.closing else "open" if self._background else "not open yet"
        return f"<AsyncClient {owner.controller} ({owner.host}, pid {owner.pid}), {state}>"
