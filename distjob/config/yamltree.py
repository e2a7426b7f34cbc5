"""The text of a YAML file -> a tree of `Node`.

Decides what YAML may be used: the safe, plain part. Aliases, merge keys, tags, several documents
and the numbers that YAML 1.1 reads in base 60 or 8 are refused. Imported only for a file.
"""

from __future__ import annotations

import re

import yaml

from distjob.config.source import Node, Source, child
from distjob.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_QUOTE_IT = "; to mean text, put it in quotes"


def read_yaml(text: str, source: Source) -> Node:
    """The tree of a YAML document; an empty one is an empty mapping. Raises ConfigError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return Node({}) if root is None else _Reader(source).node(root, "", 1)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise _syntax(source, text, line, column, _quoteless(said)) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        column = error.position - before.rfind("\n") - 1
        said = "a character that YAML does not allow"
        raise _syntax(source, text, before.count("\n"), column, said) from None
    except RecursionError:
        raise source.fail("", 0, "is nested too deeply") from None


def _syntax(source: Source, text: str, line: int, column: int, said: str) -> ConfigError:
    """What is wrong at a place, counted from 0, and what it most likely is."""
    advice = _advice([*text.splitlines(), ""][: line + 1], column, said)
    place = f"column {column + 1}: YAML syntax error: {said}"
    return source.fail("", line + 1, f"{place} ({advice})")


def _advice(lines: list[str], column: int, said: str) -> str:
    *above, here = lines
    if here[column : column + 1] == "\t":
        return "that is a tab: indent with blanks"
    if any(re.match(r"\s*(\[[\w.]+\]\s*$|[\w.-]+\s*=)", line) for line in lines):
        return "this is not YAML: TOML or INI? write key: value"
    before = next((line for line in reversed(above) if line.strip()), "")
    if "expected <block end>" in said or (
        "mapping values" in said and here.count(": ") <= 1 and _indent(here) > _indent(before)
    ):
        return "is this line indented as its neighbours are?"
    return "text with special characters needs quotes"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _quoteless(said: str) -> str:
    """PyYAML's words without what it cites from the file, which may be part of a password."""
    bare = re.sub(r"'(<[a-z ]+>|[-:,?\]}])'", r"\1", said)
    return re.sub(r" ?'.*'", "", bare, flags=re.DOTALL)


class _Reader:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._seen: set[int] = set()
        self._make = yaml.constructor.SafeConstructor()

    def node(self, found: yaml.Node, path: str, line: int) -> Node:
        if id(found) in self._seen:
            raise self._source.fail(path, line, "aliases (*name) are not used here; repeat it")
        self._seen.add(id(found))
        if isinstance(found, yaml.MappingNode) and found.tag == f"{_TAG}map":
            return Node(self._mapping(found, path), line)
        if isinstance(found, yaml.SequenceNode) and found.tag == f"{_TAG}seq":
            items = [
                self.node(item, f"{path}[{index}]", item.start_mark.line + 1)
                for index, item in enumerate(found.value)
            ]
            return Node(items, line)
        if isinstance(found, yaml.ScalarNode):
            return self._scalar(found, path, line)
        raise self._source.fail(path, line, "tags (!name) are not used here" + _QUOTE_IT)

    def _mapping(self, found: yaml.MappingNode, path: str) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for key, value in found.value:
            line = key.start_mark.line + 1
            if key.tag == f"{_TAG}merge":
                raise self._source.fail(path, line, "merge keys (<<) are not used here; repeat it")
            name = self.node(key, path, line).value
            if not isinstance(name, str):
                said = "a key must be text, and YAML reads this one as something else"
                raise self._source.fail(path, line, f"{said} (on, yes, 12 and the like){_QUOTE_IT}")
            if name in nodes:
                said = f"given twice, first in line {nodes[name].line}; remove one of them"
                raise self._source.fail(child(path, name), line, said)
            nodes[name] = self.node(value, child(path, name), line)
        return nodes

    def _scalar(self, found: yaml.ScalarNode, path: str, line: int) -> Node:
        raw, kind = found.value, found.tag.removeprefix(_TAG)
        if kind in ("str", "value"):
            glued = found.style is None and re.match(r"[A-Za-z_]+:\S", raw)
            return Node(raw, line, "; is a space missing after its ':'?" if glued else "")
        if kind == "timestamp":
            raise self._source.fail(path, line, "YAML reads this as a date" + _QUOTE_IT)
        if kind in ("int", "float") and ":" in raw:
            said = "YAML reads digits with ':' as a number in base 60"
            raise self._source.fail(path, line, f"{said}; write plain seconds{_QUOTE_IT}")
        if kind == "int" and re.match(r"[-+]?0[0-9_]", raw):
            said = "YAML reads a number with a leading 0 as octal; leave the 0 out"
            raise self._source.fail(path, line, said + _QUOTE_IT)
        if kind not in ("int", "float", "bool", "null"):
            raise self._source.fail(path, line, "tags (!name) are not used here" + _QUOTE_IT)
        hint = ""
        if kind == "bool" and raw.lower() not in ("true", "false"):
            hint = " (YAML reads on, off, yes and no as true and false)"
        try:
            return Node(self._make.construct_object(found), line, hint)
        except (ValueError, KeyError, OverflowError):
            raise self._source.fail(path, line, "is no number that can be read") from None
