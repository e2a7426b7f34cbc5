"""What a type annotation of a settings Struct allows, for the builder and for people.

Pure: a kind is what a Struct's field may be annotated with; nothing here has seen a file.
"""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import inspect

_WORDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a decimal number"),
    (str, "text"),
    (list, "a list"),
    (tuple, "a list"),
    (Mapping, "a mapping"),
)
_SIMPLE: tuple[tuple[type[inspect.Type], str], ...] = (
    (inspect.NoneType, "null"),
    (inspect.BoolType, "true or false"),
    (inspect.StructType, "a mapping"),
    (inspect.DictType, "a mapping"),
    (inspect.CollectionType, "a list"),
    (inspect.TupleType, "a list"),
    (inspect.AnyType, "anything"),
)


def members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, without ``Annotated``; of anything else, itself."""
    if get_origin(kind) is Annotated:
        return members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(member for option in get_args(kind) for member in members(option))
    return (kind,)


def struct_in(allowed: Collection[Any]) -> type[msgspec.Struct] | None:
    """The Struct among the alternatives."""
    structs = (kind for kind in allowed if isinstance(kind, type))
    return next((kind for kind in structs if issubclass(kind, msgspec.Struct)), None)


def item_kind(allowed: Collection[Any], container: type, index: int) -> Any:
    """What a list holds at ``index``, or a mapping as values; Any if nobody knows."""
    for kind in allowed:
        args, origin = get_args(kind), get_origin(kind)
        if not args or not isinstance(origin, type):
            continue
        if container is dict and issubclass(origin, Mapping):
            return args[1]
        if container is list and issubclass(origin, tuple):
            return args[0] if args[-1] is ... else args[min(index, len(args) - 1)]
        if container is list and not issubclass(origin, Mapping):
            return args[0]
    return Any


def joined_by(kind: Any) -> str:
    """What a list of texts is joined by where a text is wanted; empty if a list is wrong there.

    ``Meta(extra={"joined": ","})`` says it.
    """
    metas = (meta for meta in get_args(kind) if isinstance(meta, msgspec.Meta))
    return next((str(joined) for m in metas if (joined := (m.extra or {}).get("joined"))), "")


def takes_text(kind: Any) -> bool:
    """Whether a text can be right, so that a variable's text is taken as it is."""
    for member in members(kind):
        if member in (str, Any):
            return True
        if get_origin(member) is Literal and any(isinstance(a, str) for a in get_args(member)):
            return True
        if isinstance(member, type) and issubclass(member, Enum):
            return any(isinstance(option.value, str) for option in member)
    return False


def kind_of(value: object) -> str:
    """What a value is, in the words of the one who wrote it."""
    if value is None:
        return "empty (null)"
    return next((word for kind, word in _WORDS if isinstance(value, kind)), type(value).__name__)


def describe(kind: Any) -> str:
    """What would be right: ``a number from 0.1 to 86400``.

    ``Meta(extra={"right": ...})`` says it in the place of a pattern.
    """
    return _described(inspect.type_info(kind))


def wrong(value: object, kind: Any, hint: str) -> str:
    """Why ``value`` is not a ``kind``, without showing it."""
    right, is_now = describe(kind), kind_of(value)
    text = f"must be {right}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{text}, and finite"
    number = right.startswith("a number") and is_now in ("a whole number", "a decimal number")
    listed = isinstance(value, str) and right.startswith("one of")
    if right.startswith(is_now) or number or listed:
        return text + _help(kind)
    if isinstance(value, str) and takes_text(kind):
        return text
    if isinstance(value, bool | int | float) and takes_text(kind):
        hint += "; to mean text, put it in quotes"
    elif isinstance(value, str) and "number" in right:
        hint = " (numbers are written like 10 or 2.5, without quotes)"
    return f"{text}, is {is_now}{hint}"


def _help(kind: Any) -> str:
    notes = (meta.description for meta in get_args(kind) if isinstance(meta, msgspec.Meta))
    return next((f": {note.partition('. ')[0]}" for note in notes if note), "")


def _described(info: inspect.Type) -> str:
    if isinstance(info, inspect.Metadata):
        right: str = (info.extra or {}).get("right", "")
        return right or _described(info.type)
    if isinstance(info, inspect.UnionType):
        return " or ".join(_described(option) for option in info.types)
    if isinstance(info, inspect.IntType | inspect.FloatType):
        return _number(info)
    if isinstance(info, inspect.StrType):
        return _text(info)
    if isinstance(info, inspect.LiteralType):
        return "one of " + ", ".join(repr(value) for value in info.values)
    if isinstance(info, inspect.EnumType):
        return "one of " + ", ".join(repr(option.value) for option in info.cls)
    return next((words for kind, words in _SIMPLE if isinstance(info, kind)), type(info).__name__)


def _number(info: inspect.IntType | inspect.FloatType) -> str:
    word = "a whole number" if isinstance(info, inspect.IntType) else "a number"
    if info.ge is not None and info.le is not None:
        return f"{word} from {info.ge:.15g} to {info.le:.15g}"
    bounds = (("at least", info.ge), ("above", info.gt), ("at most", info.le), ("below", info.lt))
    said = [f"{words} {bound:.15g}" for words, bound in bounds if bound is not None]
    return " ".join([word, " and ".join(said)]).strip()


def _text(info: inspect.StrType) -> str:
    text = "text"
    if info.min_length or info.max_length is not None:
        low, high = info.min_length or 0, info.max_length
        text += f" of {low} to {high} characters" if high is not None else f" of at least {low}"
    if info.pattern:
        shown = info.pattern.replace(r"\Z", "$")
        text += f" that matches {shown}"
    return text
