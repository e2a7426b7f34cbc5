"""What the simulation found: with its fix taken back each world breaks again, with it none does.

`docs/explanation/simulation.md` tells of each. A seed means one world for one version of the
protocol: after a change in what it sends, `python tests/sim/test_found.py` looks for new ones.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parents[2]
DOCS = HERE / "docs" / "explanation" / "simulation.md"


class Found(NamedTuple):
    """A fault of the protocol, and the edits (file, text, without the fix) that bring it back."""

    name: str
    profile: str
    seed: int
    edits: tuple[tuple[str, str, str], ...]


FOUND = (
    Found(
        "a cancelled begin whose commit arrives after its withdrawal",
        "calm",
        327,
        (
            (
                "tries.py",
                "cancelled while it was under way\n            self.session.doubt(self.vm)",
                "cancelled\n            pass",
            ),
        ),
    ),
    Found(
        "a second cancel during the withdrawal",
        "calm",
        248,
        (
            (
                "change.py",
                "forsake(me, vm, ticket_id, gives_back=gives_back, outlives=outlives)  # for a",
                "pass  #",
            ),
        ),
    ),
    Found(
        "a commit without a reply that arrives when the VM is idle again",
        "late",
        10,
        (
            (
                "tries.py",
                "\n                self.session.doubt(self.vm)\n",
                "\n",
            ),
        ),
    ),
    Found(
        "a renewal that is answered after the local deadline",
        "sleep",
        381,
        (("heart.py", "    elif me.clock.monotonic() < session.deadline:", "    elif True:"),),
    ),
    Found(
        "a begin that is refused on account of its own dead session",
        "sleep",
        2074,
        (
            ("begin.py", "record.sessions() | {mine}", "record.sessions() - {mine}"),
            (
                "begin.py",
                "            if mine in ended or not self",
                "            if False and not self",
            ),
            ("change.py", "is not None and session.holds(me.clock.monotonic()):", "is not None:"),
        ),
    ),
    Found(
        "a waiter that was taken out by force, and timed out before it heard",
        "deaf",
        90,
        (("begin.py", "changed.found if changed.made else waited_in", "changed.found"),),
    ),
    Found(
        "a request to abort whose reply was lost asks the next job, too",
        "lossy",
        46,
        (("outside.py", "if not record.holder_of(mine.ticket.id):", "if False:"),),
    ),
    Found(
        "an eviction whose reply was lost, and who was evicted asks again",
        "lossy",
        52,
        (("outside.py", "in (*changed.unheard, changed.found):", "in (changed.found,):"),),
    ),
    Found(
        "an end that was cancelled, and then the client closed",
        "storm",
        106,
        (("closing.py", "in leftovers.items():", "in ():"),),
    ),
    Found(
        "an adoption under way while the client closes",
        "storm",
        1225,
        (("closing.py", "update(me.asking)", "update({})"),),
    ),
)


def without(found: Found, folder: Path) -> Path:
    """A copy of the package with the fix taken back."""
    shutil.copytree(HERE / "distjob", folder / "distjob", ignore=shutil.ignore_patterns("__pyc*"))
    for name, text, instead in found.edits:
        file = folder / "distjob" / "protocol" / name
        source = file.read_text(encoding="utf-8")
        assert source.count(text) == 1, f"{name} does not hold once: {text}"
        file.write_text(source.replace(text, instead), encoding="utf-8")
    return folder


def worlds(folder: Path, profile: str, seed: int, count: int = 1) -> dict[int, str]:
    """The seeds that fail with the package in ``folder``, each with the invariant."""
    words = ["-P", "-m", "distjob.testing.sim.world", "--profile", profile, "--seed", str(seed)]
    done = subprocess.run(
        [sys.executable, *words, "--count", str(count)],
        env={"PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    lines = re.findall(rf"^{profile} (\d+): ([\w ]+):", done.stdout, re.MULTILINE)
    assert bool(lines) == (done.returncode == 1)
    return {int(found): invariant for found, invariant in lines}


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.name.replace(" ", "-"))
def test_what_was_found_comes_back_without_its_fix(found: Found, tmp_path: Path) -> None:
    assert worlds(HERE, found.profile, found.seed) == {}
    assert found.seed in worlds(without(found, tmp_path), found.profile, found.seed)


def test_the_docs_tell_of_these_seeds() -> None:
    told = re.findall(r"^\| `(\w+)` (\d+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert told == [(found.profile, str(found.seed)) for found in FOUND]


def main() -> None:
    """Print for each row the seeds below 2000 that fail without its fix and pass with it."""
    import tempfile

    for found in FOUND:
        with tempfile.TemporaryDirectory() as name:
            broken = worlds(without(found, Path(name)), found.profile, 0, 2000)
        good = [seed for seed in broken if not worlds(HERE, found.profile, seed)]
        print(found.name, found.profile, good[:10], flush=True)


if __name__ == "__main__":
    main()
