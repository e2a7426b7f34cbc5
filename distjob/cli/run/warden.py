"""The warden: stands between ``distjob run`` and its command, and lets no process of it live on
past the job's deadline: not when run is killed or stopped, nor when its store is cut off.

Run by its path, isolated (``python -I -S warden.py``): standard library only and nothing of
distjob, so that it starts in milliseconds. It has one thread, writes nothing and waits for nobody,
so that nothing can hold it up. Deadlines are readings of CLOCK_BOOTTIME, as `distjob.clock` has
them. A subreaper: whatever the command leaves behind becomes the warden's child, so that "no
children" means "nothing is left". Linux only.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

GRACE = 0.2
"""Between SIGTERM and SIGKILL, in TTLs."""
MARGIN = 0.1
"""Between SIGKILL and the local deadline, in TTLs; the store's is another 0.1 later."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_UNDISTURBED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCHLD),
)
"""What whole cgroups and sessions are sent must not end or stop the one who watches."""
_BORN_IGNORING = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTOU)
_RESCAN = 0.02
_NEVER = float("inf")


def now() -> float:
    """The clock of `distjob.clock.monotonic`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def become_subreaper() -> None:
    """From now on, orphaned descendants become children of this process. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def signal_descendants(number: int) -> int:
    """Send a signal to all processes that descend from this one; returns to how many."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended
                # "pid (comm) state ppid ...": comm may hold anything
                parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    for pid in found[1:]:
        with suppress(OSError):  # ended meanwhile, or not ours to signal
            os.kill(pid, number)
    return len(found) - 1


def kill_descendants() -> None:
    """Kill and reap until nothing is left; for whoever has become a subreaper."""
    with suppress(ChildProcessError):
        while True:
            signal_descendants(signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(_RESCAN)


class Warden:
    """Watches one command; ``control`` leads to run, whose process group is ``home``."""

    def __init__(self, control: socket.socket, ttl: float, home: int) -> None:
        self.control = control
        self.grace, self.margin, self.pulse = GRACE * ttl, MARGIN * ttl, ttl / 20
        self.home = home
        self.deadline = 0.0
        self.kill_at = _NEVER
        self.stopping = False
        self.child = 0
        self.status: int | None = None
        """The command's wait status, when it has ended."""
        self.run_lives = True
        self.has_terminal = False
        self.signals, wakeup = os.pipe()
        os.set_blocking(self.signals, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in _UNDISTURBED:
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD:
                signal.signal(number, _unmoved)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or tcsetpgrp would stop the warden

    @property
    def stop_at(self) -> float:
        """When the command is told to stop unless the lease is renewed."""
        return self.deadline - self.margin - self.grace

    def guard(self, command: list[str]) -> None:
        """Run the command; returns when it, and all that it has started, is gone."""
        self.hear(self.pulse)
        if now() >= self.stop_at or not self.run_lives:
            self.tell("late", 0)
            return
        if self.start(command):
            self.watch()
        if self.status is not None:
            if self.stopping and now() >= self.deadline:
                self.tell("overdue", 0)
            self.tell("exited", self.status)

    def start(self, command: list[str]) -> bool:
        failure, report = os.pipe()
        everything = signal.valid_signals()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, everything)  # none is lost around the fork
        # In a pipeline the others may need the terminal: there only when it asks, see `paused`.
        with suppress(OSError):  # another session's terminal
            self.has_terminal = os.isatty(1) and os.tcgetpgrp(0) == self.home
        parent = os.getpid()
        self.child = os.fork()
        if self.child == 0:
            self.become(command, report, mask, parent)
        with suppress(OSError):  # the child does it, too: whoever is first
            os.setpgid(self.child, self.child)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(report)
        select.select([failure], [], [], max(0.0, self.stop_at - now()))
        os.set_blocking(failure, False)
        try:
            reason = os.read(failure, 16)
        except BlockingIOError:  # exec hangs, on a dead file server for example
            reason = b""
        os.close(failure)
        if reason:
            os.waitpid(self.child, 0)
            self.give_back_terminal()
            self.tell("failed", int(reason))
            return False
        self.tell("started", self.child)
        return True

    def become(
        self, command: list[str], report: int, mask: set[signal.Signals | int], parent: int
    ) -> NoReturn:
        """In the forked child: turn into the command, or write down why not."""
        try:
            os.setpgid(0, 0)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:  # else it was killed before prctl
                signal.set_wakeup_fd(-1)
                if self.has_terminal:
                    self.take_terminal(os.getpid())
                for number in signal.valid_signals():
                    if number in _BORN_IGNORING or signal.getsignal(number) is _unmoved:
                        signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                os.execvp(command[0], command)  # noqa: S606  no shell is wanted
        except OSError as error:
            os.write(report, b"%d" % (error.errno or 0))
        finally:
            os._exit(127)

    def watch(self) -> None:
        while self.reap():
            moment = now()
            if not self.stopping:
                if not self.run_lives or moment >= self.stop_at:
                    self.stop("lease")
                elif self.status is not None:
                    self.stop("left")
            last = min(self.kill_at, self.deadline - self.margin)
            if moment >= last:
                signal_descendants(signal.SIGKILL)
                self.hear(_RESCAN)
            else:
                until = last if self.stopping else self.stop_at
                # In short naps: poll's own clock stands still while the host is suspended.
                self.hear(min(max(0.0, until - moment), self.pulse))
        self.give_back_terminal()

    def stop(self, why: str) -> None:
        """SIGTERM, and SIGKILL later; there is no way back, whatever run says afterwards."""
        self.stopping = True
        self.kill_at = now() + self.grace
        count = signal_descendants(signal.SIGTERM)
        signal_descendants(signal.SIGCONT)
        self.tell(why, count)

    def reap(self) -> bool:
        """Note who has ended or was stopped; False when nobody is left."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                if pid == 0:
                    return True
                if os.WIFSTOPPED(status):
                    self.paused(pid, os.WSTOPSIG(status))
                elif pid == self.child:
                    self.status = status
        return False

    def paused(self, pid: int, number: int) -> None:
        """Terminal stops: Ctrl-Z is refused, a wish to use the terminal granted if it is run's."""
        if number == signal.SIGTSTP:
            self.signal_group(signal.SIGCONT)
        elif number in (signal.SIGTTIN, signal.SIGTTOU) and pid == self.child:
            self.resume()

    def resume(self) -> None:
        if self.take_terminal(self.child):
            self.signal_group(signal.SIGCONT)

    def signal_group(self, number: int) -> None:
        if self.status is None:  # afterwards, the number may be another group's
            with suppress(OSError):
                os.killpg(self.child, number)

    def take_terminal(self, group: int) -> bool:
        """Put ``group`` into the foreground if that is run's to give."""
        with suppress(OSError):
            if os.tcgetpgrp(0) in (self.home, group):
                os.tcsetpgrp(0, group)
                self.has_terminal = True
                return True
        return False

    def give_back_terminal(self) -> None:
        with suppress(OSError):  # a shell may have taken it when run died
            if self.has_terminal and (self.run_lives or os.tcgetpgrp(0) == self.child):
                os.tcsetpgrp(0, self.home)

    def hear(self, timeout: float) -> None:
        """Wait for a signal or a word of run."""
        sources = [self.signals, *([self.control.fileno()] if self.run_lives else [])]
        ready, _, _ = select.select(sources, [], [], timeout)
        if self.signals in ready:
            os.read(self.signals, 4096)
        if self.control.fileno() not in ready:
            return
        try:
            word, _, value = self.control.recv(64).decode().partition(" ")
        except OSError:
            word = value = ""
        match word:
            case "deadline":
                self.deadline = float(value)
            case "signal":
                self.signal_group(int(value))
            case "resume":
                self.resume()
            case _:
                self.run_lives = False

    def tell(self, word: str, number: int) -> None:
        with suppress(OSError):  # run is dead, or stopped and its inbox full
            self.control.send(b"%s %d" % (word.encode(), number), socket.MSG_DONTWAIT)


def _unmoved(_number: int, _frame: object) -> None:
    pass


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *(ctypes.c_ulong(n) for n in (value, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def main(arguments: list[str]) -> None:
    """``warden.py CONTROL-FD TTL RUN'S-GROUP COMMAND...``."""
    descriptor, ttl, home, *command = arguments
    control = socket.socket(fileno=int(descriptor))
    control.set_inheritable(False)
    become_subreaper()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)  # a warden that was stopped wakes up when run dies
    Warden(control, float(ttl), int(home)).guard(command)


if __name__ == "__main__":
    main(sys.argv[1:])
