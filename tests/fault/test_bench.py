"""The benchmark runs, says what it should, and leaves nothing in the server."""

import redis

from distjob.testing.bench import main


def test_it_runs_and_tidies_up(redis_server, capsys):
    assert main(["--url", redis_server.url, "--quick"]) == 0
    said = capsys.readouterr().out
    for line in ("begin + end /", "hand-over between two processes /", "memory a lease", "threads"):
        assert line in said
    with redis.Redis.from_url(redis_server.url) as server:
        assert list(server.scan_iter("distjob:{bench-*", count=1000)) == []
