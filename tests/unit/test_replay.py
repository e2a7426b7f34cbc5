"""The replay command: what it prints, and that it can fail."""

import json
from pathlib import Path

import pytest

from distjob.testing.replay import main

TRACES = Path(__file__).parent.parent / "vectors" / "libvirt-9.0.0-traces.json"


@pytest.fixture
def some(tmp_path):
    """The first traces, each time changed by the test."""

    def write(change=lambda traces: None):
        traces = json.loads(TRACES.read_text())[:4]
        change(traces)
        file = tmp_path / "traces.json"
        file.write_text(json.dumps(traces))
        return str(file)

    return write


def test_it_closes_with_the_count(some, capsys):
    assert main([some()]) == 0
    assert capsys.readouterr().out == "4 passed, 0 failed\n"


def test_on_a_configured_store(some, capsys, tmp_path):
    config = tmp_path / "distjob.yaml"
    config.write_text(f"sqlite: {{path: {tmp_path / 'jobs.db'}}}\n")
    assert main([some(), "--config", str(config)]) == 0
    assert capsys.readouterr().out == "4 passed, 0 failed\n"


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("result", "refused", "result: 'granted', libvirt: 'refused'"),
        ("granted", ["E"], "let in: [], libvirt: ['E']"),
        ("message", "no", "message: None, libvirt: 'no'"),
    ],
)
def test_a_difference_names_trace_step_and_what_differs(some, capsys, key, value, told):
    def change(traces):
        traces[1]["steps"][0]["expect"][key] = value

    assert main([some(change)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert last == "3 passed, 1 failed"
    assert first.startswith("trace 1 (seed ")
    assert "step 0 (" in first
    assert told in first
