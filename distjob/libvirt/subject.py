"""libvirt's objects, wrapped: what blocking and asyncio have in common.

It finds a call in the table, says what it takes, and makes the call once the job is held. It begins
nothing: that is blocking.py's and aio.py's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import uuid4
from xml.etree import ElementTree

import libvirt
import libvirt_qemu

from distjob.drive.choices import chosen
from distjob.drive.names import Seconds, check_wait
from distjob.errors import BadRequest
from distjob.libvirt.calls import Takes, table
from distjob.libvirt.plan import Held, block
from distjob.rules.fence import Fence
from distjob.rules.jobs import AsyncJob, Job

S = TypeVar("S", bound="Subject")
NOTHING = Held()
NO_JOB = Takes()
_BLOCKS: ContextVar[Mapping[tuple[object, str], Held]] = ContextVar(
    "distjob.libvirt", default=MappingProxyType({})
)
"""What the blocks around this place hold, by client and VM: in this thread, or this task."""


class Admits(Protocol):
    """A guard: `distjob.fencing.Guard`, or what asks one elsewhere."""

    def admit(self, vm: str, fence: Fence) -> None: ...


class Asked(NamedTuple):
    """A call that is to be made: its name for people, what it takes, and how it is done."""

    what: str
    takes: Takes
    do: Callable[[], Any]
    api: str = ""
    """What others are shown; ``what`` if it is empty."""


class Settings:
    """What all domains of one `Domains` share, of either kind."""

    def __init__(
        self,
        kind: type[Any],
        jobs: Any,
        wait: Seconds | None,
        guard: Admits | None,
        unknown: object | None,
    ) -> None:
        if not isinstance(jobs, kind):
            raise BadRequest(
                f"a {kind.__name__} is wanted, not {type(jobs).__name__}: Domains is for what"
                " distjob.connect returns, AsyncDomains for what distjob.aio.connect does"
            )
        self.jobs = jobs
        self.wait = None if wait is None else check_wait(wait)
        self.guard = guard
        self.unknown = None if unknown is None else chosen(Job, unknown, "any")


class Subject:
    """A virDomain, or a snapshot or checkpoint of one, whose calls take libvirt's jobs first."""

    def __init__(self, settings: Settings, raw: Any) -> None:
        self._settings = settings
        self._raw = raw
        self._of = kind_of(raw)
        self._domain = raw if self._of == "virDomain" else raw.getDomain()
        self._vm = self._domain.UUIDString()

    @property
    def raw(self) -> Any:
        """libvirt's own object: its calls take no job."""
        return self._raw

    @property
    def vm(self) -> str:
        """The VM's name in distjob: the domain's UUID, the same on every host."""
        return str(self._vm)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._of != "virDomain" or ("libvirt_qemu", name) not in table():
            getattr(self._raw, name)  # AttributeError, if this libvirt has none
        return partial(self._call, name)

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    def __dir__(self) -> list[str]:
        names = {name for of, name in table() if of == self._of and hasattr(self._raw, name)}
        return sorted({*super().__dir__(), *names})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._vm} ({self._of})>"

    # -- one call ------------------------------------------------------------------------------

    def _asked(self, name: str, args: Sequence[Any], options: Mapping[str, Any]) -> Asked:
        """What is to be begun and done. Raises BadRequest for a call that is not in the table."""
        values = [_unwrapped(one) for one in args]
        named = {key: _unwrapped(one) for key, one in options.items()}
        of, method = self._of, getattr(self._raw, name, None)
        if method is None:
            of, method = "libvirt_qemu", partial(getattr(libvirt_qemu, name), self._raw)
        do = partial(method, *values, **named)
        row = table().get((of, name))
        if row is None:
            return Asked(f"{of}.{name}", self._unknown(name), do)
        given: Mapping[str, object] = {}
        if row.by_arguments:
            bound = inspect.signature(method).bind(*values, **named)
            bound.apply_defaults()
            given = bound.arguments
        return Asked(row.what, row.takes(given, constant), do)

    def _unknown(self, name: str) -> Takes:
        if self._settings.unknown is not None:
            return Takes(job=self._settings.unknown)
        raise BadRequest(
            f"VM {self.vm!r}: which job {self._of}.{name} takes is not known: the table here is of"
            f" libvirt 9.0.0, and this is {version()}. Hold a job that fits, and call libvirt,"
            f" with dom.job('modify'): dom.raw.{name}(...); or have all such calls made under one,"
            " Domains(jobs, unknown='modify')"
        )

    # -- blocks --------------------------------------------------------------------------------

    @property
    def _held(self) -> Held:
        """What the blocks around the caller hold of this VM."""
        return _BLOCKS.get().get((self._settings.jobs, self._vm), NOTHING)

    @contextmanager
    def _within(self, held: Held) -> Iterator[None]:
        """Have this VM's calls go under ``held``, in this block."""
        token = _BLOCKS.set({**_BLOCKS.get(), (self._settings.jobs, self.vm): held})
        try:
            yield
        finally:
            _BLOCKS.reset(token)


# -- what is asked --------------------------------------------------------------------------------


def kills(asked: Asked) -> bool:
    """Whether it is a destroy, which kills first and asks later."""
    return asked.takes.job is Job.DESTROY


def goes_on(kind: AsyncJob | None) -> bool:
    """Whether libvirt's job outlives the call that begins it (qemu_backup.c:938)."""
    return kind is AsyncJob.BACKUP


def block_of(vm: str, job: object, agent: object, mask: Iterable[object] | None, api: str) -> Asked:
    """A block that is asked for, as a call that does nothing by itself. Raises BadRequest."""
    takes = block(vm, job, agent, mask)
    name = str(job or agent)
    return Asked(f"the block dom.job({name!r})", takes, nothing, api or name)


def nothing() -> None:
    """What a block does by itself."""


# -- libvirt's objects ----------------------------------------------------------------------------


def kind_of(raw: Any) -> str:
    """The class that the table knows ``raw`` by. Raises BadRequest."""
    for kind in ("virDomain", "virDomainSnapshot", "virDomainCheckpoint"):
        if isinstance(raw, getattr(libvirt, kind)):
            return kind
    raise BadRequest(
        f"a libvirt.virDomain is wanted (conn.lookupByName(...)), not {type(raw).__name__}"
    )


def wrapped(result: Any, wrap: Callable[[Any], Any]) -> Any:
    """What a call has returned; objects whose calls take jobs come back as such."""
    if isinstance(result, list):
        return [wrapped(one, wrap) for one in result]
    kinds = (libvirt.virDomain, libvirt.virDomainSnapshot, libvirt.virDomainCheckpoint)
    return wrap(result) if isinstance(result, kinds) else result


def _unwrapped(value: Any) -> Any:
    return value.raw if isinstance(value, Subject) else value


def constant(name: str) -> int:
    """The value of one of libvirt's constants."""
    return int(getattr(libvirt, name))


def version() -> str:
    """libvirt's, as people write it."""
    number = libvirt.getVersion()
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def failed_as(error: BaseException, *names: str) -> bool:
    """Whether libvirt has failed with one of these codes (``VIR_ERR_...``)."""
    if not isinstance(error, libvirt.libvirtError):
        return False
    return error.get_error_code() in [constant(name) for name in names]


def under(settings: Settings, vm: str, held: Held, do: Callable[[], Any]) -> Callable[[], Any]:
    """``do``, once the guard has admitted what is held; without either, ``do`` itself."""
    guard = settings.guard
    if guard is None or held.newest is None:
        return do

    def admitted() -> Any:
        guard.admit(vm, held.fence)
        return do()

    return admitted


# -- domains that are not there yet ---------------------------------------------------------------


class Birth(NamedTuple):
    """A domain to be made by its connection: which VM that is, and how it is made."""

    vm: str
    asked: Asked
    conn: Any

    def found(self, result: Any) -> Any:
        """The virDomain, ``result`` being what the call has returned."""
        made = isinstance(result, libvirt.virDomain)
        return result if made else self.conn.lookupByUUIDString(self.vm)


def created(conn: Any, xml: str, flags: int) -> Birth:
    """By ``createXML``. Without a UUID in ``xml`` it gets one here, as libvirt would give it one:
    so that it has its name in distjob before it is made.
    """
    vm = uuid_in(xml)
    if not vm:
        vm = str(uuid4())
        root = _parsed(xml)
        root.insert(0, made := ElementTree.Element("uuid"))
        made.text = vm
        xml = ElementTree.tostring(root, encoding="unicode")
    return _birth(conn, "createXML", vm, xml, flags)


def restored(conn: Any, file: str, dxml: str | None, flags: int) -> Birth:
    """By ``restore``, or ``restoreFlags``: whose image it is stands in the image."""
    vm = uuid_in(conn.saveImageGetXMLDesc(file))
    if dxml is None and not flags:
        return _birth(conn, "restore", vm, file)
    return _birth(conn, "restoreFlags", vm, file, dxml, flags)


def _birth(conn: Any, name: str, vm: str, *args: Any) -> Birth:
    row = table()["virConnect", name]
    takes = row.takes({}, constant)
    return Birth(vm, Asked(row.what, takes, partial(getattr(conn, name), *args)), conn)


def uuid_in(xml: str) -> str:
    """The UUID of a domain's XML, as libvirt writes it; "" if none is given."""
    digits = (_parsed(xml).findtext("uuid") or "").replace("-", "").strip().lower()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts) if digits else ""


def _parsed(xml: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(xml)  # noqa: S314  the caller's own, or libvirt's
    except ElementTree.ParseError as error:
        raise BadRequest(f"a domain's XML can't be read: {error}") from None
