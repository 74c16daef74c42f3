"""Resolves the paths in a recipe's or matrix's file relative to that file, wherever cerank is started.

Invariant: a name that is no path is left alone, and nothing is opened.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cerank.errors import UsageError
from cerank.recipes.sections.set_mixtures import is_mixture, name_of_tables, with_names

_DATA = ("train", "validation", "validation_first_stage", "test", "first_stages")
_STAGE = ("dataset", "validation", "first_stage", "teacher")
_TEACHER = ("model", "template", "prices")
# How many folds are made, and the seed that deals the queries where one is declared: "5", "5 by seed 7".
COUNTED_FOLDS = re.compile(r"(?P<count>[0-9]{1,9})(?: by seed (?P<seed>[0-9]{1,18}))?")
# In the name of a dataset: a file in place of the number of folds, as in `COLL[fold=1/folds.json]`.
_FILE_OF_FOLDS = re.compile(rf"\[fold!?=[0-9,]+/(?!{COUNTED_FOLDS.pattern}\])(?P<file>[^\[\]]+)\]$")


def with_file_of_folds(name: str, change: Callable[[str], str]) -> str:
    """Return the name of a dataset with the file of folds in it changed; a name without one as it is.

    >>> with_file_of_folds("coll[fold=1/folds.json]", "/project/".__add__)
    'coll[fold=1//project/folds.json]'
    """
    match = _FILE_OF_FOLDS.search(name)
    if match is None:
        return name
    changed = change(match["file"])
    is_readable = not re.search(r"[\[\]]", changed)  # brackets would end the part
    return f"{name[: match.start('file')]}{changed}]" if is_readable else name


def text_of_folds(value: object) -> object:
    """Return a number of folds as text, as a recipe keeps it; any other value as it is.

    >>> text_of_folds(5), text_of_folds("folds.json")
    ('5', 'folds.json')
    """
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else value


def with_absolute_folds(folds: object, folder: Path) -> object:
    """Return what `data.folds` says with its file, if it names one, made absolute; a number of folds as it is."""
    if not isinstance(folds, str) or not folds or COUNTED_FOLDS.fullmatch(folds) or folds.startswith(("/", "~")):
        return folds
    return str((folder / folds).resolve()) if "\0" not in folds else folds


def resolve_beside(name: str, folder: Path) -> str:
    """Return `name` as an absolute path if it is a path relative to `folder`; else return it unchanged.

    It starts with `./` or `../`, or something is there.

    An existing file counts if the name holds a separator, or an ending such as .run and is a file: a file called `bm25`
    does not replace BM25. A part (`[:60%]`) or split (`#test`) at its end stays; a file of folds in it is one from
    `folder` too.
    """
    if is_mixture(name):
        with contextlib.suppress(UsageError):  # what is wrong with it is said when it is opened
            return with_names(name, lambda set_name: resolve_beside(set_name, folder))
        return name
    with contextlib.suppress(OSError, ValueError):  # too long for a path, or with a NUL: opening it says so
        name = with_file_of_folds(name, lambda file: file if file.startswith("~") else str((folder / file).resolve()))
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
        changed = _changed(value, _DATA, here)
        return _changed(changed, ("folds",), lambda folds: with_absolute_folds(folds, folder))

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


def with_absolute_setting(path: str, value: object, folder: Path) -> object:
    """Return the value of a setting, given by its key path in a recipe, with the paths in it made absolute.

    >>> with_absolute_setting("stages.a.losses", [{"name": "kl", "teacher": "./t.run"}], Path("/project"))
    [{'name': 'kl', 'teacher': '/project/t.run'}]
    """
    keys = [key.strip() for key in path.split(".")]
    nested: object = value
    for key in reversed(keys):
        nested = {key: nested}
    changed: object = with_absolute_paths(nested, folder) if isinstance(nested, Mapping) else nested
    for key in keys:
        changed = changed[key] if isinstance(changed, Mapping) else changed
    return changed


def _changed_stage(table: object, change: Callable[[object], object]) -> object:
    changed = _changed(_with_absolute_negatives(table, change), _STAGE, change)
    if not isinstance(changed, dict) or not isinstance(changed.get("losses"), list):
        return changed
    return changed | {"losses": [_changed(part, ("teacher", "sets"), change) for part in changed["losses"]]}


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
