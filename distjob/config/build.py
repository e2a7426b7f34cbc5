"""The tree of a settings file and a Struct type -> a checked object.

Decides how ``${VAR}`` and ``K_file`` are filled in, and says what would be right for a value that
is not. The types come from the Structs alone. No error shows a value: what stands there may be a
secret, or next to one.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Collection, Mapping
from typing import Any, NoReturn, TypeVar

import msgspec

from distjob.backend.sections import Mistake
from distjob.config.kinds import (
    describe,
    item_kind,
    joined_by,
    kind_of,
    members,
    struct_in,
    takes_text,
    wrong,
)
from distjob.config.redact import HIDDEN, is_secret, redacted
from distjob.config.source import Node, Source, child
from distjob.drive.choices import suggestion
from distjob.errors import ConfigError

log = logging.getLogger("distjob")
FILE = "_file"
_MAX_SECRET = 1 << 16
_VARIABLE = re.compile(r"\$(\$)?\{([^}]*)(\})?")
_BARE = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_Fields = Mapping[str, msgspec.structs.FieldInfo]
T = TypeVar("T", bound=msgspec.Struct)


class Builder:
    """Builds the objects of one source; ``templates`` says afterwards what was filled in where."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._secrets: set[str] = set()
        self.templates: dict[str, str] = {}

    def expanded(self, node: Node, path: str = "") -> Node:
        """A copy of the tree with every ``${VAR}`` filled in. Raises ConfigError."""
        if isinstance(node.value, dict):
            items = node.value.items()
            value: Any = {key: self.expanded(item, child(path, key)) for key, item in items}
        elif isinstance(node.value, list):
            value = [self.expanded(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        elif isinstance(node.value, str) and "${" in node.value:
            value = _VARIABLE.sub(lambda found: self._variable(found, node, path), node.value)
            self.templates[path] = node.value
            self._secrets.add(value)
            return Node(value, node.line, node.hint, template=node.value)
        else:
            if isinstance(node.value, str) and _BARE.fullmatch(node.value):
                log.warning(
                    "distjob: %s: a variable is written ${NAME}; this is taken as it is",
                    self._source.fail(path, node.line, ""),
                )
            return node
        return Node(value, node.line, node.hint)

    def build(self, node: Node, kind: Any, path: str) -> Any:
        """``node`` as a ``kind``, which is a Struct or what a Struct's field may be."""
        value, allowed = node.value, members(kind)
        if isinstance(value, list) and (by := joined_by(kind)):
            texts = [self.build(v, str, f"{path}[{i}]") for i, v in enumerate(value)]
            return self._converted(node, by.join(texts), kind, path)
        if (struct := struct_in(allowed)) and (
            isinstance(value, dict) or (value is None and type(None) not in allowed)
        ):
            return self.struct(node if value else Node({}, node.line), struct, path)
        if isinstance(value, dict):
            item = item_kind(allowed, dict, 0)
            value = {key: self.build(v, item, child(path, key)) for key, v in value.items()}
        elif isinstance(value, list):
            value = [
                self.build(v, item_kind(allowed, list, i), f"{path}[{i}]")
                for i, v in enumerate(value)
            ]
        return self._converted(node, value, kind, path)

    def struct(self, node: Node, struct: type[T], path: str, also: Collection[str] = ()) -> T:
        """The mapping ``node`` as a ``struct``; ``also`` are keys to name among the known ones."""
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        nodes = {}
        for key, item in node.value.items():
            name = _without_file(key, fields)
            if name not in fields:
                self._unknown(key, item, sorted({*fields, *also}), path)
            if name in nodes:
                both = f"both {name} and {name}{FILE} are given; remove one of them"
                raise self._source.fail(child(path, name), item.line, both)
            nodes[name] = item if name == key else self._from_file(key, name, item, path)
        for name, field in fields.items():
            if field.required and name not in nodes:
                right = f"is missing; it must be {describe(field.type)}"
                raise self._source.fail(child(path, name), node.line, right)
        values = {
            fields[name].name: self._field(item, fields[name], child(path, name))
            for name, item in nodes.items()
        }
        line = node.line
        try:
            return struct(**values)
        except Mistake as error:
            said = self.without_secrets(error.right)
            line = nodes[error.key].line if error.key in nodes else line
            path = child(path, error.key)
        except (ValueError, TypeError, ConfigError) as error:
            said = self._scrubbed(str(error))
        raise self._source.fail(path, line, said)

    def _field(self, node: Node, field: msgspec.structs.FieldInfo, path: str) -> Any:
        if is_secret(field) and isinstance(node.value, str):
            self._secrets.add(node.value)
        return self.build(node, field.type, path)

    def _unknown(self, key: str, node: Node, known: Collection[str], path: str) -> NoReturn:
        space = "; is a space missing after its ':'?" if ":" in key else ""
        said = f"unknown key{suggestion(key, known)}{space} (known: {', '.join(known)})"
        raise self._source.fail(child(path, key), node.line, said)

    def _converted(self, node: Node, value: Any, kind: Any, path: str) -> Any:
        filled_in = node.template is not None and not takes_text(kind)
        said = ""
        try:
            result = msgspec.convert(value, kind, strict=not filled_in)
        except msgspec.ValidationError:
            said = wrong(value, kind, node.hint)
        else:
            if isinstance(result, float) and not math.isfinite(result):
                said = f"must be {describe(kind)}, and finite"
            elif isinstance(result, str) and not _is_unicode(result):
                said = "is not valid Unicode: it holds a lone surrogate"
        if said:
            raise self._source.fail(path, node.line, said)
        return result

    def _variable(self, found: re.Match[str], node: Node, path: str) -> str:
        escaped, name, closed = found.groups()
        said = ""
        if escaped:
            return found[0][1:]
        if not closed:
            said = "'${' without '}'; write ${NAME} for a variable, $${ for the characters"
        elif not _NAME.fullmatch(name):
            said = "${...} must hold the name of a variable, nothing else; $${ means the characters"
        elif name not in os.environ:
            said = f"the environment variable {name} is not set"
        if said:
            raise self._source.fail(path, node.line, said)
        self._secrets.add(os.environ[name])
        return os.environ[name]

    def _from_file(self, key: str, name: str, node: Node, path: str) -> Node:
        text = self._file_text(node, child(path, key))
        self._secrets.add(text)
        self.templates[child(path, name)] = HIDDEN
        return Node(text, node.line, template=HIDDEN)

    def _file_text(self, node: Node, path: str) -> str:
        if not isinstance(node.value, str) or not node.value:
            raise self._source.fail(path, node.line, f"must be a path, is {kind_of(node.value)}")
        try:
            with (self._source.folder / node.value).open("rb") as file:
                data = file.read(_MAX_SECRET + 1)
            text = data.decode()
        except OSError as error:
            said = f"this file can't be read: {error.strerror}"
        except UnicodeDecodeError:
            said = "this file is not UTF-8"
        except ValueError:
            said = "this is not a path"
        else:
            if len(data) <= _MAX_SECRET:
                return text.removesuffix("\r\n" if text.endswith("\r\n") else "\n")
            said = f"this file is larger than {_MAX_SECRET} bytes"
        raise self._source.fail(path, node.line, said)

    def _scrubbed(self, text: str) -> str:
        """What a Struct's own check said, without anything that looks as if it must be hidden."""
        return redacted(self.without_secrets(text))

    def without_secrets(self, text: str) -> str:
        """``text``, if it should hold a value that must not be shown."""
        for secret in sorted(self._secrets - {""}, key=len, reverse=True):
            for form in (secret, repr(secret)[1:-1]):
                text = text.replace(form, HIDDEN)
        return text


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _without_file(key: str, fields: _Fields) -> str:
    """``K`` for ``K_file``, if K is a text that this Struct has and ``K_file`` is no field."""
    name = key.removesuffix(FILE)
    stands_for = key not in fields and name in fields and takes_text(fields[name].type)
    return name if stands_for else key
