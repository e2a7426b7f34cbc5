"""Settings: from a YAML file, a mapping or nothing, to typed, checked, frozen values.

    __init__.py   the settings all backends share; `load`, `open_backend`
    source.py     Python values -> a tree that knows its lines; the look of an error
    yamltree.py   a YAML file -> the same tree
    kinds.py      what a type annotation allows, in words
    build.py      the tree and a Struct type -> an object; ${VAR} and K_file; unknown keys
    backends.py   the entry points of ``distjob.backends``
    redact.py     what of a setting may be shown; paste.py: settings as YAML, without secrets
    schema.py     JSON Schema of the file

Every mistake is one ConfigError with file, line, key path and what would be right, and no error
ever shows a value. Imports no client library and knows no backend by name but the default's.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from distjob.config import backends
from distjob.config.build import FILE, Builder
from distjob.config.redact import shown
from distjob.config.source import Node, Source, read_python
from distjob.drive.names import MAX_TTL, MAX_WAIT, MIN_TTL, check_ttl, check_wait
from distjob.errors import ConfigError
from distjob.store import AsyncStore, Store

__all__ = [
    "JobSettings",
    "SessionSettings",
    "Settings",
    "json_schema",
    "load",
    "open_backend",
    "open_backend_async",
    "shards_of",
]

log = logging.getLogger("distjob")
_NAMESPACE = r"^[A-Za-z0-9._-]{1,64}\Z"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_MAX_FILE = 1 << 20


class JobSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How jobs are asked for."""

    wait: Annotated[
        float,
        msgspec.Meta(ge=0, le=MAX_WAIT, description="Seconds that a begin waits for its job."),
    ] = 30.0
    max_queued: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1_000_000,
            description="Jobs held and waited for, of one VM, beyond which a begin is refused. "
            "0: no limit.",
        ),
    ] = 0

    def __post_init__(self) -> None:
        check_wait(self.wait)


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a controller that went silent is believed to live."""

    ttl: Annotated[
        float,
        msgspec.Meta(
            ge=MIN_TTL,
            le=MAX_TTL,
            description="Seconds after which the jobs of a controller that died are free.",
        ),
    ] = 10.0

    def __post_init__(self) -> None:
        check_ttl(self.ttl)


class Common(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of the file that are no backend's section."""

    namespace: Annotated[
        str,
        msgspec.Meta(
            pattern=_NAMESPACE,
            extra={"right": "text of 1 to 64 characters of A-Z a-z 0-9 . _ -"},
            description="1 to 64 of A-Z, a-z, 0-9, dot, underscore, hyphen. Controllers "
            "of one namespace share jobs.",
        ),
    ] = "default"
    controller: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^[^\x00-\x1f\x7f]{1,255}\Z",
            extra={"right": "text of 1 to 255 characters on one line"},
            description="1 to 255 characters on one line, shown to people with the pid. "
            "Left out: the host's name.",
        ),
    ] = msgspec.field(default_factory=lambda: socket.gethostname() or "unknown")
    job: JobSettings = JobSettings()
    session: SessionSettings = SessionSettings()
    backend: Annotated[
        str,
        msgspec.Meta(
            description="The store that is used: the name of its section. Left out: the only "
            "section's, or sqlite where there is none."
        ),
    ] = "sqlite"


class Settings(Common, frozen=True, kw_only=True):
    """What `load` returns. Immutable, to be shared freely; its repr shows no secret."""

    section: Any = None
    """The settings of the backend that is used, of the type that its `Backend` names."""
    templates: Mapping[str, str] = msgspec.field(default_factory=dict)
    """By key path, what to show in place of values that came from a variable or a file."""

    def __post_init__(self) -> None:
        if not re.match(_NAMESPACE, self.namespace):
            raise ConfigError("namespace: must be 1 to 64 characters of A-Z a-z 0-9 . _ -")

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The fields, with secrets blotted out, for rich as well as for `repr`."""
        section = _Verbatim(shown(self.section, self.backend, self.templates))
        names = Common.__struct_fields__
        return [*((name, getattr(self, name)) for name in names), ("section", section)]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"Settings({fields})"


class _Verbatim(str):
    """A text that is its own repr."""

    __slots__ = ()
    __repr__ = str.__str__


def load(source: str | os.PathLike[str] | Mapping[str, Any] | Settings | None = None) -> Settings:
    """Read and check settings; nothing is connected to.

    ``source``: the path of a YAML file; a URL of the store, such as ``redis://localhost:6379/0``,
    which leaves all else as it is by default; a mapping of the same shape as the file (from code,
    ``${VAR}`` and ``K_file`` have their meaning there, too); None for the defaults; or Settings,
    which are returned as they are. Relative paths in ``K_file`` are taken from the file's folder,
    in a mapping from the current one.

    Raises ConfigError, once, for the first mistake: it names file, line, key path and what would
    be right, and never shows a value. Thread-safe.
    """
    if isinstance(source, Settings):
        return source
    where, root = _read(source)
    if isinstance(source, str | os.PathLike) and not root.value:
        log.warning("distjob: %s: says nothing, so all settings are the defaults", where.name)
    builder = Builder(where)
    root = builder.expanded(root)
    if root.value is None:
        root = Node({})
    if not isinstance(root.value, dict):
        raise where.fail("", root.line, "must be a mapping of settings, such as 'namespace: prod'")
    known = backends.installed()
    sections = {name: node for name, node in root.value.items() if name in known}
    rest = {name: node for name, node in root.value.items() if name not in known}
    for key, node in rest.items():
        if key not in Common.__struct_fields__ and (home := _home(key, rest, known)):
            raise where.fail(key, node.line, f"unknown key; did you mean {home}?")
    common: Common = builder.struct(Node(rest, root.line), Common, "", also=known)
    if sections and not rest.keys() & {"backend", f"backend{FILE}"}:
        common = msgspec.structs.replace(common, backend=_only(sections, root, where))
    if common.backend not in known:
        line = next((rest[key].line for key in ("backend", "backend_file") if key in rest), 0)
        said = "" if "backend" in builder.templates else common.backend
        raise where.fail("backend", line, backends.unknown(said, known))
    built = {
        name: builder.build(node, backends.find(name).settings, name)
        for name, node in sections.items()
    }
    if common.backend not in built:
        settings = backends.find(common.backend).settings
        built[common.backend] = builder.build(Node({}, root.line), settings, common.backend)
    section = built[common.backend]
    if found := backends.mistake(common.backend, section, common.session.ttl):
        path, right = found
        line = root.line_of(path) or root.line_of("session.ttl") or root.line_of(common.backend)
        raise where.fail(path, line, builder.without_secrets(right))
    return Settings(
        **{name: getattr(common, name) for name in Common.__struct_fields__},
        section=section,
        templates=builder.templates,
    )


def _only(sections: Mapping[str, Node], root: Node, where: Source) -> str:
    """The store that is meant where none is named: that of the only section.

    A lock in a file of this host would else be taken for one in the server that was described.
    """
    name, *others = sections
    if others:
        line = next(iter(sections.values())).line or root.line
        said = f"say which is used: there are sections of {', '.join(sections)}"
        raise where.fail("backend", line, said)
    return name


def _home(key: str, rest: Mapping[str, Node], known: Collection[str]) -> str:
    """Where a key that stands at the top belongs: ``session.ttl``; empty if nowhere."""
    homes: dict[str, type[msgspec.Struct]] = {"job": JobSettings, "session": SessionSettings}
    name = rest["backend"].value if "backend" in rest else Common.__struct_defaults__[-1]
    if isinstance(name, str) and name in known:
        homes[name] = backends.find(name).settings
    return next(
        (
            f"{section}.{field}"
            for section, struct in homes.items()
            for field in struct.__struct_encode_fields__
            if key in (field, f"{field}{FILE}", f"{section}_{field}", f"{section}.{field}")
        ),
        "",
    )


def shards_of(settings: Settings) -> int:
    """How many stores the VMs are spread over: see `distjob.rules.shards`."""
    return backends.shards(settings.backend, _section(settings))


def open_backend(settings: Settings, shard: int = 0) -> Store:
    """Connect to the store that ``settings`` name, or to one of its shards; the caller closes it.

    Raises ConfigError for a backend that is unknown, whose client library is missing (it says
    what to install) or whose server can't be used; BackendUnavailable if it can't be reached.
    """
    return backends.connect(
        settings.backend, _section(settings), settings.namespace, settings.session.ttl, shard
    )


async def open_backend_async(settings: Settings, shard: int = 0) -> AsyncStore:
    """As `open_backend`, on asyncio: the store belongs to the event loop that runs."""
    return await backends.connect_async(
        settings.backend, _section(settings), settings.namespace, settings.session.ttl, shard
    )


def _section(settings: Settings) -> Any:
    if settings.section is None:
        return load({"backend": settings.backend}).section
    return settings.section


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the whole file, with the sections of all installed backends."""
    from distjob.config.schema import file_schema

    return file_schema(Common)


def _read(source: object) -> tuple[Source, Node]:
    if source is None or isinstance(source, Mapping):
        where = Source("settings", Path())
        return where, read_python({} if source is None else source, where)
    if isinstance(source, str) and _URL.match(source):
        where = Source("the URL of the store", Path())
        return where, read_python(backends.of_url(source), where)
    if not isinstance(source, str | os.PathLike) or isinstance(fspath := os.fspath(source), bytes):
        raise ConfigError(
            "settings are the path of a YAML file, a URL, a mapping or None, not"
            f" {type(source).__name__}"
        )
    path = Path(fspath)
    where = Source(fspath, path.parent)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise where.fail("", 0, f"can't be read: {reason}") from None
    if len(data) > _MAX_FILE:
        raise where.fail("", 0, f"is larger than {_MAX_FILE} bytes: not a settings file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise where.fail("", line, "is not UTF-8; save it as UTF-8") from None
    from distjob.config.yamltree import read_yaml  # a mapping needs no YAML

    return where, read_yaml(text, where)
