"""JSON Schema (2020-12) of the settings file, for editors and CI.

Decides how what `load` does beyond the types is put into a schema: a backend's section, the
``K_file`` keys, ``${VAR}`` in place of a number. The rest is msgspec's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from distjob.config import backends
from distjob.config.build import FILE
from distjob.config.kinds import joined_by, members, takes_text
from distjob.errors import ConfigError

Schema = dict[str, Any]
_VARIABLE = "variable"
_ABOUT = ("description", "default")
_BOUNDED = ("pattern", "minLength", "maxLength", "format")


def file_schema(common: type[msgspec.Struct]) -> Schema:
    """The schema of a file with the keys of ``common`` and a section for each backend."""
    sections = dict(_sections())
    structs = list(
        dict.fromkeys(s for top in (common, *sections.values()) for s in structs_of(top))
    )
    references, defs = msgspec.json.schema_components(structs, ref_template="#/$defs/{name}")
    by_struct = dict(zip(structs, references, strict=True))
    for struct, reference in by_struct.items():
        name = reference["$ref"].rpartition("/")[2]
        defs[name] = _strict(_with_variables(defs[name]), struct)
    top = defs.pop(by_struct[common]["$ref"].rpartition("/")[2])
    for name in sorted(backends.installed()):
        section = by_struct[sections[name]] if name in sections else {"type": "object"}
        top["properties"][name] = _or_null(section, defs)
    for name in ("job", "session"):
        top["properties"][name] = _or_null(top["properties"][name], defs)
    defs[_VARIABLE] = {
        "description": "A text in which ${NAME} stands for an environment variable.",
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:distjob:settings:1",  # a name, not an address: the schema depends on backends
        **top,
        "title": "distjob settings",
        "description": "The settings file of distjob, with a section for each installed backend.",
        "$defs": defs,
    }


def _sections() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    for name in backends.installed():
        try:
            yield name, backends.find(name).settings
        except ConfigError:
            continue  # it can't be loaded: `load` says so to who uses it


def structs_of(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """The Structs that an annotation leads to."""
    for member in members(kind):
        if isinstance(member, type) and issubclass(member, msgspec.Struct):
            yield member
            for field in msgspec.structs.fields(member):
                yield from structs_of(field.type)
        else:
            for argument in get_args(member):
                yield from structs_of(argument)


def _with_variables(schema: Any) -> Any:
    """Wherever a text would be wrong as such, allow one that holds a variable."""
    if isinstance(schema, list):
        return [_with_variables(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    keep = ("default", "enum", "const", "required", "examples")
    schema = {key: v if key in keep else _with_variables(v) for key, v in schema.items()}
    if isinstance(pattern := schema.get("pattern"), str):
        schema["pattern"] = pattern.replace(r"\Z", "$")  # which is what \Z is in JavaScript
    bounded = schema.get("type") == "string" and any(key in schema for key in _BOUNDED)
    if bounded or "enum" in schema or schema.get("type") in ("integer", "number", "boolean"):
        about = {key: schema.pop(key) for key in _ABOUT if key in schema}
        return {"anyOf": [schema, {"$ref": f"#/$defs/{_VARIABLE}"}], **about}
    return schema


def _strict(schema: Schema, struct: type[msgspec.Struct]) -> Schema:
    """No other keys, and ``K_file`` for each text ``K``, but not both."""
    properties, required = schema["properties"], set(schema.get("required", ()))
    rules: list[Schema] = []
    for field in msgspec.structs.fields(struct):
        name, other = field.encode_name, field.encode_name + FILE
        if joined_by(field.type):
            listed = {"type": "array", "items": {"type": "string"}, "minItems": 1}
            about = {k: properties[name].pop(k) for k in _ABOUT if k in properties[name]}
            properties[name] = {"anyOf": [properties[name], listed], **about}
        if not takes_text(field.type) or other in properties:
            continue
        properties[other] = {
            "description": f"A file whose content is the value of {name!r}.",
            "type": "string",
            "minLength": 1,
        }
        rules.append({"not": {"required": [name, other]}})
        if name in required:
            required.discard(name)
            rules.append({"anyOf": [{"required": [name]}, {"required": [other]}]})
    schema["required"] = sorted(required)
    schema["additionalProperties"] = False
    if rules:
        schema["allOf"] = rules
    return schema


def _or_null(schema: Schema, defs: dict[str, Schema]) -> Schema:
    """A section that may be empty. Editors show what stands beside ``anyOf``, not within."""
    about = defs.get(schema.get("$ref", "").rpartition("/")[2], {}).get("description")
    told = {"description": about} if about else {}
    default = {"default": schema.pop("default")} if "default" in schema else {}
    return {**told, "anyOf": [schema, {"type": "null"}], **default}
