"""The blocking client: a thin shell that runs the protocol's operations in the caller's thread.

It adds to them a background thread for the session, the process check after a fork, and the
arguments' checks. All rules are in record.py, all waiting and retrying in protocol/.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from enum import StrEnum
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

from distjob import clock
from distjob.config import Settings, load, open_backend
from distjob.driver import Runner, log
from distjob.errors import BackendUnavailable, BadRequest, DistjobError
from distjob.jobs import PLAIN_JOBS, AgentJob, AsyncJob, Job
from distjob.lease import AsyncJobLease, Lease, acquire, attempt
from distjob.names import check_label, check_ttl, check_vm, check_wait
from distjob.protocol.controller import Controller, Wish
from distjob.protocol.keeper import close, keep, open_session, tell_losses
from distjob.protocol.look import VMStatus, status, statuses
from distjob.record import Owner
from distjob.store import Guarantees, Store

E = TypeVar("E", bound=StrEnum)


class Client:
    """A controller's access to the jobs of all VMs of a namespace: one session, one thread.

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
    ) -> None:
        """Open a session on ``store``, which the client closes in the end.

        ``controller``: this process's name for people, the host's name by default. ``ttl``:
        seconds after which a controller that has died, or was cut off, has lost its jobs. ``wait``:
        seconds that begin waits by default. ``max_queued``: begin is refused when that many jobs
        of the VM are held or waited for, 0 = no limit.

        Raises BackendUnavailable, BadRequest; the store is closed then.
        """
        self._store = store
        self._closed = False
        try:
            if max_queued < 0:
                raise BadRequest(f"max_queued is {max_queued}: 0 (no limit) or more is right")
            host = socket.gethostname()
            self._me = Controller(
                Owner(check_label("a controller's name", controller or host), host, os.getpid()),
                ttl=check_ttl(ttl),
                wait=check_wait(wait),
                max_queued=max_queued,
                pushed=store.guarantees.wakes == "push",
                clock=clock,
                signal=threading.Event,
            )
            self._runner = Runner(self._me, store)
            self._runner.run(open_session(self._me))
        except BaseException:
            store.close()
            raise
        self._keeper = threading.Thread(target=self._keep, name="distjob-session", daemon=True)
        self._keeper.start()

    @property
    def guarantees(self) -> Guarantees:
        """What the store promises, and what not, as it was found at connect."""
        return self._store.guarantees

    # -- jobs ----------------------------------------------------------------------------------

    def begin(
        self,
        vm: str,
        job: Job | str,
        *,
        agent: AgentJob | str | None = None,
        api: str = "",
        wait: float | None = None,
    ) -> Lease:
        """Begin a sync job, waiting until it may start; the lease is held when this returns.

        ``vm``: 1 to 255 bytes of UTF-8. ``job``: one of `Job` but the two request-only types.
        ``agent``: an agent job to hold with it, in one request. ``api``: what the caller is
        doing, shown to whom it keeps waiting; the job's name by default. ``wait``: seconds, the
        client's default (30) if None; one deadline for everything it waits for.

        Raises, and the job is not held: JobTimeout (who is in the way), QueueFull, BadRequest,
        BackendUnavailable, RecordError, ClientClosed. OutcomeUnknown: it may be held until it is
        withdrawn in the background. Ctrl-C withdraws it. Source: ``virDomainObjBeginJob``.
        """
        return Lease(self._runner, acquire(self._runner, vm, _sync(vm, job, agent, api), wait))

    def try_begin(
        self, vm: str, job: Job | str, *, agent: AgentJob | str | None = None, api: str = ""
    ) -> Lease | None:
        """Begin a sync job if it may start now; None, without waiting, if it may not.

        Arguments and errors as `begin`, but for JobTimeout. ``max_queued`` counts here too.
        Source: ``virDomainObjBeginJobNowait``.
        """
        held = attempt(self._runner, vm, _sync(vm, job, agent, api), None)
        return Lease(self._runner, held) if held else None

    def begin_agent(
        self, vm: str, job: AgentJob | str, *, api: str = "", wait: float | None = None
    ) -> Lease:
        """Begin a job of the guest agent, which no async job keeps out. As `begin`.

        Source: ``virDomainObjBeginAgentJob``.
        """
        kind = _member(AgentJob, job, vm)
        return Lease(self._runner, acquire(self._runner, vm, Wish(api or kind, agent=kind), wait))

    def begin_async(
        self, vm: str, kind: AsyncJob | str, *, api: str = "", wait: float | None = None
    ) -> AsyncJobLease:
        """Begin a long job, which runs in nested steps and lets in only what its mask allows.

        It needs the sync slot free to start, and does not take it. As `begin`; never refused by
        ``max_queued``. Source: ``virDomainObjBeginAsyncJob``.
        """
        kind = _member(AsyncJob, kind, vm)
        wish = Wish(api or kind, job=Job.ASYNC, kind=kind)
        return AsyncJobLease(self._runner, acquire(self._runner, vm, wish, wait))

    # -- looking -------------------------------------------------------------------------------

    def status(self, vm: str) -> VMStatus:
        """Who holds and who waits, read without a job, in two round trips.

        Raises BackendUnavailable, RecordError, BadRequest, ClientClosed.
        """
        return self._runner.run(status(self._me, check_vm(vm)))

    def list(self) -> list[VMStatus]:
        """The status of every VM that is not idle, by name; not one moment's picture."""
        return self._runner.run(statuses(self._me))

    # -- end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the session and with it, at once, all that it holds and waits for.

        Whoever waits in another thread gets ClientClosed. Closing twice is allowed, and so is
        closing a forked copy, which changes nothing. Raises BackendUnavailable or OutcomeUnknown
        if the store does not answer: then the session ends with its TTL; the client is closed.
        """
        if self._runner.forked:
            return
        with self._runner.lock:
            if self._closed:
                return
            self._closed = True
            self._me.close()
        try:
            self._interrupt()
            self._keeper.join()
            self._runner.run(close(self._me))
        finally:
            self._runner.run(tell_losses(self._me))
            self._store.close()

    def __enter__(self) -> Self:
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

    def _keep(self) -> None:
        """The background thread. It must never die silently: leases depend on it."""
        try:
            self._runner.run(keep(self._me))
        except BaseException:
            log.exception("distjob: renewal has failed; all leases of this client are lost")
            with self._runner.lock:
                if self._me.session:
                    self._me.lose(self._me.session, "renewal has failed, see the log")
                self._me.close()
            self._runner.run(tell_losses(self._me))
            raise

    def _interrupt(self) -> None:
        try:
            self._store.interrupt()
        except BackendUnavailable as error:
            log.info("distjob: closing without waking the background thread: %s", error)


def connect(
    source: str | PathLike[str] | Mapping[str, Any] | Settings | None = None,
) -> Client:
    """Connect a controller: the store is chosen, and reached, by ``source``.

    ``source``: path of a YAML file, a dict of the same shape, loaded settings, or None for the
    defaults (SQLite at /var/lib/distjob/jobs.db). See docs/configuration.md. Raises ConfigError
    (file, key path and what would be right), BackendUnavailable (it can't be reached now).
    """
    settings = load(source)
    return Client(
        open_backend(settings),
        controller=settings.controller,
        ttl=settings.session.ttl,
        wait=settings.job.wait,
        max_queued=settings.job.max_queued,
    )


def _sync(vm: str, job: Job | str, agent: AgentJob | str | None, api: str) -> Wish:
    kind = _member(Job, job, vm)
    if kind not in PLAIN_JOBS:
        raise BadRequest(f"VM {vm!r}: {kind!r} is begun by begin_async() and its lease's nested()")
    both = None if agent is None else _member(AgentJob, agent, vm)
    return Wish(api or kind, job=kind, agent=both)


def _member(kinds: type[E], value: E | str, vm: str) -> E:
    if isinstance(value, kinds):
        return value
    try:
        return kinds(value)
    except ValueError:
        known = ", ".join(kinds)
        raise BadRequest(f"VM {vm!r}: {value!r} is not a job; known: {known}") from None
