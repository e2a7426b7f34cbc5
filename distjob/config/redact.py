"""What of a setting may be shown: passwords in URLs and secret fields are blotted out.

A field is secret if its name says so, or if it is marked ``Annotated[str, Meta(extra={"secret":
True})]``. Errs on the side of hiding. Knows nothing of files and backends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_origin

import msgspec

HIDDEN = "***"
# Greedy, since a password that was not percent-encoded may hold any of ":/?#@ ".
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL = re.compile(r"(\A[^:]*://[^:]*?:).*(@)", re.DOTALL)
_USERINFO = re.compile(r"(\A[^:]*?:).*(@)", re.DOTALL)
_QUERY = re.compile(r"([?&;][^=&;]*(?:pass|pwd|secret|token|key)[^=&;]*=)[^&#]*", re.IGNORECASE)
_SECRET_NAME = re.compile(r"(pass|secret|token|credential|private|pwd)", re.IGNORECASE)
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def redacted(text: str) -> str:
    """``text`` without the password of a URL, or of anything like ``user:password@host``."""
    form = _URL if _SCHEME.match(text) else _USERINFO
    return _QUERY.sub(rf"\1{HIDDEN}", form.sub(rf"\1{HIDDEN}\2", text))


def key_shown(key: str) -> str:
    """A key of the file as an error may show it: `{url:redis://...}` makes a value the key."""
    return key if _PLAIN_KEY.fullmatch(key) else f"<key of {len(key)} characters>"


def is_secret(field: msgspec.structs.FieldInfo) -> bool:
    """Whether the values of a Struct's field are never to be shown."""
    return bool(_SECRET_NAME.search(field.encode_name)) or any(
        bool((meta.extra or {}).get("secret"))
        for meta in (field.type.__metadata__ if get_origin(field.type) is Annotated else ())
        if isinstance(meta, msgspec.Meta)
    )


def shown(value: object, path: str, templates: Mapping[str, str], *, secret: bool = False) -> str:
    """A repr of ``value``, found at key ``path``, that may be logged.

    ``templates`` holds, by key path, what stood in the file in place of a value that came from a
    variable or a file.
    """
    if path in templates:
        return repr(redacted(templates[path]))
    if isinstance(value, msgspec.Struct):
        fields = (
            f"{field.name}="
            + shown(
                getattr(value, field.name),
                f"{path}.{field.encode_name}",
                templates,
                secret=secret or is_secret(field),
            )
            for field in msgspec.structs.fields(value)
        )
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, Mapping):
        items = (
            f"{key!r}: "
            + shown(
                item,
                f"{path}.{key}",
                templates,
                secret=secret or bool(_SECRET_NAME.search(str(key))),
            )
            for key, item in value.items()
        )
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list | tuple | set | frozenset):
        parts = [
            shown(item, f"{path}[{index}]", templates, secret=secret)
            for index, item in enumerate(value)
        ]
        return f"[{', '.join(parts)}]"
    if secret and value not in (None, ""):
        return repr(HIDDEN)
    return repr(redacted(value)) if isinstance(value, str) else _plain(value)


def _plain(value: Any) -> str:
    plain = value is None or isinstance(value, bool | int | float)
    return repr(value) if plain else f"<{type(value).__name__}>"
