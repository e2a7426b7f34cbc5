"""One process of a history: random operations on one VM, written down as they begin and end."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import distjob
from distjob import AgentJob, AsyncJob, Client, DistjobError, Job, clock

VM = "vm"
JOBS = (Job.QUERY, Job.MODIFY, Job.DESTROY, Job.SUSPEND)


class Player:
    """Writes a line when an operation begins, and one when it returns; each is flushed."""

    def __init__(self, jobs: Client, seed: str, file: Path) -> None:
        self.jobs = jobs
        self.rng = random.Random(seed)
        self._file = file.open("a", encoding="utf-8")
        self._count = 0

    def do(self, what: str, call: Any, **facts: Any) -> Any:
        """The operation's result; None if it raised."""
        self._count += 1
        self._write(n=self._count, what=what, at=clock.monotonic(), **facts)
        try:
            result = call()
        except DistjobError as error:
            self._write(n=self._count, at=clock.monotonic(), error=type(error).__name__)
            return None
        self._write(n=self._count, at=clock.monotonic(), **self._facts(result))
        return result

    def _facts(self, result: Any) -> dict[str, Any]:
        if isinstance(result, distjob.VMStatus):
            return {"held": {str(job.slot): job.token for job in result.holders}}
        if isinstance(result, distjob.JobStatus):
            return {"token": result.token}
        if isinstance(result, (list, tuple)):
            return {"took": [(str(job.slot), job.token) for job in result if job.slot]}
        return {"token": getattr(result, "token", 0)}

    def _write(self, **facts: Any) -> None:
        self._file.write(json.dumps(facts) + "\n")
        self._file.flush()

    def play(self, until: float) -> None:
        while clock.monotonic() < until:
            dice = self.rng.random()
            if dice < 0.5:
                self._sync()
            elif dice < 0.6:
                self._agent()
            elif dice < 0.8:
                self._long()
            elif dice < 0.9:
                self.do("status", lambda: self.jobs.status(VM))
            else:
                self._meddle()

    def _sync(self) -> None:
        job = self.rng.choice(JOBS)
        if self.rng.random() < 0.3:
            lease = self.do("try", lambda: self.jobs.try_begin(VM, job), slot="sync", job=job)
        else:
            lease = self.do("begin", lambda: self.jobs.begin(VM, job, wait=2), slot="sync", job=job)
        self._end(lease, "sync")

    def _agent(self) -> None:
        call = lambda: self.jobs.begin_agent(VM, AgentJob.QUERY, wait=2)  # noqa: E731
        self._end(self.do("begin", call, slot="agent", job="agent"), "agent")

    def _end(self, lease: Any, slot: str) -> None:
        if lease is not None:
            time.sleep(self.rng.random() * 0.02)
            self.do("end", lease.end, slot=slot, of=lease.token)

    def _long(self) -> None:
        call = lambda: self.jobs.begin_async(VM, AsyncJob.BACKUP, wait=2)  # noqa: E731
        job = self.do("begin", call, slot="async", job="async")
        if job is None:
            return
        if self.rng.random() < 0.5:
            self.do("allow", lambda: job.allow(Job.MODIFY), of=job.token, mask=["modify"])
        if self.rng.random() < 0.5:
            step = self.do("step", lambda: job.nested(wait=1), slot="sync", of=job.token)
            self._end(step, "sync")
        if self.rng.random() < 0.3:
            self.do("detach", job.detach, of=job.token)
        else:
            self._end(job, "async")

    def _meddle(self) -> None:
        dice = self.rng.random()
        if dice < 0.4:
            call = lambda: self.jobs.adopt(VM, AsyncJob.BACKUP)  # noqa: E731
            self._end(self.do("adopt", call, slot="async"), "async")
        elif dice < 0.7:
            self.do("discard", lambda: self.jobs.discard(VM))
        elif dice < 0.9:
            self.do("abort", lambda: self.jobs.abort(VM, wait=1))
        else:
            seen = self.do("status", lambda: self.jobs.status(VM))
            tickets = [job.ticket for job in seen.holders] if seen is not None else []
            self.do("evict", lambda: self.jobs.evict(VM, tickets))


def main() -> None:
    """Arguments: the settings as JSON, seed, file, seconds."""
    settings, seed, file, seconds = sys.argv[1:]
    with distjob.connect(json.loads(settings)) as jobs:
        Player(jobs, seed, Path(file)).play(clock.monotonic() + float(seconds))


if __name__ == "__main__":
    main()
