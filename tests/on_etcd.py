"""What the etcd store's own tests share: opening one by its section, and looking inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from distjob import clock
from distjob.backend.opened import Blocking
from distjob.config import backends
from distjob.errors import BackendUnavailable
from distjob.store import AsyncStore, Committed, Event, Store
from distjob_etcd import EtcdSettings
from distjob_etcd.feed import EtcdFeed
from distjob_etcd.source import EtcdSource
from until import until

TTL = 10.0


def opened(section: EtcdSettings, namespace: str, ttl: float = TTL) -> Blocking:
    """A blocking store, by the section that a settings file would have."""
    return cast("Blocking", backends.connect("etcd", section, namespace, ttl))


async def opened_async(section: EtcdSettings, namespace: str, ttl: float = TTL) -> AsyncStore:
    """The same for the event loop that runs."""
    return await backends.connect_async("etcd", section, namespace, ttl)


def source_of(store: Any) -> EtcdSource:
    """What is behind a store, of whatever world."""
    inner = getattr(store, "verbs", None) or getattr(store, "store", store)
    source = inner.source
    assert isinstance(source, EtcdSource)
    return source


def feed_of(store: Any) -> EtcdFeed:
    """Its one feed."""
    return source_of(store)._feed


def failed(verb: Callable[[], object]) -> BackendUnavailable:
    """What ``verb`` raises."""
    with pytest.raises(BackendUnavailable) as caught:
        verb()
    return caught.value


def commit_waking(store: Store, author: str, *wake: str, value: bytes = b"woken") -> int:
    """Write ``value`` to "vm", wake ``wake`` or else the author; the new version."""
    reply = store.commit("vm", store.read("vm").version, value, author, wake or (author,))
    assert isinstance(reply, Committed)
    return reply.version


def received(store: Store, session: str, last: Event, patience: float = 20.0) -> list[Event]:
    """Events up to ``last``, whatever is raised meanwhile."""
    over = clock.monotonic() + patience
    events: list[Event] = []

    def came() -> bool:
        assert clock.monotonic() < over, events
        try:
            events.extend(store.receive(session, 1.0))
        except BackendUnavailable:
            return False
        return last in events

    until(came, patience)
    return events
