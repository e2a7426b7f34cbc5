"""The lock of what clients in several threads and loops share, and the bells of all of them."""

from __future__ import annotations

import threading

from distjob.backend.world import Bell


class Changed:
    """What is held around each verb, and rings for all who listen when there is something to hear.

    Of threads, as clients of one server may live in several event loops; it is held for moments.
    """

    def __init__(self) -> None:
        self.bells: set[Bell] = set()
        self._lock = threading.Lock()

    def notify_all(self) -> None:
        for bell in self.bells:
            bell.ring()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self._lock.release()
