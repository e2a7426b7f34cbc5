"""What a yardstick is: the same client library, asked for less than distjob asks it for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from distjob.store import Store


class Yardstick(Protocol):
    """A client of the store's own library, with the settings that distjob uses."""

    @property
    def bare(self) -> Mapping[str, Callable[[], object]]:
        """By name: two writes, as bare as they come. The first is the one that is asked for."""

    @property
    def lock(self) -> tuple[str, Callable[[], object]]:
        """Name and call: acquire and release the library's own lock."""

    def store(self, ttl: float) -> Store:
        """A store for distjob on the same client, which the store does not close."""

    def one_write(self) -> object:
        """One round trip that writes."""

    def asked(self) -> Mapping[str, int]:
        """How many requests of each kind the server has had, as it counts them."""

    def close(self) -> None:
        """Take out of the server what the yardstick wrote, and let go of the client."""
