"""Tables of outside text (TOML, overrides) to frozen structs; every mistake is found at once, with its key path."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from cerank.registry import nearest

S = TypeVar("S", bound=msgspec.Struct)


def _struct_in(hint: object) -> type[msgspec.Struct] | None:
    """The struct a field holds, if it holds one."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    if isinstance(hint, types.UnionType):
        return next((found for part in typing.get_args(hint) if (found := _struct_in(part))), None)
    return None


def _value(hint: Any, value: object, path: str, mistakes: list[str]) -> object:
    inner = _struct_in(hint)
    if inner is not None and isinstance(value, Mapping):
        return table(inner, value, path, mistakes)
    if typing.get_origin(hint) is dict and isinstance(value, Mapping):
        item = typing.get_args(hint)[1]
        return {str(key): _value(item, entry, f"{path}.{key}", mistakes) for key, entry in value.items()}
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        text = str(error).split(" - at ")[0].replace("`", "'")
        mistakes.append(f"{path}: {text[:1].lower()}{text[1:]}, got {value!r:.80}")
        return None


def table(kind: type[S], values: Mapping[str, object], path: str, mistakes: list[str]) -> S | None:
    """`values` as a `kind`, or None; each mistake is appended to `mistakes` as `key.path: what is wrong`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    before = len(mistakes)
    given: dict[str, object] = {}
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        if key in hints:
            given[key] = _value(hints[key], value, where, mistakes)
        else:
            mistakes.append(f"{where}: unknown key; {nearest(str(key), hints)}")
    missing = [field.name for field in msgspec.structs.fields(kind) if field.required and field.name not in given]
    mistakes.extend(f"{path + '.' if path else ''}{name}: missing" for name in missing)
    return kind(**given) if len(mistakes) == before else None


def merged(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """`base` with `over` laid on it, tables merged key by key and everything else replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out
