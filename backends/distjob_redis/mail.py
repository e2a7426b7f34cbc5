"""Wake-ups that have arrived, until the receiver of their session comes for them."""

from __future__ import annotations

from collections.abc import Iterable

from distjob.store import Woken
from distjob_redis.keys import vm_of


class Mail:
    """Of all sessions of one client."""

    def __init__(self) -> None:
        self.missed = False
        """Whether something has come that could not be read."""
        self._arrived: list[tuple[int, Woken]] = []

    def sort(self, messages: Iterable[bytes]) -> None:
        """Keep wake-ups: "n:length:key" + "version:value", n the session's number."""
        for message in messages:
            try:
                number, length, rest = message.split(b":", 2)
                key, held = rest[: int(length)], rest[int(length) :]
                version, _, value = held.partition(b":")
                woken = Woken(vm_of(key), int(version), value if b":" in held else None)
                self._arrived.append((int(number), woken))
            except ValueError:
                self.missed = True  # not one of ours, or broken: whoever waits reads

    def has_some(self, number: int) -> bool:
        """Whether something is there for session ``number``."""
        return any(to == number for to, _ in self._arrived)

    def take(self, number: int) -> list[Woken]:
        """What is there for session ``number``; later ones' stays, earlier ones' is dropped."""
        taken = [woken for to, woken in self._arrived if to == number]
        self._arrived = [(to, woken) for to, woken in self._arrived if to > number]
        return taken
