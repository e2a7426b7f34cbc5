"""The guarantees of all installed backends as one table, for the docs and for people.

It decides the words for each field of `distjob.store.Guarantees`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distjob.config import backends
from distjob.store import Guarantees

_CLAIMS: tuple[tuple[str, Callable[[Guarantees], str]], ...] = (
    ("clients", lambda it: {"network": "on any host", "host": "of one host"}.get(it.reach, "")),
    ("wake-ups", lambda it: "pushed" if it.wakes == "push" else "polled"),
    ("a session's end", lambda it: "told" if it.ends == "told" else "looked for in time"),
    ("survives a restart", lambda it: _yes(it.durable)),
    ("tokens rise across loss of all data", lambda it: _yes(it.versions_survive_loss)),
    ("tokens rise over", lambda it: f"the whole {it.versions}"),
    ("fail-over", lambda it: {"lossy": "may lose the last writes"}.get(it.failover, it.failover)),
    ("shortest TTL", lambda it: f"{it.shortest_ttl:g} s" if it.shortest_ttl else "any"),
    (
        "a dead controller's jobs end within",
        lambda it: f"TTL + {it.grace:g} s" if it.grace else "TTL",
    ),
    ("an idle VM leaves", lambda it: it.idle),
    ("largest record", lambda it: f"{it.largest_value:,} bytes" if it.largest_value else "-"),
)


_SHORT = (
    "clients",
    "survives a restart",
    "fail-over",
    "tokens rise across loss of all data",
    "a dead controller's jobs end within",
)


def cells(*, short: bool = False) -> list[list[str]]:
    """Titles; then a row for each installed backend and its topologies, a column for each claim."""
    claims = [claim for claim in _CLAIMS if not short or claim[0] in _SHORT]
    titles = ["store", *(title for title, _ in claims)]
    return [titles, *([name, *(say(it) for _, say in claims)] for name, it in _stores())]


def table(*, short: bool = False) -> str:
    """The same as Markdown."""
    titles, *rows = cells(short=short)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _stores() -> Iterator[tuple[str, Guarantees]]:
    for name in sorted(backends.installed(), key=_order):
        promises = backends.find(name).promises
        for topology, promised in promises.items():
            yield f"`{name}`" + (f" {topology}" if len(promises) > 1 else ""), promised


def _order(name: str) -> tuple[bool, str]:
    return name != "sqlite", name  # the default first


def _plus(seconds: float) -> str:
    return f" + {seconds:g} s" if seconds else ""


def _yes(claimed: bool) -> str:
    return "yes" if claimed else "no"
