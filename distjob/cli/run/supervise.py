"""Run's side of the warden: starts it, tells it the lease's deadline, hears what became of it.

It decides which signals are passed on to the command, and what is done when the warden itself was
killed. It must not know of stores, settings or how a job is begun.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple

from distjob import clock
from distjob.cli.run import warden
from distjob.lease import Lease
from distjob.leases import Leases

FORWARDED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
_LOST = 0
"""Among the numbers of signals in the wakeup pipe: the lease is lost."""


class Outcome(NamedTuple):
    """What became of the command."""

    status: int | None = None
    """Its wait status; None if it did not run, or nobody saw it end."""
    failure: int = 0
    """The errno of exec."""
    late: bool = False
    """The lease was too near its end for a start; it did not run."""
    forced: bool = False
    """It was stopped because the lease could not be renewed."""
    overdue: bool = False
    """It could not be stopped before the local deadline."""
    orphaned: bool = False
    """The warden was killed, and with it the command."""


def supervise(
    lease: Lease | Leases,
    ttl: float,
    command: Sequence[str],
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    name: str,
) -> Outcome:
    """Run ``command`` for as long as ``lease`` is held; nothing of it is left when this returns.

    ``ttl``: of the lease's session, in seconds. ``name``: what the lease is called when something
    is said of it. Main thread only. Raises OSError if no process can be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, _wakeups() as (wakeups, wakeup):
        ours.settimeout(0)
        warden.become_subreaper()  # for what a killed warden would leave behind
        supervision = _Supervision(lease, name, ours, wakeups, say)
        supervision.renew()  # before the start: a command without a deadline must not be
        lease.on_lost(lambda: _poke(wakeup))  # perhaps long after: a closed socket is no fd
        with theirs:
            process = subprocess.Popen(  # noqa: S603  the user's own command
                [
                    *(sys.executable, "-I", "-S", warden.__file__),
                    *(str(theirs.fileno()), repr(ttl), str(os.getpgrp())),
                    *command,
                ],
                pass_fds=(theirs.fileno(),),
                env=environment,
                process_group=0,  # not to be stopped or killed with run's own group
            )
        with process:
            supervision.watch(ttl / 10)
        outcome = supervision.outcome
        if outcome.status is None and not outcome.failure and not outcome.late:
            warden.kill_descendants()
            return outcome._replace(orphaned=True)
        return outcome


class _Supervision:
    def __init__(
        self,
        lease: Lease | Leases,
        name: str,
        control: socket.socket,
        wakeups: socket.socket,
        say: Callable[[str], None],
    ) -> None:
        self.outcome = Outcome()
        self._lease = lease
        self._name = name
        self._control = control
        self._wakeups = wakeups
        self._say = say

    def watch(self, interval: float) -> None:
        """Until the warden has ended, which closes its end of the socket."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ, self.hear)
            selector.register(self._wakeups, selectors.EVENT_READ, self.forward)
            open_ = True
            while open_:
                self.renew()
                for key, _ in selector.select(interval):
                    open_ = key.data() and open_

    def renew(self) -> None:
        # The clock first: a pause between the two readings makes the deadline earlier, never later.
        self.tell(f"deadline {clock.monotonic() + self._lease.remaining!r}")

    def forward(self) -> bool:
        for number in self._wakeups.recv(4096):
            if number == signal.SIGCONT:
                self.tell("resume 0")
            elif number in FORWARDED:
                self.tell(f"signal {number}")
        return True

    def hear(self) -> bool:
        try:
            word, _, value = self._control.recv(64).decode().partition(" ")
        except ConnectionResetError:
            return True  # it ended before it read all of ours; its own words come next
        number = int(value or 0)
        match word:
            case "":
                return False
            case "exited":
                self.outcome = self.outcome._replace(status=number)
            case "failed":
                self.outcome = self.outcome._replace(failure=number)
            case "late":
                self.outcome = self.outcome._replace(late=True)
            case "overdue":
                self.outcome = self.outcome._replace(overdue=True)
            case "lease":
                self.outcome = self.outcome._replace(forced=True)
                what = "is lost" if self._lease.lost else "was not renewed in time"
                self._say(f"{self._name} {what}: stopping the command")
            case "left":
                self._say(f"stopping what the command left running ({number} processes)")
        return True

    def tell(self, text: str) -> None:
        with suppress(OSError):  # it has ended, or was stopped: the next word is as good
            self._control.send(text.encode())


@contextmanager
def _wakeups() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Signals become bytes in a socket; those that run was born ignoring stay ignored."""
    wakeups, wakeup = socket.socketpair()
    wakeups.settimeout(0)
    wakeup.settimeout(0)
    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
    with wakeups, wakeup:
        old = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        try:
            for number in (*FORWARDED, signal.SIGCONT, signal.SIGTSTP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, _noted)
            before[signal.SIGTTOU] = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            yield wakeups, wakeup
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old)


def _noted(_number: int, _frame: FrameType | None) -> None:
    pass


def _poke(wakeup: socket.socket) -> None:
    with suppress(OSError):
        wakeup.send(bytes((_LOST,)))
