"""The etcd store where one must be let in: users, tokens that end, TLS of both sides."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import grpc
import pytest

from distjob.backend.opened import Blocking
from distjob.errors import BackendUnavailable, ConfigError
from distjob.store import Store, Woken
from distjob.testing.contract import try_until
from distjob.testing.onloop import OnLoop
from distjob_etcd import EtcdRecipe, EtcdSettings, backend
from on_etcd import commit_waking, opened, opened_async, received, source_of
from servers import EtcdNode

TTL = 10.0
SECRET = "s3cret-p@ss"
USER = {"user": "distjob", "password": SECRET}
Spawn = Callable[..., EtcdNode]
Connected = Callable[..., AbstractContextManager[Store]]


@pytest.fixture(params=["spawn_etcd", "spawn_newer_etcd"])
def guarded(request: pytest.FixtureRequest) -> EtcdNode:
    """A server that asks for a password; tokens end a second after their last use."""
    spawn: Spawn = request.getfixturevalue(request.param)
    return guard(spawn("--auth-token-ttl=1"))


def guard(node: EtcdNode) -> EtcdNode:
    """Make the users root, distjob (as documented) and reader; and ask for passwords."""
    for words in (
        ("user", "add", "root:root"),
        ("user", "grant-role", "root", "root"),
        ("role", "add", "distjob"),
        ("role", "grant-permission", "distjob", "readwrite", "distjob/", "--prefix=true"),
        ("role", "add", "reader"),
        ("role", "grant-permission", "reader", "read", "distjob/", "--prefix=true"),
        ("user", "add", f"distjob:{SECRET}"),
        ("user", "grant-role", "distjob", "distjob"),
        ("user", "add", f"reader:{SECRET}"),
        ("user", "grant-role", "reader", "reader"),
    ):
        # The roles root and distjob may be there: etcd has made the first, or not, by version.
        with contextlib.suppress(RuntimeError):
            node.cli("role", "add", "root") if words[-1] == "root" else None
        node.cli(*words)
    node.cli("auth", "enable")
    return node


def as_root(node: EtcdNode, *words: str) -> str:
    return node.cli("--user", "root:root", *words)


@pytest.fixture(params=["blocking", "asyncio"])
def connected(request: pytest.FixtureRequest) -> Connected:
    """Connects by settings, within ``with``; the store on asyncio in a loop of its own."""

    @contextlib.contextmanager
    def connected(node: EtcdNode, namespace: str = "ns", **settings: object) -> Iterator[Store]:
        prefix = "https://" if node.scheme == "https" else ""
        chosen = EtcdSettings(
            **{"endpoints": (f"{prefix}{node.address}",), "timeout": 5.0, **settings}  # type: ignore[arg-type]
        )
        store: Store
        if request.param == "asyncio":
            store = OnLoop(partial(opened_async, chosen, namespace, TTL))
        else:
            store = opened(chosen, namespace, TTL)
        with contextlib.closing(store):
            yield store

    return connected


def exercise(store: Store) -> None:
    """Every verb once."""
    me = store.open_session(TTL, "me")
    assert store.keep_alive(me)
    version = commit_waking(store, me)
    assert list(store.receive(me, 5.0)) == [Woken("vm", version, b"woken")]
    assert [vm for vm, _ in store.scan()] == ["vm"]
    assert store.remaining([me])[me] > 0
    store.commit("vm", version, None, me, ())
    store.close_session(me)
    assert store.remaining([me]) == {me: 0.0}
    store.interrupt()


def assert_secret(error: BaseException, settings: EtcdSettings | None = None) -> None:
    """The password is in no error, nor in the repr of the settings."""
    told = [repr(settings)] if settings else []
    cause: BaseException | None = error
    while cause is not None:
        told += [str(cause), repr(cause)]
        cause = cause.__cause__
    assert not [text for text in told if SECRET in text]


# -- users and tokens ---------------------------------------------------------------------------


REFUSED = (
    ({"user": "distjob", "password": f"{SECRET}x"}, "etcd.password"),
    ({"user": "nobody", "password": SECRET}, "etcd.password"),
    ({}, "etcd.user"),
    ({"user": "reader", "password": SECRET}, "readwrite on the prefix distjob/ns/ "),
)


def test_users_that_are_let_in_and_refused(guarded: EtcdNode, connected: Connected) -> None:
    with connected(guarded, **USER) as store:
        exercise(store)
        if isinstance(store, Blocking):
            assert backend.examine is not None
            said = {finding.what for finding in backend.examine(store)}
            assert "authentication is on" in said
    for user, words in REFUSED:
        with pytest.raises(ConfigError, match=words) as caught, connected(guarded, **user):
            pass
        assert_secret(caught.value, EtcdSettings(**user))


def test_tokens_that_have_ended_are_renewed(guarded: EtcdNode, connected: Connected) -> None:
    """By time, and with the server that gave them; for requests, and for the watch."""
    with connected(guarded, **USER) as store:
        me = store.open_session(TTL, "me")
        before = source_of(store).cluster._token
        assert before
        threading.Event().wait(2.5)
        version = commit_waking(store, me)
        assert source_of(store).cluster._token != before
        assert list(store.receive(me, 5.0)) == [Woken("vm", version, b"woken")]
        threading.Event().wait(2.5)
        you = store.open_session(TTL, "you")  # a new watch on a stream with a token that has ended
        version = commit_waking(store, you)
        assert received(store, you, Woken("vm", version, b"woken"))
        guarded.kill()
        guarded.start()
        last = try_until(lambda: commit_waking(store, you))
        assert received(store, you, Woken("vm", last, b"woken"))


def test_a_right_that_is_taken_away(guarded: EtcdNode, connected: Connected) -> None:
    with connected(guarded, **USER) as store:
        me = store.open_session(TTL, "me")
        as_root(guarded, "role", "revoke-permission", "distjob", "distjob/", "--prefix=true")
        with pytest.raises(
            BackendUnavailable, match="readwrite on the prefix distjob/ns/ "
        ) as caught:
            store.read("vm")
        assert not caught.value.unanswered
        as_root(
            guarded,
            *("role", "grant-permission", "distjob", "readwrite", "distjob/", "--prefix=true"),
        )
        assert store.keep_alive(me)
        exercise(store)


def test_passwords_asked_for_later(spawn_etcd: Spawn, connected: Connected) -> None:
    node = spawn_etcd()
    with connected(node, **USER) as store:
        me = store.open_session(TTL, "me")
        guard(node)
        version = commit_waking(store, me)
        assert received(store, me, Woken("vm", version, b"woken"))
        exercise(store)


_TOKEN_OF_THE_USERS = """
import sys
import pyetcd
from distjob.config import Settings, open_backend
from distjob_etcd import EtcdRecipe
host, _, port = sys.argv[1].rpartition(":")
client = pyetcd.client(host=host, port=int(port), user="distjob", password=sys.argv[2])
section = EtcdRecipe(client=client)
store = open_backend(Settings(backend="etcd", namespace="ns", section=section))
me = store.open_session(10.0, "me")
reply = store.commit("vm", 0, b"x", me, (me,))
assert [event.version for event in store.receive(me, 5.0)] == [reply.version]
store.close()
assert client.metadata
"""


def test_the_token_of_the_users_client(guarded: EtcdNode) -> None:
    if subprocess.run(
        [sys.executable, "-c", "import pyetcd"], capture_output=True, check=False
    ).returncode:
        pytest.skip("there is no pyetcd (etcd-sdk-python)")
    command = [sys.executable, "-c", _TOKEN_OF_THE_USERS, guarded.address, SECRET]
    subprocess.run(command, timeout=30, check=True)


# -- TLS ----------------------------------------------------------------------------------------


@pytest.fixture
def secured(spawn_etcd: Spawn, certificates: Path) -> EtcdNode:
    """A server that asks for a certificate of its CA."""
    return spawn_etcd(
        "--cert-file={dir}/server.crt",
        "--key-file={dir}/server.key",
        "--trusted-ca-file={dir}/ca.crt",
        "--client-cert-auth",
        scheme="https",
        give=[certificates / name for name in ("server.crt", "server.key", "ca.crt")],
    )


def test_names_and_channels_with_tls(
    secured: EtcdNode, certificates: Path, connected: Connected
) -> None:
    ca = {"ca_file": str(certificates / "ca.crt")}
    own = {
        "cert_file": str(certificates / "client.crt"),
        "key_file": str(certificates / "client.key"),
    }
    with connected(secured, server_name="127.0.0.1", **ca, **own) as store:
        exercise(store)
    with pytest.raises(ConfigError, match=r"etcd\.ca_file"), connected(secured, **own):
        pass  # gRPC's own CAs did not sign it
    with (
        pytest.raises(ConfigError, match=r"etcd\.server_name"),
        connected(secured, server_name="elsewhere.example", **ca, **own),
    ):
        pass
    credentials = grpc.ssl_channel_credentials(
        *((certificates / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt"))
    )
    with grpc.secure_channel(secured.address, credentials) as channel:
        store = opened(EtcdRecipe(client=channel), "ns", TTL)
        exercise(store)
        store.close()
