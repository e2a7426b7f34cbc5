"""The redis section: bounds, what its repr hides, and that it needs no redis-py."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from distjob.backend.sections import Mistake
from distjob.config import load
from distjob.errors import ConfigError
from distjob_redis import backend
from distjob_redis.settings import (
    ClusterSettings,
    RedisRecipe,
    RedisSettings,
    SentinelSettings,
    address,
    redacted,
)
from distjob_redis.url import Url, taken_apart


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user@host/0", "redis://user@host/0"),
        ("redis://user:secret@host:1/0", "redis://user:***@host:1/0"),
        ("rediss://:secret@host", "rediss://:***@host"),
        ("redis://user:se@cret@host", "redis://user:***@host"),
        ("redis://user:se/cr?et#@host", "redis://user:***@host"),
        ("unix://user:secret@/run/redis.sock", "unix://user:***@/run/redis.sock"),
        ("redis://host/0?password=secret&db=1", "redis://host/0?password=***&db=1"),
        ("rediss://host?db=1&ssl_password=secret", "rediss://host?db=1&ssl_password=***"),
    ],
)
def test_the_password_is_hidden(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize("url", ["redis://u:secret@h:1/0", "unix:///r?db=1&password=secret"])
def test_repr_hides_it(url: str) -> None:
    settings = RedisSettings(url=url)
    assert redacted(url) in repr(settings)
    assert "secret" not in f"{settings!r} {settings} {load({'redis': {'url': url}})}"
    assert settings.url == url


def test_repr_names_the_files() -> None:
    assert repr(RedisSettings(url="rediss://h", ca_file="/ca.pem", timeout=1.0)) == (
        "RedisSettings(url='rediss://h', timeout=1.0, ca_file='/ca.pem')"
    )
    assert repr(RedisSettings(timeout=1.0)) == (
        "RedisSettings(url='redis://localhost:6379/0', timeout=1.0)"
    )


@pytest.mark.parametrize(
    "section",
    [
        {"url": "http://localhost"},
        {"url": "redis://local host"},
        {"url": ""},
        {"timeout": 0},
        {"timeout": 3600},
        {"timeout": "soon"},
        {"ca_file": "a\0b"},
        {"hosts": "localhost"},
    ],
)
def test_what_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(section, RedisSettings)


def test_redis_py_is_not_needed_to_check_settings() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "import msgspec, distjob_redis\n"
        "msgspec.json.schema(distjob_redis.backend.settings)\n"
        "assert distjob_redis.backend.extra == 'redis'\n"
        "try: distjob_redis.backend.source(distjob_redis.RedisSettings(), 'ns', 1, None, 0)\n"
        "except ImportError: print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "fine"


HOSTS = ("r1:7000", "[::1]:7001", "r3")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"sentinel": {"hosts": ["s1"]}, "cluster": {"hosts": ["r1"]}}, "sentinel and cluster"),
        ({"url": "redis://r1", "cluster": {"hosts": ["r1"]}}, "url and cluster are given"),
        ({"cluster": {"hosts": ["r1"]}, "db": 1}, "db: can't be chosen in a cluster"),
        ({"password": "secret"}, "password: goes with sentinel or cluster"),
        ({"url": "redis://r1", "tls": True}, "tls: goes with sentinel or cluster"),
        ({"sentinel": {"hosts": ["s1"]}, "user": "u"}, "user: is given without password"),
        ({"sentinel": {}}, "hosts"),
        ({"cluster": {"hosts": []}}, "length >= 1"),
        ({"cluster": {"hosts": ["redis://r1"]}}, "matching regex"),
        ({"cluster": {"hosts": ["r1"], "shards": 0}}, ">= 1"),
        ({"sentinel": {"hosts": ["s1"], "name": ""}}, "length >= 1"),
    ],
)
def test_ways_that_contradict_each_other(section: dict[str, object], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(section, RedisSettings)


def test_passwords_of_servers_and_sentinels_are_hidden() -> None:
    settings = RedisSettings(
        sentinel=SentinelSettings(hosts=HOSTS, user="watch", password="secret"),
        user="distjob",
        password="secret",
        tls=True,
    )
    assert repr(settings) == (
        "RedisSettings(sentinel=SentinelSettings(hosts=('r1:7000', '[::1]:7001', 'r3'), "
        "user='watch', password='***'), user='distjob', password='***', tls=True)"
    )


def test_hosts_are_taken_apart() -> None:
    assert [address(host, 6379) for host in HOSTS] == [("r1", 7000), ("::1", 7001), ("r3", 6379)]


def test_tls_files_need_tls() -> None:
    for way in (
        {"url": "redis://r1"},
        {"url": "unix:///run/redis.sock"},
        {"sentinel": SentinelSettings(hosts=HOSTS)},
        {"cluster": ClusterSettings(hosts=HOSTS)},
    ):
        for file in ("ca_file", "cert_file"):
            with pytest.raises(Mistake, match=rf"{file}: is for TLS: .* redis\.tls"):
                RedisSettings(**{file: "/a.pem"}, **way)
    with pytest.raises(Mistake, match=r"key_file: .*redis\.cert_file"):
        RedisSettings(url="rediss://r1", key_file="/a.key")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://h", Url(host="h", port=6379)),
        ("redis://h/", Url(host="h", port=6379)),
        ("redis://h?db=3", Url(host="h", port=6379, db=3)),
        ("redis://10.0.0.1:1/65535", Url(host="10.0.0.1", port=1, db=65535)),
        ("rediss://[::1]:6380/2", Url(host="::1", port=6380, db=2, tls=True)),
        ("redis://[fe80::1%25eth0]", Url(host="fe80::1%eth0", port=6379)),
        ("redis://u:p@h:7/0", Url(host="h", port=7, user="u", password="p")),
        ("redis://:p@h:7", Url(host="h", port=7, password="p")),
        ("redis://u@h:7", Url(host="h", port=7, user="u")),
        ("redis://u%3A:%40%2F%3F%23%25@h", Url(host="h", port=6379, user="u:", password="@/?#%")),
        ("redis://u:a@b:c@h", Url(host="h", port=6379, user="u", password="a@b:c")),
        ("redis://h?username=u&password=a%26", Url(host="h", port=6379, user="u", password="a&")),
        ("unix:///run/r.sock", Url(path="/run/r.sock")),
        ("unix:///run/a%20b@1.sock?db=2", Url(path="/run/a b@1.sock", db=2)),
        ("unix://u:p@/r.sock", Url(path="/r.sock", user="u", password="p")),
        ("unix:///r.sock?db=1&password=p@q", Url(path="/r.sock", db=1, password="p@q")),
    ],
)
def test_a_url_is_taken_apart(url: str, parts: Url) -> None:
    assert taken_apart(url) == parts
    load({"redis": {"url": url}})


NO_DB = "the database is a number from 0 to 65535"
ENCODE = "special characters of user and password are percent-encoded"


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("http://h", "must be redis://host:6379/0, rediss://"),
        ("redis:/h", "must be redis://host:6379/0, rediss://"),
        ("redis://h /0", "must be redis://host:6379/0, rediss://"),
        ("redis:///0", "the host is missing"),
        ("redis://", "the host is missing"),
        ("redis://:6379/0", "the host is missing"),
        ("redis://u:secret@/0", "the host is missing"),
        ("redis://h:abc/0", "a port, behind the host's ':', is a number from 1 to 65535"),
        ("redis://h:/0", "a port, behind"),
        ("redis://h:0/0", "a port, behind"),
        ("redis://h:65536/0", "a port, behind"),
        ("redis://h:١/0", "a port, behind"),
        ("redis://h:1:2/0", "a port, behind"),
        ("redis://::1/0", "the host is missing"),
        ("redis://fe80::1/0", "a port, behind"),
        ("redis://[::1/0", "a host is a name, an IPv4 address, or an IPv6 address in brackets"),
        ("redis://[x]/0", "a host is a name"),
        ("redis://h%20x/0", "a host is a name"),
        ("redis://h/prod", NO_DB),
        ("redis://h/0/", NO_DB),
        ("redis://h/1/2", NO_DB),
        ("redis://h/-1", NO_DB),
        ("redis://h/65536", NO_DB),
        ("redis://h/١", NO_DB),
        ("redis://h?db=x", NO_DB),
        ("unix:///r.sock?db=", NO_DB),
        ("redis://h/0?db=0", "names the database twice"),
        ("redis://h?db=0&db=1", "has the option 'db' twice"),
        ("redis://u@h?username=u", "names the user or the password twice"),
        ("redis://:secret@h?password=secret", "names the user or the password twice"),
        ("redis://h?ssl=true", "has an option 'ssl': for TLS the URL begins with rediss://"),
        ("redis://h/0?ssl_cert_reqs=none", "by the CA in redis.ca_file"),
        ("redis://h?socket_timeout=3", "has an option 'socket_timeout': set redis.timeout"),
        (
            "redis://h?secret",
            "has an option behind its '?' that is not known here (known: db, ",
        ),
        ("redis://h?max_connections=3", "that is not known here"),
        ("redis://u:sec/ret@h", ENCODE),
        ("redis://u:sec?ret@h", ENCODE),
        ("redis://u:sec#ret@h", ENCODE),
        ("redis://u:s@ec/ret@h", ENCODE),
        ("redis://h/0#0", ENCODE),
        ("unix://u:sec/ret@/r.sock", ENCODE),
        ("unix://u:s@ec/ret@/r.sock", ENCODE),
        ("unix://run/redis.sock", "an absolute path, which begins with '/'"),
        ("unix://u:secret@run/redis.sock", "an absolute path, which begins with '/'"),
        ("unix://", "must be redis://host:6379/0, rediss://"),
        ("unix:///", "the path of the server's socket"),
        ("unix:///r%00.sock", "the path of the server's socket"),
        (f"unix:///{'x' * 107}", "the path of a socket has at most 107 bytes"),
    ],
)
def test_a_url_that_is_none(url: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"redis": {"url": url}})
    said = str(caught.value)
    assert said.startswith("settings: redis.url: ")
    assert right in said
    assert "sec" not in said.partition("section")[0]
    assert "matches" not in said


@pytest.mark.parametrize("host", ["h:0", "h:65536", "[x]:1", "[::1", "h:x", "a:b:c", "redis://h"])
@pytest.mark.parametrize("place", ["sentinel", "cluster"])
def test_hosts_that_are_none(place: str, host: str) -> None:
    with pytest.raises(ConfigError, match=rf"redis\.{place}\.hosts.*: (a|must be a) (host|port)"):
        load({"redis": {place: {"hosts": ["r1:7000", host]}}})


def test_in_how_many_shards_a_namespace_is() -> None:
    hosts = ("r1:7000",)
    assert backend.shards(RedisSettings()) == 1
    assert backend.shards(RedisSettings(sentinel=SentinelSettings(hosts=hosts))) == 1
    assert backend.shards(RedisSettings(cluster=ClusterSettings(hosts=hosts))) == 8
    assert backend.shards(RedisSettings(cluster=ClusterSettings(hosts=hosts, shards=3))) == 3


def test_a_recipe_is_a_section_whose_secrets_are_hidden() -> None:
    recipe = RedisRecipe(url="redis://me:s3cret@r1/0", make=lambda *_: None)
    assert "s3cret" not in repr(recipe)
    assert isinstance(recipe, backend.settings)
