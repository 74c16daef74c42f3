"""A recipe's settings as rows of a form: the text of each, what it means, what may stand there, and text as a value.

Invariant: everything is read off the recipe's own types, so that a new key appears in every form by itself.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from cerank.core import decode
from cerank.core.negative_samplers import NEGATIVE_SAMPLERS
from cerank.recipes.loss_specs import LOSSES
from cerank.recipes.schema import Data, Evaluate, Recipe, Stage

SCALARS = ("name", "description", "chain", "pooling")  # a recipe's own keys; base and seed are chosen elsewhere


class FieldSpec(msgspec.Struct, frozen=True):
    """A setting of a recipe as a form shows it: its key, value and meaning."""

    path: str  # "stages.distill.learning_rate"
    key: str
    text: str  # the recipe's own value
    meaning: str
    expected: str  # "a whole number, 1 or more"
    choices: tuple[str, ...] = ()  # what may stand there; empty for free text


class FieldGroup(msgspec.Struct, frozen=True):
    """The settings of one table of the recipe."""

    title: str
    path: str  # "data", "evaluate", "stages.distill", or "" for the recipe's own
    rows: tuple[FieldSpec, ...]


def groups(recipe: Recipe) -> tuple[FieldGroup, ...]:
    """Return the recipe's settings: its own, its data, what is measured, and each stage of the chain in order."""
    out = [
        FieldGroup("recipe", "", _rows(recipe, "", SCALARS)),
        FieldGroup("data", "data", _rows(recipe.data, "data")),
        FieldGroup("evaluate", "evaluate", _rows(recipe.evaluate, "evaluate")),
    ]
    return (
        *out,
        *(FieldGroup(name, f"stages.{name}", _rows(stage, f"stages.{name}")) for name, stage in recipe.chained()),
    )


def groups_of(several: Sequence[Recipe]) -> tuple[FieldGroup, ...]:
    """Return the settings of several recipes, each table once, as the first recipe that has it says them."""
    by_path: dict[str, FieldGroup] = {}
    for recipe in several:
        for group in groups(recipe):
            by_path.setdefault(group.path, group)
    return tuple(by_path.values())


def whose_values(several: Sequence[Recipe], path: str, changed: Collection[str] = ()) -> str:
    """Return of which of several recipes a table of `groups_of` has its values, and what others say otherwise.

    Args:
        several: the recipes.
        path: that of the table, as in `FieldGroup`.
        changed: key paths that the user gave a value of their own, which holds for all recipes.

    Returns:
        A sentence; "" for a single recipe.
    """
    tables = {
        recipe.name: {row.path: row.text for row in group.rows if row.path not in changed}
        for recipe in several
        for group in groups(recipe)
        if group.path == path
    }
    if len(several) < 2 or not tables:
        return ""
    first, *others = tables
    if not others:
        return f"values of {first} alone: no other of the recipes has this stage"
    holds = f"a change holds for {'both' if len(tables) == 2 else f'all {len(tables)}'}"
    keys = [key for key in tables[first] if any(tables[other].get(key) != tables[first][key] for other in others)]
    if not keys:
        return f"the same in {' and '.join(tables) if len(tables) == 2 else f'{len(tables)} recipes'}; {holds}"
    differing = [other for other in others if tables[other] != tables[first]]
    who = f"{differing[0]} differs" if len(differing) == 1 else f"{len(differing)} others differ"
    return f"values of {first}; {holds}; {who} in {', '.join(key.rpartition('.')[2] for key in keys)}"


def texts(recipe: Recipe) -> dict[str, str]:
    """Return the text of every setting by key path, those of stages outside the chain, too."""
    stages = [_rows(stage, f"stages.{name}") for name, stage in recipe.stages.items()]
    parts = [_rows(recipe, "", SCALARS), _rows(recipe.data, "data"), _rows(recipe.evaluate, "evaluate"), *stages]
    return {row.path: row.text for rows in parts for row in rows}


def _rows(values: msgspec.Struct, path: str, only: tuple[str, ...] = ()) -> tuple[FieldSpec, ...]:
    rows = []
    for key in only or values.__struct_fields__:
        hint = decode.hints_of(type(values))[key]
        if isinstance(getattr(values, key), msgspec.Struct) or _holds_tables(hint):
            continue  # tables of their own, such as a stage's adapter or its losses, which are edited as text
        where = f"{path}.{key}" if path else key
        shown = text(getattr(values, key))
        rows.append(FieldSpec(where, key, shown, decode.help_text_of(hint), wanted(hint), _choices(key, hint)))
    return tuple(rows)


def _holds_tables(hint: Any) -> bool:
    """Return whether a setting is a list of tables."""
    return any(decode.struct_in(item) for item in typing.get_args(_bare(hint)) if item is not ...)


def _choices(key: str, hint: object) -> tuple[str, ...]:
    if key == "loss":
        return tuple(sorted(LOSSES))
    if key == "negatives":
        return tuple(NEGATIVE_SAMPLERS)
    return ("false", "true") if _bare(hint) is bool else decode.choices_in(hint)


def _bare(hint: Any) -> Any:
    """Return the type inside `Annotated` and `| None`."""
    while hasattr(hint, "__metadata__"):
        hint = hint.__origin__
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = [part for part in typing.get_args(hint) if part is not type(None)]
        return _bare(hint)
    return hint


def _is_optional(hint: Any) -> bool:
    """Return whether a recipe may leave the setting open."""
    while hasattr(hint, "__metadata__"):
        hint = hint.__origin__
    return type(None) in typing.get_args(hint)


def _bounds(hint: Any) -> str:
    """Return the first bounds in a type's annotations, in words."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next((bounds for part in typing.get_args(hint) if (bounds := _bounds(part))), "")
    metas = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    words = []
    for meta in metas:
        for text_, bound in (("from {:g}", meta.ge), ("above {:g}", meta.gt), ("below {:g}", meta.lt)):
            words += [text_.format(bound)] if bound is not None and abs(bound) < 10**6 else []
    if words:
        return ", " + " and ".join(words)
    return _bounds(hint.__origin__) if metas and hasattr(hint, "__origin__") else ""


def wanted(hint: Any) -> str:
    """Return what may be typed for a value of this type, in words."""
    bare = _bare(hint)
    if typing.get_origin(bare) is tuple:
        item, *others = typing.get_args(bare)
        count = "names" if _bare(item) is str else "numbers"
        return f"{count}, separated by commas" if others[:1] == [...] else f"two {count}, separated by a comma"
    if typing.get_origin(bare) is dict:
        return "MEASURE=NUMBER, or MEASURE=5% of the baseline's mean, separated by commas"
    if bare is int:
        return f"a whole number{_bounds(hint)}"
    return f"a number{_bounds(hint)}" if bare is float else "text"


def text(value: object) -> str:
    """Return a value as the user types it; "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={text(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def value(path: str, typed: str) -> object:
    """Return what was typed for the setting at `path`, as the value a recipe's table holds; None for one left open.

    Raises:
        ValueError: it cannot be one; the message is for the user who types.
    """
    hint = _hint_at(path)
    return None if not typed.strip() and _is_optional(hint) else _value(hint, typed.strip())


def expected_at(path: str) -> str:
    """Return what may be typed for the setting at `path`; "" where there is no such setting."""
    hint = _hint_at(path)
    return wanted(hint) if hint is not None else ""


def _hint_at(path: str) -> Any:
    head, *rest = path.split(".")
    kinds: dict[str, type[msgspec.Struct]] = {"data": Data, "evaluate": Evaluate, "stages": Stage}
    return decode.hints_of(kinds[head] if rest and head in kinds else Recipe).get((rest or [head])[-1])


def _value(hint: Any, typed: str) -> object:
    bare = _bare(hint)
    if typing.get_origin(bare) is tuple:
        items = typing.get_args(bare)
        is_pair = items[1:] and items[1] is not ...
        parts = re.split(r"\s*,\s*|(?<=\d)\s*-\s*(?=\d)" if is_pair else r"\s*,\s*", typed)
        stated = [part for part in parts if part]
        if is_pair and len(stated) != len(items):
            raise ValueError(f"must be {wanted(hint)}")
        return [_value(items[0], part) for part in stated]
    if typing.get_origin(bare) is dict:
        return _table(hint, typed)
    if bare is bool:
        if typed not in {"false", "true"}:
            raise ValueError("must be true or false")
        return typed == "true"
    return _number(bare, hint, typed) if bare in {int, float} else typed


def _number(kind: type, hint: Any, typed: str) -> int | float:
    if kind is int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", typed):
            raise ValueError(f"must be {wanted(hint)}")
        return int(typed)
    try:
        number = float(typed)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"must be {wanted(hint)}")
    return number


def _table(hint: Any, typed: str) -> dict[str, object]:
    """Return `nDCG@10=0.01, AP(rel=2)=0.02` as a table; the last `=` of a part stands before its number."""
    item = typing.get_args(_bare(hint))[1]
    out: dict[str, object] = {}
    for part in (part.strip() for part in typed.split(",") if part.strip()):
        key, _, number = part.rpartition("=")
        if not key.strip():
            raise ValueError(f"must be {wanted(hint)}")
        is_share = number.strip().endswith("%")  # `recipe_from` says whether it is one
        out[key.strip()] = number.strip() if is_share else _value(typing.get_args(item)[0], number.strip())
    return out


def toml_value(value: object) -> str:
    """Return `value` as VALUE of `--set KEY=VALUE`: bare where that reads back as the same text, else as TOML."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(quoted(item) if isinstance(item, str) else str(item) for item in value) + "]"
    if isinstance(value, dict):
        items = ((key, quoted(item) if isinstance(item, str) else item) for key, item in value.items())
        return "{" + ", ".join(f"{quoted(str(key))} = {item}" for key, item in items) + "}"
    if not isinstance(value, str):
        return text(value) if isinstance(value, bool) else str(value)
    try:
        tomllib.loads(f"value = {value}")
    except ValueError:
        return value if value == value.strip() else quoted(value)
    return quoted(value)


def quoted(text: str) -> str:
    """Return a text as a TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
