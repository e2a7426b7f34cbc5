"""The redis section: bounds, what its repr hides, and that it needs no redis-py."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from distjob.errors import ConfigError
from distjob_redis import backend
from distjob_redis.settings import (
    ClusterSettings,
    RedisSettings,
    SentinelSettings,
    address,
    redacted,
)


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
    settings = RedisSettings(url=url)
    assert shown in repr(settings)
    assert "secret" not in f"{settings!r} {settings}"
    assert settings.url == url


def test_repr_names_the_files() -> None:
    assert repr(RedisSettings(ca_file="/ca.pem", timeout=1.0)) == (
        "RedisSettings(url='redis://localhost:6379/0', timeout=1.0, ca_file='/ca.pem')"
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
        "try: distjob_redis.backend.connect(distjob_redis.RedisSettings(), 'ns', 10.0)\n"
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
        ({"cluster": {"hosts": ["r1"]}, "db": 1}, "db can't be chosen in a cluster"),
        ({"password": "secret"}, "password goes with sentinel or cluster"),
        ({"url": "redis://r1", "tls": True}, "tls goes with sentinel or cluster"),
        ({"sentinel": {"hosts": ["s1"]}, "user": "u"}, "user is given without password"),
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
        {"sentinel": SentinelSettings(hosts=HOSTS)},
        {"cluster": ClusterSettings(hosts=HOSTS)},
    ):
        settings = RedisSettings(ca_file="/ca.pem", **way)
        with pytest.raises(ConfigError, match=r"redis\.tls"):
            backend.connect(settings, "ns", 10.0)
