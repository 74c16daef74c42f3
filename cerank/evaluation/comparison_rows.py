"""A comparison as flat rows for any kind of table, with the lines that belong under it; formatting is the reader's.

Invariant: every number comes out of the comparison as it is; nothing is computed again.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cerank.evaluation.answers import beyond_interval, explain, shown
from cerank.evaluation.compare import Comparison, Row
from cerank.evaluation.diagnostics import FEW, Note
from cerank.evaluation.secondary_tests import Risk
from cerank.evaluation.sensitivity.verdict_bounds import VerdictBounds
from cerank.evaluation.significance import Paired, can_show_nothing, estimate_of
from cerank.evaluation.systems import Condition, System
from cerank.evaluation.tuning_budgets import TUNING_NOTES
from cerank.evaluation.verdicts.terms import Margin
from cerank.evaluation.verdicts.verdict import Judgment, Worth
from cerank.text.safe_text import counted

METHODS = {
    "auto": "no method",
    "holm": "Holm's correction",
    "bh": "Benjamini and Hochberg's false discovery rate",
    "bonferroni": "Bonferroni's correction",
    "max-t": "the step-down maximum statistic of flipped signs",
    "none": "no correction",
}
MANY_MISSING = 0.05  # share of queries without results above which a verdict says so in its own cell
BACKGROUND = (  # notes that W/T/L or the answer below a run's table says too, or that no verdict is likely to hang on
    *("zeros", "ties", "answerless", "one seed", "ignored"),
)
LEGEND = "adjusted p: for the whole table; d_z: mean difference / its sd; W/T/L: queries won, tied, lost"

STEP_MARK = "§"  # after an interval that holds a 0, or reaches beyond a margin, which the stepped-down p rules out
FEW_MARK = "‡"  # after an interval of so few differing queries that it looks more precise than anything is known


RISK_LEGEND = (
    "hurt, helped: queries that lose or gain more than the harm margin, the margin, or else 0; TRisk: t of the mean in "
    "which a loss counts twice; flips without: the fewest queries without which a t-test shows no difference"
)
WORTH_LEGEND = (
    "worth it, not worth it: the interval that decides lies above, or below, the gain that would pay; not worse, "
    "harmful: it lies above, or below, the harm margin. All hold together with the interval's confidence"
)


class SummaryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a table: a system in a condition; the baseline's own line has no difference."""

    dataset: str
    first_stage: str
    measure: str
    system: str
    mean: float
    queries: int
    missing: int
    seeds: int
    against: str = ""  # the system it is compared with
    difference: float | None = None
    low: float | None = None  # at the comparison's confidence, one interval by itself, within the measure's range
    high: float | None = None
    p: float | None = None  # by the test that `basis` names, unadjusted
    p_corrected: float | None = None
    basis: str | None = None  # "t", "sign flips", "exact sign flips", "seeds"
    sd: float | None = None  # of the per-query differences
    error: float | None = None  # standard error of the difference; under a claim about recipes, with their seeds
    t: float | None = None
    df: float | None = None
    effect: float | None = None  # it, and wins to losses, are of checkpoints: none under a claim about recipes
    effect_low: float | None = None
    effect_high: float | None = None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None
    margin: float | None = None
    is_margin_declared: bool | None = None  # before the run
    p_equivalence: float | None = None  # unadjusted
    p_equivalence_corrected: float | None = None
    judged_low: float | None = None  # simultaneous with those of the other rows, at the level after correction
    judged_high: float | None = None
    judged_level: float | None = None
    equivalence_low: float | None = None  # the interval that TOST asks to lie within the margin, after correction
    equivalence_high: float | None = None
    equivalence_level: float | None = None
    detectable: float | None = None  # for "cannot tell": a true difference seen with 80 % power
    queries_for_difference: int | None = None  # to see a true difference as large as the margin with 80 % power
    queries_for_margin: int | None = None  # to show equivalence with 80 % power, were the true difference 0
    verdict: str = ""
    is_primary: bool | None = None  # else outside the family, without a verdict
    worth: float | None = None  # the gain that would pay for the system
    harm: float | None = None  # the largest loss that would not matter
    is_worth_declared: bool | None = None  # before the run
    answer_worth: str | None = None  # "worth it", "not worth it", "not worse", "harmful", "cannot tell"
    p_gain: float | None = None  # one-sided, unadjusted: for a difference of at least the gain
    p_ruled_out: float | None = None  # for a difference below the gain
    p_not_worse: float | None = None  # for a difference above -harm
    p_harmful: float | None = None  # for a difference below -harm
    queries_to_rule_out: int | None = None  # the gain, with 80 % power, were the true difference 0
    harm_threshold: float | None = None  # losses up to it do not count as hurt
    hurt: int | None = None  # queries that lose more than the threshold; none of these figures makes a verdict
    helped: int | None = None  # queries that gain more
    hurt_share_low: float | None = None  # Wilson's interval of the share hurt
    hurt_share_high: float | None = None
    mean_loss: float | None = None  # of the queries hurt
    worst_queries: str | None = None  # those that lose most, the largest loss first, with spaces between
    trisk: float | None = None  # t of the mean in which a loss counts twice
    queries_to_flip: int | None = None  # fewest queries without which a t-test shows no difference
    ties_low: float | None = None  # mean difference over all orders of tied documents
    ties_high: float | None = None
    tied_queries: int | None = None  # queries whose difference depends on that order
    verdict_by_ties: str | None = None  # "holds" for every order, "flips", "unknown"
    unjudged: int | None = None  # unjudged documents within the cutoff
    unjudged_low: float | None = None  # mean difference over all judgments of them
    unjudged_high: float | None = None
    are_bounds_exact: bool | None = None  # else wider than they need be
    verdict_by_judgments: str | None = None  # "holds" under every judging, "flips", "unknown"
    judgments_to_flip: int | None = None  # unjudged documents that, found relevant, change the verdict; fewer may do
    bounds_note: str | None = None  # why there is no statement on the verdict, or are no bounds


def summary(comparison: Comparison) -> tuple[SummaryRow, ...]:
    """Return, for each condition and measure, each baseline's line and then its rows; with all pairs one for each pair.

    Of stages: the first stage's line, then each stage against the one before it, then against the first stage.
    """
    systems = {system.label: system for system in comparison.systems}
    out = []
    for condition in comparison.conditions:
        for measure in comparison.measures:
            rows = [row for row in comparison.rows if (row.condition, row.measure) == (condition, measure)]
            if comparison.terms.pairs == "stages":
                out.append(_plain(systems[comparison.baseline], condition, measure))
                out.extend(_compared(systems[row.right], row) for row in rows)
                continue
            for left in dict.fromkeys(row.left for row in rows):
                if comparison.terms.pairs == "baseline":
                    out.append(_plain(systems[left], condition, measure))
                out.extend(_compared(systems[row.right], row) for row in rows if row.left == left)
    return tuple(out)


def footnotes(comparison: Comparison, *, is_short: bool = False) -> tuple[str, ...]:
    """Return what stands under a table: family and method, margins chosen late, data to beware of; each line once.

    Args:
        comparison: the comparison.
        is_short: leave out what explains a figure and keeps nobody from a wrong reading; see `BACKGROUND`.
    """
    terms = comparison.terms
    lines = [family(comparison, is_short=is_short)]
    for measure, margin in terms.margins.items():
        when = f"declared {margin.declared or 'before the run'}" if margin.before else "chosen after the results"
        because = f", because {margin.because}" if margin.because else ""
        lines.append(f"margin for {measure}: ±{margin.shown}, {when} ({margin.source}){because}")
    for what, chosen in (("gain worth its cost", terms.worth), ("harm margin", terms.harm)):
        for measure, margin in chosen.items():
            when = f"declared {margin.declared or 'before the run'}" if margin.before else "chosen after the results"
            because = f", because {margin.because}" if margin.because else ""
            lines.append(f"{what} by {measure}: {margin.shown}, {when} ({margin.source}){because}")
    if any(row.worth for row in comparison.rows):
        lines.append(WORTH_LEGEND)
    if any(row.judgment.is_late or (row.worth and row.worth.is_late) for row in comparison.rows):
        lines.append("†: this verdict rests on a margin that was chosen after the results")
    lines += _undecided(comparison)
    alpha = 1 - terms.confidence
    if any(not row.is_primary for row in comparison.rows):
        lines.append(
            "descriptive: not a primary question, so outside the family: p and interval are of the row alone, and no "
            "verdict is made"
        )
    lost = [
        row for row in comparison.rows if row.is_primary and row.judgment.p <= alpha and not row.judgment.is_different
    ]
    if lost:
        names = ", ".join(f"{row.right} against {row.left} by {row.measure} on {row.condition}" for row in lost)
        lines.append(
            f"p < {alpha:.2g} by itself, but not after adjusting for {counted(comparison.family, 'comparison')}: "
            f"{names}; the verdicts use the adjusted p"
        )
    lines += skewed(comparison)
    left_out = {"skewed", *(BACKGROUND if is_short else ())}
    noted = [
        note.text if note.kind in TUNING_NOTES else f"{_about(row, note)}: {note.text}"
        for row in comparison.rows
        for note in row.notes
        if note.kind not in left_out
    ]
    return tuple(dict.fromkeys(lines + noted))


def _undecided(comparison: Comparison) -> list[str]:
    """Return which half of a verdict is missing where a row cannot tell."""
    open_ = [row for row in comparison.rows if row.verdict == "cannot tell"]
    sizes = dict.fromkeys(f"±{margin.shown} {row.measure}" for row in open_ if (margin := _margin(comparison, row)))
    out = []
    if sizes:
        out.append(f"cannot tell: neither a difference nor equivalence within {', '.join(sizes)} is shown")
    if any(_margin(comparison, row) is None for row in open_):
        where = " (where no margin is given)" if sizes else ""
        out.append(f"cannot tell{where}: no difference is shown; equivalence was not asked, for it needs a margin")
    return out


def _margin(comparison: Comparison, row: Row) -> Margin | None:
    return comparison.terms.margins.get(row.measure)


def skewed(comparison: Comparison) -> list[str]:
    """Return one line on all rows whose differences are so skewed, over so few queries, that tests err too often."""
    skewed_rows = [
        f"{row.right} against {row.left} by {row.measure} on {row.condition} ({note.text})"
        for row in comparison.rows
        for note in row.notes
        if note.kind == "skewed"
    ]
    if not skewed_rows:
        return []
    promised = 100 * comparison.terms.alpha
    more = "about 6 of 100 single tests and 7 to 8 of 100 tables err" if promised == 5 else "tests err more often"
    return [
        f"very skewed differences of fewer than {FEW} queries: {more} where {promised:.3g} of 100 are promised, in "
        f"simulations of such differences; take a p near the limit with care: {', '.join(skewed_rows)}"
    ]


def family(comparison: Comparison, *, is_short: bool = False) -> str:
    """Return how many comparisons share one error rate, and by what method; short: without how the method works."""
    terms, size = comparison.terms, comparison.family
    rate = f"{100 * (1 - terms.confidence):.3g} %"
    if size == 0 and any(not row.is_primary for row in comparison.rows):
        return "no primary question is answered: all rows are descriptive"
    if size == 0:
        return "nothing was tested, so no verdict can be false"
    many = counted(size, "comparison")
    if comparison.method == "none":
        return f"{many}, unadjusted: each verdict by itself errs in at most {rate}"
    if size == 1:
        return f"{many}: the chance of a false verdict is at most {rate}"
    if comparison.method == "bh":
        return f"{many}: of the differences found at most {rate} are expected to be false (Benjamini and Hochberg)"
    how = {
        "holm": "Holm's correction",
        "bonferroni": "Bonferroni's correction",
        "max-t": by_flips(comparison, is_short=is_short),
    }[comparison.method]
    return f"{many}: the chance of any false verdict among them all is at most {rate} ({how})"


def mark_of_few(figures: Paired, alpha: float, verdict: str = "") -> str:
    """Return the mark after the interval of a row in which too few queries differ to show anything; "" for none."""
    return FEW_MARK if verdict != "identical" and can_show_nothing(figures, alpha) else ""


def note_of_few(alpha: float) -> str:
    """Return what the mark after an interval means."""
    return (
        f"{FEW_MARK}: so few queries differ that nothing they do could show a difference at {alpha:.3g}; the width "
        "of the interval does not say how precisely the difference is known"
    )


def mark_of_step(judgment: Judgment) -> str:
    """Return the mark after the interval beside a verdict that says less than the verdict; "" for none."""
    return STEP_MARK if judgment.is_beyond_interval else ""


NOTE_OF_STEP = (
    f"{STEP_MARK}: this interval holds 0, or reaches beyond the margin, and the adjusted p rules that out: p is "
    "stepped down, and intervals that hold all true differences together cannot be; the verdict is that of p "
    "(`cerank guide verdicts`)"
)


def notes_beyond(judgments: Iterable[tuple[str, Judgment]]) -> tuple[str, ...]:
    """Return a sentence for each verdict that says more than the interval beside it, for tables without marks.

    Args:
        judgments: each with what it is about.
    """
    return tuple(
        f"{what}: {judgment.verdict}, beside an interval that says less: {text}"
        for what, judgment in judgments
        if (text := beyond_interval(judgment))
    )


def by_flips(comparison: Comparison, *, is_short: bool = False) -> str:
    """Return what stands for a row in the maximum over flipped signs: its |t|, or its p where few queries differ."""
    tested = [row for row in comparison.rows if row.is_primary and row.verdict != "identical"]
    few = [row for row in tested if row.judgment.basis == "exact sign flips"]
    name = "step-down min-p" if few and len(few) == len(tested) else "step-down max-t"
    part = ", min-p where few queries differ" if few and len(few) < len(tested) else ""
    if is_short:
        return name + part
    text = f"{name}{part}: signs of whole queries are flipped {comparison.terms.rounds:,} times, and "
    if not few:
        return text + "the largest |t| is the yardstick"
    if not part:
        return text + "the smallest p is the yardstick, each row's p being the share of its flips that reach so far"
    return (
        text + "the largest |t| is the yardstick; a row in which few queries differ has the |t| of its p there, the "
        "share of its flips that reach so far"
    )


def shown_verdict(row: Row) -> str:
    """Return the verdict for a table's cell: its direction, † for a late margin, and how many queries are missing."""
    text = shown(row.judgment, row.paired.difference)
    missing = len({*row.missing_left, *row.missing_right})
    return f"{text} ({missing} of {row.paired.n} queries missing)" if missing > MANY_MISSING * row.paired.n else text


def _about(row: Row, note: Note) -> str:
    """Return what a note is about: one row, one measure, or all of a condition."""
    if note.kind in {"zeros", "common", "identical"}:
        return f"{row.right} against {row.left} by {row.measure} on {row.condition}"
    return f"{row.measure} on {row.condition}" if note.kind == "answerless" else str(row.condition)


def reasons(comparison: Comparison) -> tuple[str, ...]:
    """Return one sentence a row: who against whom, where, the verdict and what it rests on."""
    return tuple(
        f"{row.right} against {row.left}, {row.measure} on {row.condition}: {explain(row.judgment, row.limits)}"
        for row in comparison.rows
    )


def _plain(system: System, condition: Condition, measure: str) -> SummaryRow:
    at = next(entry for entry in system.measured if entry.condition == condition)
    values = at.values[measure]
    return SummaryRow(
        dataset=condition.dataset,
        first_stage=condition.first_stage,
        measure=measure,
        system=system.label,
        mean=sum(values.values()) / len(values),
        queries=len(values),
        missing=len(at.missing),
        seeds=max(len(system.members), 1),
    )


def _compared(system: System, row: Row) -> SummaryRow:
    figures, judgment = row.paired, row.judgment
    line = _plain(system, row.condition, row.measure)
    estimate = estimate_of(figures) if row.recipes is None else row.recipes.estimate
    is_of_checkpoints = row.recipes is None
    return msgspec.structs.replace(
        line,
        mean=figures.mean_right,
        against=row.left,
        difference=figures.difference,
        low=row.low,
        high=row.high,
        p=judgment.p,
        p_corrected=row.p_corrected,
        basis=judgment.basis,
        sd=figures.sd,
        error=estimate.error,
        t=estimate.difference / estimate.error if estimate.error else None,
        df=estimate.df,
        effect=figures.effect if is_of_checkpoints else None,
        effect_low=row.effect.low if row.effect and is_of_checkpoints else None,
        effect_high=row.effect.high if row.effect and is_of_checkpoints else None,
        wins=figures.wins if is_of_checkpoints else None,
        ties=figures.ties if is_of_checkpoints else None,
        losses=figures.losses if is_of_checkpoints else None,
        margin=judgment.margin.value if judgment.margin else None,
        is_margin_declared=judgment.margin.before if judgment.margin else None,
        p_equivalence=judgment.p_equivalence,
        p_equivalence_corrected=judgment.p_equivalence_corrected,
        judged_low=judgment.low,
        judged_high=judgment.high,
        judged_level=judgment.level,
        equivalence_low=judgment.equivalence_low,
        equivalence_high=judgment.equivalence_high,
        equivalence_level=judgment.equivalence_level,
        detectable=judgment.detectable,
        queries_for_difference=judgment.queries_for_difference,
        queries_for_margin=judgment.queries_for_margin,
        verdict=row.verdict,
        is_primary=row.is_primary,
        **_worth_fields(row.worth),
        **(_risk_fields(row.risk) if row.risk and is_of_checkpoints else {}),
        **(_bounds_fields(row.bounds) if row.bounds else {}),
    )


def _bounds_fields(bounds: VerdictBounds) -> dict[str, object]:
    """Return the fields of a line that say what ties and unjudged documents can change."""
    return {
        "ties_low": bounds.ties_low,
        "ties_high": bounds.ties_high,
        "tied_queries": bounds.tied_queries,
        "verdict_by_ties": bounds.ties or None,
        "unjudged": bounds.unjudged,
        "unjudged_low": bounds.unjudged_low,
        "unjudged_high": bounds.unjudged_high,
        "are_bounds_exact": None if bounds.unjudged_low is None else bounds.is_exact,
        "verdict_by_judgments": bounds.judgments or None,
        "judgments_to_flip": bounds.flips_at,
        "bounds_note": bounds.why_not or None,
    }


def _risk_fields(risk: Risk) -> dict[str, object]:
    """Return the fields of a line that say whom the difference hurts, and how few queries carry it."""
    return {
        "harm_threshold": risk.threshold,
        "hurt": risk.hurt,
        "helped": risk.helped,
        "hurt_share_low": risk.hurt_low,
        "hurt_share_high": risk.hurt_high,
        "mean_loss": risk.mean_loss,
        "worst_queries": " ".join(risk.worst),
        "trisk": risk.trisk,
        "queries_to_flip": risk.queries_to_flip,
    }


def _worth_fields(worth: Worth | None) -> dict[str, object]:
    """Return the fields of a line that say whether the system is worth its cost."""
    if worth is None:
        return {}
    return {
        "worth": worth.gain.value,
        "harm": worth.harm.value if worth.harm else None,
        "is_worth_declared": worth.gain.before,
        "answer_worth": worth.answer,
        "p_gain": worth.p_gain,
        "p_ruled_out": worth.p_ruled_out,
        "p_not_worse": worth.p_not_worse,
        "p_harmful": worth.p_harmful,
        "queries_to_rule_out": worth.queries_to_rule_out,
    }


def shown_worth(row: Row) -> str:
    """Return whether a system is worth its cost, as a table's cell has it, with † for a late gain or harm margin."""
    if row.worth is None:
        return ""
    return f"{row.worth.answer} †" if row.worth.is_late else row.worth.answer
