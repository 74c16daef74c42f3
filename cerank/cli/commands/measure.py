"""Commands that measure rankings and compare them, and the options that such commands share."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import emit, info, is_for_machines, write_output
from cerank.cli.tables import measured_tables
from cerank.errors import UsageError
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.app.comparison.comparisons import ComparisonRequest
    from cerank.evaluation.compare import Comparison
    from cerank.settings import Settings

Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="DATASET",
        help="Dataset that gives queries and qrels. Several as dl19+dl20, beir:*, nanobeir or './folder/*': those on "
        "disk are taken, and {dataset} in the name of a run file stands for each of them.",
    ),
]
Qrels = Annotated[str, typer.Option("--qrels", metavar="FILE", help="Qrels file, in place of a dataset.")]


_JUDGED = "Statistics"
_MORE = "What to show"

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="A B [C...]",
        help="Runs (RUN or RUN:STAGE) or TREC run files, the baseline first. "
        "LABEL=RUN,RUN,... groups the seeds of a recipe.",
    ),
]
Margin = Annotated[
    list[str] | None,
    typer.Option(
        "--margin",
        metavar="MEASURE=NUMBER",
        help="Largest difference that would not matter to you, such as nDCG@10=.02, or nDCG@10=5% of the baseline's "
        "mean. Given here it counts as chosen after the results; declare it before, in the recipe ([evaluate] margins) "
        "or by `cerank declare`. May be repeated.",
        rich_help_panel=_JUDGED,
    ),
]
Worth = Annotated[
    list[str] | None,
    typer.Option(
        "--worth",
        metavar="MEASURE=NUMBER",
        help="Gain that would pay for a system: the table says whether it is worth it, or the gain is ruled out. "
        "Declare it in the recipe ([evaluate] worth) before the run. May be repeated.",
        rich_help_panel=_JUDGED,
    ),
]
Harm = Annotated[
    list[str] | None,
    typer.Option(
        "--harm",
        metavar="MEASURE=NUMBER",
        help="Largest loss that would not matter, beside --worth. Default: the margin. May be repeated.",
        rich_help_panel=_JUDGED,
    ),
]
MarginsBecause = Annotated[
    str,
    typer.Option(
        "--margins-because",
        metavar="TEXT",
        help="Why --margin, --worth and --harm have these sizes; printed under every table.",
        rich_help_panel=_JUDGED,
    ),
]
Correction = Annotated[
    Literal["auto", "holm", "bh", "bonferroni", "max-t", "none"],
    typer.Option(
        "--correction",
        help="How p is adjusted over the table. auto: max-t where all rows share their queries, else holm (any table); "
        "bh: exploring; none: one planned comparison.",
        rich_help_panel=_JUDGED,
    ),
]
Family = Annotated[
    str,
    typer.Option(
        "--family",
        metavar="N|looks",
        help="How many comparisons you planned in all, where this table shows only some of them. looks: this table's "
        "and all that this lab's record of looks has with a verdict on the same judgments; refused where the record "
        "is missing or damaged.",
        rich_help_panel=_JUDGED,
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        metavar="C",
        help="Confidence of intervals; verdicts err in at most 1 - C. Default: .95.",
        rich_help_panel=_JUDGED,
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha",
        metavar="A",
        help="Error rate of the family's verdicts: --confidence is 1 - A. Default: .05.",
        rich_help_panel=_JUDGED,
    ),
]
Pairs = Annotated[
    Literal["baseline", "all"],
    typer.Option("--pairs", help="Compare each ranking with the first one, or every pair.", rich_help_panel=_JUDGED),
]
Primary = Annotated[
    list[str] | None,
    typer.Option(
        "--primary",
        metavar="QUESTION",
        help="What verdicts are about: MEASURE, or MEASURE: B against A. All other rows are descriptive, outside the "
        "family. May be repeated.",
        rich_help_panel=_JUDGED,
    ),
]
Claim = Annotated[
    Literal["checkpoints", "recipes"],
    typer.Option(
        "--claim",
        help="What a verdict is about: these checkpoints, or the recipes they came from (needs several seeds: "
        "LABEL=RUN,RUN,...).",
        rich_help_panel=_JUDGED,
    ),
]
Plan = Annotated[
    str,
    typer.Option(
        "--plan",
        metavar="TITLE",
        help="Compare by this declared plan (title or hash; see `cerank declare`): its measures, margins, correction.",
        rich_help_panel=_JUDGED,
    ),
]
HourPrice = Annotated[
    float | None,
    typer.Option(
        "--hour-price",
        min=0.0,
        metavar="N",
        help="What an hour of the device costs: shows what the training of compared runs cost in money, too. Default: "
        "the setting hour_price.",
        rich_help_panel=_MORE,
    ),
]
InDomain = Annotated[
    list[str] | None,
    typer.Option(
        "--in-domain",
        metavar="DATASET",
        help="Test set that training data came from: it and the others are pooled apart, too. Default: those whose "
        "collection the compared runs were trained on. May be repeated.",
        rich_help_panel=_MORE,
    ),
]
WithSecondary = Annotated[
    bool,
    typer.Option("--secondary", help="Show other tests beside the t-test, in a second table.", rich_help_panel=_MORE),
]
JudgedOnly = Annotated[
    bool,
    typer.Option(
        "--judged-only",
        help="Show each measure over judged documents only, too (condensed lists).",
        rich_help_panel=_MORE,
    ),
]
WithRisk = Annotated[
    bool,
    typer.Option(
        "--risk",
        help="Show which share of queries is hurt, and how few carry the difference, in a second table.",
        rich_help_panel=_MORE,
    ),
]
WithBounds = Annotated[
    bool,
    typer.Option(
        "--bounds",
        help="Show what unjudged documents and the order of ties can change, in a further table.",
        rich_help_panel=_MORE,
    ),
]
JudgeNext = Annotated[
    Path | None,
    typer.Option(
        "--judge-next",
        metavar="FILE",
        help="Write which unjudged documents to judge next, as a TREC run: those first whose judgment can move the "
        "difference most.",
        rich_help_panel=_MORE,
    ),
]
Reasons = Annotated[bool, typer.Option("--reasons", help="Explain each verdict in a sentence.", rich_help_panel=_MORE)]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Print the whole comparison as JSON, with every per-query value.",
        rich_help_panel=_MORE,
    ),
]


def confidence_of(confidence: float | None, alpha: float | None) -> float:
    """Return the confidence that --confidence or --alpha gives; .95 without either.

    Raises:
        UsageError: both are given, or one lies outside its range.
    """
    if confidence is not None and alpha is not None:
        raise UsageError("--confidence and --alpha say the same", hint="give only one of them")
    if confidence is not None and not 0.5 <= confidence < 1:
        raise UsageError(f"{confidence:g} is not between .5 and 1", where="--confidence", hint="such as .95")
    if alpha is not None and not 0 < alpha <= 0.5:
        raise UsageError(f"{alpha:g} is not between 0 and .5", where="--alpha", hint="such as .05")
    return confidence if confidence is not None else round(1 - (0.05 if alpha is None else alpha), 12)


def _family_size(family: str, correction: str) -> int:
    """Return how many comparisons --family declares; 0 for none, or for those that the record of looks has.

    Raises:
        UsageError: it is neither a number nor `looks`, or nothing is adjusted.
    """
    if family == "looks":
        return 0
    if not family.isascii() or not family.isdigit():
        raise UsageError(f"'{family}' is neither a number nor looks", where="--family", hint="such as --family 12")
    if int(family) and correction == "none":
        raise UsageError(
            "p is not adjusted, so that a family changes nothing",
            where=f"--family {family}",
            hint="leave --correction none out",
            code="family-without-correction",
        )
    return int(family)


def compare(
    names: Names,
    measure: options.Measure = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    margin: Margin = None,
    worth: Worth = None,
    harm: Harm = None,
    margins_because: MarginsBecause = "",
    correction: Correction = "auto",
    family: Family = "0",
    confidence: Confidence = None,
    alpha: Alpha = None,
    pairs: Pairs = "baseline",
    primary: Primary = None,
    claim: Claim = "checkpoints",
    plan: Plan = "",
    in_domain: InDomain = None,
    with_secondary: WithSecondary = False,
    with_risk: WithRisk = False,
    with_bounds: WithBounds = False,
    judge_next: JudgeNext = None,
    hour_price: HourPrice = None,
    judged_only: JudgedOnly = False,
    reasons: Reasons = False,
    full: Full = False,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Compare rankings query by query: better, worse, equivalent, different but negligible, or cannot tell.

    The table has differences with intervals, paired tests adjusted over the whole table, effect sizes, and equivalence
    within a margin. `cerank guide verdicts` explains them.
    """
    from cerank.app.checks import verify_run
    from cerank.app.comparison import comparisons, export_comparison, letters_table, named_systems
    from cerank.app.evidence import bounds_of_comparison, declared_plans, system_costs
    from cerank.app.rankings import cross_validation
    from cerank.cli.live_status import print_answers
    from cerank.evaluation.answers import paragraphs
    from cerank.evaluation.verdicts.terms import Terms

    settings = settings_of(lab, cache, form=form, json=json)
    if len(names) < 2:
        raise UsageError("a comparison needs at least two rankings", hint="such as `cerank compare A B`")
    _check_outputs(settings, judge_next, full=full)
    names = list(named_systems.with_dataset_runs(settings.lab, names, dataset, settings.cache))
    request = comparisons.ComparisonRequest(
        targets=tuple(names),
        measures=tuple(measure or ()),
        dataset=dataset,
        qrels=qrels,
        judged_only=judged_only,
        terms=Terms(
            confidence=confidence_of(confidence, alpha),
            correction=correction,
            family=_family_size(family, correction),
            pairs=pairs,
            claim=claim,
            with_secondary=with_secondary,
        ),
        margins=tuple(margin or ()),
        primary=tuple(primary or ()),
        worth=tuple(worth or ()),
        harm=tuple(harm or ()),
        margins_because=margins_because,
        counts_looks=family == "looks",
        now=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    made = declared_plans.compare(settings, request, by="compare", plan=plan, pools=not full, in_domain=in_domain or ())
    comparison, pooled, not_pooled = made.comparison, made.pooled, made.not_pooled
    if with_bounds or judge_next is not None:
        comparison = _bounded(settings, request, comparison, judge_next)
    if full:
        write_output(export_comparison.complete(comparison), raw=True)
        return
    costs = system_costs.of_comparison(settings, names, comparison, hour_price)
    if settings.format == "json":
        text = export_comparison.document(
            comparison,
            with_reasons=reasons,
            command=shlex.join(["cerank", *sys.argv[1:]]),
            costs=costs,
            looks=made.looks,
            plan=made.plan,
            pooled=pooled,
            not_pooled=not_pooled,
        )
        write_output(text, raw=True)
    else:
        shown = [measured_tables.comparison_table(comparison, settings.format, with_reasons=reasons, costs=costs)]
        shown += [export_comparison.secondary(comparison)] if with_secondary else []
        shown += [export_comparison.risk_table(comparison)] if with_risk else []
        shown += [bounds_of_comparison.table(comparison)] if with_bounds else []
        of_folds = cross_validation.fold_rows(comparison)
        is_marked = not is_for_machines(settings.format)
        of_all = (of_folds, comparison.terms.confidence, claim)
        shown += [cross_validation.fold_table(*of_all, is_marked=is_marked)] if of_folds else []
        shown += [measured_tables.pooled_table(pooled, settings.format)] if pooled is not None else []
        shown += [system_costs.table(costs)] if len(costs) > 1 and not is_for_machines(settings.format) else []
        emit(shown, settings.format, wide=wide)
        if pairs == "all" and settings.format == "latex":
            write_output("\n" + letters_table.latex(comparison), raw=True)
    measured_tables.print_footnotes(comparison, settings.format)
    for note in (
        *made.notes,
        *([not_pooled] if not_pooled else []),
        *named_systems.notes_on_folds(settings.lab, names),
    ):
        info(note)
    for system in comparison.systems:
        for note in system.notes:
            info(f"{system.label}: {note}")
    print_answers(paragraphs(comparison, costs))
    for doubt in verify_run.warnings_about(settings.lab, names):
        info(doubt)


def _check_outputs(settings: Settings, judge_next: Path | None, *, full: bool) -> None:
    """Refuse what could not be written.

    Raises:
        UsageError: --full in a form that is not JSON; a file that cannot be written there.
    """
    from cerank.app.comparison import export_comparison

    if full and settings.format not in {"", "json"}:
        raise UsageError(f"--full prints JSON, not {settings.format}", hint="omit --format")
    if judge_next is not None and (mistake := export_comparison.path_error(judge_next, replace=True)):
        raise UsageError(mistake, where=f"--judge-next {judge_next}")


def _bounded(
    settings: Settings, request: ComparisonRequest, comparison: Comparison, judge_next: Path | None
) -> Comparison:
    """Return the comparison with bounds in its rows, and write which documents to judge next."""
    from cerank.app.comparison import export_comparison
    from cerank.app.evidence import bounds_of_comparison

    if judge_next is not None:
        bounds_of_comparison.judging_files(comparison, (), judge_next)  # refused before bounds are computed
    comparison, to_judge = bounds_of_comparison.with_bounds(settings, request, comparison)
    if judge_next is not None:
        for path, documents in bounds_of_comparison.judging_files(comparison, to_judge, judge_next).items():
            export_comparison.save(bounds_of_comparison.judging_file(documents), path, replace=True)
            info(f"{counted(len(documents), 'document')} to judge next written to {path}")
    return comparison


def evaluate(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="TREC run files.")],
    measure: options.Measure = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    per_query: Annotated[bool, typer.Option("--per-query", help="Show a row for each query.")] = False,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Measure TREC runs with the qrels of a dataset or a file (as `trec_eval -c`: a query without results counts 0)."""
    from cerank.app.comparison import comparisons, named_systems

    settings = settings_of(cache=cache, form=form, json=json)
    targets = [named_systems.target(settings.lab, name) for name in run]
    request = comparisons.ComparisonRequest(measures=tuple(measure or ()), dataset=dataset, qrels=qrels)
    systems, names = comparisons.measured_systems(settings, targets, request)
    shown = measured_tables.measure_table(systems, names, per_query=per_query, form=settings.format)
    emit(shown, settings.format)
    for system in systems:
        for note in system.notes:
            info(f"{system.label}: {note}")
