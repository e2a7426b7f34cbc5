"""The benchmark runs on each kind of store, says what it should, and leaves nothing there."""

from __future__ import annotations

import json
import re

import pytest

from distjob.config import load, open_backend
from distjob.testing.bench.__main__ import main
from stores import settings_of


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["redis", "etcd", "zookeeper"])
def test_it_runs_and_tidies_up(kind, request, tmp_path, fresh_namespace, capsys):
    settings = settings_of(kind, request, tmp_path, "unused")
    config = tmp_path / "distjob.yaml"
    config.write_text(json.dumps(settings))
    assert main(["--config", str(config), "--quick", "--namespace", fresh_namespace]) == 0
    said = capsys.readouterr().out
    for line in ("begin + end / two", "Lock", "hand-over between", "memory a lease", "threads"):
        assert line in said
    assert ("redis.asyncio's Lock" in said) == (kind == "redis")
    store = open_backend(load({**settings, "namespace": fresh_namespace}))
    assert list(store.scan()) == []
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "redis", "etcd", "zookeeper"])
def test_a_crowd_plays_and_tidies_up(kind, request, tmp_path, fresh_namespace, capsys):
    settings = settings_of(kind, request, tmp_path, "unused")
    config = tmp_path / "distjob.yaml"
    config.write_text(json.dumps(settings))
    words = ["--config", str(config), "--quick", "--namespace", fresh_namespace]
    assert main([*words, "--players", "3"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"longest wait of 3 players, in fair turns +\d+\.\d\d$", said, re.MULTILINE)
    assert re.search(r"begin\(\) +p50 [\d.]+ ms, p99 [\d.]+ ms$", said, re.MULTILINE)
    assert re.search(r"a second +\d+$", said, re.MULTILINE)
    store = open_backend(load({**settings, "namespace": fresh_namespace}))
    assert list(store.scan()) == []
    store.close()


def test_one_is_no_crowd(tmp_path, capsys):
    config = tmp_path / "distjob.yaml"
    config.write_text("{}")
    with pytest.raises(SystemExit):
        main(["--config", str(config), "--players", "1"])
    assert "a crowd is two at least" in capsys.readouterr().err
