"""Commands in RESP: with hiredis and without, the same bytes."""

from __future__ import annotations

import pytest

from distjob_redis.client.wire import packed, written


@pytest.mark.parametrize(
    "command",
    [
        ("PING",),
        ("SET", b"k\x00\r\n", "\N{SNOWMAN}", "PX", 10_000),
        ("EVALSHA", "0" * 40, 3, b"a", b"", -1, 1 << 62, b"x" * 70_000),
    ],
)
def test_both_ways_agree(command: tuple[object, ...]) -> None:
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    lines = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    assert packed(command) == written(command) == b"*%d\r\n%b" % (len(command), lines)
