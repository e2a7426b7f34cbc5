"""The redis section: bounds, what its repr hides, and that it needs no redis-py."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from distjob_redis.settings import RedisSettings, redacted


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
