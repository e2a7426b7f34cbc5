"""A lock of tooz's: while it is acquired, the job "modify" of the VM that bears its name is held.

tooz's promises and none but them, except for `Lock.fence`. distjob's errors become tooz's here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import tooz
from tooz import coordination, locking, utils

from distjob.client import Client
from distjob.drive.names import MAX_WAIT
from distjob.errors import (
    BackendUnavailable,
    ConfigError,
    DistjobError,
    JobTimeout,
    LeaseLost,
    NotOwner,
    OutcomeUnknown,
)
from distjob.lease import Lease
from distjob.rules.fence import Fence
from distjob.rules.jobs import Job, Slot
from distjob.tooz.naming import vm_of

API = "tooz lock"
"""What a lock's job is known by."""


@contextmanager
def tooz_errors() -> Iterator[None]:
    """What distjob raises in this block is raised as tooz's error for it."""
    try:
        yield
    except (BackendUnavailable, ConfigError) as error:
        _raise_as(coordination.ToozConnectionError, error)
    except OutcomeUnknown as error:
        _raise_as(coordination.OperationTimedOut, error)
    except DistjobError as error:
        _raise_as(tooz.ToozError, error)


def _raise_as(kind: type[tooz.ToozError], error: DistjobError) -> NoReturn:
    raise kind(str(error), cause=error) from error


class Lock(locking.Lock):
    """A lock that other coordinators, and other locks of its name, are kept out of.

    It is not reentrant: who has it and acquires it again, waits. Thread-safe; whoever releases it
    need not be the thread that has acquired it.
    """

    def __init__(self, client: Callable[[], Client], name: bytes, acquired: set[Lock]) -> None:
        """``client``: what returns the started coordinator's client, or raises ToozError.

        ``acquired``: the coordinator's, which keeps them: one that nobody keeps is not released.
        """
        super().__init__(name)
        self._client = client
        self._vm = vm_of(name)
        self._lease: Lease | None = None
        self._acquired = acquired
        self._mutex = threading.Lock()

    def acquire(
        self,
        blocking: bool | float = True,
        shared: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Acquire it; False if it was not to be had in time.

        ``blocking``: False: do not wait. A number: seconds to wait, in place of ``timeout``;
        without both it waits for as long as it takes. Raises tooz.NotImplemented if ``shared``;
        ToozConnectionError (not acquired), OperationTimedOut (it may be, to nobody's knowledge,
        until that is undone in the background), ToozError.
        """
        if shared:
            raise tooz.NotImplemented("a lock of distjob's is exclusive")
        waits, seconds = utils.convert_blocking(blocking, timeout)
        with tooz_errors():
            if not waits:
                lease = self._client().try_begin(self._vm, Job.MODIFY, api=API)
                if lease is None:
                    return False
            else:
                patience = MAX_WAIT if seconds is None else seconds
                try:
                    lease = self._client().begin(self._vm, Job.MODIFY, api=API, wait=patience)
                except JobTimeout:
                    return False
        with self._mutex:
            self._lease = lease
            self._acquired.add(self)
        return True

    def release(self) -> bool:
        """Release it; False if it was not acquired, or is not any more: broken, or lost.

        Raises OperationTimedOut: it is released in the background then.
        """
        with self._mutex:  # whoever waits for this very lock may have it a moment later
            lease, self._lease = self._lease, None
            self._acquired.discard(self)
        if lease is None:
            return False
        with tooz_errors():
            try:
                lease.end()
            except (LeaseLost, NotOwner):
                return False
        return True

    def break_(self) -> bool:
        """Release it by force, whoever has acquired it; False if nobody has.

        Who had it is told as of any loss, and its late release changes nothing. A job on the VM
        of this name that is no lock is not touched.
        """
        with tooz_errors():
            client = self._client()
            tickets = [
                holder.ticket
                for holder in client.status(self._vm).holders
                if holder.slot is Slot.SYNC and holder.api == API
            ]
            return bool(tickets) and bool(client.evict(self._vm, tickets))

    def is_still_owner(self) -> bool:
        """Whether it is acquired through this very object; the store is asked.

        Raises ToozConnectionError if the store can't be asked.
        """
        lease = self._lease
        if lease is None or lease.lost:
            return False
        with tooz_errors():
            holders = self._client().status(self._vm).holders
        return any(holder.token == lease.token for holder in holders)

    def heartbeat(self) -> bool:
        """Whether it is acquired and not known to be lost. The coordinator renews it by itself."""
        lease = self._lease
        return lease is not None and not lease.lost

    @property
    def acquired(self) -> bool:
        """Whether it was acquired and not released since, though it be lost meanwhile."""
        return self._lease is not None

    @property
    def fence(self) -> Fence | None:
        """What this grant made void, for a guard (see `distjob.fencing`); None: not acquired."""
        lease = self._lease
        return None if lease is None else lease.fence
