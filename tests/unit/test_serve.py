"""What browsers are sent, who may change something, and what Prometheus reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distjob.cli.data import status_json
from distjob.config import load
from distjob.errors import ConfigError
from distjob.protocol.look import JobStatus, VMStatus
from distjob.rules.jobs import Slot
from distjob.serve import picture as pictures
from distjob.serve.exposition import exposition
from distjob.serve.people import People
from distjob.serve.picture import MOST_MOODS, SPAN, Picture
from distjob.serve.watcher import Watcher

TODAY = 1_700_000_000.0


def job(ticket: str = "t", *, seconds: float = 0.0, **facts: Any) -> JobStatus:
    who: dict[str, Any] = {"controller": "a", "host": "h", "pid": 7, "session": "s"}
    given = {"job": "modify", "slot": Slot.SYNC, "token": 5, "api": "x", "alive": True} | facts
    return JobStatus(ticket=ticket, seconds=seconds, **(who | given))


def vm(name: str, version: int = 1, *holders: JobStatus, waiters: int = 0) -> VMStatus:
    waiting = tuple(job(f"w{n}", slot=None, token=0, seconds=n) for n in range(waiters))
    held = holders or (job(),)
    return VMStatus(vm=name, version=version, holders=held, waiters=waiting, mask=None)


def cut(picture: Picture, revision: int, today: float = TODAY) -> Any:
    return json.loads(picture.cut(revision, today))


def test_a_browser_is_sent_the_whole_picture_and_then_what_changed() -> None:
    picture = Picture()
    picture.see([vm("a"), vm("b")], TODAY)
    first = cut(picture, 0)
    assert first["whole"]
    assert [one["vm"] for one in first["vms"]] == ["a", "b"]
    picture.see([vm("a", 2), vm("c")], TODAY + 1)
    then = cut(picture, first["revision"])
    assert (then["whole"], then["gone"]) == (False, ["b"])
    assert [one["vm"] for one in then["vms"]] == ["a", "c"]
    assert cut(picture, then["revision"])["vms"] == []


def test_a_vm_is_as_the_command_prints_it_but_for_the_time() -> None:
    picture, status = Picture(), vm("a", 1, job(seconds=3), waiters=2)
    picture.see([status], TODAY)
    (told,) = cut(picture, 0)["vms"]
    (printed,) = json.loads(status_json([status]))["vms"]
    assert told.pop("strip")
    for one in (*printed["holders"], *printed["waiters"]):
        one["since"] = TODAY - one.pop("seconds")
    assert told == printed


def test_time_alone_is_no_change_and_the_end_of_a_session_is() -> None:
    picture = Picture()
    picture.see([vm("a", 1, job(seconds=3))], TODAY)
    revision = picture.revision
    picture.see([vm("a", 1, job(seconds=4))], TODAY + 1)
    assert picture.revision == revision
    picture.see([vm("a", 1, job(seconds=5, alive=False))], TODAY + 2)
    (told,) = cut(picture, revision)["vms"]
    assert told["holders"][0]["alive"] is False
    assert told["holders"][0]["since"] == TODAY - 3


def test_a_vm_that_came_back_is_not_gone() -> None:
    picture = Picture()
    picture.see([vm("a")], TODAY)
    revision = picture.revision
    picture.see([], TODAY + 1)
    picture.see([vm("a", 3)], TODAY + 2)
    assert cut(picture, revision)["gone"] == []


def test_a_browser_that_fell_too_far_behind_is_sent_the_whole(monkeypatch: Any) -> None:
    monkeypatch.setattr(pictures, "MOST_GONE", 3)
    picture = Picture()
    picture.see([vm("stays")], TODAY)
    revision = picture.revision
    for number in range(5):
        picture.see([vm("stays"), vm(f"vm-{number}")], TODAY)
        picture.see([vm("stays")], TODAY)
    told = cut(picture, revision)
    assert told["whole"]
    assert [one["vm"] for one in told["vms"]] == ["stays"]


def test_a_store_that_is_away_keeps_what_was_seen() -> None:
    picture = Picture()
    picture.see([vm("a")], TODAY)
    revision = picture.revision
    picture.fail("no route", TODAY + 1)
    picture.fail("refused", TODAY + 2)
    told = cut(picture, revision, TODAY + 3)
    store = {"up": False, "trouble": "refused", "since": TODAY + 1, "seen": TODAY, "age": 3.0}
    assert told["store"] == store
    assert cut(picture, 0)["vms"]
    picture.see([vm("a")], TODAY + 4)
    assert cut(picture, told["revision"], TODAY + 4)["store"]["up"]


def test_a_strip_tells_of_the_last_minutes_and_is_bounded() -> None:
    picture = Picture()
    picture.see([vm("a", 1, job(seconds=9))], TODAY)
    picture.see([vm("a", 2, waiters=1)], TODAY + 1)
    picture.see([], TODAY + 2)
    picture.see([vm("a", 4, job(alive=False))], TODAY + 3)
    (told,) = cut(picture, 0)["vms"]
    moods = [(TODAY - 9, "held"), (TODAY + 1, "waited"), (TODAY + 2, "idle"), (TODAY + 3, "lost")]
    assert told["strip"] == [list(one) for one in moods]
    for number in range(3 * MOST_MOODS):
        picture.see([vm("a", 5 + number, waiters=number % 2)], TODAY + 4)
    assert len(cut(picture, 0, TODAY + 5)["vms"][0]["strip"]) == MOST_MOODS


def test_strips_of_vms_long_idle_are_forgotten() -> None:
    picture = Picture()
    picture.see([vm("a"), vm("b")], TODAY)
    picture.see([vm("b")], TODAY + 1)
    picture.see([vm("b")], TODAY + SPAN + 2)
    assert set(picture._strips) == {"b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names nobody"),
        ("anna\n", "tokens:1: must be NAME TOKEN"),
        ("# night shift\nanna short\n", "tokens:2: the token of anna is shorter than 20"),
        (f"anna {'a' * 20}\nbob {'a' * 20}\n", "two people have the same token"),
        (f"a/b {'a' * 20}\n", "must be NAME TOKEN"),
    ],
)
def test_a_file_of_tokens_that_can_not_be(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        People(file)
    assert "aaaaaaaa" not in str(caught.value)


def test_a_file_of_tokens_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        People(tmp_path / "tokens")


def test_who_has_which_token_is_read_anew(tmp_path: Path, caplog: Any) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"anna {'a' * 20}\n\nbob {'b' * 20} # until May\n")
    file.chmod(0o644)
    people = People(file)
    assert "everybody on this host can read" in caplog.text
    assert (people.who("a" * 20), people.who("b" * 20), people.who("é" * 20)) == (
        "anna",
        "bob",
        None,
    )
    file.write_text(f"bob {'b' * 20}\n")
    assert people.who("a" * 20) is None


def test_prometheus_can_read_it() -> None:
    watcher = Watcher(load({}), 0.5)
    both = (job("both", seconds=3), job("both", slot=Slot.AGENT, seconds=3))
    watcher.picture.see([vm("a", 1, *both, waiters=2), vm("b", 1, job("c", seconds=8))], TODAY)
    found = {
        (sample.name.removeprefix("distjob_serve_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition(watcher))
        for sample in family.samples
    }
    assert found["store_up",] == 1
    assert found["vms",] == 2
    assert (found["jobs", "held", "modify"], found["jobs", "waits", "modify"]) == (2, 2)
    assert found["oldest_seconds", "held", "modify"] == 8
