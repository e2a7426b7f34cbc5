"""Follows a tutorial as a reader would: types what it says, in terminals, and sees what it shows.

    python3 tests/follow.py docs/tutorial/two-controllers.md [STORE]

A fence that is Python or YAML and begins with ``# NAME`` is written to that file, a ``sh`` is
typed, a ``text`` must then be seen. ``# terminal 2`` at the top says in which terminal, else it is
the first. Numbers may differ, blanks too; ``...`` stands for anything. What shows nothing must
succeed.
Where a page has several files of one name, STORE (sqlite) chooses by their ``backend:``.
Run like this, it types the installation too, and leaves the folder ``tutorial`` behind.
Needs nothing but Python and bash.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

LIMIT = 90.0
"""Seconds that one fence may take, unless another is said: the installation is one."""
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TOP = re.compile(r"# (?:terminal (\d+)|([\w.-]+\.\w+))\n")
_END = "\x1e"
_ESCAPE = re.compile(r"\x1b\[[\d;?]*[a-zA-Z]")


class Terminal:
    """A shell whose output goes to a terminal of 100 columns."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str], limit: float) -> None:
        self.name, self._limit = name, limit
        self._heard = threading.Condition()
        self._seen, self._looked, self._typed, self._back = "", 0, 0, 0
        self._screen, behind = pty.openpty()
        fcntl.ioctl(behind, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE, stdout=behind, stderr=behind, text=True,
            cwd=folder, env=dict(environ), start_new_session=True,
        )  # fmt: skip
        os.close(behind)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._screen, 65536)
            except OSError:  # how Linux says that nobody has the terminal open any more
                return
            with self._heard:
                self._seen += some.decode(errors="replace")
                self._back = self._seen.count(_END)
                self._heard.notify_all()

    def type(self, text: str) -> None:
        """Type ``text`` as soon as the shell waits for it."""
        self._wait()
        with self._heard:
            self._looked = len(self._seen)
            self._typed += 1
        assert self._shell.stdin
        self._shell.stdin.write(f"{{\n{text}\n}} </dev/null; printf '\\036%s\\036' $?\n")
        self._shell.stdin.flush()

    def succeed(self) -> None:
        """Wait until the shell is back; what it did must have succeeded."""
        self._wait()
        if (status := self._seen.split(_END)[-2]) != "0":
            raise AssertionError(f"terminal {self.name}: status {status}: {self._shown()}")

    def _wait(self) -> None:
        with self._heard:
            if not self._heard.wait_for(lambda: self._back == 2 * self._typed, self._limit):
                raise AssertionError(f"terminal {self.name} is busy still: {self._shown()}")

    def _shown(self) -> str:
        """What has been shown since something was typed last."""
        text = _ESCAPE.sub("", self._seen[self._looked :])
        return re.sub(f"{_END}\\d*{_END}?", "", text).replace("\r", "")

    def see(self, lines: list[str]) -> None:
        """Wait until ``lines`` have been shown, in their order."""
        shapes = [_shape(line) for line in lines]
        with self._heard:
            if not self._heard.wait_for(lambda: _in_order(shapes, self._shown()), self._limit):
                raise AssertionError(f"terminal {self.name}: no {lines} in: {self._shown()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.killpg(self._shell.pid, signal.SIGKILL)
        assert self._shell.stdin
        self._shell.stdin.close()
        self._shell.wait()
        self._reader.join(LIMIT)
        os.close(self._screen)


def _shape(line: str) -> re.Pattern[str]:
    parts = re.findall(r"\.\.\.|\([^()]+, pid \d+\)|\d[\d.]*|\s+|[^\s\d.(]+|.", line.strip())
    return re.compile("".join(map(_loosely, parts)))


def _loosely(part: str) -> str:
    if part == "...":
        return ".*"
    if part.isspace():
        return r"\s+"
    if part[0].isdigit():
        return r"\d[\d.]*"
    return r"\(.*, pid \d+\)" if ", pid " in part else re.escape(part)


def _in_order(shapes: list[re.Pattern[str]], text: str) -> bool:
    rest = iter(text.splitlines())
    return all(any(shape.search(line) for line in rest) for shape in shapes)


def fences(page: str, store: str) -> Iterator[tuple[str, str, str]]:
    """What is to be done: kind, the terminal or file, and the text."""
    for found in _FENCE.finditer(page):
        kind, text = found.groups()
        of_another = re.search(r"backend: (\w+)\n|deploy/(\w+)/", text)
        if of_another and store not in of_another.groups():
            continue
        top = _TOP.match(text)
        name = (top[1] or top[2]) if top else ""
        yield kind, name, text[top.end() :] if top and top[1] else text


def follow(
    page: str,
    folder: Path,
    *,
    store: str = "sqlite",
    environ: Mapping[str, str] = os.environ,
    limit: float = LIMIT,
) -> int:
    """Follow ``page``, in terminals that are opened in ``folder``; how many fences it had.

    Files are written into its folder ``tutorial``. ``limit``: seconds that one fence may take.
    """
    terminals: dict[str, Terminal] = {}
    last, shows, count = "1", True, 0
    with ExitStack() as stack:

        def at(name: str) -> Terminal:
            if name not in terminals:
                terminals[name] = stack.enter_context(Terminal(name, folder, environ, limit))
            return terminals[name]

        for kind, name, text in fences(page, store):
            count += 1
            if kind == "text":
                at(name or last).see(text.splitlines())
                shows = True
                continue
            if not shows:
                at(last).succeed()
            shows = True
            if kind == "sh":
                last, shows = name or "1", False
                at(last).type(text)
            else:
                (folder / "tutorial" / name).write_text(text)
        if not shows:
            at(last).succeed()
    return count


if __name__ == "__main__":
    home = Path(__file__).parent.parent
    chosen = sys.argv[2] if len(sys.argv) > 2 else "sqlite"
    done = follow((home / sys.argv[1]).read_text(), home, store=chosen)
    print(f"{sys.argv[1]} on {chosen}: all {done} steps are as it says")
