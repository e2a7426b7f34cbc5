#!/usr/bin/env python3
"""Runs tests with the oldest and the newest client libraries, on each Python that is here.

    .ci/matrix.py                            all: each Python with the newest, the oldest that can
                                             have them with the oldest
    .ci/matrix.py oldest [WORDS ...]         with the oldest only; words are for pytest
    .ci/matrix.py newest [WORDS ...]

"Oldest" are the lower bounds in pyproject.toml: what they promise is what is installed. Pythons are
those of requires-python and later, on the PATH or of pyenv. The venvs stay in .matrix.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LINTERS = tuple(f"--ignore=tests/unit/test_{name}.py" for name in ("house", "site", "docs"))
TESTS = ("tests/unit", "tests/sim", "tests/contract", *LINTERS)
"""All but linters, the docs and their builder, which are of one version, and servers' bad days."""
NEWER = ("celery", "etcd-sdk-python", "fastapi", "import-linter")
"""Want newer ones than the oldest of ours. Tests of a store's or a recipe's are skipped then."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pythons() -> dict[str, str]:
    """Each that runs, by version."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in PYTHONS:
        of_pyenv = (str(one) for one in sorted(pyenv.glob(f"{version}.*/bin/python")))
        for candidate in (shutil.which(f"python{version}"), *of_pyenv):
            if candidate and answers(candidate, version):
                found[version] = candidate
                break
    return found


def answers(python: str, version: str) -> bool:
    """A name on the PATH may be pyenv's, and lead nowhere."""
    script = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


def lower_bounds() -> list[str]:
    """The oldest versions of what distjob and its extras need, as constraints: ``redis==5.3``."""
    extras = PROJECT["optional-dependencies"]
    needs = PROJECT["dependencies"] + [
        need for name in extras if name not in ("all", "docs", "test") for need in extras[name]
    ]
    found = []
    for need in needs:
        if match := re.match(r"([\w.-]+)(?:\[.*?\])?>=([\d.]+)", need):
            found.append(f"{match[1]}=={match[2]}")
        elif not need.startswith(PROJECT["name"]):
            raise SystemExit(f"pyproject.toml: {need!r} has no lower bound")
    return found


def test_tools(libraries: str) -> list[str]:
    """The extra ``test``, but for what can't stand beside the oldest."""
    own = f"{PROJECT['name']}["
    tools = [n for n in PROJECT["optional-dependencies"]["test"] if not n.startswith(own)]
    return [need for need in tools if libraries == "newest" or not need.startswith(NEWER)]


def prepare(python: str, version: str, libraries: str) -> Path | None:
    """A venv with them; None if some of the oldest can't be had for this Python."""
    folder = ROOT / ".matrix" / f"{version}-{libraries}"
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    own = folder / "bin" / "python"
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(lower_bounds()) + "\n" if libraries == "oldest" else "")
    wanted = ["-e", f"{ROOT}[all]", *test_tools(libraries)]
    words = ["-q", "--only-binary=:all:", "-c", constraints, *wanted]
    done = subprocess.run([own, "-m", "pip", "install", *words], check=False)
    return own if done.returncode == 0 else None


def run(python: str, version: str, libraries: str, words: list[str]) -> str:
    """What came of it."""
    print(f"\n== Python {version}, {libraries} libraries", flush=True)
    own = prepare(python, version, libraries)
    if own is None:
        return "these libraries can't be had"
    freeze = subprocess.run(
        [own, "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout
    named = [re.split(r"[=]=", bound)[0].lower() for bound in lower_bounds()]
    print(*(line for line in freeze.splitlines() if line.lower().split("==")[0] in named), sep="\n")
    done = subprocess.run([own, "-m", "pytest", *(words or TESTS)], cwd=ROOT, check=False)
    return "passed" if done.returncode == 0 else f"FAILED, status {done.returncode}"


def main() -> int:
    which, words = (sys.argv[1:2] or ["all"])[0], sys.argv[2:]
    if which not in ("all", "oldest", "newest"):
        print(__doc__)
        return 2
    here, told = pythons(), {}
    if not here:
        print(f"none of Python {', '.join(PYTHONS)} is here")
        return 1
    for version, python in here.items():
        if which != "oldest":
            told[version, "newest"] = run(python, version, "newest", words)
    if which != "newest":
        for version, python in here.items():
            told[version, "oldest"] = run(python, version, "oldest", words)
            if "can't" not in told[version, "oldest"]:
                break
    print("\n== Matrix")
    for version in PYTHONS:
        for libraries in ("oldest", "newest"):
            if (version, libraries) in told:
                print(f"Python {version}, {libraries} libraries: {told[version, libraries]}")
        if version not in here:
            print(f"Python {version}: not here")
    return 0 if "passed" in told.values() and not any("FAILED" in t for t in told.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
