"""Decodes tables of outside text (TOML, overrides) into frozen structs; finds all errors at once, with their key paths.

Invariant: this module reads no file, and raises only cerank's own errors, whatever the text.
"""

from __future__ import annotations

import functools
import re
import tomllib
import types
import typing
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from cerank.errors import FormatError
from cerank.registry import nearest
from cerank.text.safe_text import shown, token_at

S = TypeVar("S", bound=msgspec.Struct)

_LEAVE_IT_OUT = "leave it out; the hub's client reads HF_TOKEN, or what `hf auth login` kept"
LARGEST_TOML = 1 << 20  # bytes; a recipe or settings file is some 5 KB, more is a wrong file
MOST_ERRORS = 100  # errors that are listed; more are of no use, and each costs a search
_MOST_DOTS = 64  # in a line, outside its texts and comment
_STRING = re.compile(r'"[^"]*"|\'[^\']*\'')
DEEPEST_TABLE = 16  # levels; keeps every later recursion shallow


def help_text(text: str) -> msgspec.Meta:
    """Return the one-line explanation of a field for its `Annotated` type; `cerank recipes show --full` prints it."""
    return msgspec.Meta(description=text)


def help_text_of(hint: object) -> str:
    """Return the explanation in a field's type; "" if it has none."""
    texts = [meta.description for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    return next((text for text in reversed(texts) if text), "")


def _plain(hint: Any) -> Any:
    """Return the type inside `Annotated`."""
    return hint.__origin__ if hasattr(hint, "__metadata__") else hint


def struct_in(hint: object) -> type[msgspec.Struct] | None:
    """Return the struct a field holds, if it holds one."""
    hint = _plain(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next((inner for part in typing.get_args(hint) if (inner := struct_in(part))), None)
    return None


def struct_listed(hint: object) -> type[msgspec.Struct] | None:
    """Return the struct of which a field holds a list, if it holds one."""
    plain = _plain(hint)
    return struct_in(typing.get_args(plain)[0]) if typing.get_origin(plain) is tuple else None


def _value(hint: Any, value: object, path: str, mistakes: list[str]) -> object:
    inner, listed = struct_in(hint), struct_listed(hint)
    if inner is not None and isinstance(value, Mapping):
        return decode_table(inner, value, path, mistakes)
    if listed is not None and isinstance(value, list | tuple):
        return tuple(_value(listed, item, f"{path}[{index}]", mistakes) for index, item in enumerate(value))
    return _plain_value(hint, value, path, mistakes)


def _plain_value(hint: Any, value: object, path: str, mistakes: list[str]) -> object:
    """Return a value that is no table of ours and no list of such, as the type of its key asks."""
    if typing.get_origin(_plain(hint)) is dict and isinstance(value, Mapping):
        item = typing.get_args(_plain(hint))[1]
        return {str(key): _value(item, entry, f"{path}.{key}", mistakes) for key, entry in value.items()}
    if isinstance(value, str) and token_at(value) >= 0:
        mistakes.append(f"{path}: holds an access token, which no run may keep")
        return None
    try:
        msgspec.json.encode(value)  # a plan is JSON: bytes of a command line that are no UTF-8 stop here, not there
        return msgspec.convert(value, hint)
    except UnicodeEncodeError:
        mistakes.append(f"{path}: not UTF-8 text; given: {value!r:.80}")
        return None
    except msgspec.ValidationError as error:
        text, _, place = str(error).replace("`", "'").replace(" | null", "").partition(" - at ")  # TOML has no null
        index = place.strip("'").removeprefix("$")
        if choices := choices_in(hint):
            text = f"must be one of {', '.join(choices)}"
        mistakes.append(f"{path}{index}: {text[:1].lower()}{text[1:]}; given: {value!r:.80}")
        return None


def choices_in(hint: Any) -> tuple[str, ...]:
    """Return the texts among which a key's type lets choose, beside no value at all; () where it is no such choice."""
    parts = [part for part in (typing.get_args(_plain(hint)) or ()) if part is not type(None)]
    literals = parts if parts and all(typing.get_origin(part) is typing.Literal for part in parts) else [_plain(hint)]
    if any(typing.get_origin(part) is not typing.Literal for part in literals):
        return ()
    return tuple(str(value) for part in literals for value in typing.get_args(part))


@functools.cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """Return the type of each field with its explanation; cached, because evaluating types is slow."""
    return types.MappingProxyType(typing.get_type_hints(kind, include_extras=True))


@functools.cache
def fields_of(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a struct; cached, because msgspec evaluates their types each time."""
    return msgspec.structs.fields(kind)


def decode_table(kind: type[S], values: Mapping[str, object], path: str, mistakes: list[str]) -> S | None:
    """Return `values` as a `kind`, or None; each error is appended to `mistakes` as `key.path: what is wrong`."""
    hints = hints_of(kind)
    before = len(mistakes)
    fields: dict[str, object] = {}
    more = 0
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        if key in hints:
            fields[key] = _value(hints[key], value, where, mistakes)
        elif len(mistakes) < MOST_ERRORS:
            mistakes.append(f"{shown(where, 200)}: unknown key; {nearest(str(key), hints)}")
        else:
            more += 1
    if more:
        mistakes.append(f"{path or 'the file'}: {more} more unknown keys")
    missing = [field.name for field in fields_of(kind) if field.required and field.name not in fields]
    mistakes.extend(f"{path + '.' if path else ''}{name}: missing" for name in missing)
    return kind(**fields) if len(mistakes) == before else None


def merge_tables(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Return `base` updated with `over`: tables are merged key by key, everything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge_tables(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether tables and lists nest more than `levels` deep; works level by level, without recursion."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            item
            for entry in layer
            if isinstance(entry, dict | list)
            for item in (entry.values() if isinstance(entry, dict) else entry)
        ]
        if not layer:
            return False
    return True


def toml_table(source: bytes, where: str) -> dict[str, Any]:
    """Return the table in a TOML text.

    Args:
        source: content of the file, in UTF-8.
        where: the file it came from, for the error.

    Raises:
        FormatError: it is not TOML, or no honest file of ours (over a mebibyte, nested too deep, or it holds an access
            token); `where` is file:line.
    """
    if len(source) > LARGEST_TOML:
        raise FormatError(f"{len(source)} bytes are too many for a TOML file", where=where, code="file-too-large")
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise FormatError(
            "the file is not UTF-8 text", where=f"{where}:{line}", hint="save the file as UTF-8", code="not-utf-8"
        ) from None
    if (spot := token_at(text)) >= 0:
        number = text.count("\n", 0, spot) + 1
        raise FormatError(
            "the file holds an access token, which no run may keep",
            where=f"{where}:{number}",
            hint=_LEAVE_IT_OUT,
            code="access-token",
        )
    _check_key_lengths(text, where)
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise FormatError("values are nested too deep", where=where, code="nested-too-deep") from None
    except ValueError as error:  # TOMLDecodeError, and int()'s own for numbers of thousands of digits
        what, place = _toml_mistake(str(error), text)
        raise FormatError(
            f"the file is not valid TOML: {what}", where=f"{where}:{place}" if place else where, code="not-toml"
        ) from None
    if _is_deeper(values, DEEPEST_TABLE):
        raise FormatError("values are nested too deep", where=where, code="nested-too-deep")
    return values


def _check_key_lengths(text: str, where: str) -> None:
    """Reject keys of very many parts (a.b.c...): tomllib takes quadratic time for them, 30 s for 200 KB."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS and _STRING.sub("", line).partition("#")[0].count(".") > _MOST_DOTS:
            raise FormatError("values are nested too deep", where=f"{where}:{number}", code="nested-too-deep")


def _toml_mistake(message: str, text: str) -> tuple[str, str]:
    """Split tomllib's message into (what, line); the line is "" if the message names none."""
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.DOTALL)
    what = match.group(1) if match else message
    line = (match.group(2) or str(text.rstrip("\n").count("\n") + 1)) if match else ""
    return what[:1].lower() + what[1:], line


def line_of(source: bytes, keys: tuple[str, ...]) -> tuple[int, int]:
    """Return (line, number of matching `keys`) of the line that comes closest to naming `keys`; (0, 0) if none does.

    A scan of headers and keys, not a parser: inside a multi-line string it may be led astray, and costs only the line.

    Args:
        source: the TOML text.
        keys: as in an error's path; a place in a list follows its key: ("stages", "a", "losses[1]", "weight").
    """
    best = (0, 0)
    table: tuple[str, ...] = ()
    tables = Counter[tuple[str, ...]]()  # of each list of tables, those seen so far
    plain = tuple(key.partition("[")[0] for key in keys)
    for number, line in enumerate(source.decode("utf-8-sig", "replace").split("\n"), start=1):
        header = re.match(r"\s*(\[{1,2})([^\[\]]+)\]", line)
        key = re.match(r"\s*([\w.\"' -]+?)\s*=", line)
        if header:
            table = named = _dotted(header.group(2))
            if header.group(1) == "[[":
                table = named = (*named[:-1], f"{named[-1]}[{tables[named]}]")
                tables[_dotted(header.group(2))] += 1
        elif key:
            named = table + _dotted(key.group(1))
        else:
            continue
        is_named = all(name in pair for name, *pair in zip(named, keys, plain, strict=False))
        if is_named and best[1] < len(named) <= len(keys):
            best = (number, len(named))
    return best


def _dotted(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))
