"""The entry points of ``distjob.backends``: which backends are installed, and how one is opened.

Knows no backend by name. Entry points are imported only when their section or their store is
needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distjob.backend.opened import Blocking, opened
from distjob.backend.sections import Mistake
from distjob.backend.threads import Threads
from distjob.backend.world import now
from distjob.drive.choices import suggestion
from distjob.errors import ConfigError
from distjob.store import AsyncStore, Backend, Store

if TYPE_CHECKING:
    from importlib import metadata

GROUP = "distjob.backends"


def entry_points() -> Iterable[metadata.EntryPoint]:
    """What is installed; tests replace this."""
    from importlib import metadata  # with email and zipfile; who passes a store needs none of it

    return metadata.entry_points(group=GROUP)


def installed() -> Mapping[str, metadata.EntryPoint]:
    """The installed backends by name. Raises ConfigError if two packages claim one name."""
    found: dict[str, metadata.EntryPoint] = {}
    for point in entry_points():
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"two backends are named {point.name!r}: {other.value} and {point.value};"
                " uninstall one of them"
            )
    return found


def find(name: str) -> Backend:
    """The backend called ``name``, imported. Raises ConfigError if there is none that works."""
    known = installed()
    if name not in known:
        raise ConfigError(f"backend: {unknown(name, known)}")
    point = known[name]
    try:
        backend = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"backend {name!r} ({point.value}) can't be loaded: {error}") from error
    if not isinstance(backend, Backend):
        raise ConfigError(
            f"backend {name!r} ({point.value}) is a {type(backend).__name__},"
            " not a distjob.store.Backend"
        )
    return backend


def of_url(url: str) -> Mapping[str, Any]:
    """The settings that a URL stands for. Raises ConfigError, which does not show the URL."""
    scheme = url.partition(":")[0]
    schemes: list[str] = []
    for name in sorted(installed(), key=lambda name: (name != scheme, name)):
        try:
            made = find(name).urls
        except ConfigError:
            if name == scheme:
                raise
            continue  # it can't be loaded: `load` says so to who uses it
        schemes += made
        if scheme in made:
            try:
                return {"backend": name, name: made[scheme](url)}
            except Mistake as error:
                raise ConfigError(f"the URL of the store {error.right}") from None
    listed = ", ".join(f"{one}://" for one in sorted(schemes))
    raise ConfigError(
        f"no store has URLs that begin with {scheme}://{suggestion(scheme, schemes)}"
        f" (known: {listed})"
    )


def mistake(name: str, section: Any, ttl: float) -> tuple[str, str] | None:
    """The key path of what does not go with that ``ttl``, and what would be right."""
    backend = find(name)
    shortest = min((can.shortest_ttl for can in backend.promises.values()), default=0.0)
    if ttl < shortest:
        right = f"must be at least {shortest:g}: {name} has no shorter sessions"
        return "session.ttl", right
    try:
        if backend.check is not None:
            backend.check(section, ttl)
    except Mistake as found:
        return f"{name}.{found.key}", found.right
    return None


def shards(name: str, section: Any) -> int:
    """How many stores the VMs are spread over, by these settings."""
    return find(name).shards(section)


def connect(name: str, section: Any, namespace: str, ttl: float, shard: int = 0) -> Store:
    """Open the store of the backend called ``name``. Raises ConfigError, BackendUnavailable."""
    backend = _checked(name, section, ttl)
    with _extra(name, backend):
        world = Threads()
        source = backend.source(section, namespace, ttl, world, shard)
        return Blocking(now(opened(source, world, ttl)))


async def connect_async(
    name: str, section: Any, namespace: str, ttl: float, shard: int = 0
) -> AsyncStore:
    """As `connect`, for the event loop that runs."""
    backend = _checked(name, section, ttl)
    with _extra(name, backend):
        from distjob.backend.tasks import Tasks  # a blocking program needs no asyncio

        world = Tasks()
        return await opened(backend.source(section, namespace, ttl, world, shard), world, ttl)


def _checked(name: str, section: Any, ttl: float) -> Backend:
    backend = find(name)
    if not isinstance(section, backend.settings):
        raise ConfigError(
            f"{name}: must be {backend.settings.__name__}, is {type(section).__name__};"
            " use distjob.config.load"
        )
    if found := mistake(name, section, ttl):
        raise ConfigError(": ".join(found))
    return backend


@contextmanager
def _extra(name: str, backend: Backend) -> Iterator[None]:
    """Say what to install if the client library is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        own = installed()[name].module.partition(".")[0]
        missing = (error.name or "").partition(".")[0]
        if not backend.extra or missing in ("", own, "distjob"):
            raise
        raise ConfigError(
            f"backend {name!r} needs the package {missing!r}, which is not installed:"
            f' pip install "distjob-vm[{backend.extra}]"'
        ) from error


def unknown(name: str, known: Collection[str]) -> str:
    """What to say about a backend that is not there; ``name`` only serves to find its like."""
    listed = ", ".join(sorted(known)) or "none"
    return f"no backend of this name is installed{suggestion(name, known)} (known: {listed})"
