"""The asyncio client is the blocking one: names, arguments, words and errors are the same."""

from __future__ import annotations

import inspect

import pytest

import distjob
import distjob.aio
from distjob import client, lease, leases
from distjob.aio import client as aio_client
from distjob.aio import lease as aio_lease
from distjob.aio import leases as aio_leases

PAIRS = [
    (client.Client, aio_client.AsyncClient),
    (lease.Lease, aio_lease.Lease),
    (lease.AsyncJobLease, aio_lease.AsyncJobLease),
    (leases.Leases, aio_leases.Leases),
]
ENTERING = {"__enter__": "__aenter__", "__exit__": "__aexit__"}
ONLY_HERE = {"cancel_if_lost", "__await__"}
"""What only a task can do."""
IDS = [pair[0].__name__ for pair in PAIRS]


def public(kind: type) -> dict[str, object]:
    special = {"__init__", *ENTERING, *ENTERING.values(), "__await__"}
    return {
        name: inspect.getattr_static(kind, name)
        for name in dir(kind)
        if not name.startswith("_") or (name in special and name in _own(kind))
    }


def _own(kind: type) -> set[str]:
    return {name for base in kind.__mro__[:-1] for name in vars(base)}


@pytest.mark.parametrize(("blocking", "on_asyncio"), PAIRS, ids=IDS)
def test_the_same_names(blocking: type, on_asyncio: type) -> None:
    expected = {ENTERING.get(name, name) for name in public(blocking)}
    assert set(public(on_asyncio)) - ONLY_HERE == expected


@pytest.mark.parametrize(("blocking", "on_asyncio"), PAIRS, ids=IDS)
def test_the_same_arguments_and_words(blocking: type, on_asyncio: type) -> None:
    compared = 0
    for name, method in public(blocking).items():
        other = public(on_asyncio)[ENTERING.get(name, name)]
        if isinstance(method, property):
            assert isinstance(other, property)
            assert method.fget is other.fget or name == "guarantees"
            continue
        mine, its = _arguments(method), _arguments(other)
        for own in ("store", "runner") if name == "__init__" else ():  # each of its own world
            mine.pop(own, None)
            its.pop(own, None)
        assert mine == its, name
        if not name.startswith("__"):
            assert method.__doc__, name
            assert inspect.getdoc(method) == inspect.getdoc(other), name
            compared += 1
    assert compared >= 3


def _arguments(method: object) -> dict[str, tuple[object, object, object]]:
    found = inspect.signature(method).parameters.values()
    return {one.name: (one.kind, one.default, one.annotation) for one in found}


def test_connect_takes_the_same() -> None:
    assert _arguments(distjob.connect) == _arguments(distjob.aio.connect)
    assert inspect.getdoc(distjob.connect) == inspect.getdoc(distjob.aio.connect)


def test_results_are_of_the_same_types() -> None:
    """But that they are to be awaited, and that leases are those of asyncio."""
    for blocking, on_asyncio in PAIRS:
        for name, method in public(blocking).items():
            other = public(on_asyncio)[ENTERING.get(name, name)]
            if not isinstance(method, property) and not name.startswith("__"):
                mine = inspect.signature(method).return_annotation
                assert inspect.signature(other).return_annotation == mine, name


def test_nothing_of_the_protocol_is_done_twice() -> None:
    """No error of distjob's is made in the asyncio client, but for the loop it belongs to."""
    for module in (aio_client, aio_lease, aio_leases):
        source = inspect.getsource(module)
        assert "commit" not in source
        made = {line.split()[1].split("(")[0] for line in source.splitlines() if "raise " in line}
        assert made <= {"ClientClosed", "AssertionError", "late", "lost", "raise"}, made
