"""The settings of the etcd store: what they may be, and that no password is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from distjob.errors import ConfigError
from distjob_etcd import EtcdSettings, backend

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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"endpoints": ["https://a:1", "b:1"]}, "https://"),
        ({"ca_file": "/ca.pem"}, "https://"),
        ({"endpoints": ["https://a:1"], "cert_file": "/c.pem"}, "key_file"),
        ({"endpoints": ["https://a:1"], "ca_file": "/no/such.pem"}, "/no/such.pem"),
        ({"password": SECRET}, "etcd.user"),
        ({"endpoints": ["a:0"]}, "port"),
        ({"endpoints": ["a:65536"]}, "port"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        backend.connect(read(**settings), "ns", 10.0)
    assert SECRET not in str(caught.value)


def test_a_key_that_is_no_pem(tmp_path: Path) -> None:
    """GRPC finds that out only when it connects, and says so to nobody but the log."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate", encoding="utf-8")
    settings = read(endpoints=["https://127.0.0.1:1"], ca_file=str(file), timeout=0.3)
    with pytest.raises(ConfigError, match=r"etcd\.ca_file.*PEM"):
        backend.connect(settings, "ns", 10.0)


def test_an_empty_namespace() -> None:
    with pytest.raises(ConfigError, match="namespace"):
        backend.connect(read(endpoints=["127.0.0.1:1"], timeout=0.05), "", 10.0)


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
