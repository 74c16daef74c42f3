"""The form of a new run, or a recipe, as TOML for a text editor, and back with every mistake named.

Invariant: text that is wrong changes nothing; what was read is checked as the form's own fields are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cerank import recipes
from cerank.app import plans
from cerank.app.matrix import drafts, recipe_form
from cerank.app.matrix.drafts import Draft, RecipeSource
from cerank.errors import CerankError
from cerank.recipes.schema import Recipe
from cerank.registry import nearest

_FORM_HEAD = """\
# The form of a new run: every recipe with every base model and every seed.
# Save and leave the editor to take it over. `settings` lays values over all recipes, such as
# "stages.distill.learning_rate" = 3e-6
"""
_RECIPE_HEAD = """\
# The recipe of the new run. Save and leave the editor to take it over.
# `cerank guide recipe-reference` explains every key.
"""
_TABLES = ("data", "evaluate", "stages")  # of a recipe; other tables are the value of one setting
_LISTS, _TEXTS = ("recipes", "bases"), ("seeds", "device", "label")


def form_text(draft: Draft) -> str:
    """Return a draft as TOML."""
    lines = [_FORM_HEAD]
    lines.append(f"recipes = {recipe_form.toml_value([source.source or source.name for source in draft.sources])}")
    lines.append(f"bases = {recipe_form.toml_value(list(draft.bases))}")
    lines += [f"{key} = {recipe_form.quoted(getattr(draft, key))}" for key in _TEXTS]
    lines += ["", "[settings]"]
    lines += [f"{recipe_form.quoted(path)} = {recipe_form.quoted(text)}" for path, text in draft.settings.items()]
    return "\n".join(lines) + "\n"


def read_form(text: str, draft: Draft, known: Mapping[str, RecipeSource]) -> tuple[Draft, tuple[str, ...]]:
    """Return the draft that a text stands for, and every mistake in it; with mistakes, `draft` itself.

    Args:
        text: TOML, as `form_text` writes it.
        draft: the draft before, which keeps what the text has no key for.
        known: recipes of the form, by file or name.
    """
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        return draft, (f"no TOML: {error}",)
    values, mistakes = _values(table)
    sources = []
    for name in values.recipes:
        try:
            sources.append(known.get(name) or drafts.recipe_source(name))
        except CerankError as error:
            mistakes += [f"recipes: {line}" for line in error.what.split("\n")]
    if mistakes:
        return draft, tuple(mistakes)
    changed = {key: getattr(values, key) for key in ("bases", "settings", *_TEXTS)}
    return msgspec.structs.replace(draft, sources=tuple(sources), **changed), ()


class _Form(msgspec.Struct):
    """The values in the text of a form."""

    recipes: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    seeds: str = ""
    device: str = ""
    label: str = ""
    settings: dict[str, str] = {}


def _values(table: Mapping[str, object]) -> tuple[_Form, list[str]]:
    """Return the values of a table that are of the right kind, and what is wrong with the others."""
    keys = _Form.__struct_fields__
    mistakes = [f"{key}: unknown key; {nearest(key, keys)}" for key in table if key not in keys]
    values = _Form()
    for key in keys:
        value = table.get(key, getattr(values, key))
        if key == "settings" and isinstance(value, dict):
            values.settings = _flat(value)
        elif key in _TEXTS and isinstance(value, str | int) and not isinstance(value, bool):
            setattr(values, key, str(value))
        elif key == "seeds" and isinstance(value, list):
            values.seeds = ", ".join(map(str, value))
        elif key in _LISTS and isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
            setattr(values, key, tuple(value))
        else:
            kind = {"settings": "a table"}.get(
                key, 'a list such as ["minilm"]' if key in _LISTS else "a text in quotes"
            )
            mistakes.append(f"{key}: must be {kind}")
    return values, mistakes


def _flat(table: Mapping[str, object], path: str = "") -> dict[str, str]:
    """Return nested tables as key path -> text; a table at the place of a value, such as margins, stays one."""
    texts: dict[str, str] = {}
    for key, value in table.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, dict) and (where in _TABLES or path == "stages"):
            texts |= _flat(value, where)
        else:
            texts[where] = recipe_form.text(tuple(value) if isinstance(value, list) else value)
    return texts


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as TOML, with the stages of its chain alone."""
    stages = {name: recipe.stages[name] for name in recipe.chain}
    return _RECIPE_HEAD + "\n" + recipes.render(msgspec.structs.replace(recipe, stages=stages))


def read_recipe(path: Path, draft: Draft, before: Recipe) -> tuple[Draft, tuple[str, ...]]:
    """Return the draft with its only recipe as a file has it now, and every mistake in the file.

    Args:
        path: the file.
        draft: the draft before, with one recipe; returned as it is where there are mistakes.
        before: the recipe that the file held when it was given to the editor.
    """
    try:
        recipe = plans.checked(recipes.load(str(path)).recipe)
    except CerankError as error:
        return draft, tuple(error.what.split("\n"))
    (source,) = draft.sources
    # a recipe may have stages that its chain leaves out, and its text does not show
    complete = msgspec.structs.replace(recipe, stages={**source.recipe.stages, **recipe.stages})
    target = drafts.as_changes(source, complete)
    bases = draft.bases if recipe.base == before.base else (recipe.base,)
    seeds = draft.seeds if recipe.seed == before.seed else str(recipe.seed)
    settings = target.settings if target else {}
    sources = (source,) if target else (drafts.unsaved_recipe_source(recipe),)
    return msgspec.structs.replace(draft, sources=sources, settings=settings, bases=bases, seeds=seeds), ()
