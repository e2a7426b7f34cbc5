"""Connecting to ZooKeeper: credentials, TLS, limits, and everything that can be wrong with them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_acl

from distjob import clock
from distjob.errors import BackendUnavailable, ConfigError, DistjobError
from distjob.store import ABSENT, Committed
from distjob.testing.contract import committed, receive_woken, try_until
from distjob_zookeeper import ZookeeperSettings, backend
from distjob_zookeeper.examine import examine
from distjob_zookeeper.layout import Layout
from distjob_zookeeper.store import ZookeeperStore
from servers import SUPERUSER, ZookeeperCluster, ZookeeperNode, free_port, wait_for

TTL = 10.0
SECRET = "s3cret:with@all/of#it"
Open = Callable[..., ZookeeperStore]
Spawn = Callable[..., ZookeeperNode]


@pytest.fixture
def opened(fresh_namespace: str) -> Iterator[Open]:
    with ExitStack() as closing:

        def opened(hosts: str, ttl: float = TTL, **settings: object) -> ZookeeperStore:
            filled = ZookeeperSettings(hosts=hosts, **settings)  # type: ignore[arg-type]
            assert SECRET not in repr(filled)
            store = backend.connect(filled, fresh_namespace, ttl)
            assert isinstance(store, ZookeeperStore)
            closing.callback(store.close)
            return store

        yield opened


@pytest.fixture
def admin(zookeeper_server: ZookeeperNode) -> Iterator[KazooClient]:
    client = KazooClient(hosts=zookeeper_server.hosts)
    client.start()
    yield client
    client.stop()
    client.close()


def exercise(store: ZookeeperStore) -> None:
    me = store.open_session(TTL, "me")
    version = committed(store, "vm", b"x", me, me)
    receive_woken(store, me, version)
    assert store.keep_alive(me)
    committed(store, "vm", None, me)
    assert store.forget() == 1
    store.close_session(me)


def refused(kind: type[DistjobError], match: str, call: Callable[[], object]) -> None:
    """``call`` raises, soon, without the secret, and leaves no thread."""
    before, begun = threading.active_count(), clock.monotonic()
    with pytest.raises(kind, match=match) as caught:
        call()
    assert clock.monotonic() - begun < 3.5
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    wait_for(lambda: threading.active_count() == before, "all threads ended", 2.0)


# -- who may do what -----------------------------------------------------------------------------


def test_digest_keeps_others_out(
    zookeeper_server: ZookeeperNode,
    opened: Open,
    admin: KazooClient,
    fresh_namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hosts = f"{zookeeper_server.hosts}/{fresh_namespace}/of/ours"
    with caplog.at_level(1):
        exercise(opened(hosts, user="distjob", password=SECRET))
        exercise(opened(hosts, user="distjob", password=SECRET))
    assert SECRET not in caplog.text
    refused(ConfigError, "user", lambda: opened(hosts, user="distjob", password="other"))
    refused(ConfigError, "user", lambda: opened(hosts))
    layout = Layout(fresh_namespace, f"/{fresh_namespace}/of/ours")
    admin.add_auth("digest", ":".join(SUPERUSER))
    for path in (layout.root, layout.vms, layout.sessions, layout.epoch, layout.format):
        acls = admin.get_acls(path)[0]
        assert [(acl.id.scheme, acl.perms) for acl in acls] == [("digest", 31)]


def test_a_user_who_may_only_read(
    zookeeper_server: ZookeeperNode, opened: Open, admin: KazooClient, fresh_namespace: str
) -> None:
    opened(zookeeper_server.hosts)
    layout = Layout(fresh_namespace)
    for path in (layout.vms, layout.sessions):
        admin.set_acls(path, [make_acl("world", "anyone", read=True)])
    refused(ConfigError, "may not", lambda: opened(zookeeper_server.hosts))


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
    node.kill()
    node.start()
    assert try_until(lambda: store.open_session(TTL, "again"))


# -- TLS -----------------------------------------------------------------------------------------


def test_tls_with_certificates_of_both_sides(
    spawn_zookeeper: Spawn, opened: Open, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None and not os.environ.get("CI"):
        pytest.skip("there is no openssl to make certificates with")
    make_certificates(tmp_path)
    node = spawn_zookeeper(
        {"ssl.keyStore.location": "{dir}/server.pem", "ssl.trustStore.location": "{dir}/ca.pem"},
        give=[tmp_path / "server.pem", tmp_path / "ca.pem"],
        tls=True,
    )
    hosts = f"127.0.0.1:{node.tls_port}"
    files = {
        "tls": True,
        "ca_file": str(tmp_path / "ca.pem"),
        "cert_file": str(tmp_path / "client.crt"),
        "key_file": str(tmp_path / "client.key"),
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
    refused(BackendUnavailable, "no connection", lambda: opened(hosts))
    unknown = {**files, "cert_file": "", "key_file": ""}
    refused(BackendUnavailable, "no connection", lambda: opened(hosts, **unknown))
    client = KazooClient(
        hosts=hosts,
        timeout=15.0,
        use_ssl=True,
        ca=files["ca_file"],
        certfile=files["cert_file"],
        keyfile=files["key_file"],
    )
    client.handler.create_connection = store._connection.client.handler.create_connection
    client.start()
    try:
        exercise(ZookeeperStore(client, "users", TTL))
    finally:
        client.stop()
        client.close()


def test_tls_files_that_are_wrong(opened: Open, tmp_path: Path) -> None:
    hosts = "127.0.0.1:1"
    refused(ConfigError, "/ca.pem", lambda: opened(hosts, tls=True, ca_file="/ca.pem"))
    (tmp_path / "ca.pem").write_text("no certificate", encoding="utf-8")
    wrong = str(tmp_path / "ca.pem")
    refused(ConfigError, "ca.pem", lambda: opened(hosts, tls=True, ca_file=wrong))


# -- wrong servers -------------------------------------------------------------------------------


def test_nobody_is_there(opened: Open) -> None:
    where = f"127.0.0.1:{free_port()}"
    refused(BackendUnavailable, f"{where}.*refused", lambda: opened(where, timeout=1.0))


@pytest.mark.parametrize("greeting", [b"", b"-ERR unknown command\r\n", b"\xff\xff\xff\xff", b"\0"])
def test_something_else_is_there(opened: Open, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as accepted:

        def serve() -> None:
            while True:
                try:
                    link = accepted.enter_context(listener.accept()[0])
                    link.sendall(greeting)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        hosts = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            refused(BackendUnavailable, "no connection", lambda: opened(hosts, timeout=1.0))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_server_that_grants_too_little(
    zookeeper_server: ZookeeperNode, opened: Open, fresh_namespace: str
) -> None:
    where = zookeeper_server.hosts  # it grants a minute
    refused(ConfigError, "maxSessionTimeout", lambda: opened(where, ttl=41.0))
    assert opened(where, ttl=40.0).guarantees.shortest_ttl == 0.0
    client = KazooClient(hosts=where, timeout=100.0)
    client.start()
    try:
        refused(
            ConfigError, "maxSessionTimeout", lambda: ZookeeperStore(client, fresh_namespace, 41.0)
        )
    finally:
        client.stop()
        client.close()


def test_a_server_that_grants_too_much(
    spawn_zookeeper: Spawn, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    node = spawn_zookeeper({"minSessionTimeout": "6000"})
    store = opened(node.hosts, ttl=2.0)
    assert "minSessionTimeout" in caplog.text
    assert store.guarantees.shortest_ttl == 4.0
    assert store.guarantees.grace >= 4.0
    found = list(examine(ZookeeperSettings(hosts=node.hosts)))
    assert not [finding for finding in found if "sessions of" in finding.what]


def test_another_format(
    zookeeper_server: ZookeeperNode, opened: Open, admin: KazooClient, fresh_namespace: str
) -> None:
    opened(zookeeper_server.hosts)
    admin.set(Layout(fresh_namespace).format, b"999")
    refused(ConfigError, "format 999.*format 1", lambda: opened(zookeeper_server.hosts))


# -- examine -------------------------------------------------------------------------------------


def examined(**settings: object) -> dict[str, str]:
    filled = ZookeeperSettings(**settings)  # type: ignore[arg-type]
    return {finding.what: finding.level for finding in examine(filled)}


def level_of(found: dict[str, str], part: str) -> str:
    (level,) = {level for what, level in found.items() if part in what}
    return level


def test_examine_one_server(zookeeper_server: ZookeeperNode, opened: Open) -> None:
    opened(zookeeper_server.hosts)
    found = examined(hosts=zookeeper_server.hosts)
    assert level_of(found, "standalone") == "ok"
    assert level_of(found, "one server alone") == "warning"
    assert level_of(found, "open ACLs") == "ok"
    assert "danger" not in found.values()


def test_examine_says_what_is_wrong(spawn_zookeeper: Spawn) -> None:
    node = spawn_zookeeper(
        {"maxSessionTimeout": "5000", "4lw.commands.whitelist": "ruok,srvr"},
        jvm="-Djute.maxbuffer=100000",
    )
    found = examined(hosts=node.hosts)
    assert level_of(found, "sessions of 5 s") == "danger"
    assert level_of(found, "bytes is not taken") == "danger"


def test_examine_an_ensemble(zookeeper_cluster: ZookeeperCluster) -> None:
    found = examined(hosts=zookeeper_cluster.hosts)
    assert [what for what in found if ", leader" in what]
    assert "danger" not in found.values()
    one = zookeeper_cluster.nodes[0]
    assert level_of(examined(hosts=one.hosts), "names one server") == "warning"
    one.kill()
    found = examined(hosts=zookeeper_cluster.hosts, timeout=5.0)
    assert level_of(found, "2 of 3 servers") == "warning"
    assert level_of(found, f"{one.address} can't be asked") == "warning"


def test_examine_nobody() -> None:
    found = examined(hosts=f"127.0.0.1:{free_port()}", timeout=0.5)
    assert level_of(found, "no connection") == "danger"


def make_certificates(folder: Path) -> None:
    """A CA, and certificates of it for the server 127.0.0.1 and a client."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "rsa:2048", "-nodes", "-batch")
    openssl(
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test ca"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    for name in ("server", "client"):
        openssl(
            "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        (folder / "names").write_text(
            "subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n", encoding="utf-8"
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-out", f"{name}.crt", "-extfile", "names"),
        )
    pair = [(folder / f"server.{part}").read_text(encoding="utf-8") for part in ("key", "crt")]
    (folder / "server.pem").write_text("".join(pair), encoding="utf-8")
