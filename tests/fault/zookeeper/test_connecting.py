"""Connecting to ZooKeeper: credentials, TLS, limits, and everything that can be wrong with them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kazoo.security import make_acl

from distjob import clock
from distjob.errors import ConfigError, DistjobError
from distjob.store import ABSENT, Committed
from distjob.testing.contract import committed, receive_woken, try_until
from distjob_zookeeper.layout import Layout
from servers import SUPERUSER, ZookeeperNode, wait_for
from zookeeper_stores import TTL, Open, nodes

if TYPE_CHECKING:
    from kazoo.client import KazooClient

    from distjob.backend.opened import Blocking

SECRET = "s3cret:with@all/of#it"
Spawn = Callable[..., ZookeeperNode]


def exercise(store: Blocking) -> None:
    me = store.open_session(TTL, "me")
    version = committed(store, "vm", b"x", me, me)
    receive_woken(store, me, version)
    assert store.keep_alive(me)
    assert store.remaining([me])[me] > 0
    committed(store, "vm", None, me)
    store.close_session(me)


def refused(kind: type[DistjobError], match: str, call: Callable[[], object]) -> None:
    """``call`` raises, soon, without the secret, and leaves no thread."""
    before, begun = threading.active_count(), clock.monotonic()
    with pytest.raises(kind, match=match) as caught:
        call()
    assert clock.monotonic() - begun < 5
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    wait_for(lambda: threading.active_count() <= before, "all threads ended", 2.0)


# -- who may do what -----------------------------------------------------------------------------


def test_digest_keeps_others_out(
    hosts: str,
    opened: Open,
    admin: KazooClient,
    fresh_namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    below = f"{hosts}/{fresh_namespace}/of/ours"
    with caplog.at_level(1):
        exercise(opened(below, user="distjob", password=SECRET))
        exercise(opened(below, user="distjob", password=SECRET))
    assert SECRET not in caplog.text
    refused(ConfigError, "user", lambda: opened(below, user="distjob", password="other"))
    refused(ConfigError, "user", lambda: opened(below))
    layout = Layout(fresh_namespace, f"/{fresh_namespace}/of/ours")
    admin.add_auth("digest", ":".join(SUPERUSER))
    folders = (layout.vms, layout.sessions, layout.beats, layout.wakes)
    for path in (layout.root, layout.format, *folders):
        acls = admin.get_acls(path)[0]
        assert [(acl.id.scheme, acl.perms) for acl in acls] == [("digest", 31)]
    assert nodes(admin, layout.root) == 5


def test_a_user_who_may_only_read(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    """Found out when connecting, for each folder, rather than with a job held."""
    opened(hosts)
    for path in (layout.vms, layout.sessions, layout.beats, layout.wakes):
        admin.set_acls(path, [make_acl("world", "anyone", read=True, admin=True)])
        refused(ConfigError, "may not", lambda: opened(hosts))
        admin.set_acls(path, [make_acl("world", "anyone", all=True)])
    opened(hosts)


def test_sasl(spawn_zookeeper: Spawn, opened: Open, tmp_path: Path) -> None:
    password = "sasl-s3cret"
    jaas = tmp_path / "jaas.conf"
    jaas.write_text(
        "Server { org.apache.zookeeper.server.auth.DigestLoginModule required "
        f'user_distjob="{password}"; }};\n',
        encoding="utf-8",
    )
    node = spawn_zookeeper(
        {"authProvider.sasl": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"},
        give=[jaas],
        jvm="-Djava.security.auth.login.config={dir}/jaas.conf",
    )
    store = opened(node.hosts, user="distjob", password=password, auth="sasl")
    exercise(store)
    wrong = {"user": "distjob", "password": SECRET, "auth": "sasl"}
    refused(ConfigError, "refused", lambda: opened(node.hosts, **wrong))
    refused(ConfigError, "user", lambda: opened(node.hosts))
    node.kill()  # a login that is cut short is, to kazoo, a wrong password: it gives up for ever
    node.start()
    assert try_until(lambda: store.open_session(TTL, "again"))


# -- TLS -----------------------------------------------------------------------------------------


def test_names_answers_and_recipes_with_tls(
    spawn_zookeeper: Spawn, opened: Open, certificates: Path
) -> None:
    node = spawn_zookeeper(
        {
            "ssl.keyStore.location": "{dir}/server.pem",
            "ssl.trustStore.location": "{dir}/ca.crt",
            "ssl.trustStore.type": "PEM",  # only those that end with .pem are known for it
        },
        give=[certificates / "server.pem", certificates / "ca.crt"],
        tls=True,
    )
    hosts = f"127.0.0.1:{node.tls_port}"
    files: dict[str, Any] = {
        "tls": True,
        "ca_file": str(certificates / "ca.crt"),
        "cert_file": str(certificates / "client.crt"),
        "key_file": str(certificates / "client.key"),
    }
    store = opened(hosts, **files)
    exercise(store)
    me = store.open_session(TTL, "me")
    for number in range(100):  # many answers in one TLS record must not be left lying
        assert isinstance(store.commit(f"vm-{number}", ABSENT, b"x" * 100, me, ()), Committed)
    assert len(list(store.scan())) == 100
    refused(ConfigError, "ca_file", lambda: opened(hosts, tls=True))
    by_name = f"localhost:{node.tls_port}"  # signed, but for another name
    refused(ConfigError, "host name", lambda: opened(by_name, **files))
    # TLS of kazoo's own, by the user's recipe.
    by_recipe = {
        "use_ssl": True,
        "ca": files["ca_file"],
        "certfile": files["cert_file"],
        "keyfile": files["key_file"],
    }
    exercise(opened(hosts, recipe=by_recipe))


def test_tls_files_that_are_wrong(opened: Open, tmp_path: Path) -> None:
    hosts = "127.0.0.1:1"
    refused(ConfigError, "/ca.pem", lambda: opened(hosts, tls=True, ca_file="/ca.pem"))
    (tmp_path / "ca.pem").write_text("no certificate", encoding="utf-8")
    wrong = str(tmp_path / "ca.pem")
    refused(ConfigError, "ca.pem", lambda: opened(hosts, tls=True, ca_file=wrong))


# -- wrong servers -------------------------------------------------------------------------------


def test_a_server_that_hangs_is_passed_over(hosts: str, opened: Open) -> None:
    """It lets in, and then says nothing; kazoo would give it half of its session's time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = f"127.0.0.1:{listener.getsockname()[1]}"
        begun = clock.monotonic()
        store = opened(f"{silent},{hosts}", recipe={"randomize_hosts": False}, timeout=1.0)
        exercise(store)
        assert clock.monotonic() - begun < 8


def test_a_server_that_grants_too_little(hosts: str, opened: Open) -> None:
    """Sessions of ZooKeeper's own must outlive ours; this one grants a minute."""
    refused(ConfigError, "60 s at most.*maxSessionTimeout", lambda: opened(hosts, ttl=33.0))
    exercise(opened(hosts, ttl=32.0))


def test_a_server_that_grants_more_than_is_asked_for(spawn_zookeeper: Spawn, opened: Open) -> None:
    """It delays nobody: a witness ends the sessions of the dead."""
    node = spawn_zookeeper({"minSessionTimeout": "30000"})
    store, other = opened(node.hosts, 1.0), opened(node.hosts, 1.0)
    session = store.open_session(1.0, "me")
    assert 0 < other.remaining([session])[session] <= 1.0
    begun = clock.monotonic()
    wait_for(lambda: other.remaining([session])[session] == 0.0, "the session ended", 10.0)
    assert clock.monotonic() - begun < 1.0 + other.guarantees.grace


def test_what_an_older_distjob_has_left_is_not_touched(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    """Its clients would not see the jobs of this one's."""
    for path in (layout.root, layout.vms, layout.sessions, f"{layout.root}/epoch"):
        admin.ensure_path(path)
    admin.create(layout.format, b"1")
    admin.create(layout.vm("vm"), b"=record")
    refused(ConfigError, f"format 1, .*format 3.*delete {layout.root}", lambda: opened(hosts))
    assert admin.get(layout.vm("vm"))[0] == b"=record"
