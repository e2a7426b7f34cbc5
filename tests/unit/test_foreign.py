"""Another project's ``distjob``, which came into our folder before or after us, is told."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIXED = "also holds the files of another project"
GONE = "has no __init__.py"


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Runs a program with a copy of the package that lies in ``tmp_path``: its stdout, stderr."""
    own = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "distjob", tmp_path / "distjob", ignore=own)

    # Else the package of the clone would be found in place of one without __init__.py.
    alone = f"import sys; sys.path = [one for one in sys.path if one != {str(ROOT)!r}]\n"

    def run(script: str, *options: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, *options, "-c", alone + script],
            cwd=tmp_path,
            env={"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout, done.stderr

    return run


Python = Callable[..., tuple[str, str]]
COMMAND = (
    "import sys; from distjob.cli import main; sys.argv = ['distjob', 'config', 'path']; main()"
)
WAYS_IN = [
    "import distjob.client",
    "import distjob.aio",
    "import distjob.config",
    "import distjob.fencing",
    "import distjob_sqlite",
    "import distjob_redis.source",
    COMMAND,
]


@pytest.mark.parametrize("script", ["import distjob", *WAYS_IN])
def test_our_folder_is_our_own(python: Python, script: str, tmp_path: Path) -> None:
    _, said = python(script, "-W", "error", "-OO")
    assert said == ""
    where = python(f"{script}; import distjob; print(distjob.__file__)")
    assert script == COMMAND or where == (f"{tmp_path}/distjob/__init__.py\n", "")


@pytest.mark.parametrize("script", ["import distjob", *WAYS_IN])
def test_ours_came_after_theirs(python: Python, tmp_path: Path, script: str) -> None:
    (tmp_path / "distjob" / "distjob_core.py").write_text("theirs = True\n")
    _, said = python(f"{script}\nimport distjob.aio, distjob.hooks.metrics; distjob.connect")
    assert said.count(MIXED) == 1
    assert "pip uninstall distjob; pip install --force-reinstall --no-deps distjob-vm" in said
    assert "Traceback" not in said
    _, said = python(script, "-W", "error")
    assert f"RuntimeWarning: {tmp_path}/distjob {MIXED}" in said


@pytest.mark.parametrize("script", WAYS_IN)
def test_theirs_came_after_ours(python: Python, tmp_path: Path, script: str) -> None:
    (tmp_path / "distjob" / "distjob_core.py").touch()
    (tmp_path / "distjob" / "__init__.py").write_bytes(b"")
    told, said = python(script)
    assert said.count(MIXED) == 1
    assert "Traceback" not in said
    assert script != COMMAND or told.startswith("configuration: none\n")


@pytest.mark.parametrize("script", WAYS_IN)
def test_theirs_was_uninstalled(python: Python, tmp_path: Path, script: str) -> None:
    (tmp_path / "distjob" / "__init__.py").unlink()
    _, said = python(script)
    assert said.count(GONE) == 1
    assert "Traceback" not in said
