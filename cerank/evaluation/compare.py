"""The table of a comparison: which rows there are, and each with its verdict and figures. Start at `compare`.

`_pairings` decides which rows there are, and which of them are primary: those alone get a verdict. The steps are rooms
of their own in `verdicts`:

1. `row_tests`: the two systems of each row are matched query by query, and their differences get a test.
2. `family`: the tests of all rows, of a difference and of equivalence, are adjusted as one family.
3. `verdict`: the adjusted p decide the verdict; the interval at the adjusted level stands beside it.
4. `_row` here: the verdict with all figures, and by `row_notes` what a reader must know of the data.

`systems` checks that systems can be compared, `significance` and `seed_variance` hold the tests of one row,
`multiple_testing` those of many, `answers` says verdicts in words.

Invariant: a row's figures, verdict and notes come from the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import msgspec

from cerank.core.seeds import derive
from cerank.errors import UsageError
from cerank.evaluation import diagnostics, seed_variance
from cerank.evaluation.multiple_testing import Correction
from cerank.evaluation.primary_questions import is_sensitivity, questions
from cerank.evaluation.secondary_tests import Interval, Risk, Secondary, effect_interval, risk, secondary
from cerank.evaluation.sensitivity.verdict_bounds import VerdictBounds
from cerank.evaluation.significance import Paired, differences, estimate_of
from cerank.evaluation.systems import Condition, Measured, System, check_labels, measured, shared_conditions
from cerank.evaluation.verdicts import row_notes
from cerank.evaluation.verdicts.family import adjusted
from cerank.evaluation.verdicts.row_tests import RowTest, row_test_of
from cerank.evaluation.verdicts.terms import Margin, Pairing, Terms, check_worth, checked_margin, width_of
from cerank.evaluation.verdicts.verdict import Judgment, Verdict, Worth, cut, described, identical, judged, worth_of

__all__ = ["Comparison", "Condition", "Margin", "Measured", "Pairing", "Row", "System", "Terms", "compare", "measured"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One system against another, by one measure in one condition."""

    condition: Condition
    measure: str
    left: str  # the baseline's label
    right: str
    paired: Paired
    p_corrected: float  # over the family
    judgment: Judgment
    worth: Worth | None = None  # where a gain is declared for the measure
    low: float  # at the comparison's confidence, as if the row were the only one; within what the measure allows
    high: float
    limits: tuple[float, float] | None  # the differences that the measure allows; None where it has no known range
    is_primary: bool = True  # else descriptive: outside the family, without a verdict
    effect: Interval | None  # of d_z, exact; None where d_z is infinite
    missing_left: tuple[str, ...]
    missing_right: tuple[str, ...]
    zero_share: float  # of queries where both score the same
    notes: tuple[diagnostics.Note, ...] = ()
    recipes: seed_variance.TwoWay | None = None  # where the claim is about recipes; the judgment then rests on it
    secondary: Secondary | None = None
    risk: Risk | None = None
    bounds: VerdictBounds | None = None  # by ties and unjudged documents, where they were asked for

    @property
    def verdict(self) -> Verdict:
        """Return the verdict on `right`."""
        return self.judgment.verdict


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All rows and all values they were computed from; as JSON it can be recomputed anywhere."""

    format: int = 1
    baseline: str
    measures: tuple[str, ...]
    conditions: tuple[Condition, ...]
    terms: Terms
    method: Correction  # that corrected: what "auto" came to
    family: int  # comparisons corrected together, each with its tests of a difference and of equivalence
    family_equivalence: int  # of them with a margin
    rows: tuple[Row, ...]
    systems: tuple[System, ...]


_DEFAULT = Terms()


def compare(
    systems: Sequence[System],
    measures: Sequence[str],
    *,
    conditions: Sequence[Condition] = (),
    pairings: Sequence[Pairing] = (),
    terms: Terms = _DEFAULT,
) -> Comparison:
    """Compare every system with the first (or as `terms.pairs` says), in every condition, by every measure.

    Args:
        systems: at least two, the baseline first.
        measures: canonical names; each system must have them.
        conditions: only these; empty takes the baseline's, which every other system must share exactly.
        pairings: exactly these rows instead, by several baselines or with measures of each condition's own.
        terms: margins, correction, family and claim.

    Raises:
        UsageError: the systems were measured on different datasets, first stages, qrels or queries; a margin for a
            measure not compared; a family smaller than what is shown; a claim about recipes with one seed.
    """
    check_labels(systems)
    for name, margin in terms.margins.items():
        if name not in measures:
            raise UsageError(f"a margin for {name}: it is not compared, {', '.join(measures)} is", code="margin-unused")
        checked_margin(margin, name, width_of(name))
    check_worth(measures, terms)
    if pairings:
        conditions = tuple(dict.fromkeys(pairing.condition for pairing in pairings))
    else:
        conditions = tuple(conditions) or shared_conditions(systems)
        pairings = _pairings(systems, measures, conditions, terms)
    of = {system.label: system for system in systems}
    tests = [row_test_of(each, of[each.left], of[each.right], terms) for each in pairings]
    for row_test in tests:
        _check_sizes(row_test, terms)
    family = [row_test for row_test in tests if row_test.is_primary and not row_test.is_identical]
    corrected = adjusted(family, terms)
    judgments = iter([judged(row_test, corrected, place, terms) for place, row_test in enumerate(family)])
    rows = []
    for row_test in tests:
        if row_test.is_identical:
            judgment = identical(terms.alpha, row_test.sized(terms.margins))
        else:
            judgment = next(judgments) if row_test.is_primary else described(row_test, terms)
        rows.append(_row(row_test, judgment, terms))
    return Comparison(
        baseline=systems[0].label,
        measures=tuple(measures),
        conditions=conditions,
        terms=terms,
        method=corrected.method,
        family=corrected.family,
        family_equivalence=sum(p is not None for p in corrected.ps_equivalent),
        rows=tuple(rows),
        systems=tuple(systems),
    )


def _pairings(
    systems: Sequence[System], measures: Sequence[str], conditions: Sequence[Condition], terms: Terms
) -> list[Pairing]:
    """Return the rows that the terms ask for (with the baseline, every pair, or each stage), primary or descriptive."""
    if terms.pairs == "all":
        couples = list(combinations(systems, 2))
    elif terms.pairs == "stages":
        chain = [system for system in systems if not system.is_baseline]
        # The first stage is the one before the second system, so these two are compared once.
        steps = [(place, left) for place in range(1, len(chain)) for left in dict.fromkeys((place - 1, 0))]
        couples = [(chain[left], chain[place]) for place, left in steps]
        baselines = [system for system in systems if system.is_baseline]
        couples += [(chain[0], baseline) for baseline in baselines]
        couples += [(baseline, stage) for stage in chain[1:] for baseline in baselines]
    else:
        couples = [(systems[0], other) for other in systems[1:]]
    primary = questions(terms.primary, "primary")
    # a chain's verdicts are about its stages; other re-rankers beside it are described, unless a question names them
    descriptive = {system.label for system in systems if system.is_baseline} if terms.pairs == "stages" else set()

    def is_primary(measure: str, left: str, right: str) -> bool:
        if primary:
            return any(question.names(measure, {right}, {left}) for question in primary)
        return not is_sensitivity(measure, measures) and not {left, right} & descriptive

    for question in primary if terms.pairs != "stages" else ():  # a chain may not have come to all of its stages yet
        if not any(question.names(name, {right.label}, {left.label}) for left, right in couples for name in measures):
            rows = ", ".join(f"{right.label} against {left.label}" for left, right in couples[:6])
            what = f"no row answers the primary question '{question}'"
            raise UsageError(what, hint=f"the rows are {rows}, by {', '.join(measures)}", code="question-unanswered")
    return [
        Pairing(
            condition=condition,
            measure=measure,
            left=left.label,
            right=right.label,
            is_primary=is_primary(measure, left.label, right.label),
        )
        for condition in conditions
        for left, right in couples
        for measure in measures
    ]


def _check_sizes(row_test: RowTest, terms: Terms) -> None:
    """Refuse, in the measure's units, a margin of a baseline that scores 0, and a gain that the margin says is none.

    Raises:
        UsageError: it is so.
    """
    margin, gain = row_test.sized(terms.margins), row_test.sized(terms.worth)
    for chosen in (margin, gain, row_test.sized(terms.harm)):
        if chosen is not None and chosen.share is not None and chosen.value <= 0:
            left = row_test.systems[0].label
            what = f"{chosen.shown} is 0: '{left}' scores 0 by {row_test.measure} on {row_test.measured[0].condition}"
            raise UsageError(
                what, where=chosen.source, hint="give a number in the measure's units", code="share-of-zero"
            )
    if margin is not None and gain is not None and gain.value < margin.value:
        raise UsageError(
            f"a gain of {gain.value:g} {row_test.measure} cannot be worth it: differences up to {margin.value:g} "
            "do not matter by its margin",
            where=gain.source,
            hint="declare a gain of at least the margin; the largest loss that does not matter is `harm`",
            code="worth-below-margin",
        )


def _row(row_test: RowTest, judgment: Judgment, terms: Terms) -> Row:
    (left, right), (at_left, at_right), figures = row_test.systems, row_test.measured, row_test.figures
    other_tests = None
    if terms.with_secondary:
        margin = judgment.margin
        other_tests = secondary(
            differences(*row_test.values),
            terms.confidence,
            estimate=row_test.recipes.estimate if row_test.recipes else estimate_of(figures),
            rope=margin.value if margin and row_test.basis != "exact sign flips" else None,
            seed=derive(terms.seed, "secondary", str(at_left.condition), row_test.measure, left.label, right.label),
            rounds=terms.rounds,
        )
    gain, worth = row_test.sized(terms.worth), None
    harm = row_test.sized(terms.harm) or judgment.margin
    if gain is not None and row_test.is_primary and not row_test.is_identical:
        worth = worth_of(row_test.test, judgment, gain, harm, None if row_test.recipes else figures.sd)
    # Of identical rankings nothing was tested, and nothing is uncertain.
    alone = (0.0, 0.0) if row_test.is_identical else cut(*row_test.test.interval(terms.alpha), row_test.limits)
    return Row(
        condition=at_left.condition,
        measure=row_test.measure,
        left=left.label,
        right=right.label,
        paired=figures,
        p_corrected=judgment.p_corrected,
        judgment=judgment,
        worth=worth,
        low=alone[0],
        high=alone[1],
        limits=row_test.limits,
        is_primary=row_test.is_primary,
        effect=effect_interval(figures, terms.confidence),
        missing_left=at_left.missing,
        missing_right=at_right.missing,
        zero_share=figures.ties / figures.n,
        notes=row_notes.of_row(row_test, judgment),
        recipes=row_test.recipes,
        secondary=other_tests,
        risk=risk(
            differences(*row_test.values),
            row_test.queries,
            threshold=harm.value if harm else 0.0,
            confidence=terms.confidence,
        ),
    )
