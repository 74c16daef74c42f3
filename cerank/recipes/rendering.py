"""A recipe as TOML text: short (what differs from the defaults), or full (every key, with its explanation).

Invariant: what is written here reads back as an equal recipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from cerank.core.decode import fields_of, help_text_of, hints_of, struct_in
from cerank.recipes.schema import ONE_LOSS, Recipe, Stage

_NAMED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}
_ESCAPES = {char: f"\\{letter}" for letter, char in _NAMED.items()}


def render(recipe: Recipe, full: bool = False) -> str:
    """Return `recipe` as TOML; `full` writes the defaults too, and beside each key what it means."""
    return "\n".join(_table(recipe, "", full)).strip("\n") + "\n"


def template(name: str) -> str:
    """Return the start of the user's own recipe called `name`, for `cerank recipes new`; it loads as it is."""
    return f"""\
# Everything that is not set here comes from the recipe that this one extends.
# `cerank recipes show contrastive-then-distill --full` lists every key with its meaning and default;
# `cerank recipes check THIS_FILE` names every mistake.
extends = "contrastive-then-distill"  # a shipped recipe, or a path from here

name = {_literal(name)}
description = ""
# base = "electra"  # see `cerank bases`
# seed = 1
# chain = ["contrastive", "distill"]  # the stages that run, in order

[data]
# train = "pydocs/train"  # a name, an ir_datasets id, or a folder; see `cerank datasets`
# validation = "pydocs/validation"
# test = ["pydocs/test"]
# first_stages = ["bm25"]  # or TREC run files

[evaluate]
# margins = {{ "nDCG@10" = 0.02 }}  # the largest difference that does not matter; declare it before the run

[stages.contrastive]
# learning_rate = 1e-4

[stages.distill]
# learning_rate = 5e-5
"""


def _literal(value: object) -> str:
    if isinstance(value, msgspec.Struct):  # in a list of tables
        fields = ((field, getattr(value, field.name)) for field in fields_of(type(value)))
        return _literal({field.name: item for field, item in fields if field.required or item != _default(field)})
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(_character(char) for char in value) + '"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(str(name))} = {_literal(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return repr(value)


def _character(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _literal(name)


def _table(values: msgspec.Struct, path: str, full: bool) -> Iterator[str]:
    """Yield the lines of one table: its own keys first, as TOML asks, then the lists of tables and the tables in it."""
    hints = hints_of(type(values))
    tables: list[tuple[str, msgspec.Struct, str]] = []
    lists: list[tuple[str, msgspec.Struct]] = []
    keys: list[str] = []
    for field in _written_fields(values):
        value = getattr(values, field.name)
        text = help_text_of(hints[field.name])
        if isinstance(value, dict) and _holds_tables(value.values()):
            tables += [(f"{field.name}.{_key(name)}", entry, "") for name, entry in value.items()]
        elif isinstance(value, tuple) and _holds_tables(value):
            lists += [(field.name, entry) for entry in value]
        elif struct_in(hints[field.name]):
            tables.append((field.name, value, text))
        elif full or field.required or value != _default(field):
            line = _explained(field.name, value, text if full else "")
            keys.append(f"# {line}" if _takes_the_recipes(path, field.name, value) else line)
    is_stage = path.startswith("stages.") and path.count(".") == 1
    if path and (keys or full or is_stage):
        yield f"\n[{path}]"
    yield from keys
    for name, entry in lists:
        yield f"\n[[{path}.{name}]]"
        yield from _keys(entry)
    for name, table, text in tables:
        lines = list(_table(table, f"{path}.{name}" if path else name, full))
        if full and text and lines:
            lines[0] += f"  # {text}"
        yield from lines


def _written_fields(values: msgspec.Struct) -> list[msgspec.structs.FieldInfo]:
    """Return the fields of a table, without the keys of a stage's single loss where it has several."""
    left_out = ONE_LOSS if isinstance(values, Stage) and values.losses else ()
    return [field for field in fields_of(type(values)) if field.name not in left_out]


def _takes_the_recipes(path: str, name: str, value: object) -> bool:
    """Return whether a stage takes its passages from the recipe's own table, which an outright "none" contradicts."""
    return path.startswith("stages.") and name == "aggregation" and value == "none"


def _holds_tables(values: Iterable[object]) -> bool:
    return any(isinstance(entry, msgspec.Struct) for entry in values)


def _keys(entry: msgspec.Struct) -> Iterator[str]:
    """Yield the keys of a table in a list, without those that hold their defaults: an absent option has none."""
    for field in fields_of(type(entry)):
        value = getattr(entry, field.name)
        if field.required or value != _default(field):
            yield f"{field.name} = {_literal(value)}"


def _default(field: msgspec.structs.FieldInfo) -> object:
    """Return the default of a field; a table's default is created anew each time."""
    has_factory = field.default_factory is not msgspec.NODEFAULT
    return field.default_factory() if has_factory else field.default


def _explained(name: str, value: object, text: str) -> str:
    """Return a key with its explanation; TOML has no null, so an absent value is commented out."""
    line = f"# {name} =" if value is None else f"{name} = {_literal(value)}"
    return f"{line}  # {text}" if text else line
