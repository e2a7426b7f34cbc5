"""Beside a long call: how far it has come, and its abort. Makes libvirt's calls; begins no job.

A request to abort reaches the owner of a job, who passes it on to libvirt by ``abortJob``. It may
come before libvirt has begun, or between two of its steps, so it is repeated until the call has
returned. A lease that is lost stops the call, too: the VM may be another's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import libvirt

from distjob.libvirt.subject import failed_as

PAUSE = 1.0
"""Seconds from one look to the next: a lease writes its progress no more often."""
AGAIN = 0.1
"""Seconds from one abort to the next, while libvirt has nothing to abort yet."""


class Bell(Protocol):
    """A `threading.Event` or an `asyncio.Event`."""

    def set(self) -> None: ...


B = TypeVar("B", bound=Bell)


class Progress(NamedTuple):
    """What `set_progress` is told."""

    done: float
    total: float | None
    unit: str = "bytes"


class Watch(Generic[B]):
    """Of one async job: whether it is to stop, and what libvirt says of it.

    `stop` is a callback of the client's. Whoever waits for the call takes one `look` every `pause`
    seconds, and when the ``bell`` rings.
    """

    def __init__(self, domain: Any, bell: B) -> None:
        self._domain = domain
        self.bell = bell
        self._tells = self._aborts = True
        self.stopping = False
        self.going_on = False
        """Whether libvirt's job has outlived the call that began it, as a backup does."""

    @property
    def pause(self) -> float:
        return AGAIN if self.stopping else PAUSE

    def stop(self, *_: object) -> None:
        """Have libvirt's job aborted: a callback for `on_abort` and `on_lost`."""
        self.stopping = True
        self.bell.set()

    def look(self) -> Progress | None:
        """Abort if that is wanted; else how far libvirt's job has come, if it tells."""
        if self._domain is None:  # it is being made
            return None
        if self.stopping:
            self._abort()
            return None
        return self._progress()

    def _abort(self) -> None:
        if not self._aborts:
            return
        try:
            self._domain.abortJob()
        except libvirt.libvirtError as error:
            # "No job is active": it has ended, or not begun. What else is wrong, the call tells.
            self._aborts = not failed_as(error, "VIR_ERR_NO_SUPPORT")

    def _progress(self) -> Progress | None:
        if not self._tells:
            return None
        try:
            stats = self._domain.jobStats()
        except libvirt.libvirtError as error:
            # A driver that can't tell is not asked again; the domain may be gone or busy.
            self._tells = not failed_as(error, "VIR_ERR_NO_SUPPORT")
            return None
        if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
            return None
        kind = "data" if "data_processed" in stats else "disk"  # of a backup
        if (done := stats.get(f"{kind}_processed")) is None:
            return None
        return Progress(float(done), float(stats.get(f"{kind}_total", 0)) or None)

    def outlived(self, do: Callable[[], Any]) -> Callable[[], Any]:
        """``do``, whose job in libvirt goes on when it has returned, whoever has noticed."""

        def call() -> Any:
            result = do()
            self.going_on = True
            return result

        return call

    def has_ended(self) -> bool:
        """Whether libvirt's job, which had outlived its call, is over; or the domain is.

        Raises libvirt.libvirtError if the connection is lost: nobody can be asked any more.
        """
        try:
            return bool(self._domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE)
        except libvirt.libvirtError as error:
            if not self._domain.connect().isAlive():
                raise
            # Else it may be busy, or just beginning.
            return failed_as(error, "VIR_ERR_NO_DOMAIN", "VIR_ERR_OPERATION_INVALID")

    def judge(self) -> None:
        """Raise libvirt.libvirtError if the job that `has_ended` has not done what it should.

        That an owner has ended it by ``abortJob``, as is right in pull mode, is no failure.
        """
        if self.stopping:
            raise libvirt.libvirtError("operation aborted: backup: the job was asked to stop")
        stats = self._domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        if not stats.get("success"):
            raise libvirt.libvirtError(
                f"backup failed: {stats.get('errmsg') or 'libvirt does not tell why'}"
            )
