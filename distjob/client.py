"""The blocking client: a thin shell that runs the protocol's operations in the caller's thread.

It adds to them the threads in the background, the process check after a fork, and the arguments'
checks. All rules are in rules/, all waiting and retrying in protocol/.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from distjob.drive import arguments
from distjob.drive.blocking import BACKGROUND, Runner, log
from distjob.drive.names import Seconds, check_vm
from distjob.errors import BackendUnavailable, BadRequest, DistjobError
from distjob.hooks import Hook
from distjob.lease import AsyncJobLease, Lease
from distjob.leases import BeginsMany
from distjob.protocol.closing import close
from distjob.protocol.hands import make_calls
from distjob.protocol.heart import open_session
from distjob.protocol.look import JobStatus, VMStatus, orphans, status, statuses
from distjob.protocol.outside import discard, evict
from distjob.rules.jobs import AgentJobLike, AsyncJobLike, JobLike, OnOwnerLoss, OnOwnerLossLike
from distjob.store import Guarantees, Store


class Client(BeginsMany):
    """A controller's access to the jobs of all VMs of a namespace: one session.

    Thread-safe. Made by `connect`, or directly for a store that is at hand. A context manager:
    leaving it closes it. After a fork, the child's copy refuses to work.
    """

    def __init__(
        self,
        store: Store,
        *,
        controller: str = "",
        ttl: float = 10.0,
        wait: float = 30.0,
        max_queued: int = 0,
        hooks: Iterable[Hook] = (),
    ) -> None:
        """Open a session on ``store``, which the client closes in the end.

        ``controller``: this process's name for people, the host's name by default. ``ttl``:
        seconds after which a controller that has died, or was cut off, has lost its jobs. ``wait``:
        seconds that begin waits by default. ``max_queued``: begin is refused when that many jobs
        of the VM are held or waited for, 0 = no limit. ``hooks``: see `distjob.hooks`.

        Raises BackendUnavailable, BadRequest; the store is closed then.
        """
        self._store = store
        self._closed = False
        try:
            self._me = arguments.controller(
                store.guarantees,
                threading.Event,
                name=controller,
                ttl=ttl,
                wait=wait,
                max_queued=max_queued,
                hooked=bool(hooks := tuple(hooks)),
            )
            self._runner = Runner(self._me, store, hooks)
            self._runner.run(open_session(self._me))
        except BaseException:
            store.close()
            raise
        self._background = [
            threading.Thread(target=self._keep, args=(name,), name=name, daemon=True)
            for name in BACKGROUND
        ]
        for thread in self._background:
            thread.start()

    @property
    def guarantees(self) -> Guarantees:
        """What the store promises, and what not, as it was found at connect."""
        return self._store.guarantees

    # -- jobs ----------------------------------------------------------------------------------

    def begin(
        self,
        vm: str,
        job: JobLike,
        *,
        agent: AgentJobLike | None = None,
        api: str = "",
        wait: Seconds | None = None,
    ) -> Lease:
        """Begin a sync job, waiting until it may start; the lease is held when this returns.

        ``vm``: 1 to 255 bytes of UTF-8. ``job``: a `Job` but the two request-only types, or its
        text; a member of another enum is refused, though its text be the same.
        ``agent``: an agent job to hold with it, in one request. ``api``: what the caller is
        doing, shown to whom it keeps waiting; the job's name by default. ``wait``: seconds, or a
        timedelta; the client's default (30) if None; one deadline for everything it waits for.

        Raises, and the job is not held: JobTimeout (who is in the way), QueueFull, BadRequest,
        BackendUnavailable, RecordError, ClientClosed. OutcomeUnknown: it may be held until it is
        withdrawn in the background. Ctrl-C withdraws it. Source: ``virDomainObjBeginJob``.
        """
        wish = arguments.sync(vm, job, agent, api)
        return Lease(self._runner, self._runner.run(arguments.begin(self._me, vm, wish, wait)))

    def try_begin(
        self,
        vm: str,
        job: JobLike,
        *,
        agent: AgentJobLike | None = None,
        api: str = "",
    ) -> Lease | None:
        """Begin a sync job if it may start now; None, without waiting, if it may not.

        Arguments and errors as `begin`, but for JobTimeout. ``max_queued`` counts here too.
        Source: ``virDomainObjBeginJobNowait``.
        """
        op = arguments.begin_now(self._me, vm, arguments.sync(vm, job, agent, api))
        held = self._runner.run(op)
        return Lease(self._runner, held) if held else None

    def begin_agent(
        self, vm: str, job: AgentJobLike, *, api: str = "", wait: Seconds | None = None
    ) -> Lease:
        """Begin a job of the guest agent, which no async job keeps out. As `begin`.

        Source: ``virDomainObjBeginAgentJob``.
        """
        wish = arguments.agent(vm, job, api)
        return Lease(self._runner, self._runner.run(arguments.begin(self._me, vm, wish, wait)))

    def begin_async(
        self,
        vm: str,
        kind: AsyncJobLike,
        *,
        on_owner_loss: OnOwnerLossLike = OnOwnerLoss.RELEASE,
        api: str = "",
        wait: Seconds | None = None,
    ) -> AsyncJobLease:
        """Begin a long job, which runs in nested steps and lets in only what its mask allows.

        It needs the sync slot free to start, and does not take it. ``on_owner_loss``: what becomes
        of it when this controller dies or closes: "release" frees the VM, "orphan" keeps the job,
        mask in force, until somebody adopts or discards it. Else as `begin`; never refused by
        ``max_queued``. Source: ``virDomainObjBeginAsyncJob``.
        """
        wish = arguments.long(vm, kind, on_owner_loss, api)
        return AsyncJobLease(
            self._runner, self._runner.run(arguments.begin(self._me, vm, wish, wait))
        )

    # -- async jobs of others ------------------------------------------------------------------

    def adopt(self, vm: str, kind: AsyncJobLike, *, api: str = "") -> AsyncJobLease:
        """Become the owner of an async job of type ``kind`` that was detached, or is an orphan.

        Phase, progress, mask and ``on_owner_loss`` are as its last owner left them; the token is
        new, and larger. Does not wait. Raises, and the job is not held: NotOwner (its owner lives,
        or another was first), WrongJob (there is none, or of another type), and as `begin`.
        If it is cancelled, the job is left as it was.
        Source: ``qemuDomainObjStartJobPhase``, and libvirt's recovery after a restart.
        """
        return AsyncJobLease(
            self._runner, self._runner.run(arguments.adopt(self._me, vm, kind, api))
        )

    def abort(
        self, vm: str, *, reason: str = "", api: str = "", wait: Seconds | None = None
    ) -> JobStatus:
        """Ask the VM's async job to stop: its owner is told at once, and decides.

        Begins an abort job for that, as `begin` with ``wait`` does, and ends it. ``reason``, for
        people: at most 255 printable characters. The first request stands. Returns the job that
        was asked; one without an owner keeps the request for who adopts it. Raises WrongJob (no
        async job runs), and as `begin` and `Lease.end`. Source: ``virDomainAbortJob``.
        """
        return self._runner.run(arguments.abort(self._me, vm, reason, api, wait))

    def discard(self, vm: str) -> JobStatus:
        """End the VM's async job if it has no owner: it was detached, or is an orphan.

        Its steps end with it, by force. Returns what was discarded. Raises WrongJob (no async job
        runs), NotOwner (its owner lives), BackendUnavailable, OutcomeUnknown (call it again).
        """
        return self._runner.run(discard(self._me, check_vm(vm)))

    def evict(self, vm: str, tickets: Iterable[str]) -> Sequence[JobStatus]:
        """Break jobs by force, whoever holds or waits by these ``tickets`` (`JobStatus.ticket`).

        For an operator: their holders may be at work, and only a guard keeps them off the VM once
        the next has come. They are told at once, their leases are lost, their late end changes
        nothing. With an async job go its steps. A waiter that lives loses its place and no more: it
        asks again, at the end of the line. Returns those that were there. Raises BadRequest,
        BackendUnavailable, OutcomeUnknown (call it again).
        """
        return self._runner.run(evict(self._me, check_vm(vm), arguments.tickets(vm, tickets)))

    # -- looking -------------------------------------------------------------------------------

    def status(self, vm: str) -> VMStatus:
        """Who holds and who waits, read without a job, in two round trips.

        Raises BackendUnavailable, RecordError, BadRequest, ClientClosed.
        """
        return self._runner.run(status(self._me, check_vm(vm)))

    def list(self) -> Sequence[VMStatus]:
        """The status of every VM that is not idle, by name; not one moment's picture.

        Raises BackendUnavailable, RecordError, ClientClosed.
        """
        return self._runner.run(statuses(self._me))

    def orphans(self) -> Sequence[VMStatus]:
        """The status of every VM whose async job has no owner: to be adopted, or discarded.

        Raises BackendUnavailable, RecordError, ClientClosed.
        """
        return self._runner.run(orphans(self._me))

    # -- end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the session and with it, at once, all that it holds and waits for.

        Whoever waits in another thread gets ClientClosed. Closing twice is allowed, and so is
        closing a forked copy, which changes nothing. Raises BackendUnavailable or OutcomeUnknown
        if the store does not answer: then the session ends with its TTL; the client is closed. In a
        callback of this client BadRequest, and it is not closed.
        """
        if self._runner.forked:
            return
        self._refuse_callback()
        with self._runner.lock:
            if self._closed:
                return
            self._closed = True
            self._me.close()
        try:
            self._interrupt()
            for thread in self._background:
                thread.join()
            self._runner.run(close(self._me))
        finally:
            self._runner.run(make_calls(self._me))
            self._me.over = True
            self._store.close()

    def _refuse_callback(self) -> None:
        """Raises BadRequest in a callback of this client, for whose end closing it waits."""
        if threading.current_thread() in self._background:
            raise BadRequest(
                "a client can't be closed in a callback of its own, for whose end it waits:"
                " let another thread close it"
            )

    def __enter__(self) -> Self:
        """Raises ClientClosed if it is closed already."""
        self._runner.check_process()
        self._me.check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except DistjobError as also:
            if error is None:
                raise
            error.add_note(f"and then closing the client failed: {also}")

    def __repr__(self) -> str:
        owner = self._me.owner
        state = "closed" if self._me.closing else "open"
        return f"<Client {owner.controller} ({owner.host}, pid {owner.pid}), {state}>"

    def _of(self, vm: str) -> Client:  # noqa: ARG002  there is but this one
        return self

    def _keep(self, name: str) -> None:
        """A thread in the background. It must never die silently: leases depend on it."""
        try:
            self._runner.run(BACKGROUND[name](self._me))
        except BaseException:
            log.exception("distjob: %s has died; all leases of this client are lost", name)
            with self._runner.lock:
                if self._me.session:
                    self._me.lose(self._me.session, f"{name} has died, see the log")
                self._me.close()
            self._runner.run(make_calls(self._me))
            raise

    def _interrupt(self) -> None:
        try:
            self._store.interrupt()
        except BackendUnavailable as error:
            log.info("distjob: closing without waking the background: %s", error)
