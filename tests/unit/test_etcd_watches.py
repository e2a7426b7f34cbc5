"""What answers on a watch stream mean, and what is requested next; without a server."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from distjob.backend.source import EVERYBODY
from distjob.store import Ended, Event, Missed, Woken
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.layout import Layout
from distjob_etcd.watches import Refused, Watches

LAYOUT = Layout("ns")
ENDS = ""


class Stream:
    """Watches on a stream, and etcd's side of it."""

    def __init__(self, revision: int = 100) -> None:
        self.watches = Watches(LAYOUT, revision)
        self.starts: dict[int, int] = {}
        self.numbers: dict[str, int] = {}
        self.cancelled: list[int] = []

    def note(self, requests: Sequence[rpc.WatchRequest]) -> None:
        for request in requests:
            if request.HasField("cancel_request"):
                self.cancelled.append(request.cancel_request.watch_id)
                continue
            create = request.create_request
            session = create.key[len(LAYOUT.sessions) :].decode()
            self.numbers[session] = create.watch_id
            self.starts[create.watch_id] = create.start_revision

    def open(self, latest: int) -> bool:
        lost, requests = self.watches.begin(self.watches.seen(), latest)
        self.note(requests)
        return lost

    def listen(self, session: str, revision: int) -> None:
        self.note(self.watches.listen(session, revision))

    def hear(self, session: str, *events: rpc.Event, **more: object) -> None:
        answer = rpc.WatchResponse(watch_id=self.numbers[session], events=events, **more)  # type: ignore[arg-type]
        self.note(self.watches.hear(answer))

    def start(self, session: str) -> int:
        return self.starts[self.numbers[session]]

    def take(self) -> Sequence[tuple[str, Event]]:
        return self.watches.take()


def mine(*events: Event) -> list[tuple[str, Event]]:
    return [("me", event) for event in events]


def for_all(*events: Event) -> list[tuple[str, Event]]:
    return [(EVERYBODY, event) for event in events]


def mail(session: str, revision: int, text: bytes = b"2:vm:x") -> rpc.Event:
    kv = rpc.KeyValue(key=LAYOUT.session_key(session), value=text, mod_revision=revision)
    return rpc.Event(kv=kv)


def end(session: str, revision: int) -> rpc.Event:
    kv = rpc.KeyValue(key=LAYOUT.session_key(session), mod_revision=revision)
    return rpc.Event(type=rpc.Event.DELETE, kv=kv)


def opened(latest: int = 100) -> Stream:
    stream = Stream()
    assert not stream.open(latest)
    stream.listen("me", 100)
    return stream


def test_each_goes_on_after_the_last_one_seen() -> None:
    stream = opened()
    assert stream.start("me") == 101
    stream.hear("me", mail("me", 105), mail("me", 107))
    stream.hear(ENDS, end("x", 106))
    assert stream.take() == mine(Woken("vm", 105, b"x"), Woken("vm", 107, b"x"))
    assert stream.take() == []
    assert not stream.open(200)
    assert stream.start("me") == 107  # the last one seen: some releases are silent for a later one
    assert stream.start(ENDS) == 106
    stream.hear("me", mail("me", 107), mail("me", 108))
    assert stream.take() == mine(Woken("vm", 108, b"x"))


def test_what_has_come_stays_over_a_cut() -> None:
    stream = opened()
    stream.hear("me", mail("me", 105))
    assert not stream.open(200)
    assert stream.take() == mine(Woken("vm", 105, b"x"))


def test_a_stream_is_confirmed_when_each_watch_was_answered() -> None:
    stream = opened()
    assert not stream.open(100)
    assert not stream.watches.confirmed
    stream.hear("me", created=True)
    stream.listen("you", 100)  # of a later request nothing is awaited
    assert not stream.watches.confirmed
    stream.hear(ENDS, created=True)
    assert stream.watches.confirmed
    assert not stream.open(100)
    stream.hear(ENDS, created=True)
    stream.hear("me", created=True)
    stream.note(stream.watches.deafen("you"))  # which was not answered yet, and never will be
    assert stream.watches.confirmed


def test_the_rest_of_a_revision_that_came_in_pieces() -> None:
    stream = opened()
    stream.hear("me", mail("me", 105), fragment=True)
    stream.hear("me", mail("me", 105), mail("me", 106))
    assert [event.version for _, event in stream.take() if isinstance(event, Woken)] == [
        105,
        105,
        106,
    ]


def test_only_ends_that_were_asked_for_are_told_and_once() -> None:
    stream = opened()
    stream.watches.watch(["a", "b", "c"])
    stream.watches.unwatch(["c"])
    stream.hear(ENDS, end("a", 101), end("c", 101), end("z", 101))
    stream.hear(ENDS, end("a", 102))
    assert stream.take() == for_all(Ended("a"))


def test_a_session_of_ours_that_ends_is_told_and_not_watched_any_more() -> None:
    stream = opened()
    number = stream.numbers["me"]
    stream.hear("me", mail("me", 101))
    stream.hear(ENDS, end("me", 102))
    assert stream.cancelled == [number]
    assert stream.take() == mine(Woken("vm", 101, b"x"), Ended("me"))
    assert stream.watches.deafen("me") == []
    stream.open(102)
    assert len(stream.watches._by_number) == 1


def test_compacted_history_is_skipped_and_missed() -> None:
    stream = opened()
    stream.watches.watch(["a"])
    stream.hear("me", mail("me", 101))
    stream.hear("me", canceled=True, compact_revision=150)
    assert stream.start("me") == 150
    assert stream.take() == [*mine(Woken("vm", 101, b"x")), *for_all(Missed())]
    stream.hear(ENDS, canceled=True, compact_revision=150)
    assert stream.start(ENDS) == 150
    assert stream.take() == for_all(Missed(), Ended("a"))  # perhaps: who asks again will learn it


def test_a_server_that_counts_from_the_start_again() -> None:
    stream = opened()
    stream.watches.watch(["a"])
    stream.hear("me", mail("me", 105))
    assert stream.open(7), "something was lost"
    assert stream.start("me") == stream.start(ENDS) == 7
    assert stream.take() == [*mine(Woken("vm", 105, b"x")), *for_all(Ended("a"))]
    stream.hear("me", mail("me", 8))
    assert stream.take() == mine(Woken("vm", 8, b"x"))


def test_what_was_seen_while_etcd_was_asked_is_no_falling_back() -> None:
    stream = opened()
    seen = stream.watches.seen()
    stream.hear("me", mail("me", 105))
    stream.listen("new", 110)
    lost, requests = stream.watches.begin(seen, 100)
    stream.note(requests)
    assert stream.start("me") == 105
    assert stream.start("new") == 110
    assert not lost


def test_a_wake_up_that_cannot_be_read() -> None:
    stream = opened()
    stream.hear("me", mail("me", 101, b"by hand"), mail("me", 102, b""))
    assert stream.take() == mine(Missed())


@pytest.mark.parametrize("number", ["known", "none"])
def test_a_watch_that_is_refused(number: str) -> None:
    stream = opened()
    watch_id = stream.numbers["me"] if number == "known" else -1
    refusal = rpc.WatchResponse(watch_id=watch_id, canceled=True, cancel_reason="permission denied")
    with pytest.raises(Refused, match="permission denied"):
        stream.watches.hear(refusal)


def test_answers_for_watches_that_are_gone() -> None:
    stream = opened()
    number = stream.numbers["me"]
    stream.note(stream.watches.deafen("me"))
    assert stream.cancelled == [number]
    for answer in (
        rpc.WatchResponse(watch_id=number, events=[mail("me", 101)]),
        rpc.WatchResponse(watch_id=number, canceled=True),
    ):
        assert stream.watches.hear(answer) == []
    assert stream.take() == []
