"""What this store promises, and what not, as data."""

from __future__ import annotations

from distjob.store import Guarantees

FILE = Guarantees(
    reach="host", wakes="poll", ends="timed", durable=True, versions_survive_loss=True
)
