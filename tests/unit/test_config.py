"""Settings: what is accepted, what each mistake is told, and that no secret is ever shown."""

from __future__ import annotations

import asyncio
import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distjob import config
from distjob.backend.sections import Mistake
from distjob.backend.source import Source
from distjob.backend.world import World
from distjob.config import (
    JobSettings,
    SessionSettings,
    Settings,
    backends,
    load,
    open_backend,
    open_backend_async,
)
from distjob.config.kinds import describe, item_kind, members, struct_in
from distjob.config.redact import redacted
from distjob.config.schema import structs_of
from distjob.errors import BadRequest, ConfigError
from distjob.store import Backend
from distjob.testing.memory import MemoryServer, MemorySource

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRET = "hunter2-s3cr3t"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1


class Section(msgspec.Struct, frozen=True, kw_only=True):
    url: str = "test://localhost"
    password: str = ""
    pin: Annotated[str, msgspec.Meta(extra={"secret": True}, pattern=r"^[0-9]*\Z")] = ""
    mode: Literal["single", "cluster"] = "single"
    tls: bool = False
    ratio: float = 1.0
    count: int | None = None
    nodes: tuple[Node, ...] = ()
    ports: list[int] = []
    labels: dict[str, str] = {}
    main: Node | None = None

    def __post_init__(self) -> None:
        if "bad" in self.url:
            raise ValueError(f"can't use {self.url} with {self.password!r}, pin {self.pin}")


class Strict(msgspec.Struct, frozen=True, kw_only=True):
    address: str


class Point:
    """An entry point, as far as distjob looks."""

    def __init__(self, name: str, target: object, value: str = "test_pkg.store:backend") -> None:
        self.name, self.value, self._target = name, value, target
        self.module = value.partition(":")[0]

    def load(self) -> object:
        if isinstance(self._target, Exception):
            raise self._target
        return self._target


class AskedSource(MemorySource):
    """Remembers how it was opened."""

    def __init__(self, world: World, *asked: object) -> None:
        super().__init__(MemoryServer(), world)
        self.asked = asked


async def a_source(section: Section, namespace: str, ttl: float, world: World, _: int) -> Source:
    return AskedSource(world, section.url, namespace, ttl)


async def a_source_without_library(*_: object) -> Source:
    import library_that_nobody_has.client  # type: ignore[import-not-found]  # noqa: F401


@pytest.fixture(autouse=True)
def more_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    real = backends.entry_points()
    more = [
        Point("test", Backend(settings=Section, source=a_source)),
        Point("bare", Backend(settings=Strict, source=a_source_without_library, extra="bare")),
        Point("broken", ImportError("no module named x")),
        Point("wrong", object()),
    ]
    monkeypatch.setattr(backends, "entry_points", lambda: [*real, *more])
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("NUMBER", "12")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "distjob.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


Write = Callable[[str | bytes], Path]
LATE = "must be at most session.ttl, better a third of it"


def error_of(source: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source)
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "\ufeff", "sqlite:\njob:\n"])
def test_nothing_means_defaults(write: Write, text: str) -> None:
    settings = load(write(text))
    assert settings == load(None) == load({})
    assert (settings.namespace, settings.backend) == ("default", "sqlite")
    assert settings.job == JobSettings(wait=30.0, max_queued=0)
    assert settings.session == SessionSettings(ttl=10.0)
    assert settings.controller
    assert type(settings.section).__name__ == "SqliteSettings"


def test_everything_given(write: Write) -> None:
    settings = load(
        write(
            """
namespace: prod-1.a_B
controller: "ctl-ä"
job: {wait: 0, max_queued: 3}
session: {ttl: 0.5}
backend: test
redis: {url: redis://redis1}
test:
  tls: on
  mode: cluster
  count: 0x10
  nodes: [{host: a, port: 2}, {host: b}]
  labels: {any key: x}
  main: {host: c}
"""
        )
    )
    assert settings.job == JobSettings(wait=0.0, max_queued=3)
    assert isinstance(settings.job.wait, float)
    assert settings.section == Section(
        tls=True,
        mode="cluster",
        count=16,
        nodes=(Node(host="a", port=2), Node(host="b")),
        labels={"any key": "x"},
        main=Node(host="c"),
    )
    assert load(settings) is settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("redis:\n  urll: x", "2: redis.urll: unknown key; did you mean 'url'? (known: "),
        ("a: 1", "1: a: unknown key (known: "),
        ("\nsesion: {}", "2: sesion: unknown key; did you mean 'session'?"),
        ("session: {TTL: 3}", "session.TTL: unknown key; did you mean 'ttl'?"),
        ("test: {nodes: [{host: a}, {hots: b}]}", "1: test.nodes[1].hots: unknown key"),
        ("test: {nodes: [{port: 1}]}", "1: test.nodes[0].host: is missing; it must be text"),
        ("test:\n  nodes:\n  - host: a\n    port: 0", "4: test.nodes[0].port: must be a whole num"),
        ("test: {ports: [1, x]}", "test.ports[1]: must be a whole number, is text"),
        ("test: {labels: {a: 1}}", "test.labels.a: must be text, is a whole number; to mean text"),
        ("test: {mode: both}", "test.mode: must be one of 'cluster', 'single'"),
        ("test: {count: 1.5}", "test.count: must be a whole number or null, is a decimal number"),
        ("test: {ratio: .inf}", "test.ratio: must be a number, and finite"),
        ("session: {ttl: .nan}", "session.ttl: must be a number from 0.1 to 86400, and finite"),
        ("session: {ttl: 0.01}", "session.ttl: must be a number from 0.1 to 86400"),
        ("session: {ttl: 86401}", "session.ttl: must be a number from 0.1 to 86400"),
        ("session: {ttl: '3'}", "is text (numbers are written like 10 or 2.5, without quotes)"),
        ("session: {ttl: 12:30}", "base 60"),
        ("session: {ttl: 010}", "octal"),
        ("session: {ttl: yes}", "is true or false (YAML reads on, off, yes and no"),
        ("session: 3", "session: must be a mapping, is a whole number"),
        ("session: [3]", "session: must be a mapping, is a list"),
        ("job: {wait: -1}", "job.wait: must be a number from 0 to 31536000"),
        ("job: {wait: 1.0e+400}", "and finite"),
        (f"job: {{wait: 1{'0' * 400}}}", "job.wait: must be a number from 0"),
        (f"job: {{max_queued: 1{'0' * 5000}}}", "job.max_queued: "),
        ("job: {max_queued: true}", "job.max_queued: must be a whole number from 0 to 1000000"),
        ("namespace: on", "must be text of 1 to 64 characters of A-Z a-z 0-9 . _ -, is true"),
        ("namespace: 12", "is a whole number; to mean text, put it in quotes"),
        ("namespace: 2024-01-01", "reads this as a date"),
        ("namespace: 2024-99-01", "reads this as a date"),
        ("namespace:", "namespace: must be text of 1 to 64 characters"),
        ("namespace: a b", "1 to 64 characters of A-Z"),
        (f"namespace: {'a' * 65}", "1 to 64 characters of A-Z"),
        ('namespace: "a\\n"', "1 to 64 characters of A-Z"),
        ('controller: "a\\nb"', "controller: must be text"),
        ('controller: "\\ud800"', "lone surrogate"),
        ("on: 3", "a key must be text"),
        ("? [a]\n: 3", "a key must be text"),
        ("a: 1\nnamespace: b\na: 2", "3: a: given twice, first in line 1"),
        ("redis: {url: a, url: b}", "1: redis.url: given twice"),
        ("a: &x 1\nb: *x", "2: b: aliases"),
        ("a: &a [*a]", "aliases"),
        ("<<: {a: 1}", "merge keys"),
        ("a: !!python/object:os.system x", "1: a: tags"),
        ("a: !!binary aGk=", "tags"),
        ("a: !!int x", "no number"),
        ("- a", "must be a mapping of settings"),
        ("text", "must be a mapping of settings"),
        ("a: b\n  c: d", "2: column 4: YAML syntax error: mapping values are not allowed here"),
        ("a: [", "1: column 5: YAML syntax error"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: \x00", "1: column 4: YAML syntax error: a character"),
        ("[" * 5000, "nested too deeply"),
        ("backend: sqlit", "1: backend: no backend of this name is installed; did you mean 'sqli"),
        ("\nbackend: x", "2: backend: no backend of this name is installed (known: bare, broken"),
        ("backend: [redis]", "backend: must be text, is a list"),
        ("backend: broken", "backend 'broken' (test_pkg.store:backend) can't be loaded: no module"),
        ("backend: wrong", "is a object, not a distjob.store.Backend"),
        ("backend: bare", "bare.address: is missing; it must be text"),
        ("job_file: x", "job_file: unknown key"),
        ("session: {ttl_file: x}", "session.ttl_file: unknown key"),
        ("test: {password_file: }", "test.password_file: must be a path, is empty"),
        ("test: {password_file: /no/such}", "password_file: this file can't be read: No such file"),
        ("test: {password_file: /dev/zero}", "password_file: this file is larger than 65536"),
        ("test: {pin: ab}", "test.pin: must be text that matches"),
        ("test: {password_file: b, password: a}", "read: No such file"),
        ("test: {password: a, password_file: b}", "both password and password_file are given"),
        (
            "backend: redis\nredis:\n  timeout: 1\n  url: redis://h/prod",
            "4: redis.url: the database",
        ),
        ("redis:\n  sentinel:\n    hosts: ['h:0']", "3: redis.sentinel.hosts: a port"),
        ("redis: {url: 'http://h'}", "redis.url: must be redis://host:6379/0, rediss://"),
        ("backend: redis\nsession: {ttl: 5}\nredis:\n  timeout: 5.1", "4: redis.timeout: " + LATE),
        ("backend: redis\nsession:\n  ttl: 1.9", "3: redis.timeout: " + LATE),
        ("backend: zookeeper\nzookeeper: {timeout: 10.1}", "2: zookeeper.timeout: " + LATE),
        ("backend: etcd\nsession: {ttl: 3}\netcd: {timeout: 30}", "3: etcd.timeout: " + LATE),
        ("backend: etcd\nsession:\n  ttl: 1.9", "3: session.ttl: must be at least 2: etcd has no"),
        ("namespace: ${NOT_SET}", "namespace: the environment variable NOT_SET is not set"),
        ("namespace: a${NUMBER", "'${' without '}'"),
        ("namespace: ${NUMBER:-3}", "the name of a variable, nothing else"),
    ],
)
def test_mistakes(write: Write, text: str, told: str) -> None:
    path = write(text)
    message = error_of(path)
    assert told in message
    if "broken" not in text and "wrong" not in text:
        assert message.startswith(f"{path}")
    assert len(message) < 600


def test_files_that_are_none(tmp_path: Path, write: Write) -> None:
    assert "no.yaml: can't be read: No such file" in error_of(tmp_path / "no.yaml")
    assert "can't be read: Is a directory" in error_of(str(tmp_path))
    assert "distjob.yaml:2: is not UTF-8" in error_of(write(b"a: 1\nb: \xff"))
    assert "larger than" in error_of("/dev/zero")
    assert "not a path" in error_of("a\x00b")
    assert "not int" in error_of(3)
    assert "u:***@h" in error_of(f"Redis://u:{SECRET}@h")


@pytest.mark.parametrize(
    ("url", "section"),
    [
        ("redis://me:word@h:7/3", {"url": "redis://me:word@h:7/3"}),
        ("rediss://h", {"url": "rediss://h"}),
        ("unix:///run/redis.sock?db=2", {"url": "unix:///run/redis.sock?db=2"}),
        ("sqlite:///var/lib/a%20b.db", {"path": "/var/lib/a b.db"}),
        ("sqlite:////var/lib/a.db", {"path": "/var/lib/a.db"}),
        ("etcd://h1,h2:7,[::1]", {"endpoints": ["h1:2379", "h2:7", "[::1]:2379"]}),
        ("etcd://me:w%40rd@h", {"endpoints": ["h:2379"], "user": "me", "password": "w@rd"}),
        ("zookeeper://h1,h2:7/a/b", {"hosts": "h1,h2:7/a/b"}),
        ("zookeeper://me:word@h/", {"hosts": "h", "user": "me", "password": "word"}),
    ],
)
def test_a_url_is_a_configuration(url: str, section: dict[str, Any]) -> None:
    scheme = url.partition(":")[0]
    name = {"rediss": "redis", "unix": "redis"}.get(scheme, scheme)
    assert load(url) == load({"backend": name, name: section})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/prod", "redis.url: "),
        ("sqlite://jobs.db", "must be sqlite:///var/lib/distjob/jobs.db: an absolute path"),
        ("sqlite://", "must be sqlite:///"),
        ("sqlite:///a.db?mode=ro", "what is more than that is said in a file of settings"),
        ("etcd://", "must be etcd://host1,host2,host3"),
        ("etcd://h:port", "a port, behind the host's ':', is a number"),
        ("etcd://h/prefix", "must be etcd://"),
        ("zookeeper:///chroot", "must be zookeeper://host1"),
        ("zookeeper://h:0", "zookeeper.hosts"),
        ("reddis://h", "no store has URLs that begin with reddis://; did you mean 'redis'?"),
        ("mysql://h", "etcd://, memory://, redis://, rediss://, sqlite://, unix://, zookeeper://"),
        (f"etcd://me:{SECRET}@@h", "must be etcd://"),
        (f"reddis://me:{SECRET}@h", "no store has URLs"),
    ],
)
def test_a_url_that_is_none(url: str, said: str) -> None:
    assert said in error_of(url)
    assert SECRET not in error_of(url)


def test_a_mapping(tmp_path: Path) -> None:
    settings = load({"sqlite": {"path": tmp_path / "a.db"}, "job": {"wait": 3}})
    assert settings.section.path == str(tmp_path / "a.db")
    assert load({"backend": "test", "test": Section(tls=True)}).section.tls
    assert error_of({"redis": {"urll": 1}}).startswith("settings: redis.urll: unknown key")
    assert "keys must be text" in error_of({"redis": {1: 1}})
    assert "namespace: must be text" in error_of({"namespace": b"x"})
    assert "and finite" in error_of({"session": {"ttl": float("inf")}})
    loop: dict[str, Any] = {}
    loop["job"] = loop
    assert "nested too deeply" in error_of(loop)


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YES", "true")
    section = load(
        {
            "backend": "test",
            "test": {
                "url": "test://${NUMBER}:$${NUMBER}:$NUMBER:${NUMBER}",
                "password": "${SECRET}",
                "count": "${NUMBER}",
                "ratio": "${NUMBER}.5",
                "tls": "${YES}",
                "ports": ["${NUMBER}", 3],
                "pin": "${NUMBER}",
                "labels": {"${NUMBER}": "${NUMBER}"},
            },
        }
    ).section
    assert section.url == "test://12:${NUMBER}:$NUMBER:12"
    assert (section.password, section.count, section.ratio) == (SECRET, 12, 12.5)
    assert (section.tls, section.ports, section.pin) == (True, [12, 3], "12")
    assert section.labels == {"${NUMBER}": "12"}
    monkeypatch.setenv("INNER", "${SECRET}")
    assert load({"backend": "test", "test": {"url": "${INNER}"}}).section.url == "${SECRET}"


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"x", "x"), (b"x\n", "x"), (b"x\n\n", "x\n"), (b"x\r\n", "x"), (b"x\r", "x\r"), (b"", "")],
)
def test_values_from_files(write: Write, tmp_path: Path, content: bytes, value: str) -> None:
    (tmp_path / "secret").write_bytes(content)
    settings = load(write("backend: test\ntest: {password_file: secret, url: '${NUMBER}'}"))
    assert settings.section.password == value
    assert "password='***'" in repr(settings)


def test_top_level_values_from_files(write: Write, tmp_path: Path) -> None:
    (tmp_path / "ns").write_text("from-file\n")
    assert load(write("namespace_file: ns")).namespace == "from-file"
    assert "backend: no backend" in error_of(write("backend_file: ns"))
    (tmp_path / "ns").write_bytes(b"\xff")
    assert "not UTF-8" in error_of(write("namespace_file: ns"))


@pytest.mark.parametrize(
    "section",
    [
        {"count": "${SECRET}"},
        {"pin": SECRET},
        {"mode": "${SECRET}"},
        {"mode": SECRET},
        {"tls": SECRET},
        {"url": "bad://${SECRET}"},
        {"url": "bad", "password": SECRET},
        {"url": f"bad://u:{SECRET}@h"},
        {"nodes": [{"host": "a", "port": "${SECRET}"}]},
        {"main": "${SECRET}"},
        {"password_file": SECRET},
        {"password_file": "/${SECRET}/x"},
        {f"url:test://u:{SECRET}@h": None},
        {"url": SECRET + "${NOT_SET}"},
        {"url": SECRET + "${"},
        {"url": "${" + SECRET + "}"},
    ],
)
def test_no_error_shows_a_secret(section: Mapping[str, object]) -> None:
    error_of({"backend": "test", "test": section})


@pytest.mark.parametrize(
    "text",
    [
        f"test: {{url:test://u:{SECRET}@h}}",
        f"test: {{password: *{SECRET}}}",
        f"test: {{password: !{SECRET} x}}",
        f"test: {{password: @{SECRET}}}",
        f"test: {{password: '{SECRET}",
        f'test: {{password: "\\{SECRET}"}}',
        f"test: {{password: &{SECRET} a, pin: &{SECRET} b, url: *{SECRET} }}",
        f"test: password: {SECRET}",
        f"{SECRET}",
        f"backend: {SECRET}",
    ],
)
def test_no_syntax_error_shows_a_secret(write: Write, text: str) -> None:
    error_of(write(text))


def test_repr_shows_no_secret(tmp_path: Path) -> None:
    settings = load(
        {
            "backend": "test",
            "test": {
                "url": f"test://user:{SECRET}@h/x?password={SECRET}",
                "password": SECRET,
                "pin": "987654",
                "labels": {"a": "${SECRET}", "secret": SECRET},
                "nodes": [{"host": f"u:{SECRET}@h"}],
            },
        }
    )
    rich = [f"{name}={value!r}" for name, value in settings.__rich_repr__()]
    for text in (repr(settings), str(settings), f"{settings}", str(rich)):
        assert SECRET not in text
        assert "987654" not in text
    assert "test://user:***@h/x" in repr(settings)
    assert "'a': '${SECRET}'" in repr(settings)


@given(
    scheme=st.sampled_from(["redis://", "rediss://", "a+b://", ""]),
    user=st.text("abcü", max_size=4),
    password=st.text(min_size=1).map(lambda text: f"<{text}>"),
    rest=st.sampled_from(["@h", "@h:1/0", "@h:1,redis://u:other@h2"]),
)
def test_a_password_never_survives(scheme: str, user: str, password: str, rest: str) -> None:
    shown = redacted(f"{scheme}{user}:{password}{rest}")
    assert password not in shown
    assert "other" not in shown
    assert shown.startswith(f"{scheme}{user}:***@")


@pytest.mark.parametrize("text", ["redis://h:6379/0", "redis://me@h:6379/0", "/var/lib/x.db", ""])
def test_what_holds_no_password_is_shown(text: str) -> None:
    assert redacted(text) == text


keys = st.sampled_from(["namespace", "job", "session", "backend", "test", "url", "ttl", "wait"])
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(tree=st.dictionaries(keys, trees, max_size=5))
def test_any_tree_is_settings_or_one_config_error(tree: dict[str, Any]) -> None:
    try:
        settings = load(tree)
    except ConfigError as error:
        told = str(error)
        assert "settings: " in told
    else:
        assert 0.1 <= settings.session.ttl <= 86400


@given(text=st.text(max_size=40) | st.text("ab:- {}[]\n'\"&*!|>#%@", max_size=30))
def test_any_text_is_settings_or_one_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load(path)
    except ConfigError as error:
        assert str(path) in str(error)  # noqa: PT017  either outcome is right


def test_settings_made_by_hand_are_checked() -> None:
    with pytest.raises(BadRequest):
        SessionSettings(ttl=float("nan"))
    with pytest.raises(BadRequest):
        JobSettings(wait=-1)
    with pytest.raises(ConfigError, match="namespace"):
        Settings(namespace="a b")
    assert "section=None" in repr(Settings())


def test_open_backend() -> None:
    settings = load({"backend": "test", "namespace": "n", "session": {"ttl": 3}})
    opened: Any = open_backend(settings)
    assert opened.verbs.source.asked == ("test://localhost", "n", 3.0)
    opened = open_backend(Settings(backend="test"))
    assert opened.verbs.source.asked == ("test://localhost", "default", 10.0)
    with pytest.raises(ConfigError, match=r"backend: no backend .* did you mean 'test'"):
        open_backend(Settings(backend="tset", section=Section()))
    with pytest.raises(ConfigError, match="test: must be Section, is dict"):
        open_backend(Settings(backend="test", section={}))


def test_what_depends_on_the_ttl_is_checked_of_the_backend_that_is_used() -> None:
    """When the settings are read, and again when somebody has put them together otherwise."""
    unused = {"redis": {"timeout": 9}, "zookeeper": {"timeout": 9}}
    load({"session": {"ttl": 0.5}, "backend": "sqlite", **unused})
    load({"session": {"ttl": 5}, "backend": "redis", "redis": {"timeout": 5}})
    load({"session": {"ttl": 2}, "backend": "etcd"})
    for name in ("redis", "etcd", "zookeeper"):
        settings = load({"backend": name, name: {"timeout": 9}})
        shorter = msgspec.structs.replace(settings, session=SessionSettings(ttl=8))
        with pytest.raises(ConfigError, match=f"^{name}.timeout: {LATE}"):
            open_backend(shorter)
        with pytest.raises(ConfigError, match=f"^{name}.timeout: {LATE}"):
            asyncio.run(open_backend_async(shorter))
    shorter = msgspec.structs.replace(load({"backend": "etcd"}), session=SessionSettings(ttl=1))
    with pytest.raises(ConfigError, match=r"^session\.ttl: must be at least 2"):
        open_backend(shorter)


def test_the_only_section_is_of_the_store_that_is_meant() -> None:
    """Else a file of this host would be taken for the server that was described."""
    assert load({"redis": {"url": "redis://somewhere:6379"}}).backend == "redis"
    assert load({"sqlite": {"path": "jobs.db"}}).backend == "sqlite"
    assert load({"namespace": "prod"}).backend == "sqlite"
    several = {"redis": {"timeout": 1}, "sqlite": {"path": "jobs.db"}}
    assert load({"backend": "redis", **several}).backend == "redis"
    assert "backend: say which is used: there are sections of redis, sqlite" in error_of(several)


def test_a_check_of_a_backend_shows_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(section: Section, ttl: float) -> None:
        raise Mistake("nodes", f"must not be {section.password} for {ttl:g} s")

    point = Point("own", Backend(settings=Section, source=a_source, check=check))
    monkeypatch.setattr(backends, "entry_points", lambda: [point])
    said = error_of({"backend": "own", "own": {"password": SECRET}})
    assert said == "settings: own.nodes: must not be *** for 10 s"


@pytest.mark.parametrize("name", ["", "sqlite", "redis", "etcd", "zookeeper"])
def test_nobody_has_to_read_a_pattern(name: str) -> None:
    patterns = 0
    for struct in structs_of(backends.find(name).settings if name else config.Common):
        for field in msgspec.structs.fields(struct):
            patterns += "pattern=" in repr(field.type)
            for kind in (field.type, item_kind(members(field.type), list, 0)):
                assert "matches" not in describe(kind), field.name
    assert patterns


def test_a_missing_client_library() -> None:
    settings = load({"backend": "bare", "bare": {"address": "x"}})
    with pytest.raises(ConfigError, match=r'pip install "distjob-vm\[bare\]"') as caught:
        open_backend(settings)
    assert "library_that_nobody_has" in str(caught.value)


def test_a_backends_own_missing_module_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    async def source(*_: object) -> Source:
        raise ModuleNotFoundError("No module named 'test_pkg.gone'", name="test_pkg.gone")

    point = Point("own", Backend(settings=Section, source=source, extra="own"))
    monkeypatch.setattr(backends, "entry_points", lambda: [point])
    with pytest.raises(ModuleNotFoundError):
        open_backend(load({"backend": "own"}))


def test_two_backends_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Point("a", None), Point("a", None), Point("a", None, "other:backend")]
    monkeypatch.setattr(backends, "entry_points", lambda: points)
    assert "two backends are named 'a'" in error_of({})


def test_the_installed_backends_are_found() -> None:
    names = {point.name for point in metadata.entry_points(group=backends.GROUP)}
    assert names >= {"sqlite", "redis", "etcd", "zookeeper"}
    assert set(backends.installed()) >= names


def test_schema() -> None:
    schema = json.loads(json.dumps(config.json_schema(), allow_nan=False))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:distjob:settings:1"
    top = schema["properties"]
    assert {"namespace", "job", "session", "sqlite", "redis", "test", "broken"} <= top.keys()
    assert "namespace_file" in top
    assert "job_file" not in top
    section = schema["$defs"]["Section"]
    assert {"url", "url_file", "password_file", "mode_file"} <= section["properties"].keys()
    assert not {"tls_file", "ratio_file", "nodes_file"} & section["properties"].keys()
    assert {"not": {"required": ["url", "url_file"]}} in section["allOf"]
    bare = schema["$defs"]["Strict"]
    assert {"anyOf": [{"required": ["address"]}, {"required": ["address_file"]}]} in bare["allOf"]
    for name in ("Section", "Strict", "Node", "JobSettings", "SessionSettings"):
        assert schema["$defs"][name]["additionalProperties"] is False
    assert schema["additionalProperties"] is False
    for reference in re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)):
        assert reference in schema["$defs"]
    assert "\\\\Z" not in json.dumps(schema)


EXAMPLES = sorted(DEPLOY.glob("*/*distjob.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_the_examples_load(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for server in ("REDIS", "SENTINEL", "ETCD", "ZOOKEEPER"):
        monkeypatch.setenv(f"{server}_PASSWORD", SECRET)
    text = file.read_text()
    settings = load(file)
    assert (settings.backend, settings.namespace) == (file.parent.name, "prod")
    assert SECRET not in repr(settings)
    # What is commented out would load as well.
    whole = re.sub(r"^( +)# (\w+: )", r"\1\2", text, flags=re.MULTILINE)
    assert whole != text or "example.org" not in text
    for word in re.findall(r"/etc/distjob/tls/(\w+\.\w+)", whole):
        assert word in ("ca.pem", "client.pem", "client.key")
    copy = tmp_path / file.name
    copy.write_text(whole)
    assert load(copy).section


def test_every_backend_and_topology_has_an_example() -> None:
    found = {(file.parent.name, file.name.removesuffix("distjob.yaml")) for file in EXAMPLES}
    clusters = {("redis", "sentinel."), ("redis", "cluster.")}
    clusters |= {("etcd", "cluster."), ("zookeeper", "cluster.")}
    assert found == {(name, "") for name in ("sqlite", "redis", "etcd", "zookeeper")} | clusters


def keys_of(prefix: str, struct: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    """All keys of a section, those of its subsections too: (as in the page, as in a file)."""
    for field in msgspec.structs.fields(struct):
        inner = struct_in(members(field.type))
        yield f"`{prefix}.{field.encode_name}`", f"{field.encode_name}:"
        if inner is not None:
            yield from keys_of(f"{prefix}.{field.encode_name}", inner)


@pytest.mark.parametrize("backend", ["sqlite", "redis", "etcd", "zookeeper"])
def test_the_page_and_the_examples_know_every_key(backend: str) -> None:
    page = (DEPLOY.parent / "docs" / "reference" / "configuration.md").read_text()
    examples = "".join(file.read_text() for file in (DEPLOY / backend).glob("*distjob.yaml"))
    for named, written in keys_of(backend, backends.find(backend).settings):
        assert named in page
        assert written in examples


# -- what is nearly right --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("job:\n\twait: 3\n", "that is a tab: indent with blanks"),
        ("redis:\n  url:redis://h\n", "redis: must be a mapping, is text; is a space missing"),
        ("job:\n  wait: 3\n ttl: 4\n", "is this line indented as its neighbours are?"),
        ("job:\n wait: 3\n   max_queued: 3\n", "is this line indented as its neighbours are?"),
        ("job:\n  wait: a: b\n", "text with special characters needs quotes"),
        ("[redis]\nurl = 'redis://h'\n", "this is not YAML: TOML or INI? write key: value"),
        (
            "redis:\nurl: redis://h\nbackend: redis\n",
            ":2: url: unknown key; did you mean redis.url?",
        ),
        ("backend: redis\nurl_file: x\n", "url_file: unknown key; did you mean redis.url?"),
        ("ttl: 3\n", "ttl: unknown key; did you mean session.ttl?"),
        ("session_ttl: 3\n", "session_ttl: unknown key; did you mean session.ttl?"),
        ("wait: 3\n", "wait: unknown key; did you mean job.wait?"),
        ("path: x\n", "path: unknown key; did you mean sqlite.path?"),
    ],
)
def test_what_it_most_likely_is(write: Write, text: str, advice: str) -> None:
    assert advice in error_of(write(text))


def test_what_a_parser_cites_is_not_shown(write: Write) -> None:
    said = error_of(write(f"a: [\nb: '{SECRET}' '{SECRET}'\n"))
    assert "YAML syntax error" in said
    assert "expected <document start>, but found" in error_of(write("[a]\nb = 1\n"))


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_is_told(write: Write, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write(text)
    load(path)
    told = f"distjob: {path}: says nothing, so all settings are the defaults"
    assert [record.getMessage() for record in caplog.records] == [told]
    caplog.clear()
    load(None)
    load({})
    assert caplog.records == []


def test_a_variable_without_braces_is_told(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("controller: $HOST_NAME\n")
    assert load(path).controller == "$HOST_NAME"
    assert [record.getMessage() for record in caplog.records] == [
        f"distjob: {path}:1: controller: a variable is written ${{NAME}}; this is taken as it is"
    ]


def test_servers_of_zookeeper_are_a_text_or_a_list() -> None:
    one = {"backend": "zookeeper", "zookeeper": {"hosts": "a:1,b:2/c"}}
    assert load(one) == load(one | {"zookeeper": {"hosts": ["a:1", "b:2/c"]}})
    kinds = config.json_schema()["$defs"]["ZookeeperSettings"]["properties"]["hosts"]["anyOf"]
    assert {"type": "array", "items": {"type": "string"}, "minItems": 1} in kinds
