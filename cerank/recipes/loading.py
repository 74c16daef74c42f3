"""Loads a recipe or a matrix by name or path; reads the files that a recipe extends, and applies overrides.

Invariant: files are only read, at most a mebibyte each and eight in a row, and every mistake is reported at once.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.core.decode import LARGEST_TOML, MOST_ERRORS, line_of, merge_tables, toml_table
from cerank.errors import FormatError, RecipeError, UsageError, os_reason
from cerank.files.named_files import near_files
from cerank.files.safe_open import read_file
from cerank.recipes.matrix_schema import Matrix, matrix_from
from cerank.recipes.paths import resolve_beside, with_absolute_folds, with_absolute_paths, with_absolute_setting
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import ONE_LOSS, Recipe
from cerank.registry import nearest

SHIPPED = Path(__file__).parent / "shipped"
LONGEST_CHAIN = 8  # files that extend one another; more would be unreadable


class LoadedRecipe(msgspec.Struct, frozen=True):
    """A recipe and what it was made of."""

    recipe: Recipe
    toml: bytes  # the file as given, without what it extends and without overrides
    source: str  # the shipped name or the path, as given
    merged: dict[str, object]  # the table the recipe was read from: parents, file and overrides, without defaults


class _File(msgspec.Struct, frozen=True):
    """One TOML file of the chain of `extends`, the given one first."""

    where: str
    source: bytes
    table: dict[str, object]


def shipped() -> list[str]:
    """Return the names of the recipes that come with cerank, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load(
    name_or_path: str,
    overrides: Sequence[str] = (),
    changes: Mapping[str, object] | None = None,
    *,
    given: str = "on the command line",
) -> LoadedRecipe:
    """Return the recipe under a shipped name or in a `.toml` file, complete with defaults.

    Args:
        name_or_path: a shipped name; anything that ends in `.toml` or holds a separator is a path.
        overrides: `key.path=VALUE` each, VALUE in TOML or else a bare string; they win over everything. A path in them
            is one from the working folder; a path in a file is one from that file's folder.
        changes: a table laid over the file's, for options such as `--seed`; overrides win over it.
        given: where overrides and changes were given, for the error.

    Raises:
        UsageError: no such recipe, an unreadable file, or a malformed override.
        FormatError: a file that is not TOML.
        RecipeError: wrong keys or values, all of them, with file and line for those in a file.

    Example:
        >>> loaded = load("contrastive-then-distill", ["stages.distill.learning_rate=3e-6"])
        >>> loaded.recipe.chain, loaded.recipe.stages["distill"].learning_rate
        (('contrastive', 'distill'), 3e-06)
    """
    files = _extended_files(name_or_path)
    _check_no_sweep(files[0].table, name_or_path, "recipe")
    if "recipes" in files[0].table and "chain" not in files[0].table:
        hint = f"cerank run --matrix {name_or_path} --dry-run checks it and shows its runs"
        raise UsageError("this file declares a matrix, and no recipe", where=name_or_path, hint=hint, code="is-matrix")
    values: dict[str, object] = {}
    for file in reversed(files):
        values = merge_tables(
            _without_replaced_losses(values, file.table),
            {key: value for key, value in file.table.items() if key != "extends"},
        )
    overriding: dict[str, object] = dict(changes or {})
    for override in overrides:
        overriding = merge_tables(overriding, _override(override))
    mistakes = _unknown_stages(values, overriding)
    values = merge_tables(values, overriding)
    try:
        recipe = recipe_from(values, name_or_path)
    except RecipeError as error:
        mistakes += error.what.split("\n")
        raise _error_with_places(mistakes, files, overriding, given, error.hint) from None
    if mistakes:
        raise _error_with_places(mistakes, files, overriding, given, "`cerank recipes show NAME` lists the stages")
    return LoadedRecipe(recipe, files[0].source, name_or_path, values)


def _check_no_sweep(table: Mapping[str, object], where: str, expected: str) -> None:
    """Return if the table is not that of a sweep.

    Raises:
        UsageError: it is; `expected` says what it should have been.
    """
    if "search" in table and not {"chain", "stages", "extends"} & table.keys():
        what, hint = f"this file declares a sweep, and no {expected}", f"cerank sweep {where} starts it"
        raise UsageError(what, where=where, hint=hint, code="is-sweep")


def _without_replaced_losses(values: Mapping[str, object], over: Mapping[str, object]) -> Mapping[str, object]:
    """Return the tables of extended files; stages to which `over` gives `losses` lose the keys of their single loss."""
    stages, changed = values.get("stages"), over.get("stages")
    if not isinstance(stages, Mapping) or not isinstance(changed, Mapping):
        return values
    remaining = dict(stages)
    for name, table in stages.items():
        replacing = changed.get(name)
        if isinstance(table, Mapping) and isinstance(replacing, Mapping) and replacing.get("losses"):
            remaining[name] = {key: value for key, value in table.items() if key not in ONE_LOSS}
    return {**values, "stages": remaining}


def _path_of(name: str, folder: Path | None, where: str) -> tuple[Path, str]:
    """Return the file that `name` means, and its name for errors."""
    if not name.endswith(".toml") and not re.search(r"[/\\]", name):
        if name not in shipped():
            own = "a recipe of your own is given by its path, which ends in .toml"
            hint = _near_recipes(Path(name)) or f"{nearest(name, shipped())}; {own}"
            raise UsageError(f"no recipe is called '{name}'", where=where, hint=hint, code="recipe-not-found")
        path = SHIPPED / f"{name}.toml"
        return path, f"recipe {name}"
    path = folder / name if folder else Path(name)
    return path, str(path)


def _read(path: Path, name: str, where: str) -> bytes:
    try:
        return read_file(path, LARGEST_TOML + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        hint = _near_recipes(path) or f"shipped recipes: {', '.join(shipped())}"
        raise UsageError(
            f"cannot read the recipe '{name}': {reason}", where=where, hint=hint, code="recipe-unreadable"
        ) from None


def _near_recipes(path: Path) -> str:
    """Return a hint at files with nearly the name of a recipe that is not there, or ""."""
    near = [name for name in near_files(str(path)) if name.endswith(".toml")] if not path.is_file() else []
    return f"did you mean {' or '.join(name if '/' in name else f'./{name}' for name in near[:3])}?" if near else ""


def _extended_files(name: str) -> list[_File]:
    """Return the file and those it extends, nearest first."""
    files: list[_File] = []
    seen: list[Path] = []
    folder: Path | None = None
    where = ""
    while True:
        path, called = _path_of(name, folder, where)
        source = _read(path, name, where)
        if path.resolve() in seen:
            raise UsageError("recipes extend one another in a circle", where=where, hint=f"'{name}' was read before")
        if len(files) == LONGEST_CHAIN:
            raise UsageError(f"more than {LONGEST_CHAIN} recipes extend one another", where=where)
        seen.append(path.resolve())
        table = with_absolute_paths(toml_table(source, called), path.parent)
        files.append(_File(called, source, table))
        if "extends" not in table:
            return files
        where = f"{called}:{line_of(source, ('extends',))[0]}"
        parent = table["extends"]
        if not isinstance(parent, str) or not parent:
            raise FormatError("extends takes one name or path", where=where, hint='such as extends = "distill"')
        name, folder = parent, path.parent


def _override(text: str) -> dict[str, object]:
    """Return `a.b.c=VALUE` as a table."""
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise UsageError(
            f"'{text}' is not KEY=VALUE", where="--set", hint="such as --set stages.distill.learning_rate=3e-6"
        )
    if len(keys) > LONGEST_CHAIN:
        raise UsageError(f"'{path}' is no key of a recipe", where="--set", hint="`cerank recipes show NAME --full`")
    value = _override_value(raw)
    for key in reversed(keys):
        value = {key: value}
    return {keys[0]: value[keys[0]]} if isinstance(value, dict) else {}


def _override_value(raw: str) -> object:
    """Return VALUE as TOML, or as the plain string it is; a date is a string too, because no key holds a date."""
    try:
        values = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return raw
    value = values.pop("value")
    return raw if values or isinstance(value, datetime.date | datetime.time) else value


def _unknown_stages(values: Mapping[str, object], overriding: Mapping[str, object]) -> list[str]:
    """Return an error for each stage that an option names and neither the file nor its chain has."""
    stages, overridden = values.get("stages"), overriding.get("stages")
    if not isinstance(stages, Mapping) or not isinstance(overridden, Mapping):
        return []
    chain = overriding.get("chain", values.get("chain"))
    known = {*stages, *(chain if isinstance(chain, list | tuple) else ())}
    return [
        f"stages.{name}: no stage has this name; {nearest(name, stages)}" for name in overridden if name not in known
    ]


def _error_with_places(
    mistakes: Sequence[str], files: Sequence[_File], overriding: Mapping[str, object], given: str, hint: str
) -> RecipeError:
    """Return the error for `mistakes` (each `key.path: what`), with the place of each in front."""
    lines = []
    first = ""
    for mistake in mistakes[:MOST_ERRORS]:
        keys = tuple(mistake.partition(": ")[0].split("."))
        place, file, number = _place_of(keys, files, overriding, given)
        first = first or (f"{file.where}:{number}" if file and number else "")
        lines.append(f"{place}{mistake}" if len(mistakes) > 1 or not number else mistake)
    if len(mistakes) > MOST_ERRORS:
        lines.append(f"and {len(mistakes) - MOST_ERRORS} more")
    return RecipeError("\n".join(lines), where=first or files[0].where, hint=hint)


def _place_of(
    keys: tuple[str, ...], files: Sequence[_File], overriding: Mapping[str, object], given: str
) -> tuple[str, _File | None, int]:
    """Return where the value under `keys` was given, or the nearest table around it: words, the file, its line."""
    node: object = overriding
    for key in keys:
        node = (
            node.get(key.partition("[")[0]) if isinstance(node, Mapping) else node if isinstance(node, list) else None
        )
    if node is not None:
        return f"{given}: ", None, 0
    best: tuple[int, _File, int] | None = None
    for file in files:
        line, depth = line_of(file.source, keys)
        if depth > (best[0] if best else 0):
            best = (depth, file, line)
    if best is None:
        return "", files[0], 0
    _, file, line = best
    return (f"line {line}: " if file is files[0] else f"{file.where} line {line}: "), file, line


MATRICES = Path(__file__).parent / "matrices"


class LoadedMatrix(msgspec.Struct, frozen=True):
    """A matrix and where it was found."""

    matrix: Matrix
    folder: Path  # that its recipes' paths are from
    toml: bytes  # as given; empty for one that no file holds


def shipped_matrices() -> list[str]:
    """Return the names of the matrices that come with cerank, sorted."""
    return sorted(path.stem for path in MATRICES.glob("*.toml"))


def load_matrix(name_or_path: str, changes: Mapping[str, object] | None = None) -> LoadedMatrix:
    """Return the matrix under a shipped name or in a `.toml` file.

    Args:
        name_or_path: a shipped name; what ends in `.toml` is a path. Paths in a file are from its folder.
        changes: keys that replace the file's, for options such as `--seeds`; paths in them are from the working folder.

    Raises:
        UsageError: no such matrix, or an unreadable file.
        FormatError: a file that is not TOML.
        RecipeError: wrong keys or values, all of them.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in shipped_matrices():
            hint = f"{nearest(name_or_path, shipped_matrices())}; one of your own is given by its path, ending in .toml"
            raise UsageError(f"no matrix is called '{name_or_path}'", hint=hint, code="matrix-not-found")
        path = MATRICES / f"{name_or_path}.toml"
    try:
        source = read_file(path, LARGEST_TOML + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        hint = f"shipped matrices: {', '.join(shipped_matrices())}"
        raise UsageError(
            f"cannot read the matrix '{name_or_path}': {reason}", hint=hint, code="matrix-unreadable"
        ) from None
    table = _with_absolute_paths(toml_table(source, name_or_path), path.parent)
    _check_no_sweep(table, name_or_path, "matrix")
    changed = _without_unused_templates(table, _changes_with_baseline(table, changes or {}))
    matrix = matrix_from({**table, **changed}, name_or_path)
    return LoadedMatrix(matrix, path.parent, source)


def _without_unused_templates(table: Mapping[str, object], changes: Mapping[str, object]) -> Mapping[str, object]:
    """Return the changes without the templates of bases that the file lists and an option leaves out."""
    templates, bases, left = table.get("base_templates"), table.get("bases"), changes.get("bases")
    if not isinstance(templates, Mapping) or not isinstance(bases, list) or not isinstance(left, list | tuple):
        return changes
    used = {base: text for base, text in templates.items() if base in left or base not in bases}
    return {"base_templates": used, **changes}


def _with_absolute_paths(table: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return the table with the paths of its lists made absolute; shipped names and ids stay."""

    def here(value: object) -> object:
        if isinstance(value, list):
            return [here(entry) for entry in value]
        return resolve_beside(value, folder) if isinstance(value, str) else value

    keys = ("recipes", "bases", "test", "first_stages", "baseline")
    changed = {key: here(value) if key in keys else value for key, value in table.items()}
    if isinstance(templates := table.get("base_templates"), Mapping):
        changed["base_templates"] = {resolve_beside(base, folder): text for base, text in templates.items()}
    if "folds" in table:
        changed["folds"] = with_absolute_folds(table["folds"], folder)
    if isinstance(settings := table.get("settings"), Mapping):
        changed["settings"] = _with_absolute_settings(settings, folder)
    if isinstance(factors := table.get("factors"), Mapping):
        changed["factors"] = {
            name: {level: _with_absolute_settings(settings, folder) for level, settings in levels.items()}
            if isinstance(levels, Mapping)
            else levels
            for name, levels in factors.items()
        }
    return changed


def _with_absolute_settings(settings: object, folder: Path) -> object:
    """Return settings by key path with the paths in them made absolute; what is no table is left for the checks."""
    if not isinstance(settings, Mapping):
        return settings
    return {key: with_absolute_setting(key, value, folder) for key, value in settings.items()}


def _changes_with_baseline(table: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Return the changes; if they drop the baseline's recipe, their first recipe becomes the baseline."""
    table_changes = dict(changes)
    recipes = table_changes.get("recipes")
    if isinstance(recipes, list) and "baseline" not in table_changes and table.get("baseline") not in recipes:
        table_changes["baseline"] = ""
    return table_changes
