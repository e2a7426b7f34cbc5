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
ENDS, MINE, ME = "", "me.", "me.1"


class Stream:
    """The watches of the client "me" on a stream, and etcd's side of it."""

    def __init__(self, revision: int = 100) -> None:
        self.watches = Watches(LAYOUT, "me", revision)
        self.starts: dict[int, int] = {}
        self.numbers: dict[str, int] = {}

    def note(self, requests: Sequence[rpc.WatchRequest]) -> None:
        for request in requests:
            create = request.create_request
            watched = create.key[len(LAYOUT.sessions) :].decode()
            self.numbers[watched] = create.watch_id
            self.starts[create.watch_id] = create.start_revision

    def open(self, latest: int) -> bool:
        lost, requests = self.watches.begin(self.watches.seen(), latest)
        self.note(requests)
        return lost

    def hear(self, watched: str, *events: rpc.Event, **more: object) -> None:
        answer = rpc.WatchResponse(watch_id=self.numbers[watched], events=events, **more)  # type: ignore[arg-type]
        self.note(self.watches.hear(answer))

    def start(self, watched: str) -> int:
        return self.starts[self.numbers[watched]]

    def take(self) -> Sequence[tuple[str, Event]]:
        return self.watches.take()


def mine(*events: Event) -> list[tuple[str, Event]]:
    return [(ME, event) for event in events]


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
    return stream


def test_each_goes_on_after_the_last_one_seen() -> None:
    stream = opened()
    assert stream.start(MINE) == 100
    stream.hear(MINE, mail(ME, 105), mail(ME, 107))
    stream.hear(ENDS, end("x", 106))
    assert stream.take() == mine(Woken("vm", 105, b"x"), Woken("vm", 107, b"x"))
    assert stream.take() == []
    assert not stream.open(200)
    assert stream.start(MINE) == 107  # the last one seen: some releases are silent for a later one
    assert stream.start(ENDS) == 106
    stream.hear(MINE, mail(ME, 107), mail(ME, 108))
    assert stream.take() == mine(Woken("vm", 108, b"x"))


def test_what_has_come_stays_over_a_cut() -> None:
    stream = opened()
    stream.hear(MINE, mail(ME, 105))
    assert not stream.open(200)
    assert stream.take() == mine(Woken("vm", 105, b"x"))


def test_a_stream_is_confirmed_when_each_watch_was_answered() -> None:
    stream = opened()
    assert not stream.open(100)
    assert not stream.watches.confirmed
    stream.hear(MINE, created=True)
    stream.hear(MINE, canceled=True, compact_revision=110)
    assert not stream.watches.confirmed
    stream.hear(ENDS, created=True)
    assert stream.watches.confirmed
    assert not stream.open(120)
    assert not stream.watches.confirmed


def test_the_rest_of_a_revision_that_came_in_pieces() -> None:
    stream = opened()
    stream.hear(MINE, mail(ME, 105), fragment=True)
    stream.hear(MINE, mail(ME, 105), mail(ME, 106))
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


def test_a_session_of_ours_that_ends_is_told() -> None:
    stream = opened()
    stream.hear(MINE, mail(ME, 101), mail("me.2", 101, b"1:x"))
    stream.hear(ENDS, end(ME, 102), end("you.1", 103))
    told = [(ME, Woken("vm", 101, b"x")), ("me.2", Woken("x", 101, None)), (ME, Ended(ME))]
    assert stream.take() == told
    stream.watches.tell([(ME, Ended(ME))])
    assert stream.take() == mine(Ended(ME))


def test_compacted_history_is_skipped_and_missed() -> None:
    stream = opened()
    stream.watches.watch(["a"])
    stream.hear(MINE, mail(ME, 101))
    stream.hear(MINE, canceled=True, compact_revision=150)
    assert stream.start(MINE) == 150
    assert stream.take() == [*mine(Woken("vm", 101, b"x")), *for_all(Missed())]
    stream.hear(ENDS, canceled=True, compact_revision=150)
    assert stream.start(ENDS) == 150
    assert stream.take() == for_all(Missed(), Ended("a"))  # perhaps: who asks again will learn it


def test_a_server_that_counts_from_the_start_again() -> None:
    stream = opened()
    stream.watches.watch(["a"])
    stream.hear(MINE, mail(ME, 105))
    assert stream.open(7), "something was lost"
    assert stream.start(MINE) == stream.start(ENDS) == 7
    assert stream.take() == [*mine(Woken("vm", 105, b"x")), *for_all(Ended("a"))]
    stream.hear(MINE, mail(ME, 8))
    assert stream.take() == mine(Woken("vm", 8, b"x"))


def test_what_was_seen_while_etcd_was_asked_is_no_falling_back() -> None:
    stream = opened()
    seen = stream.watches.seen()
    stream.hear(MINE, mail(ME, 105))
    lost, requests = stream.watches.begin(seen, 100)
    stream.note(requests)
    assert stream.start(MINE) == 105
    assert not lost


def test_a_wake_up_that_cannot_be_read() -> None:
    stream = opened()
    stream.hear(MINE, mail(ME, 101, b"by hand"), mail(ME, 102, b""))
    assert stream.take() == mine(Missed())


@pytest.mark.parametrize("number", ["known", "none"])
def test_a_watch_that_is_refused(number: str) -> None:
    stream = opened()
    watch_id = stream.numbers[MINE] if number == "known" else -1
    refusal = rpc.WatchResponse(watch_id=watch_id, canceled=True, cancel_reason="permission denied")
    with pytest.raises(Refused, match="permission denied"):
        stream.watches.hear(refusal)


def test_answers_for_watches_that_are_gone() -> None:
    """They were made anew behind a gap, by another number: etcd takes none twice."""
    stream = opened()
    number = stream.numbers[MINE]
    stream.hear(MINE, canceled=True, compact_revision=150)
    assert stream.numbers[MINE] != number
    assert stream.take() == for_all(Missed())
    for answer in (
        rpc.WatchResponse(watch_id=number, events=[mail(ME, 151)]),
        rpc.WatchResponse(watch_id=number, canceled=True),
    ):
        assert stream.watches.hear(answer) == []
    assert stream.take() == []
