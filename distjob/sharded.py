"""`connect`, and the client of a store that has several shards: one `Client` in each that it uses.

A shard is a store of its own, with a session of its own: its loss costs the jobs that are on it,
and no others. Which shard has a VM is said by shards.py; what is done there is the client's.
"""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, Self

from distjob.client import Client
from distjob.config import Settings, load, open_backend, shards_of
from distjob.drive.blocking import check_fork
from distjob.drive.names import Seconds, check_vm
from distjob.errors import BackendUnavailable, ClientClosed, DistjobError
from distjob.hooks import Hook
from distjob.lease import AsyncJobLease, Lease
from distjob.protocol.look import JobStatus, VMStatus
from distjob.protocol.state import CLOSED
from distjob.rules.jobs import AgentJobLike, AsyncJobLike, JobLike, OnOwnerLoss, OnOwnerLossLike
from distjob.rules.shards import shard_of
from distjob.store import Guarantees, Store


class ShardedClient(Client):
    """A `Client` over several stores, of which each has its share of the VMs.

    A shard is connected to, and a session opened in it, when it is first used. Each method is that
    of the client there, and raises BackendUnavailable if that shard can't be reached; `list` and
    `orphans` ask all of them.
    """

    def __init__(self, shards: Sequence[Callable[[], Store]], **options: Any) -> None:
        """``shards``: what opens each store, in the order of their numbers; ``options``: as
        `Client` takes them, for the client of each.

        Connects to the first that can be reached, so that mistakes are told now. Raises
        BackendUnavailable if none can, and what else opening and `Client` raise.
        """
        self._opens = shards
        self._options = options
        self._clients: dict[int, Client] = {}
        self._locks = [threading.Lock() for _ in shards]
        self._shut = False
        self._pid = os.getpid()
        self._first = self._open_one()

    def _open_one(self) -> Client:
        for number in range(len(self._opens) - 1):
            try:
                return self._shard(number)
            except BackendUnavailable:
                continue  # its jobs are out of reach, those of the others are not
        return self._shard(len(self._opens) - 1)

    def _shard(self, number: int) -> Client:
        """The client of this shard, opened if it was not used yet; who comes meanwhile waits."""
        check_fork(self._pid)
        with self._locks[number]:
            if self._shut:
                raise ClientClosed(CLOSED)
            if number not in self._clients:
                self._clients[number] = Client(self._opens[number](), **self._options)
            return self._clients[number]

    def _of(self, vm: str) -> Client:
        return self._shard(shard_of(check_vm(vm), len(self._opens)))

    def _all(self) -> builtins.list[Client]:
        return [self._shard(number) for number in range(len(self._opens))]

    @property
    def guarantees(self) -> Guarantees:
        return self._first.guarantees

    def begin(
        self,
        vm: str,
        job: JobLike,
        *,
        agent: AgentJobLike | None = None,
        api: str = "",
        wait: Seconds | None = None,
    ) -> Lease:
        return self._of(vm).begin(vm, job, agent=agent, api=api, wait=wait)

    def try_begin(
        self, vm: str, job: JobLike, *, agent: AgentJobLike | None = None, api: str = ""
    ) -> Lease | None:
        return self._of(vm).try_begin(vm, job, agent=agent, api=api)

    def begin_agent(
        self, vm: str, job: AgentJobLike, *, api: str = "", wait: Seconds | None = None
    ) -> Lease:
        return self._of(vm).begin_agent(vm, job, api=api, wait=wait)

    def begin_async(
        self,
        vm: str,
        kind: AsyncJobLike,
        *,
        mask: Iterable[JobLike] | None = None,
        on_owner_loss: OnOwnerLossLike = OnOwnerLoss.RELEASE,
        api: str = "",
        wait: Seconds | None = None,
    ) -> AsyncJobLease:
        there = self._of(vm)
        return there.begin_async(
            vm, kind, mask=mask, on_owner_loss=on_owner_loss, api=api, wait=wait
        )

    def adopt(self, vm: str, kind: AsyncJobLike, *, api: str = "") -> AsyncJobLease:
        return self._of(vm).adopt(vm, kind, api=api)

    def abort(
        self, vm: str, *, reason: str = "", api: str = "", wait: Seconds | None = None
    ) -> JobStatus:
        return self._of(vm).abort(vm, reason=reason, api=api, wait=wait)

    def discard(self, vm: str) -> JobStatus:
        return self._of(vm).discard(vm)

    def evict(self, vm: str, tickets: Iterable[str]) -> Sequence[JobStatus]:
        return self._of(vm).evict(vm, tickets)

    def status(self, vm: str) -> VMStatus:
        return self._of(vm).status(vm)

    def list(self) -> Sequence[VMStatus]:
        return by_name(found for client in self._all() for found in client.list())

    def orphans(self) -> Sequence[VMStatus]:
        return by_name(found for client in self._all() for found in client.orphans())

    def close(self) -> None:
        if os.getpid() != self._pid:
            return
        for client in list(self._clients.values()):
            client._refuse_callback()  # noqa: SLF001  of the same family, and no user's business
        self._shut = True
        errors: list[DistjobError] = []
        for number, lock in enumerate(self._locks):
            with lock:  # one that is being opened is closed, too
                used = self._clients.get(number)
            try:
                if used is not None:
                    used.close()
            except DistjobError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def __enter__(self) -> Self:
        check_fork(self._pid)
        if self._shut:
            raise ClientClosed(CLOSED)
        return self

    def __repr__(self) -> str:
        used = f"{len(self._clients)} of {len(self._opens)} shards in use"
        return f"<{type(self).__name__}, {used}: {self._first!r}>"


def by_name(found: Iterable[VMStatus]) -> builtins.list[VMStatus]:
    return sorted(found, key=lambda status: status.vm)


def connect(
    source: str | PathLike[str] | Mapping[str, Any] | Settings | None = None,
    *,
    hooks: Iterable[Hook] = (),
) -> Client:
    """Connect a controller: the store is chosen, and reached, by ``source``.

    ``source``: path of a YAML file, a dict of the same shape, the store's URL (``redis://...``, all
    else by default), loaded settings, or None for the defaults (an SQLite file: root's is
    /var/lib/distjob/jobs.db, another user's $XDG_STATE_HOME/distjob/jobs.db or
    ~/.local/state/distjob/jobs.db; the folder is made). See docs/reference/configuration.md.
    ``hooks``: told what happens to this client's jobs, see `distjob.hooks`.
    Of a store with several shards the first that can be reached is connected to, each of the others
    when it is first used. Raises ConfigError (file, key path and what would be right),
    BackendUnavailable (it can't be reached now).
    """
    settings = load(source)
    options = options_of(settings, hooks)
    if (shards := shards_of(settings)) == 1:
        return Client(open_backend(settings), **options)
    opens = [partial(open_backend, settings, shard=number) for number in range(shards)]
    return ShardedClient(opens, **options)


def options_of(settings: Settings, hooks: Iterable[Hook]) -> dict[str, Any]:
    """What the settings say of a client, as its arguments."""
    return {
        "controller": settings.controller,
        "ttl": settings.session.ttl,
        "wait": settings.job.wait,
        "max_queued": settings.job.max_queued,
        "hooks": tuple(hooks),
    }
