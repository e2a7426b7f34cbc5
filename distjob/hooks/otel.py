"""A hook that traces for OpenTelemetry: ``connect(..., hooks=[Spans()])``.

Each begin that has to wait is a span ``distjob wait``, each job that is held one ``distjob hold``,
both in the trace of whoever began it. `traced` lets those who wait for a job see its trace: their
wait links to it. Needs the extra: ``pip install "distjob-vm[otel]"``, the API only; which SDK
exports the spans is the program's choice. Nothing else in distjob imports this.
"""

from __future__ import annotations

import re
import threading
import time

try:
    from opentelemetry import trace
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'distjob.hooks.otel needs opentelemetry-api: pip install "distjob-vm[otel]"',
        name=error.name,
    ) from None

from distjob.hooks import (
    Begun,
    Blocker,
    Ended,
    Event,
    GaveUp,
    JobEvent,
    Lost,
    RenewalFailed,
    StoreFailed,
    TimedOut,
    Waiting,
)
from distjob.rules.words import owner_name

_TRACE = re.compile(r" trace=([0-9a-f]{32})-([0-9a-f]{16})$")


def traced(api: str) -> str:
    """``api`` with the current span's ids behind it: ``begin(..., api=traced("attach-disk"))``.

    Whoever is kept waiting by that job reads them in `JobTimeout`, and `Spans` links its wait to
    that span. Without a span ``api`` is returned as it is.
    """
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return api
    return f"{api} trace={context.trace_id:032x}-{context.span_id:016x}"


class Spans:
    """Makes spans for all clients that have it as a hook; one is enough for a process.

    Thread-safe. A span that is open when the process is killed is never exported.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """``provider``: whose tracer is used; by default the global one."""
        self._tracer = trace.get_tracer("distjob", tracer_provider=provider)
        self._lock = threading.Lock()
        self._waits = dict[str, trace.Span]()
        self._holds = dict[str, trace.Span]()

    def __call__(self, event: Event) -> None:
        match event:
            case Waiting():
                span = self._start("wait", event, links=_links(event.blockers))
                span.set_attribute("distjob.depth", event.depth)
                span.set_attribute("distjob.blockers", [_named(one) for one in event.blockers])
                with self._lock:
                    self._waits[event.ticket] = span
            case Begun():
                self._waited(event, "granted")
                span = self._start("hold", event)
                span.set_attribute("distjob.token", event.token)
                span.set_attribute("distjob.waited", event.waited)
                with self._lock:
                    self._holds[event.ticket] = span
            case TimedOut():
                self._waited(event, "timed out", failed=True)
            case GaveUp():
                self._waited(event, "gave up")
            case Ended():
                self._over(event)
            case Lost():
                self._over(event, why=event.why)
            case RenewalFailed():
                with self._lock:
                    held = list(self._holds.values())
                for span in held:
                    span.add_event("distjob.renewal_failed", {"error": event.error})
            case StoreFailed():
                trace.get_current_span().add_event(
                    "distjob.store_failed",
                    {"verb": event.verb, "error": event.error, "unanswered": event.unanswered},
                )

    def _start(
        self, name: str, event: JobEvent, links: list[trace.Link] | None = None
    ) -> trace.Span:
        return self._tracer.start_span(
            f"distjob {name}",
            attributes={"distjob.vm": event.vm, "distjob.job": event.job},
            links=links,
        )

    def _waited(self, event: JobEvent, outcome: str, *, failed: bool = False) -> None:
        with self._lock:
            span = self._waits.pop(event.ticket, None)
        if span is None:
            return  # it was granted, or refused, at once
        span.set_attribute("distjob.outcome", outcome)
        if failed:
            span.set_status(trace.StatusCode.ERROR, outcome)
        span.end(time.time_ns())

    def _over(self, event: JobEvent, why: str = "") -> None:
        with self._lock:
            span = self._holds.pop(event.ticket, None)
        if span is None:
            return  # it began before this hook was there
        if why:
            span.set_status(trace.StatusCode.ERROR, f"lost: {why}")
        span.end(time.time_ns())


def _named(one: Blocker) -> str:
    return f"{one.job} of {owner_name(one.owner)}, api {one.api}"


def _links(blockers: tuple[Blocker, ...]) -> list[trace.Link]:
    """To the spans in which those in the way were begun, as far as `traced` has named them."""
    found = (_TRACE.search(one.api) for one in blockers)
    return [
        trace.Link(
            trace.SpanContext(int(ids[1], 16), int(ids[2], 16), is_remote=True),
            {"distjob.relation": "waits for"},
        )
        for ids in found
        if ids
    ]
