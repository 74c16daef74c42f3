"""Writes cerank/guides/recipe-reference.md: every key of a recipe and of a matrix, from their schema.

`python assets/recipe_reference.py` reads the structs' fields, types, bounds, defaults and explanations. A test checks
that the page is up to date.
"""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from cerank.core.decode import fields_of, help_text_of, hints_of, struct_in
from cerank.recipes.matrix_schema import Matrix
from cerank.recipes.schema import Compute, Data, Evaluate, Recipe, Stage
from cerank.recipes.search_space import SearchRange
from cerank.recipes.sections.adapter_specs import AdapterSpec
from cerank.recipes.sections.curriculum_specs import CurriculumSpec
from cerank.recipes.sections.filter_specs import FilterSpec
from cerank.recipes.sections.loss_parts import LossPart
from cerank.recipes.sections.negative_specs import FalseNegativeFilters, NegativeSource
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.recipes.sections.tuning_specs import FoldTuning, Tuning
from cerank.recipes.sweep_schema import Sweep

GUIDE = Path(__file__).resolve().parents[1] / "cerank" / "guides" / "recipe-reference.md"
HEAD = """\
# Recipe reference

Every key of a recipe, a matrix and a sweep, with its type, its default and what it does.

`cerank guide recipes` is the introduction. `cerank recipes show NAME --full` prints the same keys with a recipe's own
values; `--set stages.distill.steps=100` changes one for a run. A key that is not given has its default; "required"
means that it has none.

```sh
cerank recipes show contrastive-then-distill --full
```
"""
SECTIONS: tuple[tuple[str, str, type[msgspec.Struct]], ...] = (
    ("The recipe itself", "At the top of the file.", Recipe),
    ("[data]", "Where queries, documents and labels come from.", Data),
    ("[evaluate]", "What is measured on the test datasets.", Evaluate),
    ("[compute]", "How the stages are computed; see `cerank guide reliability`.", Compute),
    ("[stages.NAME]", "One table for each stage; `chain` says which of them run.", Stage),
    ("[[stages.NAME.losses]]", "Once for each loss of a stage with several; see `cerank guide recipes`.", LossPart),
    (
        "[stages.NAME.curriculum]",
        "See the queries that a teacher is sure of first; see `cerank guide recipes`.",
        CurriculumSpec,
    ),
    ("[stages.NAME.adapter]", "Train a low-rank adapter; see `cerank guide models`.", AdapterSpec),
    (
        "[[stages.NAME.negative_sources]]",
        "Where negatives come from, a table for each source; see `cerank guide recipes`.",
        NegativeSource,
    ),
    (
        "[stages.NAME.false_negatives]",
        "Filters that drop candidates which may be relevant; see `cerank guide recipes`.",
        FalseNegativeFilters,
    ),
    (
        "[passages]",
        "Cut long documents into passages; also [stages.NAME.passages]. See `cerank guide long-documents`.",
        PassageSpec,
    ),
    ("[stages.NAME.filter]", "Train on a part of the groups; see `cerank guide recipes`.", FilterSpec),
    ("[teachers.NAME]", "A teacher that cerank makes; see `cerank guide teachers`.", TeacherSpec),
    ("[tuned]", "Where settings come from; `cerank sweep` writes it, see `cerank guide sweeps`.", Tuning),
    ("[[tuned.folds]]", "Of a recipe with `data.folds`: what the sweep chose for each fold, in order.", FoldTuning),
    ("A matrix", "A file of its own, for `cerank run --matrix FILE.toml`.", Matrix),
    ("A sweep", "A file of its own, for `cerank sweep FILE.toml`; see `cerank guide sweeps`.", Sweep),
    ("[search] of a sweep", "Key path -> the values to try, one kind of them.", SearchRange),
)
_TYPES = {str: "text", int: "integer", float: "number", bool: "true or false", object: "any value"}


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, text, kind in SECTIONS:
        rows = [_row(kind, field) for field in fields_of(kind) if not _holds_table(hints_of(kind)[field.name])]
        table = ["| key | type | default | what it does |", "|---|---|---|---|", *rows]
        parts.append(f"## {title}\n\n{text}\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def _holds_table(hint: Any) -> bool:
    """Return whether a field has a section of its own: a struct, structs by name, or a list of structs."""
    hint = getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint
    values = typing.get_args(hint) if typing.get_origin(hint) in {dict, tuple} else ()
    return struct_in(hint) is not None or any(struct_in(value) for value in values if value is not ...)


def _row(kind: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    hint = hints_of(kind)[field.name]
    has_factory = field.default_factory is not msgspec.NODEFAULT
    default = field.default_factory() if has_factory else field.default
    shown = "required" if field.required else "none" if default is None else f"`{_toml(default)}`"
    cells = [f"`{field.name}`", _type_name(hint), shown, help_text_of(hint)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _toml(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _type_name(hint: Any) -> str:
    """Return a type in words, such as "integer from 1" or "list of text"."""
    if hasattr(hint, "__metadata__"):
        name = _type_name(hint.__origin__)
        for meta in hint.__metadata__:
            name += _bounds(meta) if isinstance(meta, msgspec.Meta) else ""
        return name
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{_toml(value)}`" for value in arguments)
    if origin in {typing.Union, types.UnionType}:
        return _type_name(next(part for part in arguments if part is not type(None)))
    if origin is tuple:
        names = list(dict.fromkeys(_type_name(part) for part in arguments if part is not Ellipsis))
        return f"list of {names[0]}" if Ellipsis in arguments else f"list of {len(arguments)}: {' and '.join(names)}"
    if origin is dict:
        return f"table of {_type_name(arguments[1])}"
    return _TYPES[hint]


def _bounds(meta: msgspec.Meta) -> str:
    """Return a field's lower and upper bound in words; bounds of a billion and more only keep typing slips out."""
    text = ""
    if meta.ge is not None:
        text += f" from {meta.ge:g}"
    if meta.gt is not None:
        text += f" above {meta.gt:g}"
    if meta.le is not None and meta.le < 10**6:
        text += f" to {meta.le:g}"
    if meta.lt is not None:
        text += f", below {meta.lt:g}"
    if meta.pattern:
        text += f" matching `{meta.pattern}`"
    return text


if __name__ == "__main__":
    GUIDE.write_text(page(), encoding="utf8")
