"""The house rules: linters, types, layers, the wheel's contents, nothing of anybody's machine."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import distjob

ROOT = Path(__file__).parent.parent.parent
BESIDE = Path(sys.executable).parent
PARTS = (".ci", ".github", "backends", "deploy", "distjob", "docs", "tests")
BACKENDS = ("distjob_sqlite", "distjob_redis", "distjob_etcd", "distjob_zookeeper")
pytestmark = pytest.mark.xdist_group("house")  # one wheel, one cache of mypy's
_FOUND = re.compile(r"^([^:]+):(\d+): error: ")


def _run(*command: str | Path, fails: bool = False) -> str:
    """What ``command`` prints; it must succeed, or else fail."""
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    told = done.stdout + done.stderr
    assert bool(done.returncode) == fails, f"exit status {done.returncode}:\n{told}"
    return told


# -- linters --------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
    ],
    ids=" ".join,
)
def test_modules_are_content(command: tuple[str, ...]) -> None:
    _run(sys.executable, "-m", *command)


def test_import_contracts() -> None:
    _run(BESIDE / "lint-imports")


# -- types, as a user sees them -------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_right_programs_type_check_and_wrong_ones_do_not() -> None:
    files = [Path("tests/typing/right.py"), Path("tests/typing/wrong.py")]
    told = _run(sys.executable, "-m", "mypy", "--no-pretty", *files, fails=True)
    found = {(m[1], int(m[2])) for m in map(_FOUND.match, told.splitlines()) if m}
    expected = {
        (str(file), number)
        for file in files
        for number, line in enumerate((ROOT / file).read_text().splitlines(), 1)
        if line.endswith("  # wrong")
    }
    assert found == expected, told


# -- the wheel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_wheel_holds_all_of_the_packages(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    roots = {"distjob": ROOT} | dict.fromkeys(BACKENDS, ROOT / "backends")
    expected = {
        str(file.relative_to(root))
        for package, root in roots.items()
        for file in (root / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected <= names
    assert {f"{package}/py.typed" for package in roots} <= names
    assert {"distjob_redis/commit.lua", "distjob_etcd/rpc.proto"} <= names


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.partition("/")[0] for name in wheel.namelist()}
    about = f"distjob_vm-{_version()}.dist-info"
    assert top == {"distjob", *BACKENDS, about}
    assert f"{about}/licenses/LICENSE" in wheel.namelist()


def test_the_wheels_entry_points_lead_somewhere(wheel: zipfile.ZipFile) -> None:
    parser = ConfigParser()
    parser.read_string(wheel.read(f"distjob_vm-{_version()}.dist-info/entry_points.txt").decode())
    names = {name.removeprefix("distjob_") for name in BACKENDS}
    assert set(parser["distjob.backends"]) == names | {"memory"}
    assert set(parser["console_scripts"]) == {"distjob"}
    for section in parser.values():
        for target in section.values():
            module, _, name = target.partition(":")
            assert hasattr(import_module(module), name), target


def _version() -> str:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_the_package_index_shows_no_dead_link(wheel: zipfile.ZipFile) -> None:
    shown = wheel.read(f"distjob_vm-{_version()}.dist-info/METADATA").decode()
    assert "What is guaranteed" in shown
    assert re.findall(r"\]\((?!https?:)[^)]*\)", shown) == []


def test_its_links_are_absolute_where_the_forge_is_known() -> None:
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "[a](docs/a.md#b) ![p](docs/p.png) [x](https://h/x) [here](#here)"
    at = "https://forge/distjob"
    assert module.for_the_index(text, "1.2", at) == (
        f"[a]({at}/blob/v1.2/docs/a.md#b) ![p]({at}/raw/v1.2/docs/p.png) "
        "[x](https://h/x) [here](#here)"
    )
    assert module.for_the_index(text, "1.2", "") == "a  [x](https://h/x) [here](#here)"


def test_the_changelog_knows_the_version() -> None:
    assert f"## [{_version()}]" in (ROOT / "CHANGELOG.md").read_text()


# -- names and texts ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", distjob.__all__)
def test_public_names_have_a_docstring(name: str) -> None:
    public = getattr(distjob, name)
    assert public.__doc__
    methods = (
        {n: m for n, m in vars(public).items() if not n.startswith("_")}
        if inspect.isclass(public)
        else {}
    )
    silent = [n for n, m in methods.items() if inspect.isfunction(m) and not m.__doc__]
    assert silent == []


def _texts() -> list[Path]:
    files = [
        file for file in ROOT.iterdir() if file.is_file() and not file.name.startswith(".coverage")
    ]
    for part in PARTS:
        files += [file for file in (ROOT / part).rglob("*") if file.is_file()]
    return [file for file in files if "__pycache__" not in file.parts]


def test_no_file_speaks_of_anybodys_machine() -> None:
    places = re.compile(rb"(?<![\w.<])/(?:work/|tmp/w/|root/|home/|opt/wheels)")
    texts = _texts()
    assert len(texts) > 50
    found = {
        f"{file.relative_to(ROOT)}: {match[0].decode()}"
        for file in texts
        if file != Path(__file__) and (match := places.search(file.read_bytes()))
    }
    assert found == set()


def test_all_that_git_tracks_is_looked_at() -> None:
    if not (ROOT / ".git").exists():  # an unpacked sdist, which holds what is tracked
        return
    tracked = set(_run("git", "ls-files", "-z").split("\0")) - {""}
    assert tracked <= {str(file.relative_to(ROOT)) for file in _texts()}


def test_pip_is_never_told_to_install_a_strangers_package() -> None:
    """``distjob`` on the package index is another project: only ``distjob-vm`` is ours."""
    between = r"[\"'`,\s#]+"
    told = re.compile(rf"\bpip3?{between}install(?:{between}-[\w-]+)*{between}([\w.-]+)")
    ours = {"distjob-vm", ".", "grpcio-tools"}
    found = [
        (str(file.relative_to(ROOT)), match[1])
        for file in _texts()
        for match in told.finditer(file.read_text(errors="replace"))
    ]
    assert len(found) > 20
    assert [one for one in found if one[1] not in ours] == []


def test_extras_are_those_of_our_distribution() -> None:
    other = re.compile(r"(?<![\w-])distjob\\?\[[a-z{]")
    texts = {str(file.relative_to(ROOT)): file.read_text(errors="replace") for file in _texts()}
    assert [name for name, text in texts.items() if other.search(text)] == []
