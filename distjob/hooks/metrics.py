"""A hook that counts and times for Prometheus: ``connect(..., hooks=[Metrics()])``.

It decides names, labels and buckets. Labels are types of jobs, never VMs: their number is bounded.
Needs the extra: ``pip install "distjob-vm[metrics]"``; nothing else in distjob imports this.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import get_args

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'distjob.hooks.metrics needs prometheus-client: pip install "distjob-vm[metrics]"',
        name=error.name,
    ) from None

from distjob import clock
from distjob.hooks import (
    Begun,
    Ended,
    Event,
    Evicted,
    Fate,
    GaveUp,
    How,
    Lost,
    Refused,
    RenewalFailed,
    Renewed,
    SessionLost,
    SessionOpened,
    StoreFailed,
    TimedOut,
    Waiting,
)
from distjob.rules.jobs import AsyncJob

_WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_HOLDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
_DEPTHS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)
_SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.17, 0.25, 0.35, 0.45, 0.57)


class Metrics:
    """Counts for all clients that have it as a hook; one is enough for a process.

    Thread-safe. Give it to a client when that is made, so that the gauges start at zero.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register in ``registry``. Raises ValueError if one was registered there before."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"distjob_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"distjob_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"distjob_{name}", text, labels, registry=registry, buckets=buckets)

        self._known = set[str]()
        self._lock = threading.Lock()
        self._since = dict[str, dict[tuple[str, int], float]]()
        """When each job that is held began, by type: the oldest first."""
        self._deadlines = dict[str, float]()
        """When the jobs of each session are void, by the local clock."""
        self._held = gauge("held", "Jobs held now.", "type")
        self._oldest = gauge("longest_held_seconds", "The age of the oldest job held.", "type")
        self._waiting = gauge("waiting", "Begins that stand in line now.", "type")
        self._session_up = gauge("session_up", "Sessions that live; one a client and shard.")
        self._session_up.set_function(lambda: len(self._deadlines))
        gauge(
            "deadline_seconds",
            "Until the jobs of a session are void, unless it is renewed; 0: none.",
        ).set_function(self._deadline)
        self._wait = histogram(
            *("wait_seconds", "From the call of begin to its outcome.", "type", "outcome"),
            buckets=_WAITS,
        )
        self._hold = histogram(
            "hold_seconds", "For how long jobs were held.", "type", buckets=_HOLDS
        )
        self._depth = histogram(
            *("queue_depth", "How many held or waited when a begin got in line.", "type"),
            buckets=_DEPTHS,
        )
        self._late = histogram(
            *("keep_alive_late_ratio", "Lateness of renewals, by TTL; 0.57 is a loss."),
            buckets=_SHARES,
        )
        self._sessions_lost = counter("sessions_lost", "Sessions that ended.", "how")
        self._failed = counter("renewals_failed", "Keep-alives that did not come through.")
        self._errors = counter(
            *("store_errors", "What the store did not do.", "verb", "outcome"),
        )
        for how in get_args(How):
            self._sessions_lost.labels(how)
        self._refused = counter("refused", "Begins refused by max_queued.", "type")
        self._timed_out = counter("timed_out", "Begins not granted in time.", "type")
        self._lost = counter("lost", "Jobs lost by their holder.", "type", "how")
        self._evicted = counter("evicted", "Jobs of others taken out.", "type", "how")
        for kind in AsyncJob:  # whoever finds an orphan may never have begun such a job
            self._know(f"async {kind}")

    def __call__(self, event: Event) -> None:
        match event:
            case Waiting(job=job):
                self._know(job)
                self._waiting.labels(job).inc()
                self._depth.labels(job).observe(event.depth)
            case Begun(job=job):
                self._know(job)
                self._outcome(job, "granted", event.waited, waited=event.queued)
                self._held.labels(job).inc()
                with self._lock:
                    self._since[job][event.vm, event.token] = clock.monotonic()
            case TimedOut(job=job):
                self._outcome(job, "timed out", event.waited)
                self._timed_out.labels(job).inc()
            case GaveUp(job=job):
                self._outcome(job, "gave up", event.waited)
            case Refused(job=job):
                self._know(job)
                self._refused.labels(job).inc()
            case Ended():
                self._over(event)
            case Lost(job=job):
                self._over(event)
                self._lost.labels(job, event.how).inc()
            case Evicted(job=job):
                self._evicted.labels(job, event.how).inc()
            case _:
                self._of_session(event)

    def _of_session(self, event: Event) -> None:
        match event:
            case Renewed():
                self._late.observe(event.late / event.ttl)
                self._until(event.session, event.seconds)
            case SessionOpened():
                self._until(event.session, event.seconds)
            case SessionLost():
                self._sessions_lost.labels(event.how).inc()
                with self._lock:
                    self._deadlines.pop(event.session, None)
            case RenewalFailed():
                self._failed.inc()
            case StoreFailed():
                outcome = "unanswered" if event.unanswered else "not done"
                self._errors.labels(event.verb, outcome).inc()

    def _until(self, session: str, seconds: float) -> None:
        with self._lock:
            self._deadlines[session] = clock.monotonic() + seconds

    def _deadline(self) -> float:
        """Seconds to the first of the deadlines."""
        with self._lock:
            first = min(self._deadlines.values(), default=0.0)
        return max(0.0, first - clock.monotonic())

    def _age(self, job: str) -> float:
        """Seconds since the oldest of this type began."""
        with self._lock:
            since = next(iter(self._since[job].values()), None)
        return 0.0 if since is None else clock.monotonic() - since

    def _know(self, job: str) -> None:
        """Let the counters of a type of job start at zero: a rise from nothing is no rise."""
        if job not in self._known:
            self._since.setdefault(job, {})  # before it is known: other threads come by
            self._known.add(job)
            self._oldest.labels(job).set_function(partial(self._age, job))
            for how in get_args(How):
                self._lost.labels(job, how)
            for fate in get_args(Fate):
                self._evicted.labels(job, fate)
            self._refused.labels(job)
            self._timed_out.labels(job)

    def _outcome(self, job: str, outcome: str, seconds: float, *, waited: bool = True) -> None:
        self._wait.labels(job, outcome).observe(seconds)
        if waited:
            self._waiting.labels(job).dec()

    def _over(self, event: Ended | Lost) -> None:
        self._hold.labels(event.job).observe(event.held)
        self._held.labels(event.job).dec()
        with self._lock:
            self._since[event.job].pop((event.vm, event.token), None)
