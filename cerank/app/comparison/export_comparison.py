"""A comparison as text to keep: LaTeX, Markdown, CSV, TSV or JSON, the same for the command line and the dashboard.

Invariant: every number is the comparison's own; papers get it rounded, machines whole. No label can steer a reader.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from cerank.errors import UsageError
from cerank.files import disk
from cerank.registry import nearest
from cerank.runs.layout import plain_name
from cerank.text import escapes
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table, records, written

if TYPE_CHECKING:
    from cerank.app.comparison.comparison_schema import PlanStatus, TestSetLooks
    from cerank.evaluation.answers import Cost
    from cerank.evaluation.compare import Comparison, Condition, Row
    from cerank.evaluation.comparison_rows import SummaryRow
    from cerank.evaluation.studies.pooling import PooledResult
    from cerank.evaluation.systems import System

Form = Literal["latex", "markdown", "csv", "tsv", "json"]
FORMS: tuple[Form, ...] = get_args(Form)
ENDINGS: dict[Form, str] = {"latex": ".tex", "markdown": ".md", "csv": ".csv", "tsv": ".tsv", "json": ".json"}
_BREAK_EVEN = (  # seconds of training that .01 of the measure must be worth; None: no price pays
    "break_even_seconds",
    "break_even_at_low",
    "break_even_at_high",
)
_SAME = 1e-12  # intervals closer than this are one, computed twice


def full_table(comparison: Comparison, *, with_reasons: bool = False, costs: Mapping[str, Cost] | None = None) -> Table:
    """Return every field of every row in full precision, for machines, with the family and method it was judged by.

    The column "answer" has each verdict in words; `costs`, by the label of a stage, stand in it.
    """
    from cerank.evaluation.answers import answers, break_even, cost_of, explain
    from cerank.evaluation.comparison_rows import summary

    terms, lines, known = comparison.terms, summary(comparison), _by_line(comparison)
    method = (
        comparison.family,
        comparison.family_equivalence,
        comparison.method,
        round(1 - terms.confidence, 12),
        terms.claim,
    )
    names = [*lines[0].__struct_fields__, "family", "family_equivalence", "correction", "alpha", "claim"]
    names += ["run", "against_run", "cost_seconds", "cost_pairs", "cost_money", *_BREAK_EVEN, "answer"]
    answer_of = {
        (answer.dataset, answer.first_stage, answer.measure, answer.left, answer.right): answer
        for answer in answers(comparison, costs)
    }
    run_of = {system.label: system.run for system in comparison.systems}
    body = []
    for line in lines:
        row = known.get(_key(line))
        reason = (explain(row.judgment, row.limits) if row else "",) if with_reasons else ()
        ids = (run_of.get(line.system, ""), run_of.get(line.against, ""))
        cost = cost_of(comparison, row, costs or {}) if row else None
        prices: tuple[float | None, ...] = (None,) * len(_BREAK_EVEN)
        if cost is not None and row is not None:
            prices = tuple(None if math.isinf(price) else price for price in break_even(row, cost))
        paid = (*((cost.seconds, cost.pairs, cost.money) if cost else (None, None, None)), *prices)
        answer = answer_of[_key(line)].with_question if _key(line) in answer_of else ""
        body.append((*(getattr(line, name) for name in line.__struct_fields__), *method, *ids, *paid, answer, *reason))
    columns = [*names, *(["reason"] if with_reasons else [])]
    return Table("comparison", tuple(Column(name, name) for name in columns), tuple(body), notes=_footnotes(comparison))


def document(
    comparison: Comparison,
    *,
    with_reasons: bool = False,
    command: str = "",
    costs: Mapping[str, Cost] | None = None,
    looks: TestSetLooks | None = None,
    plan: PlanStatus | None = None,
    pooled: PooledResult | None = None,
    not_pooled: str = "",
) -> str:
    """Return a comparison as JSON of one shape: {meta, rows, secondary, pooled, notes}.

    `secondary` is empty unless requested. `pooled` is empty for one collection, or where several could not be pooled:
    the notes then have `not_pooled`. `rows` are those of `full_table`; `meta` is what they rest on: method,
    family, margins, and the hashes of the rankings and qrels. `comparison_schema.schema` describes it.
    """
    from cerank import __version__
    from cerank.app.comparison.several_collections import pooled_tables
    from cerank.evaluation.comparison_rows import notes_beyond

    terms = comparison.terms
    chosen = {"margins": terms.margins, "worth": terms.worth, "harm": terms.harm}
    meta = {
        "format": 4,
        "cerank": __version__,
        "command": command,
        "baseline": comparison.baseline,
        "pairs": terms.pairs,
        "primary": list(terms.primary),
        "claim": terms.claim,
        "confidence": terms.confidence,
        "alpha": terms.alpha,
        "correction": comparison.method,
        "family": comparison.family,
        "family_equivalence": comparison.family_equivalence,
        "rounds": terms.rounds,
        "seed": terms.seed,
        "looks": msgspec.to_builtins(looks),
        "plan": msgspec.to_builtins(plan),
        **{kind: {name: msgspec.to_builtins(margin) for name, margin in of.items()} for kind, of in chosen.items()},
        "rankings": [
            {
                "system": system.label,
                "run": system.run,
                "seeds": max(len(system.members), 1),
                "dataset": at.condition.dataset,
                "first_stage": at.condition.first_stage,
                "ranking_sha256": at.ranking_sha256,
                "qrels_sha256": at.qrels_sha256,
            }
            for system in comparison.systems
            for at in system.measured
        ],
    }
    text = {
        "meta": meta,
        "rows": records(full_table(comparison, with_reasons=with_reasons, costs=costs)),
        "secondary": records(secondary(comparison)) if terms.with_secondary else [],
        "pooled": records(pooled_tables.machine_table(pooled)) if pooled is not None else [],
        "notes": [
            *_footnotes(comparison),
            *notes_beyond(
                (f"{row.right} against {row.left} by {row.measure} on {row.condition}", row.judgment)
                for row in comparison.rows
            ),
            *([looks.text] if looks else []),
            *([plan.text] if plan else []),
            *(pooled.notes if pooled is not None else [not_pooled] if not_pooled else []),
        ],
    }
    return escapes.json_text(text, indent=2) + "\n"


def complete(comparison: Comparison) -> str:
    """Return the whole comparison as JSON, with every per-query value: all that is needed to compute it again.

    `msgspec.json.decode(text, type=Comparison)` reads it back; `compare` of its systems, measures, conditions and
    terms gives its rows.
    """
    return escapes.json_text(msgspec.to_builtins(comparison), indent=1) + "\n"


def secondary(comparison: Comparison) -> Table:
    """Return the secondary tests of each row, beside the t-test; none of them makes a verdict."""
    texts = ("dataset", "first_stage", "measure", "left", "right")
    tests = ("randomization", "wilcoxon", "sign")
    columns = [Column(name, name.replace("_", " ")) for name in texts]
    columns += [Column("p", "paired t", "p"), *(Column(name, name, "p", priority=2) for name in tests)]
    columns += [Column("bca_low", "BCa low", "signed", priority=1)]
    columns += [Column("bca_high", "BCa high", "signed", priority=1)]
    shares = ("left_better", "within_margin", "right_better")
    has_posterior = any(row.secondary and row.secondary.posterior for row in comparison.rows)
    if has_posterior:
        columns += [Column(f"posterior_{name}", name.replace("_", " "), "percent", priority=3) for name in shares]
    body = []
    for row in comparison.rows:
        others = row.secondary
        if others is None:
            continue
        head = (row.condition.dataset, row.condition.first_stage, row.measure, row.left, row.right, row.paired.p)
        ps = (others.randomization, others.wilcoxon, others.sign, others.bca.low, others.bca.high)
        posterior = others.posterior
        chances = (posterior.left, posterior.within, posterior.right) if posterior else (None, None, None)
        body.append((*head, *ps, *(chances if has_posterior else ())))
    percent = f"{100 * comparison.terms.confidence:.4g} %"
    notes = [
        "secondary tests, unadjusted: they accompany the paired t-test and make no verdict; BCa: bootstrap interval at "
        f"{percent}"
    ]
    if has_posterior:
        notes.append(
            "left better, within margin, right better: probabilities of the mean difference (Student's t, reference "
            "prior) below -margin, within it, above it"
        )
    return Table("secondary", tuple(columns), tuple(body), "Secondary tests", tuple(notes))


def risk_table(comparison: Comparison) -> Table:
    """Return, for each row, whom the difference hurts and how few queries carry it; none of it makes a verdict."""
    from cerank.evaluation.comparison_rows import RISK_LEGEND

    percent = f"{100 * comparison.terms.confidence:.4g} %"
    columns = (
        *(Column(name, name.replace("_", " ")) for name in ("dataset", "first_stage", "measure", "left", "right")),
        Column("hurt", "hurt", "number", 0),
        Column("helped", "helped", "number", 0),
        Column("hurt_share", f"share hurt, {percent}", "name"),
        Column("mean_loss", "mean loss", "signed", priority=1),
        Column("trisk", "TRisk", "signed", 2),
        Column("queries_to_flip", "flips without", "number", 0),
        Column("worst", "loses most", priority=2),
    )
    body = []
    for row in comparison.rows:
        of = row.risk
        if of is None or row.recipes is not None:
            continue
        where = (row.condition.dataset, row.condition.first_stage, row.measure, row.left, row.right)
        share = f"[{100 * of.hurt_low:.0f}, {100 * of.hurt_high:.0f}] %"
        figures = (of.hurt, of.helped, share, of.mean_loss, of.trisk, of.queries_to_flip, " ".join(of.worst))
        body.append((*where, *figures))
    return Table("risk", columns, tuple(body), "Risk", (RISK_LEGEND,))


def short_table(comparison: Comparison, *, with_reasons: bool = False, is_marked: bool = True) -> Table:
    """Return the columns for people, with footnotes; what is equal in every row goes into the title.

    Where a verdict rests on another interval than the one shown (after correction, or for equivalence), a column says
    which. `is_marked` marks the intervals of rows in which few queries differ; a program would not expect it there.
    """
    from cerank.evaluation.comparison_rows import LEGEND, reasons, shown_verdict, shown_worth, summary

    rows, known = summary(comparison), _by_line(comparison)
    is_one = len({(row.dataset, row.first_stage) for row in rows}) == 1
    has_against = comparison.terms.pairs != "baseline" or len({row.left for row in comparison.rows}) > 1
    columns = [Column("system", "system"), *([Column("against", "against")] if has_against else [])]
    columns += [Column("measure", "measure"), Column("mean", "mean", "number")]
    columns += [
        Column("difference", "difference", "signed"),
        Column("interval", f"{100 * comparison.terms.confidence:.3g} % interval", "name"),
    ]
    columns += [Column("p", "p", "p", priority=4), Column("p_corrected", "adjusted p", "p", priority=1)]
    columns += [Column("effect", "d_z", "signed", 2, priority=3), Column("wtl", "W/T/L", "name", priority=2)]
    marks = [_mark(known.get(_key(row))) if is_marked else "" for row in rows]
    rests = []
    for row, mark in zip(rows, marks, strict=True):
        compared = known.get(_key(row))
        rests.append(_rests_on(comparison, compared, mark + (_mark_of_step(compared) if is_marked else "")))
    has_worth = any(row.worth for row in comparison.rows)
    has_other = any(_is_other(row) for row in comparison.rows)
    columns += [
        *([Column("judged", _decides(comparison), priority=5)] if has_other else []),
        Column("verdict", "verdict"),
        *([Column("worth", "worth it?")] if has_worth else []),
    ]
    if not is_one:
        columns = [Column("dataset", "dataset"), Column("first_stage", "first stage"), *columns]
    body = []
    for row, rest, mark in zip(rows, rests, marks, strict=True):
        where = () if is_one else (row.dataset, row.first_stage)
        against = (row.against,) if has_against else ()
        judged = (rest,) if has_other else ()
        compared = known.get(_key(row))
        verdict = shown_verdict(compared) if compared else ""
        worth = (shown_worth(compared) if compared else "",) if has_worth else ()
        body.append((*where, row.system, *against, *_figures(row, mark), *judged, verdict, *worth))
    of_marks = _notes_of_marks(comparison) if is_marked else ()
    notes = (LEGEND, *_footnotes(comparison), *of_marks, *(reasons(comparison) if with_reasons else ()))
    return Table("comparison", tuple(columns), tuple(body), _title(comparison, rows, is_one), notes)


def by_stage(comparison: Comparison, *, is_short: bool = False) -> tuple[Table, ...]:
    """Return a run's own comparison for a screen of 80 columns, a table for each condition; notes under the last.

    A difference stands with the interval that its verdict rests on, in one column that never goes. With `is_short`
    only those notes are there that tell how to read the table, or warn of a wrong reading.
    """
    from cerank.evaluation.comparison_rows import LEGEND, shown_verdict, shown_worth, summary

    rows, known = summary(comparison), _by_line(comparison)
    has_worth = any(row.worth for row in comparison.rows)
    columns = (
        Column("system", "system"),
        Column("against", "against"),
        Column("measure", "measure", "name"),
        Column("mean", "mean", "number"),
        Column("difference", "difference [interval]", "name"),
        Column("verdict", "verdict", priority=1 if has_worth else 0),
        *([Column("worth", "worth it?")] if has_worth else []),
        Column("p_corrected", "adjusted p", "p", priority=1),
        Column("wtl", "W/T/L", "name", priority=2),
        Column("interval", f"{100 * comparison.terms.confidence:.3g} % interval", "name", priority=3),
        Column("p", "p", "p", priority=5),
        Column("effect", "d_z", "signed", 2, priority=4),
    )
    out = []
    for condition in comparison.conditions:
        body = []
        here = [row for row in rows if (row.dataset, row.first_stage) == (condition.dataset, condition.first_stage)]
        for line in here:
            row = known.get(_key(line))
            _, _, _, interval, p, p_corrected, effect, wtl = _figures(line, _mark(row))
            figures = (
                line.measure,
                line.mean,
                _with_interval(comparison, row) if row else "",
                shown_verdict(row) if row else "",
            )
            worth = (shown_worth(row) if row else "",) if has_worth else ()
            body.append((line.system, line.against, *figures, *worth, p_corrected, wtl, interval, p, effect))
        title = f"{condition}, {counted(here[0].queries, 'query')}{_depth(comparison, condition)}"
        out.append(Table("comparison", columns, tuple(body), title))
    notes = (*_footnotes(comparison, is_short=is_short), *_notes_of_marks(comparison))
    note = f"[interval]: {interval_note(comparison, comparison.rows)}"
    out[-1] = msgspec.structs.replace(out[-1], notes=(note, LEGEND, *notes))
    return tuple(out)


def _depth(comparison: Comparison, condition: Condition) -> str:
    """Return how many candidates of a query the runs re-ranked at most; "" where it is unknown or differs."""
    depths = {
        place.facts.deepest
        for system in comparison.systems
        for place in system.measured
        if system.run and place.condition == condition and place.facts is not None
    }
    return f", the top {depths.pop()} re-ranked" if len(depths) == 1 else ""


def _decides(comparison: Comparison) -> str:
    """Return what the interval beside a verdict is: with the others of the table, or by itself."""
    from cerank.evaluation.answers import is_simultaneous, percent_of

    primary = [row for row in comparison.rows if row.is_primary and row.verdict != "identical"]
    percent = percent_of(comparison, primary[0]) if primary else f"{100 * comparison.terms.confidence:.4g} %"
    if is_simultaneous(comparison):
        return f"simultaneous {percent} interval"
    is_adjusted = comparison.family > 1 and comparison.method == "bh"
    return f"adjusted {percent} interval" if is_adjusted else f"{percent} interval that decides"


def interval_note(comparison: Comparison, rows: Sequence[Row]) -> str:
    """Return which interval is given with a difference, and what a level beside an interval means."""
    others = dict.fromkeys(percent for row in rows if (percent := other_percent(comparison, row)))
    marked = [
        f"; marked {percent}: a {percent} interval, by which equivalence within the margin is tested"
        for percent in others
    ]
    return "".join([_decides(comparison), *marked])


def other_percent(comparison: Comparison, row: Row) -> str:
    """Return the confidence of the interval that a verdict within the margin rests on, where it is another one."""
    from cerank.evaluation.answers import percent_of

    if row.verdict not in {"equivalent", "different but negligible"}:
        return ""
    percent = percent_of(comparison, row, is_equivalence=True)
    return percent if percent != percent_of(comparison, row) else ""


def _with_interval(comparison: Comparison, row: Row) -> str:
    """Return a difference with the interval that its verdict rests on, in 23 characters.

    5 more name another level, 1 more marks that few queries differ.
    """
    judgment, mark = row.judgment, ""
    low, high = judgment.low, judgment.high
    if row.worth is None and judgment.verdict in {"equivalent", "different but negligible"}:
        low, high = judgment.equivalence_low or 0.0, judgment.equivalence_high or 0.0
        mark = f" {percent}" if (percent := other_percent(comparison, row)) else ""
    return f"{_signed(row.paired.difference)} [{_signed(low)}, {_signed(high)}]{mark}{_mark(row)}{_mark_of_step(row)}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:+.4f}"


_Key = tuple[str, str, str, str, str]


def _key(line: SummaryRow) -> _Key:
    return line.dataset, line.first_stage, line.measure, line.against, line.system


def _by_line(comparison: Comparison) -> dict[_Key, Row]:
    """Return the comparison's rows by the key of their line; a baseline's own line has none."""
    return {
        (row.condition.dataset, row.condition.first_stage, row.measure, row.left, row.right): row
        for row in comparison.rows
    }


def _footnotes(comparison: Comparison, *, is_short: bool = False) -> tuple[str, ...]:
    """Return the comparison's own, what is behind "cannot tell", and how far seeds spread."""
    from cerank.evaluation.comparison_rows import footnotes

    lines = list(footnotes(comparison, is_short=is_short))
    for measure in comparison.measures:
        rows = [row for row in comparison.rows if row.measure == measure]
        open_ = [row for row in rows if row.verdict == "cannot tell"]
        if open_:
            lines.append(_undecided(measure, rows, open_, "queries and seeds" if open_[0].recipes else "queries"))
        for row in rows:
            if row.judgment.basis == "exact sign flips" and row.verdict == "cannot tell":
                differ = row.paired.wins + row.paired.losses
                lines.append(
                    f"{row.right} against {row.left} by {measure} on {row.condition}: {differ} of "
                    f"{counted(row.paired.n, 'query')} differ; the smallest p that flipped signs can give is "
                    f"{min(1.0, 2.0 ** (1 - differ)):.2g}"
                )
    return (*lines, *_spreads(comparison))


def _mark(row: Row | None) -> str:
    """Return the mark after a row's interval where too few of its queries differ; "" for none."""
    from cerank.evaluation.comparison_rows import mark_of_few

    return "" if row is None else mark_of_few(row.paired, row.judgment.alpha, row.verdict)


def _mark_of_step(row: Row | None) -> str:
    """Return the mark after an interval that says less than its verdict; "" for none."""
    from cerank.evaluation.comparison_rows import mark_of_step

    return "" if row is None else mark_of_step(row.judgment)


def _notes_of_marks(comparison: Comparison) -> tuple[str, ...]:
    """Return what the marks after intervals mean, those that a row has."""
    from cerank.evaluation.comparison_rows import NOTE_OF_STEP, note_of_few

    few = (note_of_few(comparison.terms.alpha),) if any(map(_mark, comparison.rows)) else ()
    return (*few, NOTE_OF_STEP) if any(map(_mark_of_step, comparison.rows)) else few


def _undecided(measure: str, rows: Sequence[Row], open_: Sequence[Row], what: str) -> str:
    """Return what would have shown in the rows that cannot tell, as far as the measure leaves room for it."""
    known = [row for row in open_ if row.judgment.detectable is not None]
    text = f"undecided by {measure}: {len(open_)} of {counted(len(rows), 'pair')}"
    if not known:
        return text
    sizes = sorted(row.judgment.detectable or 0.0 for row in known)
    size = f"{sizes[0]:.4f}" + (f" to {sizes[-1]:.4f}" if f"{sizes[-1]:.4f}" != f"{sizes[0]:.4f}" else "")
    text += f"; {what} like these reveal a true difference in 4 of 5 cases only if it is at least {size}"
    without = len(open_) - len(known)  # an exact test of few differing queries has no standard error to say it by
    text += f" (not known for {without} of them)" if without else ""
    return text + _without_room(known)


def _without_room(rows: Sequence[Row]) -> str:
    """Return where the baseline is so good, or so bad, that no difference of that size is left."""
    parts = []
    for row in rows:
        size, limits = row.judgment.detectable or 0.0, row.limits
        if limits is not None and size > limits[1]:
            parts.append(f"only {max(limits[1], 0.0):.4f} is left above {row.left}")
    return "".join(f"; {part}" for part in dict.fromkeys(parts))


def _spreads(comparison: Comparison) -> tuple[str, ...]:
    """Return the spread of seeds beside that of queries, and what a verdict on means of seeds is about."""
    systems = {system.label: system for system in comparison.systems if system.members}
    lines = []
    for row in comparison.rows:
        for label in (row.left, row.right):
            if label not in systems:
                continue
            means = [_mean_at(member, row) for member in systems[label].members]
            lines.append(
                f"{label}: {counted(len(means), 'seed')}, averaged query by query; from seed to seed {row.measure} "
                f"varies by {statistics.stdev(means):.4f} (sd) on {row.condition}, from query to query the difference "
                f"varies by {row.paired.sd:.4f}"
            )
    if lines and comparison.terms.claim == "checkpoints":
        lines.append("verdicts are about these checkpoints; a claim about recipes counts the spread of seeds, too")
    for row in comparison.rows:
        if row.recipes is not None and row.recipes.is_paired:
            numbers = ", ".join(map(str, row.recipes.seeds))
            lines.append(
                f"{row.right} against {row.left} by {row.measure} on {row.condition}: about the recipes, seeds paired: "
                f"{numbers}; {row.recipes.estimate.df:.3g} degrees of freedom"
            )
        elif row.recipes is not None:
            lines.append(
                f"{row.right} against {row.left} by {row.measure} on {row.condition}: about the recipes, by "
                f"{row.recipes.seeds_right} and {row.recipes.seeds_left} seeds, not taken as pairs, "
                f"{row.recipes.estimate.df:.3g} degrees of freedom"
            )
    return tuple(dict.fromkeys(lines))


def _mean_at(system: System, row: Row) -> float:
    at = next(entry for entry in system.measured if entry.condition == row.condition)
    return statistics.fmean(at.values[row.measure].values())


def _is_other(row: Row) -> bool:
    """Return whether the interval beside the verdict is not the row's own at the comparison's confidence."""
    judgment = row.judgment
    if row.verdict in {"equivalent", "different but negligible"}:
        return True
    return max(abs(judgment.low - row.low), abs(judgment.high - row.high)) > _SAME


def _rests_on(comparison: Comparison, row: Row | None, mark: str = "") -> str:
    """Return the interval that belongs to a verdict, for equivalence with its level and the margin that it lies in."""
    if row is None:
        return ""
    judgment, parts = row.judgment, []
    if row.verdict != "equivalent" or row.worth is not None:  # whether it is worth its cost is read off this one
        parts.append(f"[{judgment.low:+.4f}, {judgment.high:+.4f}]")
    if row.verdict in {"equivalent", "different but negligible"} and judgment.margin:
        inner = f"[{judgment.equivalence_low:+.4f}, {judgment.equivalence_high:+.4f}]"
        parts = [part for part in parts if part != inner]
        level = f"{percent} " if (percent := other_percent(comparison, row)) else ""
        parts.append(f"{level}{inner} in ±{judgment.margin.value:g}")
    return ", ".join(parts) + (mark if parts else "")


def _title(comparison: Comparison, rows: Sequence[SummaryRow], is_one: bool) -> str:
    against = "every pair" if comparison.terms.pairs == "all" else f"against {comparison.baseline}"
    if comparison.terms.pairs == "stages":
        against = "each stage against the one before it and the first stage"
    if not is_one:
        return against
    condition = comparison.conditions[0]
    return f"{condition}, {counted(rows[0].queries, 'query')}{_depth(comparison, condition)}, {against}"


def _figures(row: SummaryRow, mark: str = "") -> tuple[str | float | None, ...]:
    if row.difference is None or row.low is None or row.high is None:
        return (row.measure, row.mean, None, "", None, None, None, "")
    interval = f"[{row.low:+.4f}, {row.high:+.4f}]{mark}"
    record = "" if row.wins is None else f"{row.wins}/{row.ties}/{row.losses}"
    adjusted = row.p_corrected if row.is_primary else None  # a row outside the family is not adjusted
    return (row.measure, row.mean, row.difference, interval, row.p, adjusted, row.effect, record)


def as_text(comparison: Comparison, form: Form, *, with_reasons: bool = False) -> str:
    """Return the comparison in `form`, footnotes included where the form has a place for them."""
    from cerank.app.comparison.several_collections import pool_comparisons

    if form == "json":
        pooled, not_pooled = pool_comparisons.if_possible(comparison)
        return document(comparison, with_reasons=with_reasons, pooled=pooled, not_pooled=not_pooled)
    if form not in {"latex", "markdown"}:
        return written([full_table(comparison, with_reasons=with_reasons)], form)
    table = short_table(comparison, with_reasons=with_reasons)
    text = written([table], form)
    return text if form == "latex" else f"{escapes.markdown(table.title)}\n\n{text}"


def form_named(name: str) -> Form:
    """Return the form of that name, or of files with that ending.

    Raises:
        UsageError: there is none.
    """
    for form in FORMS:
        if name.lower() in {form, ENDINGS[form], ENDINGS[form][1:]}:
            return form
    raise UsageError(
        f"no form is called '{name}'", hint=nearest(name, [*FORMS, *ENDINGS.values()]), code="unknown-format"
    )


def ending_error(path: Path) -> str:
    """Return what keeps a file's ending from saying the form; "" for nothing."""
    try:
        form_named(path.suffix)
    except UsageError as error:
        return f"{error.what}; {error.hint}"
    return ""


def suggested(comparison: Comparison, form: Form) -> str:
    """Return a file name for the comparison: what was compared, in plain characters."""
    others = [system.label for system in comparison.systems if system.label != comparison.baseline]
    return f"{plain_name(f'{others[0]}-against-{comparison.baseline}', 60)}{ENDINGS[form]}"


def path_error(path: Path, *, replace: bool = False) -> str:
    """Return what keeps a file from being written there, as far as can be seen; "" for nothing."""
    if "\0" in str(path) or not path.name:
        return "not the name of a file"
    target = path.expanduser().absolute()
    if not target.parent.is_dir():
        return "its folder does not exist"
    if target.is_dir():
        return "is a folder; name a file in it"
    return "exists already; give another name" if target.exists() and not replace else ""


def save(text: str, path: Path, *, replace: bool = False) -> Path:
    """Write `text` completely or not at all, and return the absolute path.

    Raises:
        UsageError: its folder is not there, or (without `replace`) it exists.
        RunFailedError: the disk refuses.
    """
    if mistake := path_error(path, replace=replace):
        raise UsageError(mistake, where=str(path), code="file-exists")
    target = path.expanduser().absolute()
    disk.write(target, text.encode())
    return target
