"""Since when a session was not renewed, as a witness knows it; and that none is ended too soon."""

from __future__ import annotations

import random
from typing import Any

import pytest

from distjob_zookeeper import beats as module
from distjob_zookeeper.beats import Beats

TTL = 9.0


@pytest.fixture
def beats() -> Beats:
    beats = Beats()
    beats.ask("s", TTL, 100.0)
    return beats


def test_nothing_is_known_of_who_was_not_read(beats: Beats) -> None:
    assert beats.left("s", 105.0) == (TTL, None)
    assert beats.left("nobody asked for this one", 105.0) == (0.0, None)


def test_it_is_counted_from_when_it_was_seen_to_change(beats: Beats) -> None:
    beats.saw("s", 4, 1000, 100.0)
    assert beats.left("s", 103.0) == (TTL - 3, 4)
    beats.saw("s", 4, 1000, 104.0)
    assert beats.left("s", 104.0) == (TTL - 4, 4)
    beats.saw("s", 5, 1010, 106.0)
    assert beats.left("s", 106.0) == (TTL, 5)
    assert beats.left("s", 105.9) == (TTL, 5), "never more than the TTL"
    assert beats.left("s", 115.0) == (0.0, 5)


def test_an_older_state_counts_anew(beats: Beats) -> None:
    """Of a server that lags, or was restored: what is compared is what it says."""
    beats.saw("s", 5, 1010, 100.0)
    beats.saw("s", 4, 1000, 106.0)
    assert beats.left("s", 106.0) == (TTL, 4)


def test_a_write_of_ones_own_came_after_all_beats_of_smaller_zxids(beats: Beats) -> None:
    for zxid, answered in ((900, 80.0), (1005, 83.0), (1030, 86.0)):
        beats.wrote(beats.era, zxid, answered)
    beats.saw("s", 4, 1000, 100.0)
    assert beats.left("s", 100.0)[0] == TTL - 17, "it was written before 1005, so before 83.0"
    beats.saw("s", 5, 1010, 100.0)
    assert beats.left("s", 100.0)[0] == TTL - 14
    beats.saw("s", 6, 1031, 100.0)
    assert beats.left("s", 100.0)[0] == TTL, "it is later than all that is known"


def test_writes_of_another_zookeeper_session_tell_nothing(beats: Beats) -> None:
    era = beats.era
    beats.wrote(era, 1005, 83.0)
    beats.begin_era()
    beats.wrote(era, 1030, 86.0)  # answered before, told late
    beats.saw("s", 4, 1000, 100.0)
    assert beats.left("s", 100.0)[0] == TTL


def test_who_is_asked_for_is_followed_for_a_while(beats: Beats) -> None:
    assert beats.wanted("s", 100.0 + 1.4 * TTL)
    assert not beats.wanted("s", 100.0 + 1.6 * TTL)
    beats.ask("s", TTL, 120.0)
    assert beats.wanted("s", 121.0)
    assert beats.ended("s")
    assert not beats.ended("s")
    assert not beats.wanted("s", 121.0)
    beats.saw("s", 4, 1000, 122.0)
    assert beats.left("s", 122.0) == (0.0, None), (
        "what ended stays so, unless it is asked for again"
    )


def test_those_whom_nobody_asks_for_are_forgotten(beats: Beats) -> None:
    for number in range(5000):
        beats.ask(f"s-{number}", TTL, 100.0 + number)
    assert len(beats._seen) < 1100


# -- a campaign -----------------------------------------------------------------------------------


class World:
    """One beat, its owner, servers that lag, and a witness that reads when and where it likes."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now, self.zxid = 0.0, 0
        self.log: list[tuple[float, int, int]] = [(0.0, 0, 0)]
        """Of the beat: when it was applied, version, zxid."""
        self.believes_until = 0.9 * TTL
        self.beats = Beats()
        self.ended = False

    def run(self) -> None:
        for _ in range(400):
            self.now += self.rng.choice((0.01, 0.3, 1.0, 3.0))
            if self.ended:
                return
            self.rng.choice((self.renew, self.look, self.look, self.write, self.judge))()

    def renew(self) -> None:
        """The owner sends now; it is applied, and answered, later, or not at all."""
        sent = self.now
        if sent >= self.believes_until:
            return
        self.now += self.rng.choice((0.0, 0.1, 2.0))
        if self.rng.random() < 0.3:
            return
        self.zxid += 1
        self.log.append((self.now, self.log[-1][1] + 1, self.zxid))
        if self.rng.random() < 0.8:
            self.believes_until = max(self.believes_until, sent + 0.9 * TTL)

    def write(self) -> None:
        self.zxid += 1
        zxid, era = self.zxid, self.beats.era
        self.now += self.rng.choice((0.0, 0.1, 2.0))
        self.beats.wrote(era, zxid, self.now)
        if self.rng.random() < 0.1:
            self.beats.begin_era()

    def look(self) -> None:
        _, version, zxid = self.rng.choice(self.log[-3:])  # this server may lag
        self.beats.ask("s", TTL, self.now)
        self.now += self.rng.choice((0.0, 0.5))
        self.beats.saw("s", version, zxid, self.now)

    def judge(self) -> None:
        left, version = self.beats.left("s", self.now)
        if self.rng.random() < 0.3:  # it is renewed, and heard of, before the end arrives
            self.renew()
            self.look()
        if left <= 0 and version == self.log[-1][1]:
            self.ended = True  # as the servers would, by the check
            assert self.now >= self.believes_until, "its owner still counts on it"


def test_no_session_is_ended_on_which_its_owner_counts() -> None:
    worlds = [World(seed) for seed in range(2000)]
    for world in worlds:
        world.run()
    assert sum(world.ended for world in worlds) > 100


def too_early(beats: Beats, session: str, now: float) -> tuple[float, int | None]:
    seen = beats._seen.get(session)
    return (0.7 * TTL - (now - seen.since), seen.version) if seen else (0.0, None)


def before_it_was_asked(beats: Beats, session: str, now: float) -> tuple[float, int | None]:
    seen = beats._seen.get(session)
    return (TTL - now, seen.version) if seen else (0.0, None)


class Later(int):
    """A version that is looked up when it is compared: of another moment than the time left."""

    beats: Beats

    def __eq__(self, other: object) -> bool:
        seen = self.beats._seen.get("s")
        return seen is not None and seen.version == other

    __hash__ = int.__hash__


def of_two_moments(beats: Beats, session: str, now: float) -> tuple[float, int | None]:
    left, _ = LEFT(beats, session, now)
    version = Later(0)
    version.beats = beats
    return left, version


LEFT = module.Beats.left


@pytest.mark.parametrize("wrong", [too_early, before_it_was_asked, of_two_moments])
def test_the_campaign_finds_a_mistake(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Beats, "left", wrong)
    with pytest.raises(AssertionError, match="counts on it"):
        test_no_session_is_ended_on_which_its_owner_counts()


def test_the_campaign_finds_writes_of_another_era(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zxid of a beat is taken for larger than it is: it was written later than is believed."""
    saw = module.Beats.saw

    def wrong(beats: Beats, session: str, version: int, zxid: int, now: float) -> None:
        saw(beats, session, version, zxid - 2, now)

    monkeypatch.setattr(module.Beats, "saw", wrong)
    with pytest.raises(AssertionError, match="counts on it"):
        test_no_session_is_ended_on_which_its_owner_counts()
