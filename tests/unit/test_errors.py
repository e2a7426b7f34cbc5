"""What is raised: errors of the tree in distjob/errors.py, and none that derives from them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from distjob import errors

ROOT = Path(__file__).parent.parent.parent
PUBLIC = {
    name
    for name, thing in vars(errors).items()
    if isinstance(thing, type) and issubclass(thing, errors.DistjobError)
}


def classes() -> Iterator[tuple[str, str, set[str]]]:
    """Where a class is, its name, and its bases' names, of all that is shipped."""
    for folder in ("distjob", "backends"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                    yield str(file.relative_to(ROOT)), node.name, bases


def test_nobody_derives_an_error_from_ours() -> None:
    """One that is caught by its own name in one place is taken for its parent in another.

    What a client library's error means is a `distjob.backend.source.Fault` until it is told.
    """
    own = set(PUBLIC)
    found = list(classes())
    for _ in range(5):  # of those derived from such, too
        own |= {name for _, name, bases in found if bases & own}
    derived = {
        (where, name)
        for where, name, bases in found
        if bases & own and where != "distjob/errors.py"
    }
    assert derived == set()


def test_faults_do_not_leave_the_back_room() -> None:
    """They are no errors of the tree, so nobody catches one by mistake."""
    found = {name: bases for _, name, bases in classes()}
    assert found["Fault"] == {"Exception"}
    assert "Fault" not in PUBLIC
