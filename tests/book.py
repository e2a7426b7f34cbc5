"""What a client told: the fixtures `book`, for Prometheus, and `records`, for the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from distjob.hooks.metrics import Metrics


class Book:
    """A registry, read by name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"distjob_{name}", labels)


@pytest.fixture
def book() -> Book:
    return Book()


class _Keeps(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    caplog.set_level(logging.DEBUG)
    handler, root = _Keeps(), logging.getLogger()
    root.addHandler(handler)
    yield handler.records
    root.removeHandler(handler)
