"""The command: which store, how much of everything, and tidying up."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence

import msgspec

from distjob.config import Settings, load
from distjob.errors import ConfigError
from distjob.testing import bench
from distjob.testing.bench import crowd, parts
from distjob.testing.bench.yardstick import Yardstick


def yardstick(settings: Settings) -> Yardstick:
    """The yardstick of the backend that ``settings`` name. Raises `ConfigError` if it has none."""
    match settings.backend:
        case "redis":
            from distjob.testing.bench.on_redis import RedisYard

            return RedisYard(settings)
        case "etcd":
            from distjob.testing.bench.on_etcd import EtcdYard

            return EtcdYard(settings)
        case "zookeeper":
            from distjob.testing.bench.on_zookeeper import ZookeeperYard

            return ZookeeperYard(settings)
    raise ConfigError(f"there is no yardstick for the backend {settings.backend!r}")


def play_together(settings: Settings, players: int, rounds: int) -> None:
    """The crowd, and tidying up after it."""
    try:
        crowd.tell(crowd.play(settings, players, rounds), players)
    finally:
        if settings.backend != "sqlite":  # where nothing stays of a namespace
            yardstick(settings).close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m distjob.testing.bench",
        description=bench.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument(
        "--players", type=int, metavar="N", help="only a crowd: N processes that play for one VM"
    )
    fresh = f"bench-{secrets.token_hex(4)}"
    parser.add_argument("--namespace", default=fresh, help="one of its own if left out")
    options = parser.parse_args(arguments)
    if options.players is not None and options.players < 2:
        parser.error("--players: a crowd is two at least")
    share = 10 if options.quick else 1
    settings = msgspec.structs.replace(load(options.config), namespace=options.namespace)
    if options.players:
        play_together(settings, options.players, rounds=max(5, 600 // share // options.players))
        return 0
    yard = yardstick(settings)
    try:
        parts.begin_and_end(yard, blocks=120 // share + 1, times=50)
        parts.hand_over(yard, settings, rounds=300 // share)
        parts.held_jobs(yard, 10_000 // share)
        if settings.backend == "redis" and not (
            settings.section.sentinel or settings.section.cluster
        ):
            from distjob.testing.bench.on_redis_asyncio import many_tasks

            many_tasks(settings, tasks=1000 // share, pairs=5, blocks=11 // share + 1)
    finally:
        yard.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
