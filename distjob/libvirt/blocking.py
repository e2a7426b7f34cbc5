"""`Domains`, for threads: short calls in the caller's thread, long ones in one of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

from distjob.client import Client
from distjob.drive.names import Seconds
from distjob.errors import DistjobError
from distjob.libvirt import subject
from distjob.libvirt.kill import Kill
from distjob.libvirt.plan import Held, requests
from distjob.libvirt.subject import NOTHING, Admits, Asked, Settings, Subject
from distjob.libvirt.watch import Watch
from distjob.rules.jobs import (
    DEFAULT_MASK,
    AgentJobLike,
    AsyncJobLike,
    JobLike,
    OnOwnerLoss,
    OnOwnerLossLike,
)


class Domains:
    """Domains whose calls take libvirt's jobs, by one client of distjob's. Thread-safe."""

    def __init__(
        self,
        jobs: Client,
        *,
        wait: Seconds | None = None,
        guard: Admits | None = None,
        unknown: JobLike | None = None,
    ) -> None:
        """For the client ``jobs``, which stays the caller's, to be closed by it.

        ``wait``: seconds for each begin; the client's default if None. ``guard``: it admits the
        fence of the job that is held before each call, see `distjob.fencing.Guard`. ``unknown``:
        the sync job under which calls go that the table does not know, say of a newer libvirt; they
        are refused if None. Raises BadRequest.
        """
        self._settings = Settings(Client, jobs, wait, guard, unknown)

    def domain(self, dom: Any) -> Domain:
        """``dom``, a libvirt.virDomain, with calls that take their jobs first. Begins nothing.

        Raises BadRequest if it is none.
        """
        return Domain(self._settings, dom)

    def createXML(self, conn: Any, xml: str, flags: int = 0) -> Domain:  # noqa: N802
        """Make and start a transient domain on the libvirt.virConnect ``conn``, as an async job
        ``start``. ``xml`` names the VM by its ``<uuid>``; if it has none, one is put in.

        Raises as `Client.begin_async`, libvirt.libvirtError, BadRequest (no XML).
        """
        return self._made(subject.created(conn, xml, flags))

    def restore(self, conn: Any, file: str, dxml: str | None = None, flags: int = 0) -> Domain:
        """Start the domain that was saved in ``file`` on the host of ``conn``, as an async job
        ``start``; which VM that is stands in the file. Raises as `createXML`.
        """
        return self._made(subject.restored(conn, file, dxml, flags))

    def _made(self, birth: subject.Birth) -> Domain:
        holder = _Holder(self._settings, birth.vm, None)
        with holder.hold(birth.asked, NOTHING) as held:
            return Domain(self._settings, birth.found(holder.do(birth.asked, held)))


class Part(Subject):
    """A snapshot or a checkpoint, or a whole domain: libvirt's object, its calls under jobs."""

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        asked = self._asked(name, args, options)
        holder = _Holder(self._settings, self.vm, self._domain)
        if asked.takes == subject.NO_JOB:
            result = asked.do()
        elif subject.kills(asked):
            result = self._kill(asked)
        else:
            with holder.hold(asked, self._held) as held:
                result = holder.do(asked, held)
        return subject.wrapped(result, self._wrap)

    def _wrap(self, raw: Any) -> Part:
        return (Domain if subject.kind_of(raw) == "virDomain" else Part)(self._settings, raw)

    def _kill(self, asked: Asked) -> Any:
        kill = Kill(asked, self._domain)
        holder = _Holder(self._settings, self.vm, None)  # it asks for the state by itself
        kill.first()
        if self._held.lease is not None:
            return kill.again()
        try:
            with holder.hold(asked, NOTHING) as held:
                return holder.do(asked._replace(do=kill.again), held)
        except DistjobError as error:
            kill.explain(error)
            raise


class Domain(Part):
    """A virDomain whose methods take the jobs that libvirt's own take, on all hosts at once.

    They have libvirt's names, arguments, results and errors. They raise what `Client.begin` raises,
    too, and then nothing was done; or, of the job's end, what `Lease.end` raises: then it was done.
    The VM's name is the domain's UUID. What libvirt returns of domains, snapshots and checkpoints
    is wrapped as well. Thread-safe.
    """

    def job(
        self,
        job: JobLike | AsyncJobLike | None = None,
        *,
        agent: AgentJobLike | None = None,
        mask: Iterable[JobLike] | None = None,
        on_owner_loss: OnOwnerLossLike = OnOwnerLoss.RELEASE,
        api: str = "",
        wait: Seconds | None = None,
    ) -> AbstractContextManager[Held]:
        """A block under one job: ``with dom.job("modify") as held:``. The calls of this VM that the
        same thread makes inside go under it.

        ``job``: a sync job; or an async one, in which long calls of that kind go, and others as its
        steps; None for ``agent`` alone. ``agent``: a job of the guest agent, to be held with it.
        ``mask``: what an async job lets in; libvirt's for its kind if None. ``on_owner_loss``,
        ``api``, ``wait``: as for `Client.begin_async`. ``held.state`` was asked after the begin.

        Entering raises as `Client.begin`, and libvirt.libvirtError if the domain is gone; a call
        inside raises BadRequest if the block's job is too weak for it, LeaseLost if it is lost.
        """
        asked = subject.block_of(self.vm, job, agent, mask, api)
        return self._block(asked, on_owner_loss, wait)

    @contextmanager
    def _block(
        self, asked: Asked, on_owner_loss: OnOwnerLossLike, wait: Seconds | None
    ) -> Iterator[Held]:
        holder = _Holder(self._settings, self.vm, self._domain, on_owner_loss, wait)
        with holder.hold(asked, self._held) as held, self._within(held):
            yield held

    @contextmanager
    def adopt(self, kind: AsyncJobLike, *, api: str = "") -> Iterator[Held]:
        """A block under an async job that its owner has detached, or left as an orphan: the other
        end of a migration, or what comes after a crash. As `job`; entering raises as
        `Client.adopt`.
        """
        jobs, holder = self._settings.jobs, _Holder(self._settings, self.vm, self._domain)
        with (
            jobs.adopt(self.vm, kind, api=api) as lease,
            holder.attended(holder.seen(Held(lease=lease, long=lease, newest=lease))) as held,
            self._within(held),
        ):
            held.watch.going_on = subject.goes_on(held.long.kind)
            yield held


class _Holder:
    """Begins, for one call or block on one VM, what it takes, and makes the call."""

    def __init__(
        self,
        settings: Settings,
        vm: str,
        domain: Any,
        on_owner_loss: OnOwnerLossLike = OnOwnerLoss.RELEASE,
        wait: Seconds | None = None,
    ) -> None:
        self._settings = settings
        self._vm = vm
        self._domain = domain
        self._on_owner_loss = on_owner_loss
        self._wait = settings.wait if wait is None else wait

    @contextmanager
    def hold(self, asked: Asked, held: Held) -> Iterator[Held]:
        """Hold what ``asked`` takes beside ``held``, for the block; the state is asked anew."""
        begins = requests(self._vm, asked.what, asked.takes, held)
        if not begins:
            held.check()
            if asked.takes.kind is not None:
                held.long.set_phase(asked.what)
            yield held
            return
        how = {
            "api": asked.api or asked.what,
            "wait": self._wait,
            "on_owner_loss": self._on_owner_loss,
        }
        with ExitStack() as stack:
            for one in begins:
                lease = stack.enter_context(one.open(self._settings.jobs, self._vm, held, how))
                held = held.plus(one, lease)
                if one.kind is not None:
                    if one.mask != DEFAULT_MASK:
                        lease.allow(*one.mask)
                    held = stack.enter_context(self.attended(held))
            yield self.seen(held)

    def seen(self, held: Held) -> Held:
        """With the domain's state as it is now; libvirtError if there is no domain any more."""
        return held if self._domain is None else held._replace(state=self._domain.state())

    @contextmanager
    def attended(self, held: Held) -> Iterator[Held]:
        """Have the async job of ``held`` stop libvirt's when it must; wait for what goes on."""
        bell = threading.Event()
        watch = Watch(self._domain, bell)
        held.long.on_abort(watch.stop)
        held.long.on_lost(watch.stop)
        held = held._replace(watch=watch)
        try:
            yield held
        except BaseException:
            watch.stop()
            if watch.going_on and not held.long.ended:
                _attend(held, watch.has_ended)
            raise
        if watch.going_on and not held.long.ended:
            _attend(held, watch.has_ended)
            watch.judge()

    def do(self, asked: Asked, held: Held) -> Any:
        """Make the call, under what is held."""
        do = subject.under(self._settings, self._vm, held, asked.do)
        if asked.takes.kind is None:
            return do()
        if subject.goes_on(asked.takes.kind):
            do = held.watch.outlived(do)
        future: Future[Any] = Future()
        future.add_done_callback(lambda _: held.watch.bell.set())
        worker = threading.Thread(target=_run, args=(future, do), name="distjob-libvirt")
        _attend(held, future.done, worker.start, future.cancel)
        return future.result()


def _run(future: Future[Any], do: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(do())
    except BaseException as error:  # noqa: BLE001  the caller's thread raises it
        future.set_exception(error)


def _attend(
    held: Held,
    over: Callable[[], bool],
    start: Callable[[], None] = subject.nothing,
    cancel: Callable[[], bool] = bool,
) -> None:
    """Wait until ``over``, telling the progress and passing on an abort; ``start`` it before.

    Ctrl-C aborts libvirt's job, unless ``cancel`` has kept it from starting, and is raised when it
    is over: the job is held for as long as libvirt is at it.
    """
    watch: Watch[threading.Event] = held.watch
    interrupted: BaseException | None = None

    def look() -> None:
        watch.bell.wait(watch.pause)
        watch.bell.clear()
        if not over() and (found := watch.look()):
            with suppress(DistjobError):  # for people; of a loss, the job's end tells
                held.long.set_progress(*found)

    step = start
    while True:
        try:
            step()
        except BaseException as error:  # noqa: BLE001  raised below
            interrupted = error
            if not cancel():
                watch.stop()
        if over():
            break
        step = look
    if interrupted is not None:
        raise interrupted
