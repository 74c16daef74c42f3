"""Resolves the paths in a recipe's or matrix's file relative to that file, wherever cerank is started.

Invariant: a name that is no path is left alone, and nothing is opened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from cerank.errors import UsageError
from cerank.recipes.set_mixtures import is_mixture, name_of_tables, with_names

_DATA = ("train", "validation", "validation_first_stage", "test", "first_stages")
_STAGE = ("dataset", "first_stage", "teacher")
_TEACHER = ("model", "template", "prices")


def resolve_beside(name: str, folder: Path) -> str:
    """Return `name` as an absolute path if it is a path relative to `folder`; else return it unchanged.

    It starts with `./` or `../`, or something is there.

    An existing file counts if the name holds a separator, or an ending such as .run and is a file: a file called `bm25`
    does not replace BM25. A part (`[:60%]`) or split (`#test`) at its end stays.
    """
    if is_mixture(name):
        with contextlib.suppress(UsageError):  # what is wrong with it is said when it is opened
            return with_names(name, lambda set_name: resolve_beside(set_name, folder))
        return name
    head, mark, rest = name.partition("[")
    path, sharp, split = head.partition("#")
    if not path or path.startswith(("/", "~")):
        return name
    is_path = path.startswith(("./", "../")) or path in {".", ".."}
    with contextlib.suppress(OSError, ValueError):  # too long for a path, or with a NUL: it is no path
        candidate = folder / path
        is_path = is_path or ("/" in path and candidate.exists()) or ("." in path and candidate.is_file())
        if is_path:
            return f"{candidate.resolve()}{sharp}{split}{mark}{rest}"
    return name


def with_absolute_paths(table: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return a recipe's table with the paths in it made absolute.

    What is of another type is left for the checks to come.
    """

    def here(value: object) -> object:
        value = name_of_tables(value)
        if isinstance(value, list):
            return [here(entry) for entry in value]
        return resolve_beside(value, folder) if isinstance(value, str) else value

    def stages(value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {name: _changed_stage(stage, here) for name, stage in value.items()}

    def teachers(value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {name: _changed(teacher, _TEACHER, here) for name, teacher in value.items()}

    def data(value: object) -> object:
        return _changed(value, _DATA, here)

    changed = dict(table)
    for key, change in (
        ("base", here),
        ("baselines", here),
        ("data", data),
        ("stages", stages),
        ("teachers", teachers),
    ):
        if key in changed:
            changed[key] = change(changed[key])
    return changed


def _changed_stage(table: object, change: Callable[[object], object]) -> object:
    changed = _changed(_with_absolute_negatives(table, change), _STAGE, change)
    if not isinstance(changed, dict) or not isinstance(changed.get("losses"), list):
        return changed
    return changed | {"losses": [_changed(part, ("teacher",), change) for part in changed["losses"]]}


def _with_absolute_negatives(stage: object, here: Callable[[object], object]) -> object:
    """Return a stage's table with the paths of its negatives made absolute."""

    def sources(value: object) -> object:
        return [_changed(source, ("run",), here) for source in value] if isinstance(value, list) else value

    changed = _changed(stage, ("false_negatives",), lambda table: _changed(table, ("scores",), here))
    return _changed(changed, ("negative_sources",), sources)


def _changed(table: object, keys: tuple[str, ...], change: Callable[[object], object]) -> object:
    if not isinstance(table, Mapping):
        return table
    return {key: change(value) if key in keys else value for key, value in table.items()}
