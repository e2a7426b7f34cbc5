"""The zookeeper section: bounds, what its repr hides, and that it needs no kazoo."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from distjob.config import load
from distjob.errors import ConfigError
from distjob_zookeeper import backend
from distjob_zookeeper.client.making import recipe
from distjob_zookeeper.guarantees import needed
from distjob_zookeeper.settings import ZookeeperSettings


def test_the_password_is_hidden() -> None:
    settings = ZookeeperSettings(user="distjob", password="s3cret")
    assert repr(settings) == "ZookeeperSettings(user='distjob', password='***')"
    assert "s3cret" not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    "section",
    [
        {"hosts": ""},
        {"hosts": "a b"},
        {"hosts": "a,,b"},
        {"hosts": "user:secret@host"},
        {"hosts": ["a", "b"]},
        {"timeout": 0},
        {"timeout": 3600},
        {"user": "a:b"},
        {"auth": "kerberos"},
        {"tls": "yes"},
        {"ca_file": "a\0b"},
        {"host": "a"},
    ],
)
def test_what_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(section, ZookeeperSettings)


@pytest.mark.parametrize(
    ("hosts", "found", "chroot"),
    [
        ("a", [("a", 2181)], ""),
        ("a:1,b:2", [("a", 1), ("b", 2)], ""),
        ("a:1,[::1]:2/x//y/", [("a", 1), ("::1", 2)], "/x/y"),
    ],
)
def test_hosts_and_chroot(hosts: str, found: list[tuple[str, int]], chroot: str) -> None:
    settings = msgspec.convert({"hosts": hosts}, ZookeeperSettings)
    made, below = recipe(settings, 20.0)
    client = made()
    assert (client.hosts, below) == (found, chroot)
    assert client.chroot == ""


LIKE = "must be like zk1:2181,zk2:2181,zk3:2181/chroot"
TLS = "is for TLS: set zookeeper.tls"


@pytest.mark.parametrize(
    ("section", "key", "right"),
    [
        ({"hosts": ""}, "hosts", LIKE),
        ({"hosts": "a b"}, "hosts", LIKE),
        ({"hosts": ["a b", "c"]}, "hosts", LIKE),
        ({"hosts": []}, "hosts", LIKE),
        ({"hosts": [1]}, "hosts[0]", "must be text, is a whole number"),
        ({"hosts": "a:secret@b"}, "hosts", LIKE),
        ({"hosts": "/only"}, "hosts", LIKE),
        ({"hosts": "a:port"}, "hosts", "a port, behind the host's ':', is a number"),
        ({"hosts": "a:1,b:2:3"}, "hosts", "a port, behind"),
        ({"hosts": "a:99999999"}, "hosts", "a port, behind"),
        ({"hosts": "[::1:2181"}, "hosts", "a host is a name"),
        ({"hosts": "a/../b"}, "hosts", "the chroot, from the first '/' on, holds no '.'"),
        ({"password": "secret"}, "password", "goes with zookeeper.user"),
        ({"auth": "sasl"}, "auth", "sasl shows a user to the servers: set zookeeper.user"),
        ({"user": "a:b"}, "user", "must be text of at most 255 characters, none of them ':'"),
        ({"ca_file": "/secret"}, "ca_file", TLS),
        ({"cert_file": "/secret"}, "cert_file", TLS),
        ({"tls": True, "key_file": "/secret"}, "key_file", "is the key of zookeeper.cert_file"),
    ],
)
def test_what_is_said_of_it(section: dict[str, object], key: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"zookeeper": section})
    assert str(caught.value).startswith(f"settings: zookeeper.{key}: {right}")
    assert "secret" not in str(caught.value)


def test_needs_no_kazoo() -> None:
    code = (
        "import sys; sys.modules['kazoo'] = None; import distjob_zookeeper as z; "
        "print(z.backend.settings().hosts, *z.backend.promises)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["localhost:2181", "single", "ensemble"]


def test_promises_by_topology() -> None:
    single, ensemble = backend.promises["single"], backend.promises["ensemble"]
    assert (single.failover, ensemble.failover) == ("none", "quorum")
    assert single.durable
    assert single.versions_survive_loss
    assert not ensemble.versions_survive_loss


def test_zookeepers_own_sessions_outlive_ours() -> None:
    """What the leader may not have heard of, twice 0.9 TTL, and half a tick of its default."""
    for ttl in (0.5, 3.0, 10.0, 20.0):
        assert needed(ttl) >= 2 * 0.9 * ttl + 1.5
    assert needed(21.0) <= 20 * 2.0, "what a server of tickTime 2 s grants"
