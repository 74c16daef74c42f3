"""A matrix: bases x recipes x seeds on the same test sets and first stages; what was declared, and its runs.

Invariant: the declared family (baseline, measures, test sets, first stages) is recorded before any run starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from cerank.core import decode
from cerank.core.decode import help_text
from cerank.errors import RecipeError
from cerank.recipes.schema import Positive, Seed, Size, size_mistakes

MATRIX_FORMAT = 1


class Matrix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user declares of a matrix; keys that are not given are each recipe's own."""

    name: Annotated[str, help_text("name of the matrix in the lab and in reports")]
    description: Annotated[str, help_text("one sentence for `cerank recipes matrices`")] = ""
    recipes: Annotated[tuple[str, ...], help_text("shipped names, or .toml files from this file's folder")]
    bases: Annotated[tuple[str, ...], help_text("names from `cerank bases`, hub ids or folders")] = ()
    seeds: Annotated[tuple[Seed, ...], help_text("a run for each")] = ()
    baseline: Annotated[str, help_text('the recipe that every other is compared with; "" takes the first')] = ""
    test: Annotated[tuple[str, ...], help_text("test datasets of every run")] = ()
    first_stages: Annotated[tuple[str, ...], help_text("re-ranked by every run")] = ()
    depth: Annotated[Positive | None, help_text("candidates re-ranked for each query")] = None
    measures: Annotated[tuple[str, ...], help_text('"auto" takes those that each test dataset declares')] = ()
    margins: Annotated[
        dict[str, Size], help_text('the largest difference of a measure that does not matter, or "5%" of the baseline')
    ] = {}
    margins_because: Annotated[str, help_text("why these margins, gains and harm margins")] = ""
    primary: Annotated[
        tuple[str, ...], help_text('the questions that verdicts are about, such as "nDCG@10: RECIPE against RECIPE"')
    ] = ()
    seeds_as: Annotated[
        Literal["", "pairs", "independent"], help_text('as in a recipe; "" takes the recipes\' own')
    ] = ""
    worth: Annotated[dict[str, Size], help_text('the gain of a measure that would pay for a recipe, or "5%"')] = {}
    harm: Annotated[dict[str, Size], help_text('the largest loss of a measure that would not matter, or "5%"')] = {}
    settings: Annotated[
        dict[str, object], help_text("key path -> value, laid over each recipe that has the place")
    ] = {}


class MatrixCell(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a matrix."""

    run: str  # its name in the lab
    recipe: str  # `Recipe.name`
    base: str  # as the plan's recipe names it
    seed: int


class MatrixRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the lab keeps of a matrix: its declared family and its runs. Names are those of the runs' plans."""

    format: int = MATRIX_FORMAT
    name: str
    sha256: str  # over what all its runs share: data by content, family, margins; 64 hex digits
    description: str = ""
    created: str = ""  # UTC, ISO 8601
    changed: str = ""  # when runs were last added to it
    baseline: str  # `MatrixCell.recipe` that every other recipe of the same base is compared with
    tests: tuple[str, ...]  # as in `plan.recipe.data.test`
    first_stages: tuple[str, ...]
    depth: int
    measures: dict[str, tuple[str, ...]]  # test -> its measures, canonical: with tests and first stages, the family
    margins: dict[str, float | str] = {}
    primary: tuple[str, ...] = ()
    worth: dict[str, float | str] = {}
    harm: dict[str, float | str] = {}
    cells: tuple[MatrixCell, ...]


def matrix_from(values: Mapping[str, object], where: str) -> Matrix:
    """Return the matrix in a table, as TOML gives it.

    Raises:
        RecipeError: with all mistakes at once, each with its key path.
    """
    mistakes: list[str] = []
    matrix = decode.decode_table(Matrix, values, "", mistakes)
    if matrix is not None:
        mistakes += _mistakes(matrix)
    if matrix is None or mistakes:
        raise RecipeError(
            "\n".join(mistakes), where=where, hint="`cerank recipes matrices` lists those that are shipped"
        )
    return matrix


def _mistakes(matrix: Matrix) -> list[str]:
    mistakes = [] if matrix.recipes else ["recipes: empty; name at least one"]
    if not matrix.name.strip():
        mistakes.append("name: empty; the lab keeps the matrix under it")
    lists: dict[str, tuple[object, ...]] = {
        "recipes": matrix.recipes,
        "bases": matrix.bases,
        "seeds": matrix.seeds,
        "test": matrix.test,
        "first_stages": matrix.first_stages,
        "measures": matrix.measures,
    }
    for key, entries in lists.items():
        counts = Counter(entries)
        mistakes += [f"{key}: '{entry}' appears twice" for entry, count in counts.items() if count > 1]
    for key, sizes in (("margins", matrix.margins), ("worth", matrix.worth), ("harm", matrix.harm)):
        mistakes += size_mistakes(sizes, key)
    if matrix.baseline and matrix.baseline not in matrix.recipes:
        mistakes.append(f"baseline: '{matrix.baseline}' is not one of the recipes")
    return mistakes
