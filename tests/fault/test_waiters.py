"""A controller that dies, or is stopped, while it waits for a job that would outlive it.

Whoever ends the job before it lets it in, as its session lives yet. It has not begun that job, so
that no orphan may stay of it when its session ends.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distjob import Job, connect
from until import until

TTL = 2.0
WAITER = """
import sys, distjob
with distjob.connect(sys.argv[1]) as jobs:
    jobs.begin_async("vm", "backup", on_owner_loss="orphan", wait=60)
"""


@pytest.mark.parametrize(
    ("config", "how"), [("sqlite", signal.SIGKILL), ("redis", signal.SIGSTOP)], indirect=["config"]
)
def test_no_orphan_stays_of_one_that_had_not_begun(
    config: Path, how: signal.Signals, start: Callable[..., Any]
) -> None:
    settings = json.loads(config.read_text()) | {"session": {"ttl": TTL}}
    config.write_text(json.dumps(settings))
    with connect(config) as jobs:
        lease = jobs.begin("vm", Job.MODIFY)
        waiter = start([sys.executable, "-c", WAITER, str(config)])
        until(lambda: jobs.status("vm").waiters)
        waiter.send_signal(how)
        lease.end()
        [let_in] = jobs.status("vm").holders
        assert let_in.pid == waiter.pid
        jobs.begin("vm", Job.MODIFY, wait=60).end()
        assert jobs.status("vm").idle
