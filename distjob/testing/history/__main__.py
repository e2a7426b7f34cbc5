"""Players on a real store, killed and stopped; then what they were told is checked.

python -m distjob.testing.history '{"sqlite": {"path": "jobs.db"}}' --seconds 600
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from distjob import clock
from distjob.testing.history.logs import read, untold
from distjob.testing.history.model import Op, unexplained

TTL = 2.0


class Game:
    """So many players at a time; one that is killed is replaced."""

    def __init__(self, settings: dict[str, Any], folder: Path, seed: int) -> None:
        self.settings = json.dumps({**settings, "session": {"ttl": TTL}})
        self.folder = folder
        self.rng = random.Random(seed)
        self.files: list[Path] = []
        self.killed = self.stopped = 0

    def start(self, seconds: float) -> subprocess.Popen[bytes]:
        file = self.folder / f"{len(self.files)}.jsonl"
        file.touch()
        self.files.append(file)
        words = ["-m", "distjob.testing.history.player", self.settings, file.name, str(file)]
        return subprocess.Popen([sys.executable, *words, str(seconds)])

    def play(self, seconds: float, players: int) -> list[Op]:
        """The history of so many seconds."""
        until = clock.monotonic() + seconds
        running = [self.start(seconds) for _ in range(players)]
        try:
            while (left := until - clock.monotonic()) > 0:
                time.sleep(min(left, self.rng.uniform(0.5, 1.5)))
                victim = self.rng.randrange(players)
                if self.rng.random() < 0.5:
                    self._stop(running[victim])
                else:
                    running[victim].kill()
                    running[victim].wait()
                    self.killed += 1
                    running[victim] = self.start(max(0.0, until - clock.monotonic()))
            for one in running:
                one.wait(timeout=60)
        finally:
            for one in running:
                one.kill()
                one.wait()
        ops = [op for file in self.files for op in read(file)]
        return [*ops, *untold(ops)]

    def _stop(self, player: subprocess.Popen[bytes]) -> None:
        """For longer than its session lives."""
        player.send_signal(signal.SIGSTOP)
        time.sleep(1.3 * TTL)
        player.send_signal(signal.SIGCONT)
        self.stopped += 1


def main() -> int:
    """Play and check; 1 if no order explains the history."""
    parser = argparse.ArgumentParser(prog="python -m distjob.testing.history")
    parser.add_argument("settings", type=json.loads, help="the store's section, as JSON")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--players", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        game = Game(asked.settings, Path(name), asked.seed)
        ops = game.play(asked.seconds, asked.players)
    wrong = unexplained(ops)
    sys.stdout.write(
        f"{len(ops)} operations, {game.killed} killed, {game.stopped} stopped,"
        f" {len(wrong)} unexplained\n"
    )
    for op in wrong[:10]:
        sys.stdout.write(f"  {op}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
