"""Which servers the tests get; tests/fault/test_servers.py: that those do what is asked of them."""

from __future__ import annotations

import os

import pytest

from servers.plan import BUILT, KINDS, Kind, choose, compose_command, lacking, official


def test_an_unknown_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTJOB_TEST_SERVERS", "dockr")
    assert str(choose("etcd")) == (
        "no etcd: DISTJOB_TEST_SERVERS=dockr is none of docker, path, package"
    )


def test_a_way_that_is_not_to_be_had_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTJOB_TEST_SERVERS", "package")
    assert not choose("zookeeper").way
    with pytest.raises(pytest.fail.Exception if os.environ.get("CI") else pytest.skip.Exception):
        lacking("no zookeeper")


@pytest.mark.parametrize("required", ["CI", "DISTJOB_REQUIRE_SERVERS"])
def test_where_servers_are_required_a_missing_one_fails(
    monkeypatch: pytest.MonkeyPatch, required: str
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("DISTJOB_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception):
        lacking("no etcd")
    monkeypatch.setenv(required, "1")
    with pytest.raises(pytest.fail.Exception):
        lacking("no etcd")


@pytest.mark.parametrize("server", KINDS)
def test_images_of_ones_own(monkeypatch: pytest.MonkeyPatch, server: Kind) -> None:
    if not compose_command():
        lacking("no docker compose")
    monkeypatch.setenv("DISTJOB_TEST_SERVERS", "docker")
    monkeypatch.setenv("DISTJOB_IMAGES", "official")
    assert choose(server).what == official(server)
    monkeypatch.setenv("DISTJOB_IMAGES", "debian")
    assert choose(server).what == BUILT[server]
    monkeypatch.setenv(f"DISTJOB_{server.upper()}_IMAGE", "nowhere.invalid/mine:5")
    mine = choose(server)
    assert (mine.what, mine.here) == ("nowhere.invalid/mine:5", False)
