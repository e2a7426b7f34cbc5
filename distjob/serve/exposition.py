"""What Prometheus is told at ``/metrics``: the whole namespace, seen from outside.

Labels are types of jobs, never VMs: their number is bounded. `distjob.hooks.metrics` is what a
controller counts of its own jobs; these names are others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from distjob import clock
from distjob.protocol.look import JobStatus
from distjob.serve.watcher import Watcher

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_Labels = tuple[str, str]


def exposition(watcher: Watcher) -> str:
    """In Prometheus's text format, version 0.0.4."""
    picture, wall = watcher.picture, clock.wall()
    statuses = [shown.status for shown in picture.vms.values()]
    jobs = [job for status in statuses for job in _each_once(status.holders)]
    waiting = [job for status in statuses for job in status.waiters]
    passed = 0.0 if picture.seen is None else max(0.0, wall - picture.seen)
    count = Counter([*(("held", job.job) for job in jobs), *(("waits", j.job) for j in waiting)])
    oldest: dict[_Labels, float] = {}
    for state, some in (("held", jobs), ("waits", waiting)):
        for job in some:
            oldest[state, job.job] = max(oldest.get((state, job.job), 0.0), job.seconds)
    up = int(picture.seen is not None and not picture.trouble)
    lines = [
        *_one("store_up", "gauge", "1 if the last look at the store succeeded.", up),
        *_one("seen_seconds", "gauge", "Since the last look that succeeded.", passed),
        *_one("look_seconds", "gauge", "How long the last look took.", watcher.took),
        *_one("looks_total", "counter", "Looks at the store.", watcher.looks),
        *_one("streams", "gauge", "Browsers, and others, that watch.", watcher.watching),
        *_one("vms", "gauge", "VMs that are not idle.", len(statuses)),
        *_one("unowned", "gauge", "Async jobs without an owner.", sum(bool(j.left) for j in jobs)),
        *_one("abort_requests", "gauge", "Asked to abort.", sum(bool(j.abort) for j in jobs)),
        *_many("jobs", "Jobs by what they do.", count),
        *_many("oldest_seconds", "How long the oldest of them is held, or waits.", oldest),
    ]
    return "\n".join(lines) + "\n"


def _each_once(holders: Iterable[JobStatus]) -> Iterable[JobStatus]:
    """A job in two slots counts once."""
    return {job.ticket: job for job in holders}.values()


def _one(name: str, kind: str, text: str, value: float) -> list[str]:
    return [*_head(name, kind, text), f"distjob_serve_{name} {value:.12g}"]


def _many(name: str, text: str, values: Mapping[_Labels, float]) -> list[str]:
    lines = [
        f'distjob_serve_{name}{{state="{state}",type="{_escaped(job)}"}} {value:.12g}'
        for (state, job), value in sorted(values.items())
    ]
    return [*_head(name, "gauge", text), *lines]


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP distjob_serve_{name} {text}", f"# TYPE distjob_serve_{name} {kind}"]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
