"""Blocks, medians, and how they are told."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter


def seconds(call: Callable[[], object], times: int) -> float:
    """Of one call, on average over ``times`` of them."""
    started = perf_counter()
    for _ in range(times):
        call()
    return (perf_counter() - started) / times


def ratios(
    ours: Callable[[], object], others: Sequence[Callable[[], object]], times: int, blocks: int
) -> list[list[float]]:
    """For each of ``others``: ours / it, one ratio a block; all take turns within each block."""
    calls = (*others, ours)
    for call in calls:
        seconds(call, times)
    rows = [[seconds(call, times) for call in calls] for _ in range(blocks)]
    return [sorted(row[-1] / row[place] for row in rows) for place in range(len(others))]


def spread(values: Sequence[float]) -> str:
    """Median, least and largest."""
    return (
        f"{statistics.median(values):.2f} (min {min(values):.2f}, max {max(values):.2f}"
        f" of {len(values)} blocks)"
    )


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """What was asked of the server in between."""
    rise = {name: count - before.get(name, 0) for name, count in after.items()}
    told = [f"{count} {name}" for name, count in sorted(rise.items()) if count]
    return ", ".join(told) or "nothing"


def resident() -> int:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def say(what: str, result: str) -> None:
    """One line."""
    print(f"{what:<60} {result}", flush=True)
