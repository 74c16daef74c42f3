"""From what the user names (runs, stages of runs, TREC run files) to a comparison of measured systems.

Start at `compare`. `named_systems` reads the names; `measuring` measures runs, run files, and says who made the labels;
`evaluation.compare` makes the table of verdicts; `several_collections` pools it over several collections.

Invariant: a number on screen has files; see `measuring.run_systems`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import margins as margins_of
from cerank.app.comparison.margins import Kind
from cerank.app.comparison.measuring import file_systems, label_makers, recorded_collections, run_systems
from cerank.app.comparison.measuring.named_judgments import Qrels, judged_by
from cerank.app.comparison.named_systems import (
    FIRST_STAGE,
    PER_DATASET,
    FileTarget,
    RunTarget,
    SeedsTarget,
    Target,
    have_paired_seeds,
    of_dataset,
    short_name,
    sources,
    systems_of,
    targets_of,
)
from cerank.app.test_collections.collection_groups import check_names, group_of, is_group, matching
from cerank.errors import MissingError, UsageError
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from cerank.text.safe_text import shown

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.systems import Condition, System
    from cerank.evaluation.verdicts.terms import Margin, Terms


def declared_margins(
    targets: Sequence[Target], measures: Sequence[str], *, all_pairs: bool, kind: Kind = "margins"
) -> dict[str, Margin]:
    """Return the margins (or gains, or harm margins) that the targets' plans declare; the first is the baseline."""
    sides = [sources(target) for target in targets]
    pairs = list(combinations(sides, 2)) if all_pairs else [(sides[0], side) for side in sides[1:]]
    return margins_of.declared(measures, pairs, kind)


class ComparisonRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to compare, on what data, and how: all that a comparison is asked for with."""

    targets: tuple[str, ...] = ()  # see `targets_of`; the first is the baseline
    measures: tuple[str, ...] = ()  # empty: those of the first run's plan, else of the judgments; see `_of_files`
    dataset: str = ""  # whose qrels files are measured on; for runs, the one test dataset to look at
    qrels: str = ""  # a qrels file, in place of a dataset
    judged_only: bool = False  # compare by each measure over judged documents only, too
    terms: Terms | None = None  # None: the defaults; margins in it win over all others
    primary: tuple[str, ...] = ()  # questions that verdicts are about; see `evaluation.primary_questions`
    margins: tuple[str, ...] = ()  # `MEASURE=NUMBER` each, chosen now: they win over declared ones
    worth: tuple[str, ...] = ()  # the same, of the gain that would pay for a system
    harm: tuple[str, ...] = ()  # the same, of the largest loss that would not matter
    counts_looks: bool = False  # the family holds the verdicts that the lab has on these judgments already, too
    margins_because: str = ""  # why margins, gains and harm margins chosen now have their sizes
    now: str = ""  # UTC, ISO 8601: when those margins are chosen


def compare(settings: Settings, request: ComparisonRequest) -> Comparison:
    """Compare what the request names. Margins that the runs' plans declare judge it.

    Raises:
        UsageError: they cannot be compared; MissingError: a run has no rankings yet.
    """
    targets = targets_of(settings.lab, request.targets)
    systems, names = measured_systems(settings, targets, request)
    return compare_measured(targets, systems, names, request)


def compare_measured(
    targets: Sequence[Target], systems: Sequence[System], measures: Sequence[str], request: ComparisonRequest
) -> Comparison:
    """Compare systems that are measured already; the first is the baseline.

    Args:
        targets: what the systems come from, in the same order.
        systems: the targets, measured.
        measures: canonical names.
        request: how they are compared.
    """
    from cerank.evaluation.compare import compare
    from cerank.evaluation.verdicts.terms import Terms

    terms = request.terms or Terms()

    def chosen(kind: Kind, texts: Sequence[str], option: str) -> dict[str, Margin]:
        declared = declared_margins(targets, measures, all_pairs=terms.pairs == "all", kind=kind)
        typed = margins_of.typed_by_measure(texts, option)
        return margins_of.chosen(typed, declared, now=request.now, because=request.margins_because)

    margins = terms.margins or chosen("margins", request.margins, "--margin")
    if request.judged_only:
        margins = margins_of.carried(margins, _condensed(measures)) | margins
    primary = terms.primary or request.primary
    terms = msgspec.structs.replace(terms, pairs_seeds=terms.pairs_seeds and have_paired_seeds(targets))
    worth = terms.worth or chosen("worth", request.worth, "--worth")
    harm = terms.harm or chosen("harm", request.harm, "--harm")
    return compare(
        systems,
        measures,
        terms=msgspec.structs.replace(terms, margins=margins, worth=worth, harm=harm, primary=primary),
    )


def _condensed(names: Sequence[str]) -> dict[str, str]:
    """Measure -> the same over judged documents only, where there is one."""
    from cerank.evaluation.diagnostics import condensed

    return {plain: other for plain, other in zip(names, condensed(names), strict=True) if plain != other}


def of_run(folder: RunFolder) -> Comparison:
    """Compare a run's measured stages: each with the stage before it and with the first stage, in one family.

    Its baselines, and teachers that ranked the tests, stand beside them: with the first stage, and each stage with
    them, described outside the family.

    Raises:
        MissingError: no stage of it has been measured yet.
    """
    from cerank.evaluation.compare import compare
    from cerank.evaluation.verdicts.terms import Terms

    plan = run_store.load_plan(folder)
    run_systems.check_tested(folder, plan)
    done = [name for name in systems_of(plan) if run_systems.is_measured(folder, plan, name)]
    if len(done) < 2 or done[0] != FIRST_STAGE:
        raise MissingError("nothing of it has been re-ranked and measured yet", where=run_store.title(folder))
    names = plan.recipe.evaluate.measures
    targets = [RunTarget(name, folder, plan, name) for name in done]
    terms = Terms(
        margins=declared_margins(targets, names, all_pairs=False),
        worth=declared_margins(targets, names, all_pairs=False, kind="worth"),
        harm=declared_margins(targets, names, all_pairs=False, kind="harm"),
        primary=plan.recipe.evaluate.primary,
        pairs="stages",
    )
    return compare([run_systems.of_run(target, names) for target in targets], names, terms=terms)


def measured_systems(
    settings: Settings, targets: Sequence[Target], request: ComparisonRequest
) -> tuple[list[System], tuple[str, ...]]:
    """Return every target measured by the same measures in the same conditions, and the measures' canonical names.

    Args:
        settings: where the lab and caches are.
        targets: what to measure.
        request: on what, and by which measures; with `judged_only`, those over judged documents come after the others.
    """
    from cerank.evaluation.measures import check
    from cerank.evaluation.systems import Condition

    if is_group(request.dataset):
        return _measured_on_each(settings, targets, request)
    patterns = [target for target in targets if isinstance(target, FileTarget) and PER_DATASET in str(target.path)]
    if patterns:
        hint = "name several test collections, such as --dataset 'beir:*'"
        raise UsageError(
            f"{PER_DATASET} stands for one of several test collections",
            where=str(patterns[0].path),
            hint=hint,
            code="collections-unknown",
        )
    each_run = (target.members if isinstance(target, SeedsTarget) else (target,) for target in targets)
    runs = [target for several in each_run for target in several if not isinstance(target, FileTarget)]
    judged: dict[Condition, Qrels] = {}
    for test, first in run_systems.conditions_of(runs, request.dataset):
        judged[Condition(short_name(test), short_name(first))] = run_systems.qrels_of(runs[0], test)
    has_files = any(isinstance(target, FileTarget) for target in targets)
    if request.qrels and runs:
        hint = "give their TREC run files, from the folder rankings of each run, to measure them on others"
        raise UsageError("a run is measured on the qrels it was tested on", where="--qrels", hint=hint)
    opened: Dataset | None = None
    if has_files and not (runs and not request.qrels):
        name, given, opened = judged_by(settings, request.dataset, request.qrels)
        judged = dict.fromkeys(judged, given) or {Condition(short_name(name)): given}
    names = request.measures or (runs[0].plan.recipe.evaluate.measures if runs else _of_files(judged.values()))
    for each in judged.values():
        names = check(names, each, "--measure")
    if request.judged_only:
        names = tuple(dict.fromkeys([*names, *_condensed(names).values()]))
    systems = [_system(target, names, request.dataset, judged, opened) for target in targets]
    tests = list(runs[0].plan.recipe.data.test) if runs else [request.dataset]
    collections = [] if request.qrels else run_systems.whole_tests(runs[0]) if runs else tests
    systems = [
        recorded_collections.with_doubts(system, target, collections, settings.cache)
        for system, target in zip(systems, targets, strict=True)
    ]
    makers = [
        maker
        for maker in map(label_makers.label_maker, [request.qrels, *map(label_makers.qrels_of_folder, tests)])
        if maker
    ]
    return [label_makers.with_maker_notes(*pair, makers) for pair in zip(systems, targets, strict=True)], names


def _measured_on_each(
    settings: Settings, targets: Sequence[Target], request: ComparisonRequest
) -> tuple[list[System], tuple[str, ...]]:
    """Return every target measured on each of several test collections, by the measures that all of them have.

    Runs of the lab are measured on those that all of them were tested on; the runs of all folds together on the whole
    dataset that the folds are of.
    """
    each_run = (target.members if isinstance(target, SeedsTarget) else (target,) for target in targets)
    runs = [target for several in each_run for target in several if not isinstance(target, FileTarget)]
    if runs:
        for run in runs:
            run_systems.check_tested(run.folder, run.plan)
        tested = [
            test for test in run_systems.whole_tests(runs[0]) if all(test in run_systems.whole_tests(of) for of in runs)
        ]
        members = tuple(matching(request.dataset, tested, settings.cache))
        if not members:
            what = f"the runs were not all tested on any of '{shown(request.dataset, 120)}'"
            all_tests = "; ".join(dict.fromkeys(", ".join(map(short_name, run_systems.tests_of(run))) for run in runs))
            raise UsageError(what, hint=f"they were tested on {all_tests}", code="not-tested")
        note = ""
    else:
        group = group_of(request.dataset, settings.cache)
        members, note = group.here, group.note() if group.left_out else ""
    check_names(members, request.dataset)
    each = []
    for member in members:
        here = [
            msgspec.structs.replace(target, path=of_dataset(target.path, member, settings.cache))
            if isinstance(target, FileTarget) and PER_DATASET in str(target.path)
            else target
            for target in targets
        ]
        each.append(measured_systems(settings, here, msgspec.structs.replace(request, dataset=member)))
    names = tuple(name for name in each[0][1] if all(name in known for _, known in each))
    if not names:
        what = "the test collections have no measure in common"
        raise UsageError(what, where=request.dataset, hint="name one, such as -m nDCG@10", code="no-common-measure")
    systems = []
    for place, first in enumerate(each[0][0]):
        parts = [measured[place] for measured, _ in each]
        notes = dict.fromkeys([*([note] if note else []), *(text for part in parts for text in part.notes)])
        rows = tuple(
            msgspec.structs.replace(row, values={name: row.values[name] for name in names})
            for part in parts
            for row in part.measured
        )
        systems.append(msgspec.structs.replace(first, measured=rows, notes=tuple(notes)))
    return systems, names


def _of_files(judged: Iterable[Qrels]) -> tuple[str, ...]:
    """Return the measures of files for which none is named."""
    from cerank.evaluation.diagnostics import GRADED

    largest = max((grade for qrels in judged for row in qrels.values() for grade in row.values()), default=0)
    return ("nDCG@10", "RR(rel=2)@10" if largest >= GRADED else "RR@10")


def _system(
    target: Target, names: Sequence[str], dataset: str, judged: Mapping[Condition, Qrels], opened: Dataset | None
) -> System:
    from cerank.evaluation.seed_variance import mean_of

    if isinstance(target, FileTarget):
        return file_systems.of_file(target, names, judged, opened)
    if not isinstance(target, SeedsTarget):
        return run_systems.of_run(target, names, dataset)
    members = [run_systems.of_run(member, names, dataset) for member in target.members]
    labeled = [
        msgspec.structs.replace(system, label=f"{target.label} (seed {member.plan.recipe.seed})")
        for system, member in zip(members, target.members, strict=True)
    ]
    return msgspec.structs.replace(mean_of(target.label, labeled), folds=members[0].folds)


def leaves_identical_ids_out(settings: Settings, request: ComparisonRequest) -> bool:
    """Return whether the request's dataset leaves a query's own document out of the results of files."""
    if not request.dataset or request.qrels:
        return False
    has_runs = any(not isinstance(target, FileTarget) for target in targets_of(settings.lab, request.targets))
    if has_runs:
        return False
    opened = judged_by(settings, request.dataset, "")[2]
    return opened is not None and opened.ignores_identical_ids
