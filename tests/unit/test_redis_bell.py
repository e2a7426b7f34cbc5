"""How a client's threads wait for several subscriptions: on real sockets, without a server."""

from __future__ import annotations

import socket
import threading

import pytest

from distjob.both import now
from distjob_redis.blocking import PollBell

LONG = 3600.0


class Line:
    """A subscription, as far as the bell looks."""

    def __init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.socket, self.other = self.both = socket.socketpair()

    def close(self) -> None:
        for end in self.both:
            end.close()


@pytest.fixture
def bell():
    bell = PollBell()
    yield bell
    bell.close()


@pytest.fixture
def lines():
    lines = [Line(), Line()]
    yield lines
    for line in lines:
        line.close()


def test_any_line_and_the_bell_itself_end_a_wait(bell, lines) -> None:
    for line in lines:
        line.other.send(b"x")
        now(bell.wait(lines, LONG))
        line.socket.recv(1)
    bell.ring()
    now(bell.wait(lines, LONG))
    now(bell.wait(lines, 0.0))
    ringer = threading.Timer(0.05, bell.ring)
    ringer.start()
    now(bell.wait(lines, LONG))
    ringer.join()


def test_a_line_that_connected_anew_is_heard_though_its_number_is_the_old_one(bell, lines) -> None:
    one = lines[0]
    now(bell.wait(lines, 0.0))
    number = one.socket.fileno()
    one.close()
    one.connect()
    assert number == one.socket.fileno()
    one.other.send(b"x")
    now(bell.wait(lines, LONG))


def test_a_line_that_is_gone_is_not_waited_for(bell, lines) -> None:
    now(bell.wait(lines, 0.0))
    kept, gone = lines
    gone.other.send(b"x")
    now(bell.wait([kept], 0.0))
    kept.other.send(b"x")
    now(bell.wait([kept], LONG))
    gone.socket = None
    now(bell.wait(lines, LONG))
