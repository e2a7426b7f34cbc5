"""The coordinators: a client of distjob's each, from start to stop, and what they promise.

What is promised differs by store, and tooz wants to know it of the class: hence one for each.
"""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import tooz
from tooz import coordination, utils
from tooz.coordination import Characteristics

from distjob.client import Client
from distjob.errors import BackendUnavailable, OutcomeUnknown
from distjob.hooks.logs import LogHook
from distjob.sharded import connect
from distjob.tooz.lock import Lock, tooz_errors
from distjob.tooz.naming import settings_of

log = logging.getLogger("distjob")

_LOCAL = (
    Characteristics.DISTRIBUTED_ACROSS_THREADS,
    Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
)
_ANYWHERE = (*_LOCAL, Characteristics.DISTRIBUTED_ACROSS_HOSTS)


class Driver(coordination.CoordinationDriver):
    """A coordinator whose locks are jobs. It renews its session by itself: nobody need beat.

    Thread-safe, as its locks are.
    """

    def __init__(self, member_id: bytes, parsed_url: Any, options: dict[str, Any]) -> None:
        """As tooz makes it: see `naming.settings_of` for the URL and its options."""
        super().__init__(utils.to_binary(member_id), parsed_url, options)
        self._url = parsed_url
        self._options = options
        self._client: Client | None = None
        self._acquired: set[Lock] = set()

    def get_lock(self, name: bytes) -> Lock:
        """A lock of this name, not acquired. Raises ValueError if the name is empty."""
        return Lock(self._started_client, utils.to_binary(name), self._acquired)

    def _start(self) -> None:
        with tooz_errors():
            settings = settings_of(self._url, self._options, self._member_id)
            self._client = connect(settings, hooks=[LogHook()])

    def _stop(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with tooz_errors():
            try:
                client.close()
            except (
                BackendUnavailable,
                OutcomeUnknown,
            ) as error:
                # The client is closed all the same.
                log.warning("distjob: %s; the locks end with the session, by its TTL", error)
            finally:
                self._acquired.clear()

    def _started_client(self) -> Client:
        if self._client is None:
            raise tooz.ToozError("this coordinator is not started")
        return self._client

    def watch_join_group(self, group_id: bytes, callback: object) -> NoReturn:  # noqa: ARG002
        """Not offered, as all that is about groups."""
        raise tooz.NotImplemented("distjob offers no groups")

    watch_leave_group = watch_join_group
    watch_elected_as_leader = watch_join_group


class SqliteDriver(Driver):
    """``distjob+sqlite:///var/lib/app/locks.db``."""

    CHARACTERISTICS = (*_LOCAL, Characteristics.LINEARIZABLE, Characteristics.SERIALIZABLE)


class EtcdDriver(Driver):
    """``distjob+etcd://host1,host2,host3``."""

    CHARACTERISTICS = (
        *_ANYWHERE,
        *(Characteristics.LINEARIZABLE, Characteristics.SERIALIZABLE),
        Characteristics.SAME_VIEW_UNDER_PARTITIONS,
    )


class RedisDriver(Driver):
    """``distjob+redis://host``, ``distjob+rediss://host``. A fail-over may lose the last writes."""

    CHARACTERISTICS = (*_ANYWHERE, Characteristics.CAUSAL)


class ZooKeeperDriver(Driver):
    """``distjob+zookeeper://host1,host2,host3``."""

    CHARACTERISTICS = (
        *_ANYWHERE,
        *(Characteristics.SEQUENTIAL, Characteristics.SAME_VIEW_UNDER_PARTITIONS),
    )
