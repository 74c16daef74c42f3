"""Loads a matrix by name or path: a shipped one, or the user's own `.toml` file.

Invariant: as for recipes, a file is only read, and every mistake in it is reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cerank.core.decode import LARGEST_TOML, toml_table
from cerank.errors import UsageError, os_reason
from cerank.files.safe_open import read_file
from cerank.recipes.matrix_schema import Matrix, matrix_from
from cerank.recipes.paths import resolve_beside
from cerank.registry import nearest

SHIPPED = Path(__file__).parent / "matrices"


class LoadedMatrix(msgspec.Struct, frozen=True):
    """A matrix and where it was found."""

    matrix: Matrix
    folder: Path  # that its recipes' paths are from
    toml: bytes  # as given; empty for one that no file holds


def shipped_matrices() -> list[str]:
    """Return the names of the matrices that come with cerank, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


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
        path = SHIPPED / f"{name_or_path}.toml"
    try:
        source = read_file(path, LARGEST_TOML + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        hint = f"shipped matrices: {', '.join(shipped_matrices())}"
        raise UsageError(
            f"cannot read the matrix '{name_or_path}': {reason}", hint=hint, code="matrix-unreadable"
        ) from None
    table = _with_absolute_paths(toml_table(source, name_or_path), path.parent)
    matrix = matrix_from({**table, **_changes_with_baseline(table, changes or {})}, name_or_path)
    return LoadedMatrix(matrix, path.parent, source)


def _with_absolute_paths(table: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return the table with the paths of its lists made absolute; shipped names and ids stay."""

    def here(value: object) -> object:
        if isinstance(value, list):
            return [here(entry) for entry in value]
        return resolve_beside(value, folder) if isinstance(value, str) else value

    keys = ("recipes", "bases", "test", "first_stages", "baseline")
    changed = {key: here(value) if key in keys else value for key, value in table.items()}
    if isinstance(settings := table.get("settings"), Mapping):
        changed["settings"] = {key: here(value) for key, value in settings.items()}
    return changed


def _changes_with_baseline(table: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Return the changes; if they drop the baseline's recipe, their first recipe becomes the baseline."""
    table_changes = dict(changes)
    recipes = table_changes.get("recipes")
    if isinstance(recipes, list) and "baseline" not in table_changes and table.get("baseline") not in recipes:
        table_changes["baseline"] = ""
    return table_changes
