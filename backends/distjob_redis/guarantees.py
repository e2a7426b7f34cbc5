"""What the store promises by topology, if all servers have each write on disk before they answer.

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
    "durable": True,  # with `appendfsync always`; else a crash can lose seconds
    "versions_survive_loss": True,
}
PROMISES: Mapping[str, Guarantees] = {
    "single": Guarantees(**_ALL),
    "sentinel": Guarantees(**_ALL, failover="lossy"),
    "cluster": Guarantees(**_ALL, failover="lossy", versions="shard"),
}
