"""What the author of a store writes for `FaultContract`: where a server is, and how to hurt it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import pytest

from distjob.config import Settings, load, open_backend, open_backend_async
from distjob.store import AsyncStore, Store

Ability = Literal[
    "network", "restart", "freeze", "reformat", "namespaces", "secured", "small", "fork", "ends"
]


class At(msgspec.Struct, frozen=True, kw_only=True):
    """How one store is connected."""

    address: str
    """"host:port", of the server or of a proxy that leads to it."""
    namespace: str
    ttl: float
    timeout: float
    more: Mapping[str, Any] = {}
    """Keys of the section besides, as `Harness.secured` gives them."""


class Harness:
    """One server of the store's, shared by many tests: each leaves it as it was.

    Override what there is; what there is not, say in `cannot`.
    """

    cannot: Mapping[Ability, str] = {}
    """What the store, or its server, has not, each with the reason: its tests are skipped."""
    host, port = "127.0.0.1", 0
    """Of the server; "network": proxies lead to it."""
    ends_of_a_forked_child: Sequence[int] = (7,)
    """Exit codes on asyncio; more than 7 where the client library may crash in the fork itself."""

    def section(self, at: At) -> tuple[str, Mapping[str, Any]]:
        """The name of the backend, and its section in a settings file."""
        raise NotImplementedError

    def opened(self, at: At) -> Store:
        """A blocking store."""
        return open_backend(load(self.settings(at)))

    async def opened_async(self, at: At) -> AsyncStore:
        """The same for the event loop that runs."""
        settings: Settings = load(self.settings(at))
        return await open_backend_async(settings)

    def settings(self, at: At) -> Mapping[str, Any]:
        """What a settings file would hold."""
        name, section = self.section(at)
        return {
            "backend": name,
            "namespace": at.namespace,
            "session": {"ttl": at.ttl},
            name: {**section, **at.more},
        }

    # -- what can be done to the server --------------------------------------------------------

    def stop(self) -> None:
        """End it without warning; "restart"."""
        raise NotImplementedError

    def start(self) -> None:
        """Have it run again, with its data; returns when it is ready."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Have it hang, as by SIGSTOP; "freeze"."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Have it go on."""
        raise NotImplementedError

    def reformat(self, namespace: str) -> None:
        """Write into the server that a future release keeps ``namespace``; "reformat"."""
        raise NotImplementedError

    def secured(self) -> Secured:
        """A server that speaks TLS, and asks for a certificate of the client's; "secured"."""
        raise NotImplementedError

    def small(self) -> str:
        """The address of a server that is full after some ten megabytes; "small"."""
        raise NotImplementedError

    # -- for the tests -------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """As clients name the server."""
        return f"{self.host}:{self.port}"

    def need(self, *abilities: Ability) -> None:
        """Skip the test where one of them is not there."""
        for ability in abilities:
            if ability in self.cannot:
                pytest.skip(f"{ability}: {self.cannot[ability]}")


class Secured(msgspec.Struct, frozen=True, kw_only=True):
    """A server with TLS, and keys of the section that do and do not let in."""

    address: str
    right: Mapping[str, Any]
    wrong: Sequence[Mapping[str, Any]]
    """Another CA, no certificate of one's own, no TLS, ..."""
