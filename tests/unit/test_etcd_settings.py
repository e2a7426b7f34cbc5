"""The settings of the etcd store: what they may be, and that no password is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import msgspec
import pytest

from distjob.config import load
from distjob.errors import ConfigError
from distjob_etcd import EtcdRecipe, EtcdSettings
from distjob_etcd.client.members import members_of
from on_etcd import opened

SECRET = "s3cret-p@ss"


def read(**settings: object) -> EtcdSettings:
    return msgspec.convert(settings, EtcdSettings)


@pytest.mark.parametrize(
    "endpoint",
    [
        "localhost:2379",
        "https://etcd-1.example:2379",
        "http://10.0.0.1:1",
        "[::1]:2379",
        "h_1:65535",
    ],
)
def test_endpoints(endpoint: str) -> None:
    assert read(endpoints=[endpoint]).endpoints == (endpoint,)


@pytest.mark.parametrize(
    "endpoints",
    [
        [],
        ["localhost"],
        ["localhost:"],
        [":2379"],
        ["ftp://x:1"],
        ["a:1,b:2"],
        ["u:p@h:1"],
        ["h:1/x"],
    ],
)
def test_what_is_no_endpoint(endpoints: list[str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(endpoints=endpoints)


def test_the_password_is_not_shown() -> None:
    settings = read(user="distjob", password=SECRET)
    assert SECRET not in repr(settings)
    assert "***" in repr(settings)
    assert "password" not in repr(read())


ENDPOINT = "must be host:port, such as localhost:2379, or https://host:port for TLS"
TLS = "is for TLS: all etcd.endpoints must begin with https://"


@pytest.mark.parametrize(
    ("settings", "key", "right"),
    [
        ({"endpoints": ["a:1", "b"]}, "endpoints[1]", ENDPOINT),
        ({"endpoints": [f"u:{SECRET}@h:1"]}, "endpoints[0]", ENDPOINT),
        ({"endpoints": [1]}, "endpoints[0]", f"{ENDPOINT}, is a whole number"),
        ({"endpoints": ["a:0"]}, "endpoints", "a port, behind the host's ':', is a number"),
        ({"endpoints": ["a:65536"]}, "endpoints", "a port, behind the host's ':', is a number"),
        ({"endpoints": ["https://a:1", "b:1"]}, "endpoints", "all begin with https:// or none"),
        ({"ca_file": SECRET}, "ca_file", TLS),
        ({"server_name": SECRET}, "server_name", TLS),
        ({"endpoints": ["https://a:1"], "cert_file": SECRET}, "cert_file", "goes with etcd.key_fi"),
        ({"endpoints": ["https://a:1"], "key_file": SECRET}, "key_file", "goes with etcd.cert_fi"),
        ({"password": SECRET}, "password", "goes with etcd.user"),
        ({"user": "a\0b"}, "user", "must be text of at most 4096 characters, none of them NUL"),
    ],
)
def test_what_is_said_of_it(settings: dict[str, object], key: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"etcd": settings})
    assert str(caught.value).startswith(f"settings: etcd.{key}: {right}")
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    settings = read(endpoints=["https://a:1"], ca_file="/no/such.pem")
    with pytest.raises(ConfigError, match=r"/no/such\.pem"):
        opened(settings, "ns")


def test_a_key_that_is_no_pem(tmp_path: Path) -> None:
    """GRPC finds that out only when it connects, and says so to nobody but the log."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate", encoding="utf-8")
    settings = read(endpoints=["https://127.0.0.1:1"], ca_file=str(file), timeout=0.3)
    with pytest.raises(ConfigError, match=r"etcd\.ca_file.*PEM"):
        opened(settings, "ns")


def test_an_empty_namespace() -> None:
    with pytest.raises(ConfigError, match="namespace"):
        opened(read(endpoints=["127.0.0.1:1"], timeout=0.05), "")


def test_each_client_has_an_order_of_its_own() -> None:
    """So that not all are with the member that is named first; none is left out, or asked twice."""
    named = [f"h{number}:2379" for number in range(8)]
    settings = read(endpoints=[*named, "http://h3:2379/"])
    orders = set()
    for _ in range(10):
        members = members_of(settings, grpc)
        orders.add(tuple(member.name for member in members))
        for member in members:
            member.channel.close()
    assert all(sorted(order) == named for order in orders)
    assert len(orders) > 1


def test_a_recipe_is_no_file(tmp_path: Path) -> None:
    """Its keys are for programs, and its channels are not shown."""
    file = tmp_path / "distjob.yaml"
    file.write_text("backend: etcd\netcd: {make: x}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"etcd\.make: unknown key"):
        load(file)
    shown = repr(EtcdRecipe(make=print, password=SECRET, user="u"))
    assert SECRET not in shown
    assert "make=" in shown


def test_settings_and_promises_without_grpcio() -> None:
    script = (
        "import sys\n"
        "sys.modules['grpc'] = sys.modules['google.protobuf'] = None\n"
        "from distjob_etcd import backend\n"
        "backend.settings(); print(sorted(backend.promises))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['cluster', 'single']"
