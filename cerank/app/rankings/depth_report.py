"""The depths of a run, or of two TREC run files, as curves with their tests, as a table, and as a figure.

Invariant: reading only; a run's depths are measured from its stored rankings and candidates, so a run that was made
without `[evaluate] depths` can be looked at, too, and no file of it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, export_comparison, named_systems, stage_costs
from cerank.app.comparison import margins as margins_of
from cerank.app.comparison.measuring import named_judgments, run_systems
from cerank.errors import MissingError, UsageError
from cerank.evaluation.answers import shown
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.compare import Row
    from cerank.evaluation.studies.depth_curve import DepthCurve, DepthRanking, DepthStudy
    from cerank.evaluation.verdicts.terms import Margin

WHERE = "evaluate.depths"


class DepthRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whose depths to show, which, and by what measures."""

    target: str  # a run, RUN:STAGE, or a TREC run file
    first_stage: str = ""  # the TREC run file whose candidates a file re-ranked
    depths: tuple[int, ...] = ()  # empty: those of the run's recipe
    measures: tuple[str, ...] = ()  # empty: the first one of the run's recipe, or that of files
    dataset: str = ""
    qrels: str = ""
    margins: tuple[str, ...] = ()  # `MEASURE=NUMBER` each, chosen now
    margins_because: str = ""
    confidence: float = 0.95
    now: str = ""  # UTC, ISO 8601


def study(settings: Settings, request: DepthRequest) -> DepthStudy:
    """Return the curves that the request names.

    Raises:
        UsageError: a depth beyond the candidates; a file without its first stage; no depths at all.
        MissingError: the run has not been measured yet.
    """
    if request.dataset and request.qrels:
        raise UsageError("give --dataset or --qrels, not both")
    target = named_systems.target(settings.lab, request.target)
    if isinstance(target, named_systems.FileTarget):
        return _of_file(settings, target, request)
    for option, value in (("--first-stage", request.first_stage), ("--qrels", request.qrels)):
        if value:
            what = "a run of the lab is measured over its own candidates, on its own qrels"
            raise UsageError(what, where=option, hint="leave the option out", code="option-unused")
    systems = [target.system] if ":" in request.target else _trained(target.plan)
    if target.system not in _trained(target.plan):
        what = f"{target.system} has no depth to choose: no model scored it"
        raise UsageError(what, where=request.target, hint="name a stage of the run", code="no-depths")
    return of_run(target.folder, request, systems)


def declared(folder: RunFolder, plan: Plan) -> DepthStudy | None:
    """Return the curves that a run's recipe asks for; None where it names no depths.

    Raises:
        MissingError: no stage of it has been measured yet.
    """
    if not plan.recipe.evaluate.depths:
        return None
    done = [name for name in _trained(plan) if _is_ranked(folder, plan, name)]
    if not done:
        raise MissingError("nothing of it has been re-ranked and measured yet", where=run_store.title(folder))
    return of_run(folder, DepthRequest(target=folder.name), done)


def _trained(plan: Plan) -> list[str]:
    return [*plan.recipe.chain, *plan.recipe.baseline_models()]


def _is_ranked(folder: RunFolder, plan: Plan, system: str) -> bool:
    data = plan.recipe.data
    return all(folder.measures(system, test, first).exists() for test in data.test for first in data.first_stages)


def of_run(folder: RunFolder, request: DepthRequest, systems: Sequence[str]) -> DepthStudy:
    """Return the curves of some systems of a run, over all its test datasets and first stages."""
    from cerank.evaluation.measures import canonical, check
    from cerank.evaluation.studies.depth_curve import check_depths, depth_study
    from cerank.evaluation.verdicts.terms import Terms

    plan = run_store.load_plan(folder)
    data = plan.recipe.data
    requested = request.depths or plan.recipe.evaluate.depths
    if not requested:
        hint = f"give --depths, such as --depths 10,{data.depth // 2}, or declare them in [evaluate] depths"
        raise UsageError("its recipe names no depths", where=run_store.title(folder), hint=hint, code="no-depths")
    depths = check_depths(requested, data.depth, "--depths" if request.depths else WHERE)
    tests = [
        test for test in data.test if not request.dataset or request.dataset in {test, named_systems.short_name(test)}
    ]
    if not tests:
        raise UsageError(f"the run was not tested on '{request.dataset}'", where="--dataset")
    rankings = [
        _ranking_of_run(folder, plan, system, test, first)
        for system in systems
        for test in tests
        for first in data.first_stages
    ]
    names = tuple(canonical(name, "--measure") for name in request.measures) or plan.measures_on(tests[0])[:1]
    for ranking in rankings:
        names = check(names, ranking.qrels, "--measure")
    targets = [named_systems.RunTarget(name, folder, plan, name) for name in (named_systems.FIRST_STAGE, *systems)]
    declared_before = comparisons.declared_margins(targets, names, all_pairs=False)
    terms = Terms(margins=_margins(request, names, declared_before), confidence=request.confidence)
    return depth_study(rankings, depths, names, terms)


def _ranking_of_run(folder: RunFolder, plan: Plan, system: str, test: str, first: str) -> DepthRanking:
    from cerank.evaluation.studies.depth_curve import DepthRanking
    from cerank.evaluation.systems import Condition

    before, after = (
        run_systems.ranking_of_run(named_systems.RunTarget(name, folder, plan, name), test, first)
        for name in (named_systems.FIRST_STAGE, system)
    )
    speeds = {cost.stage: cost.pairs_per_second for cost in stage_costs.of_run(folder, plan)}
    speed = speeds.get(system)
    qrels = run_systems.qrels_of_run(folder, test)
    return DepthRanking(
        system=system,
        condition=Condition(named_systems.short_name(test), named_systems.short_name(first)),
        candidates=before,
        reranked=after,
        qrels=qrels,
        qrels_sha256=named_judgments.identity(qrels),
        seconds_a_pair=1 / speed if speed else None,
    )


def _of_file(settings: Settings, target: named_systems.FileTarget, request: DepthRequest) -> DepthStudy:
    from cerank.evaluation.measures import check
    from cerank.evaluation.studies.depth_curve import DepthRanking, check_depths, depth_study, greatest_depth
    from cerank.evaluation.systems import Condition
    from cerank.evaluation.verdicts.terms import Terms
    from cerank.trec.text_io import read_run

    if not request.first_stage:
        hint = "give the TREC run that was re-ranked: --first-stage FILE"
        raise UsageError(
            "a file does not say what it re-ranked", where=request.target, hint=hint, code="no-first-stage"
        )
    if not request.depths:
        raise UsageError("no depths are given", where="--depths", hint="such as --depths 10,20,50", code="no-depths")
    before = named_systems.target(settings.lab, request.first_stage)
    if not isinstance(before, named_systems.FileTarget):
        raise UsageError("is a run of the lab, not a TREC run file", where="--first-stage", code="not-a-run-file")
    name, qrels = named_judgments.judgments(settings, request.dataset, request.qrels)
    candidates = read_run(before.path).ranking.only(list(qrels))
    reranked = read_run(target.path).ranking.only(list(qrels))
    if not candidates or not reranked:
        empty = before if not candidates else target
        raise UsageError(f"no query of the run is judged in {name}", where=str(empty.path), code="no-judged-query")
    greatest = greatest_depth(candidates, reranked, str(target.path))
    depths = check_depths(request.depths, greatest, "--depths")
    names = check(request.measures or ("nDCG@10",), qrels, "--measure")
    ranking = DepthRanking(
        system=target.label,
        condition=Condition(named_systems.short_name(name), before.label),
        candidates=candidates,
        reranked=reranked,
        qrels=qrels,
        qrels_sha256=named_judgments.identity(qrels),
    )
    terms = Terms(margins=_margins(request, names, {}), confidence=request.confidence)
    return depth_study([ranking], depths, names, terms)


def _margins(request: DepthRequest, names: Sequence[str], declared_before: dict[str, Margin]) -> dict[str, Margin]:
    """Return the margins of the measures that are shown: those chosen now before those that were declared."""
    typed = margins_of.typed_by_measure(request.margins)
    chosen = margins_of.chosen(typed, declared_before, now=request.now, because=request.margins_because)
    return {name: margin for name, margin in chosen.items() if name in names or name in typed}


_NOTES = (
    "candidates were scored once, at the greatest depth; at a smaller one, the candidates below it follow in the order "
    "of the first stage",
    "s/query: the documents at that depth times the speed measured at the greatest one; an estimate",
)


def table(depth_study: DepthStudy) -> Table:
    """Return all curves for people: a row for each depth."""
    is_one, is_same = len(depth_study.curves) == 1, _same_condition(depth_study)
    columns = (
        Column("system", "system", "name", priority=4 if is_one else 0),
        Column("dataset", "dataset", "name", priority=3 if is_same else 0),
        Column("first_stage", "first stage", "name", priority=3 if is_same else 0),
        Column("measure", "measure", "name", priority=2 if is_one else 0),
        Column("depth", "depth", "number", 0),
        Column("mean", "mean [interval]"),
        Column("seconds", "s/query", "number", 3),
        Column("difference", "to the deepest [interval]"),
        Column("verdict", "verdict"),
        Column("p_corrected", "adjusted p", "p", priority=3),
        Column("first_difference", "to first stage", "signed", priority=1),
        Column("first_verdict", "verdict on it", priority=1),
    )
    rows = []
    for curve in depth_study.curves:
        for point in curve.points:
            deepest, first = point.against_deepest, point.against_first
            interval = "" if point.low is None or point.high is None else f" [{point.low:.3f}, {point.high:.3f}]"
            rows.append(
                (
                    curve.system,
                    *(curve.condition.dataset, curve.condition.first_stage, curve.measure, point.depth),
                    f"{point.mean:.4f}{interval}",
                    point.seconds,
                    "" if deepest is None else _shown_to_deepest(depth_study, deepest),
                    "the deepest" if deepest is None else _mirrored_text(deepest),
                    None if deepest is None else deepest.judgment.p_corrected,
                    first.paired.difference,
                    shown(first.judgment, first.paired.difference),
                )
            )
    return Table("depths", columns, tuple(rows), _title(depth_study), _notes(depth_study))


def _notes(depth_study: DepthStudy) -> tuple[str, ...]:
    several = len(depth_study.curves) > 1
    said = [line for curve in depth_study.curves for line in _said(curve, several)]
    from cerank.evaluation.comparison_rows import NOTE_OF_STEP

    compared = [point.against_deepest for curve in depth_study.curves for point in curve.points]
    is_beyond = any(row is not None and row.judgment.is_beyond_interval for row in compared)
    notes = (*said, *_NOTES, _intervals(depth_study), _family(depth_study), *_margin_notes(depth_study))
    return (*notes, NOTE_OF_STEP) if is_beyond else notes


def full_table(depth_study: DepthStudy) -> Table:
    """Return all curves for machines: a row for each depth, every figure in a column of its own."""
    columns = (
        *(Column(key, key, "name") for key in ("system", "dataset", "first_stage", "measure")),
        Column("depth", "depth", "number", 0),
        Column("queries", "queries", "number", 0),
        *(Column(key, key, "number") for key in ("mean", "low", "high", "first_stage_mean", "pairs", "seconds")),
        *(Column(key, key, "signed") for key in ("difference_to_deepest", "difference_low", "difference_high")),
        Column("verdict_to_deepest", "verdict"),
        Column("p_to_deepest", "p", "p"),
        Column("p_to_deepest_corrected", "adjusted p", "p"),
        Column("difference_to_first_stage", "to first stage", "signed"),
        Column("verdict_to_first_stage", "verdict on it"),
        Column("p_to_first_stage", "p of it", "p"),
        Column("p_to_first_stage_corrected", "adjusted p of it", "p"),
        Column("is_enough", "enough"),
        Column("is_hurt", "worse than a smaller depth"),
    )
    rows = []
    for curve in depth_study.curves:
        head = (curve.system, curve.condition.dataset, curve.condition.first_stage, curve.measure)
        for point in curve.points:
            deepest, first = point.against_deepest, point.against_first
            rows.append(
                (
                    *head,
                    *(point.depth, curve.queries, point.mean, point.low, point.high, curve.first_mean),
                    *(point.pairs, point.seconds),
                    *((None, None, None) if deepest is None else _to_deepest(deepest)),
                    None if deepest is None else _MIRRORED.get(deepest.verdict, deepest.verdict),
                    *((None, None) if deepest is None else (deepest.judgment.p, deepest.judgment.p_corrected)),
                    *(first.paired.difference, first.verdict, first.judgment.p, first.judgment.p_corrected),
                    point.depth == curve.enough,
                    curve.hurt_at is not None and point.depth == curve.hurt_at[0],
                )
            )
    return Table("depths", columns, tuple(rows), _title(depth_study), _notes(depth_study))


_MIRRORED = {"better": "worse", "worse": "better"}


def _to_deepest(row: Row) -> tuple[float, float, float]:
    """Return how a depth does against the deepest, with the interval of its verdict; the row says the reverse."""
    judgment = row.judgment
    low, high = judgment.low, judgment.high
    if judgment.verdict in {"equivalent", "different but negligible"}:
        low, high = judgment.equivalence_low or 0.0, judgment.equivalence_high or 0.0
    return -row.paired.difference, -high, -low


def _shown_to_deepest(depth_study: DepthStudy, row: Row) -> str:
    """Return a difference with its interval, and the level of that where it is not the one of the others."""
    text = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*_to_deepest(row))
    from cerank.evaluation.comparison_rows import mark_of_step

    percent = export_comparison.other_percent(depth_study.comparison, row)
    return (f"{text} {percent}" if percent else text) + mark_of_step(row.judgment)


def _intervals(depth_study: DepthStudy) -> str:
    """Return which interval is given with a mean, and which with a difference."""
    comparison = depth_study.comparison
    text = f"[interval] of a mean: {100 * comparison.terms.confidence:.4g} %, over queries, by itself"
    shown = [point.against_deepest for curve in depth_study.curves for point in curve.points if point.against_deepest]
    return f"{text}; of a difference: {export_comparison.interval_note(comparison, shown)}"


def _mirrored_text(row: Row) -> str:
    verdict = _MIRRORED.get(row.verdict)
    return verdict or shown(row.judgment, -row.paired.difference)


def _family(depth_study: DepthStudy) -> str:
    comparison = depth_study.comparison
    return (
        f"{comparison.family} comparisons, of each depth with each other and with the first stage, corrected together "
        f"({comparison.method}); they are a family apart from that of the stages"
    )


def _said(curve: DepthCurve, several: bool) -> tuple[str, ...]:
    from cerank.evaluation.studies.depth_curve import sentences

    return sentences(curve, has_other=several)


def _same_condition(depth_study: DepthStudy) -> bool:
    return len({curve.condition for curve in depth_study.curves}) == 1


def _title(depth_study: DepthStudy) -> str:
    first = depth_study.curves[0]
    of = f"{first.system}, " if len(depth_study.curves) == 1 else ""
    where = f"{first.condition}: " if _same_condition(depth_study) else ""
    return (
        f"How deep to re-rank: {of}{where}{first.queries} queries, first stage {first.measure} {first.first_mean:.4f}"
    )


def _margin_notes(depth_study: DepthStudy) -> list[str]:
    margins = depth_study.comparison.terms.margins
    return [
        f"margin for {name}: ±{margin.shown}"
        + (f", declared {margin.declared} ({margin.source})" if margin.before else ", chosen after the results")
        for name, margin in margins.items()
    ]
