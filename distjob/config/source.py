"""Python values -> a tree of `Node` that knows its lines, and what an error looks like.

Knows nothing of the settings, nor of YAML: a program that passes a mapping needs none.
No error shows a value, since any value can be a secret that was misplaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from distjob.config.redact import key_shown, redacted
from distjob.errors import ConfigError


class Node(msgspec.Struct, kw_only=False):
    """A value; mappings are ``dict[str, Node]``, lists are ``list[Node]``."""

    value: Any
    line: int = 0
    """Where it, or its key, stands in the file; 0: not in a file."""
    hint: str = ""
    """What to add if its type is wrong."""
    template: str | None = None
    """What stood there before variables were filled in; None: it was written as it is."""

    def line_of(self, path: str) -> int:
        """Where the key ``path``, or that of a file with its value, stands; 0: it is not there."""
        node: Node | None = self
        for key in path.split("."):
            held = node.value if node is not None and isinstance(node.value, dict) else {}
            node = held.get(key) or held.get(f"{key}_file")
        return node.line if node is not None else 0


class Source:
    """Where settings come from: its name for errors, and the folder for relative paths."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = redacted(name)  # a URL passed by mistake
        self.folder = folder

    def fail(self, path: str, line: int, text: str) -> ConfigError:
        """The error for what stands at key ``path``, to be raised ``from None``."""
        place = f"{self.name}:{line}" if line else self.name
        return ConfigError(": ".join(part for part in (place, path, text) if part))


def read_python(value: object, source: Source, path: str = "") -> Node:
    """The tree of a mapping passed by a program. Raises ConfigError."""
    try:
        return _python_node(value, source, path)
    except RecursionError:
        raise source.fail(path, 0, "is nested too deeply, or in itself") from None


def _python_node(value: object, source: Source, path: str) -> Node:
    if isinstance(value, Mapping):
        nodes = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise source.fail(path, 0, f"keys must be text, one is {type(key).__name__}")
            nodes[key] = _python_node(item, source, child(path, key))
        return Node(nodes)
    if isinstance(value, list | tuple):
        return Node([_python_node(item, source, f"{path}[{i}]") for i, item in enumerate(value)])
    return Node(str(value) if isinstance(value, PurePath) else value)


def child(path: str, key: str) -> str:
    """The path of ``key`` in the mapping at ``path``, as an error may show it."""
    return f"{path}.{key_shown(key)}" if path else key_shown(key)
