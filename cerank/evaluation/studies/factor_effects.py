"""What each factor of a matrix changes: the mean effect of a level over all settings of the other factors, by query.

Every query has a value in each cell of the matrix. The effect of a level is the mean difference, over cells that differ
in that factor alone, between the level and the reference; in a fraction of a design, where such twins are missing, it
is the difference of the means of both halves, which hold every other level equally often. Each query gives one such
difference, and these get the tests of any other comparison here: where few queries differ, exact sign flips.

Invariant: values are matched by query; the effects of a table are corrected as one family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.multiple_testing import corrected
from cerank.evaluation.significance import Paired, SignFlips, inference_of, p_equivalent, paired
from cerank.evaluation.verdicts.terms import Margin
from cerank.evaluation.verdicts.verdict import Judgment, Level, identical, judge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FactorCell(msgspec.Struct, frozen=True):
    """One setting of all factors with what was measured there, the mean of its seeds."""

    levels: Mapping[str, str]  # factor -> level, of the factors that change it
    values: NDArray[np.float64]  # one a query, in the same order in every cell
    ranking: str = ""  # what the values are of: equal for one and the same ranking; "" where that is not known


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One level of a factor against its reference."""

    factor: str
    level: str
    reference: str
    cells: int  # at the level; as many stand against them
    is_matched: bool  # each against its twin, which differs in this factor alone; else two halves of a fraction
    figures: Paired  # of the mean at the level minus that at the reference, over queries
    judgment: Judgment


class EffectStudy(msgspec.Struct, frozen=True, kw_only=True):
    """The effects of all factors of a matrix, by one measure in one condition."""

    measure: str
    queries: int
    cells: int
    alpha: float
    margin: Margin | None
    effects: tuple[Effect, ...]


def effect_study(
    cells: Sequence[FactorCell],
    levels: Mapping[str, Sequence[str]],
    measure: str,
    *,
    is_fraction: bool = False,
    margin: Margin | None = None,
    alpha: float = 0.05,
    limits: tuple[float, float] | None = None,
) -> EffectStudy:
    """Return the effect of every level but the reference of every factor.

    Args:
        cells: all cells of the design, each once.
        levels: factor -> its levels, the reference first.
        measure: what the values are.
        is_fraction: the design leaves combinations out, but holds each pair of levels of two factors equally often.
        margin: the largest difference that does not matter.
        alpha: error rate of the family of effects.
        limits: the smallest and the largest that a value can be; None where that is not known.

    Raises:
        UsageError: fewer than two queries; no factor has two levels among the cells.
    """
    pairs = [pair for factor, names in levels.items() for pair in _sides(cells, factor, names, is_fraction)]
    if not pairs:
        what = "no factor has cells at two levels that differ in nothing else"
        raise UsageError(what, hint="effects take a matrix with factors, or several recipes or bases", code="no-factor")
    if len(cells[0].values) < 2:
        raise UsageError("an effect takes at least two queries", hint="only one was measured", code="one-query")
    sides = [(side.against.tolist(), side.at.tolist()) for side in pairs]
    figures = [paired(*values) for values in sides]
    tests = [inference_of(each, values, limits) for each, values in zip(figures, sides, strict=True)]
    tested = [place for place, side in enumerate(pairs) if not side.is_identical]
    within = [None if margin is None else p_equivalent(tests[place], margin.value) for place in tested]
    family = corrected([tests[place].p() for place in tested], "holm", equivalent=within, alpha=alpha)
    judgments = {place: identical(alpha, margin) for place in range(len(pairs))}
    for at, place in enumerate(tested):
        p, p_within = within[at], family.ps_equivalent[at]
        equivalence, reference, is_exact = None, figures[place], isinstance(tests[place], SignFlips)
        if p is not None and p_within is not None:
            equivalence = Level(p=p, corrected=p_within, level=family.level_equivalent)
        judgments[place] = judge(
            tests[place],
            Level(p=tests[place].p(), corrected=family.ps[at], level=family.level),
            alpha=alpha,
            basis="exact sign flips" if is_exact else "t",
            margin=margin,
            equivalence=equivalence,
            sd=reference.sd,
            limits=None if limits is None else (limits[0] - reference.mean_left, limits[1] - reference.mean_left),
        )
    effects = [
        Effect(
            factor=side.factor,
            level=side.level,
            reference=side.reference,
            cells=side.cells,
            is_matched=not is_fraction,
            figures=figures[place],
            judgment=judgments[place],
        )
        for place, side in enumerate(pairs)
    ]
    return EffectStudy(
        measure=measure,
        queries=len(cells[0].values),
        cells=len(cells),
        alpha=alpha,
        margin=margin,
        effects=tuple(effects),
    )


class _Sides(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides of an effect: the means over cells, query by query."""

    factor: str
    level: str
    reference: str
    cells: int
    at: NDArray[np.float64]  # the level
    against: NDArray[np.float64]  # the reference
    is_identical: bool  # each cell ranks as its twin does


def _sides(cells: Sequence[FactorCell], factor: str, names: Sequence[str], is_fraction: bool) -> list[_Sides]:
    """Return both sides of each level of a factor but its reference, the first one."""
    import numpy as np

    reference, *others = names
    at: dict[str, dict[tuple[tuple[str, str], ...], FactorCell]] = {name: {} for name in names}
    for place, cell in enumerate(cells):
        if factor in cell.levels:
            rest = tuple(sorted((key, level) for key, level in cell.levels.items() if key != factor))
            at[cell.levels[factor]][(*rest, *((("place", str(place)),) if is_fraction else ()))] = cell
    sides = []
    for level in others:
        ours, theirs = at[level], at[reference]
        if not is_fraction:
            twins = [rest for rest in ours if rest in theirs]
            ours, theirs = {rest: ours[rest] for rest in twins}, {rest: theirs[rest] for rest in twins}
        if ours and theirs:
            sides.append(
                _Sides(
                    factor=factor,
                    level=level,
                    reference=reference,
                    cells=len(ours),
                    at=np.mean([cell.values for cell in ours.values()], axis=0),
                    against=np.mean([cell.values for cell in theirs.values()], axis=0),
                    is_identical=all(
                        rest in theirs and cell.ranking != "" and cell.ranking == theirs[rest].ranking
                        for rest, cell in ours.items()
                    ),
                )
            )
    return sides


def means_by_levels(
    cells: Sequence[FactorCell], levels: Mapping[str, Sequence[str]], factors: tuple[str, str]
) -> NDArray[np.float64]:
    """Return the means over the other factors, (queries, levels of the first factor, levels of the second).

    Raises:
        UsageError: the matrix has no such factor, or no cell at two of the levels together.
    """
    import numpy as np

    for name in factors:
        if name not in levels:
            hint = f"the matrix has {', '.join(levels)}"
            raise UsageError(f"no factor is called '{name}'", where="--by", hint=hint, code="factor-unknown")
    rows = []
    for level in levels[factors[0]]:
        row = []
        for second in levels[factors[1]]:
            here = [cell.values for cell in cells if _is_at(cell, {factors[0]: level, factors[1]: second})]
            if not here:
                what = f"no run has {factors[0]} at {level} and {factors[1]} at {second}"
                raise UsageError(
                    what, where="--by", hint="their interaction takes every pair of levels", code="no-cell"
                )
            row.append(np.mean(here, axis=0))
        rows.append(row)
    return np.array(rows).transpose(2, 0, 1)


def _is_at(cell: FactorCell, levels: Mapping[str, str]) -> bool:
    return all(cell.levels.get(name) == level for name, level in levels.items())
