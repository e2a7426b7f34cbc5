"""The errors, all under one root. A driver's own error (redis, sqlite3, ...) never leaks.

    DistjobError
     +-- JobTimeout          the wait ended and the job was not granted          not held
     +-- QueueFull           max_queued holders and waiters are there already    not held
     +-- NotOwner            it was ended, or the async job is not (any more) yours   not held
     +-- WrongJob            no async job runs, or one of another type           not held
     +-- LeaseLost           the session ended, or the job was taken by force    not held any more
     +-- OutcomeUnknown      the store's answer never came                       may be held
     +-- StaleToken          a guard has admitted a newer job                    not held any more
     +-- BackendUnavailable  the store can't be reached, nothing was changed     as before
     +-- ClientClosed        the client was closed, and its jobs were with it    not held any more
     |                       or it is another process's, or event loop's         as before
     +-- BadRequest          a VM name, job, TTL or wait that can't be (ValueError)
     +-- ConfigError         settings that can't be used: file, key path, what would be right
     +-- RecordError         the store holds bytes that this version can't read

Every error carries its facts as fields, beside the text, and survives pickling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob import foreign

if TYPE_CHECKING:
    from distjob.rules.ticket import Holder

# Here, since whoever connects comes past this file, also when __init__.py is not ours any more.
foreign.look()


class DistjobError(Exception):
    """Root of all errors that distjob raises on purpose."""


class _Refused(DistjobError):
    def __init__(
        self,
        message: str,
        *,
        vm: str = "",
        job: str = "",
        blockers: tuple[Holder, ...] = (),
        libvirt_text: str = "",
    ) -> None:
        super().__init__(message)
        self.vm = vm
        self.job = job
        self.blockers = blockers
        """Who was in the way, as the record had it at that moment."""
        self.libvirt_text = libvirt_text
        """The sentence libvirt would have said; the message begins with it."""


class JobTimeout(_Refused):
    """The job was not granted within its wait. It is not held and nothing waits any more."""


class QueueFull(_Refused):
    """``max_queued`` jobs are held or waited for already, or 10,000 wait. Nothing was changed."""


class NotOwner(DistjobError):
    """A job that was ended already, or an async job that the caller does not own (any more).

    Or one that is to be adopted, or discarded, whose owner lives.
    """


class WrongJob(DistjobError):
    """The async job that runs is of another type than the one named, or none runs."""


class LeaseLost(DistjobError):
    """The session behind a lease has ended, or the job was taken away by force.

    It may be another's by now: stop at once.
    """

    def __init__(self, message: str, *, vm: str = "", job: str = "", token: int = 0) -> None:
        super().__init__(message)
        self.vm = vm
        self.job = job
        self.token = token


class OutcomeUnknown(DistjobError):
    """The store's answer never came: the change may have been made.

    The job may be held, by nobody who knows, until it is withdrawn in the background or the
    session ends, whichever is first.
    """

    def __init__(self, message: str, *, vm: str = "", job: str = "") -> None:
        super().__init__(message)
        self.vm = vm
        self.job = job


class StaleToken(DistjobError):
    """A guard has admitted a job to which the caller's was void already: it was passed on.

    ``slot``: in which it was told so; ``highest``: the mark there, below which all is void.
    """

    def __init__(
        self, message: str, *, vm: str = "", slot: str = "", token: int = 0, highest: int = 0
    ) -> None:
        super().__init__(message)
        self.vm = vm
        self.slot = slot
        self.token = token
        self.highest = highest


class BackendUnavailable(DistjobError):
    """The store can't be reached or can't answer.

    ``unanswered`` is True when a change was sent and its reply never came, so that it may have
    been made; stores must say so. The protocol resolves it or raises `OutcomeUnknown`.
    """

    def __init__(self, message: str, *, unanswered: bool = False) -> None:
        super().__init__(message)
        self.unanswered = unanswered


class ClientClosed(DistjobError):
    """The client was closed, or was made by another process (before a fork) or event loop.

    All that needs the store raises it then, of the client's leases too.
    """


class BadRequest(DistjobError, ValueError):
    """An argument that can never be right; nothing was sent to the store."""


class ConfigError(DistjobError):
    """Settings that can't be used. Says file, key path and what would be right."""


class RecordError(DistjobError):
    """Bytes in the store that this version can't read. Nothing is granted on a guess."""
