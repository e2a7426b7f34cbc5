"""``distjob doctor``: would this store keep jobs safe, and how quick is it from here.

It decides what is tried on any store; what only one kind of server can have wrong its backend
knows (`distjob.store.Backend.examine`).
"""

from __future__ import annotations

import secrets
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import click

from distjob import clock
from distjob.cli.data import doctor_json
from distjob.cli.options import Source, store_options
from distjob.cli.output import EX_CONFIG, EX_TEMPFAIL, printable, terminable
from distjob.client import Client
from distjob.config import Settings, load, open_backend
from distjob.config.backends import find
from distjob.errors import BackendUnavailable, ConfigError
from distjob.rules.jobs import Job
from distjob.store import Finding, Guarantees, Store

_TIMES = 20
_SIGNS = {"ok": "ok     ", "warning": "WARNING", "danger": "DANGER "}


@click.command()
@store_options
@click.option("--json", "as_json", is_flag=True, help='JSON: see "distjob schema doctor".')
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings, too.")
def doctor(source: Source, as_json: bool, strict: bool) -> None:
    """Look for what could make the configured store unsafe or slow, and say what to do.

    Connects, measures the round trip, passes a job from one controller to another on a VM of a
    name that nobody else uses, and asks the server about its settings. Leaves nothing behind.

    Exit code 0; 1 if something is dangerous (with --strict: or worth a warning); 75 if the store
    can't be reached; 78 if it, or the settings file, can't be used.
    """
    with terminable():
        settings = load(source)
        found, code = list[Finding](), 0
        try:
            for finding in _findings(settings):
                found.append(finding)
                if not as_json:
                    _show(finding)
        except (BackendUnavailable, ConfigError) as error:
            found.append(Finding("danger", str(error)))
            code = EX_CONFIG if isinstance(error, ConfigError) else EX_TEMPFAIL
            if not as_json:
                _show(found[-1])
    if as_json:
        click.echo(doctor_json(found))
    levels = {finding.level for finding in found}
    bad = "danger" in levels or (strict and "warning" in levels)
    sys.exit(code or int(bad))


def _show(finding: Finding) -> None:
    click.echo(f"{_SIGNS[finding.level]} {printable(finding.what)}")
    if finding.advice:
        click.echo(f"        -> {printable(finding.advice)}")


def _findings(settings: Settings) -> Iterator[Finding]:
    backend = find(settings.backend)
    store = open_backend(settings)
    try:
        yield Finding("ok", f"connected to {settings.backend}, namespace {settings.namespace!r}")
        yield _round_trip(store, settings)
        yield from backend.examine(store) if backend.examine else ()
        yield Finding("ok", promised(store.guarantees))
    finally:
        store.close()
    yield from _a_job_from_hand_to_hand(settings)


def _round_trip(store: Store, settings: Settings) -> Finding:
    """One that a store's answers are slow to is one that a session may be lost to."""
    took = sorted(_seconds(lambda: store.read("distjob-doctor")) for _ in range(_TIMES))
    median, worst = statistics.median(took), took[-1]
    what = f"round trip {_ms(median)}, the slowest of {_TIMES} {_ms(worst)}"
    ttl = settings.session.ttl
    if worst > ttl / 10:
        return Finding(
            "warning", what, f"that is much of session.ttl, {ttl:g} s: raise it, or find the delay"
        )
    return Finding("ok", what)


def promised(guarantees: Guarantees) -> str:
    """What a store promises, in one line."""
    words = [
        {
            "process": "clients of one process",
            "host": "clients of this host",
            "network": "clients on any host",
        }[guarantees.reach],
        "survives a restart" if guarantees.durable else "does NOT survive a restart",
        {
            "none": "no fail-over",
            "lossy": "fail-over that may lose the last writes",
            "quorum": "fail-over that loses nothing acknowledged",
        }[guarantees.failover],
    ]
    return "it promises: " + ", ".join(words)


def _a_job_from_hand_to_hand(settings: Settings) -> Iterator[Finding]:
    """Begin, wait, hand over, end: with two controllers, as in earnest."""
    vm, ttl = f"distjob-doctor-{secrets.token_hex(8)}", settings.session.ttl
    with (
        Client(open_backend(settings), controller="distjob-doctor", ttl=ttl) as first,
        Client(open_backend(settings), controller="distjob-doctor-2", ttl=ttl) as second,
        ThreadPoolExecutor(1) as pool,
    ):
        started = clock.monotonic()
        lease = first.begin(vm, Job.MODIFY, api="distjob-doctor", wait=ttl)
        began = clock.monotonic()
        waiter = pool.submit(second.begin, vm, Job.MODIFY, api="distjob-doctor", wait=2 * ttl)
        pause = threading.Event()
        while not first.status(vm).waiters and not waiter.done():
            pause.wait(0.005)
            if clock.monotonic() - began > ttl:
                raise BackendUnavailable("a waiter did not get in line within the session's TTL")
        ending = clock.monotonic()
        lease.end()
        ended = clock.monotonic()
        won = waiter.result()
        let_in = clock.monotonic()
        won.end()
    yield Finding("ok", f"began a job in {_ms(began - started)}, ended it in {_ms(ended - ending)}")
    late = let_in - ending
    what = f"who waited was let in {_ms(late)} after that, token {lease.token} then {won.token}"
    if won.token <= lease.token:
        yield Finding("danger", what, "tokens must rise: don't use this store")
    elif late > ttl / 3:
        yield Finding("warning", what, "wake-ups are lost or late: look at the server's log")
    else:
        yield Finding("ok", what)


def _seconds(call: Callable[[], object]) -> float:
    started = clock.monotonic()
    call()
    return clock.monotonic() - started


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
