"""Settings as YAML that can be pasted: what is in force, spelled out, without its secrets.

What came from a variable is shown as that variable. What must not be shown, or came from a file,
is a comment that says so: it is to be put back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from distjob.config import Common, Settings
from distjob.config.redact import HIDDEN, is_secret, redacted
from distjob.config.source import child

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_NOT_TEXT = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


def as_yaml(settings: Settings) -> str:
    """The file that means these settings."""
    common = {name: getattr(settings, name) for name in Common.__struct_fields__}
    nested = [name for name, value in common.items() if isinstance(value, msgspec.Struct)]
    lines: list[str] = []
    for name in sorted(common, key=lambda name: name in nested):  # scalars first
        lines += _lines(name, common[name], name, settings.templates, "")
    section = settings.section
    lines += _lines(settings.backend, section, settings.backend, settings.templates, "")
    return "\n".join(lines)


def _lines(
    key: str,
    value: Any,
    path: str,
    templates: Mapping[str, str],
    indent: str,
    *,
    secret: bool = False,
) -> Iterator[str]:
    if path in templates:
        yield _scalar(indent, key, _template(templates[path]), hidden=templates[path] == HIDDEN)
    elif isinstance(value, msgspec.Struct):
        yield f"{indent}{key}:"
        for field in msgspec.structs.fields(value):
            item, name = getattr(value, field.name), field.encode_name
            if item is not None:
                where = child(path, name)
                hide = is_secret(field)
                yield from _lines(name, item, where, templates, f"{indent}  ", secret=hide)
    elif isinstance(value, list | tuple):
        shown = (
            _template(templates.get(f"{path}[{i}]", item)) if isinstance(item, str) else item
            for i, item in enumerate(value)
        )
        yield f"{indent}{key}: [{', '.join(map(_text, shown))}]"
    else:
        hidden = secret and value != ""
        yield _scalar(indent, key, redacted(value) if isinstance(value, str) else value, hidden)


def _scalar(indent: str, key: str, value: object, hidden: bool) -> str:
    if hidden:
        return f"{indent}# {key}: {HIDDEN}  # a secret, or from a file: put it back"
    line = f"{indent}{key}: {_text(value)}"
    return f"{line}  # put back what {HIDDEN} stands for" if HIDDEN in line else line


def _template(text: str) -> str:
    """A variable in the place of a password is no secret; anything else there is."""
    marked = _VARIABLE.sub(HIDDEN, text)
    return text if redacted(marked) == marked else redacted(text)


def _text(value: object) -> str:
    """A scalar; JSON's are YAML's."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)
