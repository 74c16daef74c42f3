"""A matrix: bases x recipes x factors x seeds on the same test sets and first stages; what was declared, and its runs.

Invariant: the declared family (baseline, measures, test sets, first stages) is recorded before any run starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Literal

import msgspec

from cerank.core import decode
from cerank.core.decode import help_text
from cerank.errors import RecipeError
from cerank.recipes.factors import Fraction, fraction_mistake
from cerank.recipes.paths import text_of_folds
from cerank.recipes.recipe_checks import size_mistakes
from cerank.recipes.schema import Positive, Seed, Size

MATRIX_FORMAT = 1

# Keys of a recipe that a matrix decides itself, so that a factor which sets them would do nothing or mix up its runs.
_OF_MATRIX = {
    "name": "runs are named after their recipe and levels",
    "base": "list base models in the matrix' `bases`",
    "seed": "list seeds in the matrix' `seeds`",
    "data.folds": "set the matrix' `folds`",
}


class Matrix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user declares of a matrix; keys that are not given are each recipe's own."""

    name: Annotated[str, help_text("name of the matrix in the lab and in reports")]
    description: Annotated[str, help_text("one sentence for `cerank recipes matrices`")] = ""
    recipes: Annotated[tuple[str, ...], help_text("shipped names, or .toml files from this file's folder")]
    bases: Annotated[tuple[str, ...], help_text("names from `cerank bases`, hub ids or folders")] = ()
    base_templates: Annotated[
        dict[str, str], help_text('base -> text of a document as it reads it, such as "title: {title} text: {text}"')
    ] = {}
    seeds: Annotated[tuple[Seed, ...], help_text("a run for each")] = ()
    baseline: Annotated[str, help_text('the recipe that every other is compared with; "" takes the first')] = ""
    test: Annotated[tuple[str, ...], help_text("test datasets of every run")] = ()
    first_stages: Annotated[tuple[str, ...], help_text("re-ranked by every run")] = ()
    depth: Annotated[Positive | None, help_text("candidates re-ranked for each query")] = None
    folds: Annotated[
        str, help_text('a run for each fold of the test dataset\'s queries: 5, "5 by seed 7", or a JSON file')
    ] = ""
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
    factors: Annotated[
        dict[str, dict[str, dict[str, object]]],
        help_text("factor -> level -> settings as above; every combination is run; the first level is the reference"),
    ] = {}
    fraction: Annotated[
        Fraction, help_text("share of the combinations that is run, so that each factor can still be judged")
    ] = "full"
    paper: Annotated[
        Literal["", "rank-distillm"],
        help_text("paper whose table the report prints again, from the rankings that it released"),
    ] = ""

    def levels(self) -> dict[str, tuple[str, ...]]:
        """Return each factor with its levels, the reference first."""
        return {name: tuple(levels) for name, levels in self.factors.items()}

    def varied_paths(self) -> dict[str, tuple[str, ...]]:
        """Return each factor with the key paths that its levels set, a table's down to its values."""
        return {
            name: tuple(dict.fromkeys(path for settings in levels.values() for path in _leaf_paths(settings)))
            for name, levels in self.factors.items()
        }


class MatrixCell(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a matrix."""

    run: str  # its name in the lab
    recipe: str  # `Recipe.name`
    base: str  # as the plan's recipe names it
    seed: int
    levels: dict[str, str] = {}  # factor -> level, of the factors that change its recipe
    varied: str = ""  # the recipe's name without the levels; "" in a matrix without factors
    fold: int = 0  # that it is tested on, from 1; 0 in a matrix without folds


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
    factors: dict[str, tuple[str, ...]] = {}  # factor -> its levels, the reference first
    fraction: Fraction = "full"
    paper: str = ""
    folds: str = ""  # of the test dataset's queries, as in `Matrix`
    cells: tuple[MatrixCell, ...]

    @property
    def declaration(self) -> tuple[object, ...]:
        """Return what stays the same while recipes, base models and seeds are added."""
        return self.sha256, self.baseline, self.factors, self.fraction, self.folds

    @property
    def members(self) -> dict[tuple[object, ...], str]:
        """Return (recipe, base, seed, fold) of each cell -> its run."""
        return {(cell.recipe, cell.base, cell.seed, cell.fold): cell.run for cell in self.cells}


def matrix_from(values: Mapping[str, object], where: str) -> Matrix:
    """Return the matrix in a table, as TOML gives it.

    Raises:
        RecipeError: with all mistakes at once, each with its key path.
    """
    mistakes: list[str] = []
    values = {key: text_of_folds(value) if key == "folds" else value for key, value in values.items()}
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
    mistakes += _template_mistakes(matrix) + _factor_mistakes(matrix)
    if matrix.baseline and matrix.baseline not in matrix.recipes:
        mistakes.append(f"baseline: '{matrix.baseline}' is not one of the recipes")
    return mistakes


def _template_mistakes(matrix: Matrix) -> list[str]:
    """Return what is wrong with the texts of documents that bases have of their own."""
    known = ", ".join(matrix.bases) or "none; list them"
    mistakes = [
        f"base_templates.{base}: not one of the matrix' bases ({known})"
        for base in matrix.base_templates
        if base not in matrix.bases
    ]
    varying = [name for name, paths in matrix.varied_paths().items() if "base_template" in paths]
    if matrix.base_templates and varying:
        mistakes.append(f"factors.{varying[0]}: sets base_template, which base_templates sets too; set it in one place")
    return mistakes


def _factor_mistakes(matrix: Matrix) -> list[str]:
    mistakes = []
    taken = {"recipe", "base", "seed"}
    for name, levels in matrix.factors.items():
        at = f"factors.{name}"
        if not _is_plain(name) or name in taken:
            what = "letters, digits, '-' and '_' only" if name not in taken else f"a name other than {', '.join(taken)}"
            mistakes.append(f"{at}: a factor needs {what}")
        if len(levels) < 2:
            mistakes.append(f"{at}: {len(levels)} of two or more levels")
        mistakes += [
            f"{at}.{level}: a level's name holds letters, digits, '.', '-' and '_' only"
            for level in levels
            if not _is_plain(level.replace(".", ""))
        ]
        given = [msgspec.json.encode(settings, order="deterministic") for settings in levels.values()]
        mistakes += [
            f"{at}.{level}: the same settings as the level before it"
            for place, level in enumerate(levels)
            if given[place] in given[:place]
        ]
    mistakes += _path_mistakes(matrix)
    fraction = fraction_mistake(matrix.levels(), matrix.fraction)
    return [*mistakes, *([f"fraction: {fraction}"] if fraction else [])]


def _path_mistakes(matrix: Matrix) -> list[str]:
    """Return the key paths that no factor may set: those of the matrix itself, and those that another factor sets."""
    varied = matrix.varied_paths()
    mistakes = [
        f"factors.{name}: sets {path}; {_OF_MATRIX[path]}"
        for name, paths in varied.items()
        for path in paths
        if path in _OF_MATRIX
    ]
    for (name, paths), (other, theirs) in combinations(varied.items(), 2):
        both = next((path for path in theirs if any(is_same_or_inside(path, own) for own in paths)), "")
        if both:
            mistakes.append(f"factors.{other}: sets {both}, which factors.{name} sets too; one factor sets one key")
    return mistakes


def is_same_or_inside(path: str, other: str) -> bool:
    """Return whether two key paths are the same, or one is of a table that holds the other."""
    keys, others = ([key.strip() for key in each.split(".")] for each in (path, other))
    return all(key == own for key, own in zip(keys, others, strict=False))


def _leaf_paths(settings: Mapping[str, object], above: str = "") -> list[str]:
    paths: list[str] = []
    for key, value in settings.items():
        path = above + ".".join(part.strip() for part in key.split("."))
        paths += _leaf_paths(value, f"{path}.") if isinstance(value, Mapping) and value else [path]
    return paths


def _is_plain(name: str) -> bool:
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum()
