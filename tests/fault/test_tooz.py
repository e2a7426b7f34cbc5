"""tooz's own tests of locks, on each store that is a driver of tooz's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stores import section_of

SCRIPT = Path(__file__).parent.parent / "tooz_tests.py"
SHARED = {
    "test_get_lock_locking_exclusive_and_shared",
    "test_get_lock_locking_shared_and_exclusive",
    "test_get_shared_lock",
    "test_get_shared_lock_locking_same_lock_twice",
    "test_get_shared_lock_locking_two_lock",
}
"""Refused, as tooz would have it."""
NOT_NEEDED = {"test_heartbeat", "test_heartbeat_loop"}
ACROSS_HOSTS = {"test_connection_error_bad_host"}


def url_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    section = section_of(kind, request, folder)
    match kind:
        case "sqlite":
            return f"distjob+sqlite://{section['path']}"
        case "redis":
            return f"distjob+{section['url']}"
        case "etcd":
            return f"distjob+etcd://{','.join(section['endpoints'])}"
    return f"distjob+zookeeper://{section['hosts']}"


@pytest.mark.parametrize("kind", ["sqlite", "redis", "etcd", "zookeeper"])
def test_tooz_is_content_with_the_locks(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, fresh_namespace: str
) -> None:
    pytest.importorskip("tooz.tests.test_coordination")
    url = url_of(kind, request, tmp_path)
    separator = "&" if "?" in url else "?"
    environment = os.environ | {"TOOZ_TEST_URL": f"{url}{separator}namespace={fresh_namespace}"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    told = json.loads(done.stdout)
    assert told["failed"] == {}
    assert {"test_get_lock", "test_get_lock_release_broken", *ACROSS_HOSTS} <= {
        *told["passed"],
        *(ACROSS_HOSTS if kind == "sqlite" else ()),
    }
    assert set(told["skipped"]) == SHARED | NOT_NEEDED | (
        ACROSS_HOSTS if kind == "sqlite" else set()
    )
