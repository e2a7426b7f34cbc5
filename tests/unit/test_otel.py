"""Spans, as an exporter gets them: of waits and holds, linked to whom they waited for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from distjob import Client, JobTimeout
from distjob.hooks import Event, RenewalFailed, StoreFailed, Waiting
from distjob.hooks.otel import Spans, traced
from distjob.testing.memory import MemoryServer, MemoryStore
from until import until

Exported = InMemorySpanExporter


@pytest.fixture
def exported() -> Exported:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exported: Exported) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return provider


@pytest.fixture
def client(provider: TracerProvider) -> Iterator[Client]:
    with Client(MemoryStore(MemoryServer()), controller="a", hooks=[Spans(provider)]) as client:
        yield client


def named(exported: Exported, name: str) -> list[ReadableSpan]:
    return [span for span in exported.get_finished_spans() if span.name == f"distjob {name}"]


def test_a_hold_is_a_span_in_the_callers_trace(
    client: Client, provider: TracerProvider, exported: Exported
) -> None:
    with provider.get_tracer("test").start_as_current_span("request") as request:
        lease = client.begin("vm", "modify")
        lease.end()
    [span] = named(exported, "hold")
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id
    assert span.attributes is not None
    assert span.attributes["distjob.vm"] == "vm"
    assert span.attributes["distjob.token"] == lease.token
    assert span.status.is_ok or span.status.is_unset
    assert named(exported, "wait") == []


def test_a_wait_links_to_the_trace_of_who_is_in_the_way(
    provider: TracerProvider, exported: Exported
) -> None:
    server, told = MemoryServer(), list[Event]()
    hooks = [Spans(provider), told.append]
    with (
        Client(MemoryStore(server), controller="a", hooks=hooks) as a,
        Client(MemoryStore(server), controller="b", hooks=hooks) as b,
        ThreadPoolExecutor(1) as pool,
    ):
        with provider.get_tracer("test").start_as_current_span("request") as request:
            lease = a.begin("vm", "modify", api=traced("attach-disk"))
        waiting = pool.submit(b.begin, "vm", "modify")
        until(lambda: any(isinstance(event, Waiting) for event in told))
        lease.end()
        waiting.result(20).end()
        with a.begin("vm", "modify", api=traced("x")), pytest.raises(JobTimeout):
            b.begin("vm", "modify", wait=0.01)
    granted, timed_out = named(exported, "wait")
    [link] = granted.links
    assert link.context.trace_id == request.get_span_context().trace_id
    assert link.context.span_id == request.get_span_context().span_id
    assert granted.attributes is not None
    assert granted.attributes["distjob.outcome"] == "granted"
    assert f"trace={link.context.trace_id:032x}" in str(granted.attributes["distjob.blockers"])
    assert timed_out.status.status_code is trace.StatusCode.ERROR
    assert timed_out.links == ()  # it was begun in no trace
    assert len(named(exported, "hold")) == 3


def test_a_loss_is_an_error_and_a_failed_renewal_an_event(
    provider: TracerProvider, exported: Exported
) -> None:
    server, spans = MemoryServer(), Spans(provider)
    with Client(MemoryStore(server), hooks=[spans]) as client:
        lease = client.begin("vm", "modify")
        spans(RenewalFailed(session="s", error="no route", times=1, seconds=5.0))
        client.evict("vm", [client.status("vm").holders[0].ticket])
        until(lambda: named(exported, "hold"))
        assert lease.lost
    [span] = named(exported, "hold")
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "by force" in str(span.status.description)
    assert [event.name for event in span.events] == ["distjob.renewal_failed"]


def test_what_the_store_did_not_do_is_told_to_the_callers_span(
    provider: TracerProvider, exported: Exported
) -> None:
    spans = Spans(provider)
    with provider.get_tracer("test").start_as_current_span("request"):
        spans(StoreFailed(verb="commit", error="cut off", unanswered=True))
    [span] = exported.get_finished_spans()
    assert [event.name for event in span.events] == ["distjob.store_failed"]


def test_without_a_trace_nothing_is_said() -> None:
    assert traced("attach-disk") == "attach-disk"


def test_only_who_asks_for_spans_needs_the_library() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import distjob.hooks.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "distjob-vm[otel]"' in done.stderr
