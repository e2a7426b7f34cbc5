"""What the store promises by topology, if all servers have an append-only file.

A fail-over, of sentinels or of a cluster, may lose the writes that the old primary acknowledged
last: replicas follow a moment later. Imports no redis-py: docs print this where it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distjob.store import Guarantees

_ALL: dict[str, Any] = {
    "reach": "network",
    "wakes": "push",
    "ends": "timed",
    # A restart replays what was acknowledged, unless the whole host goes down: then the last
    # second is lost, except with `appendfsync always`. INFO does not tell that.
    "durable": True,
    "versions_survive_loss": True,
}
PROMISES: Mapping[str, Guarantees] = {
    "single": Guarantees(**_ALL),
    "sentinel": Guarantees(**_ALL, failover="lossy"),
    "cluster": Guarantees(**_ALL, failover="lossy", versions="shard"),
}
