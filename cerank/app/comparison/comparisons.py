"""From what the user names (runs, stages of runs, TREC run files) to systems that can be compared.

Invariant: a number on screen has files: a run's measures are read as its worker stored them, under their checksums, and
any other is computed from rankings and qrels. `cerank verify` computes the stored ones again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cerank.app.comparison import margins as margins_of
from cerank.app.comparison import system_tuning
from cerank.app.comparison.margins import Kind
from cerank.app.comparison.named_systems import (
    FIRST_STAGE,
    PER_DATASET,
    FileTarget,
    FoldsTarget,
    RunTarget,
    SeedsTarget,
    Target,
    have_paired_seeds,
    of_dataset,
    runs_of,
    short_name,
    sources,
    systems_of,
    targets_of,
)
from cerank.app.test_collections.collection_groups import check_names, group_of, is_group, matching
from cerank.datasets.folds import whole_of_fold
from cerank.errors import CerankError, MissingError, UsageError
from cerank.files import json_records
from cerank.files.named_files import STDIN, input_file, near_files
from cerank.recipes.plan import Plan
from cerank.registry import nearest
from cerank.retrieval.rank_fusion import INTERPOLATED
from cerank.retrieval.reference_orders import REFERENCE_ORDERS, reference_order
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.runs.records import decode_measures
from cerank.settings import Settings
from cerank.text.safe_text import counted, shown

if TYPE_CHECKING:
    from cerank.core.rankings import Ranking
    from cerank.evaluation.compare import Comparison, Margin, Terms
    from cerank.evaluation.systems import Condition, Measured, System

Qrels = dict[str, dict[str, int]]


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
    from cerank.evaluation.compare import Terms, compare

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
    from cerank.evaluation.compare import Terms, compare

    plan = run_store.load_plan(folder)
    check_tested(folder, plan)
    done = [name for name in systems_of(plan) if _is_measured(folder, plan, name)]
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
    return compare([_of_run(target, names) for target in targets], names, terms=terms)


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
    for test, first in _conditions(runs, request.dataset):
        judged[Condition(short_name(test), short_name(first))] = qrels_of(runs[0], test)
    has_files = any(isinstance(target, FileTarget) for target in targets)
    if request.qrels and runs:
        hint = "give their TREC run files, from the folder rankings of each run, to measure them on others"
        raise UsageError("a run is measured on the qrels it was tested on", where="--qrels", hint=hint)
    ignores = False
    if has_files and not (runs and not request.qrels):
        name, given, ignores = _judged_by(settings, request.dataset, request.qrels)
        judged = dict.fromkeys(judged, given) or {Condition(short_name(name)): given}
    names = request.measures or (runs[0].plan.recipe.evaluate.measures if runs else _of_files(judged.values()))
    for each in judged.values():
        names = check(names, each, "--measure")
    if request.judged_only:
        names = tuple(dict.fromkeys([*names, *_condensed(names).values()]))
    systems = [_system(target, names, request.dataset, judged, ignores) for target in targets]
    tests = list(runs[0].plan.recipe.data.test) if runs else [request.dataset]
    makers = [maker for maker in map(_label_maker, [request.qrels, *map(_qrels_of_folder, tests)]) if maker]
    return [_with_maker_notes(*pair, makers) for pair in zip(systems, targets, strict=True)], names


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
            check_tested(run.folder, run.plan)
        tested = [test for test in _whole_tests(runs[0]) if all(test in _whole_tests(of) for of in runs)]
        members = tuple(matching(request.dataset, tested, settings.cache))
        if not members:
            what = f"the runs were not all tested on any of '{shown(request.dataset, 120)}'"
            all_tests = "; ".join(dict.fromkeys(", ".join(map(short_name, tests_of(run))) for run in runs))
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
    target: Target, names: Sequence[str], dataset: str, judged: Mapping[Condition, Qrels], ignores: bool
) -> System:
    from cerank.evaluation.seed_variance import mean_of

    if isinstance(target, FileTarget):
        return _of_file(target, names, judged, ignores)
    if not isinstance(target, SeedsTarget):
        return _of_run(target, names, dataset)
    members = [_of_run(member, names, dataset) for member in target.members]
    labeled = [
        msgspec.structs.replace(system, label=f"{target.label} (seed {member.plan.recipe.seed})")
        for system, member in zip(members, target.members, strict=True)
    ]
    return msgspec.structs.replace(mean_of(target.label, labeled), folds=members[0].folds)


def check_tested(folder: RunFolder, plan: Plan) -> None:
    """Check that a run tests at all, which a trial of a sweep does not.

    Raises:
        MissingError: it is such a trial.
    """
    if not plan.recipe.data.test:
        hint = "it is a trial of a sweep, measured on validation alone; `cerank sweep FILE --results` shows that"
        raise MissingError("the run has no test set", where=run_store.title(folder), hint=hint, code="run-untested")


def _conditions(runs: Sequence[RunTarget | FoldsTarget], only: str) -> list[tuple[str, str]]:
    """Return the first run's test datasets (all, or the one asked for) with each of its first stages."""
    if not runs:
        return []
    for run in runs:
        check_tested(run.folder, run.plan)
    data, names = runs[0].plan.recipe.data, tests_of(runs[0])
    tests = [test for test, called in names.items() if not only or only in called]
    if not tests:
        known = [name for called in names.values() for name in called]
        raise UsageError(f"run {run_store.title(runs[0].folder)} was not tested on '{only}'", hint=nearest(only, known))
    return [(test, first) for test in tests for first in data.first_stages]


def tests_of(target: RunTarget | FoldsTarget) -> dict[str, set[str]]:
    """Return what a run was tested on, or the runs of all folds together -> the names by which to ask for it."""
    if isinstance(target, RunTarget):
        return {test: {test, short_name(test)} for test in target.plan.recipe.data.test}
    whole = whole_of_fold(target.plan.recipe.data.test[0])
    return {target.test: {target.test, short_name(target.test), whole, short_name(whole)}}


def _whole_tests(target: RunTarget | FoldsTarget) -> tuple[str, ...]:
    """Return the datasets that a run was tested on; of folds the one that all of them are of."""
    data = target.plan.recipe.data
    return (whole_of_fold(data.test[0]),) if isinstance(target, FoldsTarget) else data.test


def judgments(settings: Settings, dataset: str, qrels: str) -> tuple[str, Qrels]:
    """Return the names of the files, and the judgments that the user names."""
    return _judged_by(settings, dataset, qrels)[:2]


def leaves_identical_ids_out(settings: Settings, request: ComparisonRequest) -> bool:
    """Return whether the request's dataset leaves a query's own document out of the results of files."""
    if not request.dataset or request.qrels:
        return False
    has_runs = any(not isinstance(target, FileTarget) for target in targets_of(settings.lab, request.targets))
    return not has_runs and _judged_by(settings, request.dataset, "")[2]


def _judged_by(settings: Settings, dataset: str, qrels: str) -> tuple[str, Qrels, bool]:
    """Return as `judgments`, and whether the dataset leaves a query's own document out of its results."""
    from cerank.datasets.open_datasets import open_dataset
    from cerank.trec.text_io import read_qrels

    if dataset and qrels:
        raise UsageError("give --dataset or --qrels, not both")
    if not (dataset or qrels):
        raise UsageError(
            "there are no relevance judgments to evaluate run files", hint="give --dataset NAME or --qrels FILE"
        )
    if qrels:
        path = input_file(qrels)
        if path is None:
            near = near_files(qrels)
            hint = f"did you mean {' or '.join(near)}?" if near else ""
            raise MissingError("no such file", where=shown(qrels, 200), hint=hint)
        return Path(qrels).name, read_qrels(path), False
    opened = open_dataset(dataset, settings.cache)
    if not opened.qrels:
        raise UsageError("it has no qrels, so nothing can be measured", where=dataset)
    qrels_in_memory = {query: dict(row) for query, row in opened.qrels.items()}
    return opened.name, qrels_in_memory, opened.ignores_identical_ids


def identity(qrels: Mapping[str, Mapping[str, int]]) -> str:
    """Return the SHA-256 of judgments, whatever file they came from and in whatever order."""
    rows = sorted((query, doc, grade) for query, row in qrels.items() for doc, grade in row.items())
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()


def qrels_of_run(folder: RunFolder, test: str) -> Qrels:
    """Return the judgments that a run was measured on.

    Raises:
        MissingError: it has not come so far; DamagedError: the file is not what was written.
    """
    from cerank.trec.text_io import read_qrels

    path = folder.qrels(test)
    if not path.exists():
        hint = f"cerank show {run_store.short_name(folder)}"
        state = run_store.status(folder, datetime.now(UTC)).state
        what = f"the run is {state} and has no results yet"
        raise MissingError(what, where=run_store.title(folder), hint=hint, code="not-measured-yet")
    run_store.check_undamaged(folder, path)
    return read_qrels(path)


def qrels_of(target: RunTarget | FoldsTarget, test: str) -> Qrels:
    """Return the judgments that a run, or the runs of all folds together, were measured on; raises as `qrels_of_run`.

    Raises:
        UsageError: a query is in two folds.
    """
    if isinstance(target, RunTarget):
        return qrels_of_run(target.folder, test)
    return _together(target, [qrels_of_run(run.folder, run.plan.recipe.data.test[0]) for run in target.members])


def ranking_of(target: RunTarget | FoldsTarget, test: str, first: str) -> Ranking:
    """Return the ranking of a run's system, or of that of all folds together; raises as `ranking_of_run`."""
    if isinstance(target, RunTarget):
        return ranking_of_run(target, test, first)
    from cerank.core.rankings import Ranking

    each = [ranking_of_run(run, run.plan.recipe.data.test[0], first) for run in target.members]
    return Ranking(_together(target, each), {query: ranking.scores(query) for ranking in each for query in ranking})


_OfQueries = TypeVar("_OfQueries")


def _together(target: FoldsTarget, parts: Sequence[Mapping[str, _OfQueries]]) -> dict[str, _OfQueries]:
    """Return what is known of the queries of all folds.

    Raises:
        UsageError: a query is in two folds.
    """
    whole = {query: entry for part in parts for query, entry in part.items()}
    if len(whole) < sum(map(len, parts)):
        raise UsageError("a query is in two folds", where=target.label, code="folds-format")
    return whole


def _is_measured(folder: RunFolder, plan: Plan, system: str) -> bool:
    data = plan.recipe.data
    return all(folder.measures(system, test, first).exists() for test in data.test for first in data.first_stages)


def _is_reference(target: RunTarget | FoldsTarget) -> bool:
    """Return whether the target is the first stage's candidates in another order, and no stage that is called so."""
    return target.system in REFERENCE_ORDERS and target.system not in systems_of(target.plan)


def ranking_of_run(target: RunTarget, test: str, first: str) -> Ranking:
    """Return the ranking of a run's system on a test dataset over a first stage.

    Raises:
        MissingError: it has not come so far; DamagedError: the file is not what was written.
    """
    from cerank.trec.text_io import read_run

    is_reference = _is_reference(target)
    path = target.folder.ranking(FIRST_STAGE if is_reference else target.system, test, first)
    if not path.exists():
        hint = f"cerank show {run_store.short_name(target.folder)} says how far it is"
        raise MissingError(f"it has no ranking by {target.system} yet", where=run_store.title(target.folder), hint=hint)
    run_store.check_undamaged(target.folder, path)
    ranking = read_run(path).ranking
    if is_reference:
        qrels = qrels_of_run(target.folder, test)
        ranking = reference_order(target.system, ranking, qrels, target.plan.recipe.seed)
    return ranking


def _of_run(target: RunTarget | FoldsTarget, names: Sequence[str], only: str = "") -> System:
    from cerank.evaluation.systems import Condition, System, measured

    rows: list[Measured] = []
    is_reference = _is_reference(target)
    for test, first in _conditions([target], only):
        ranking = ranking_of(target, test, first)
        qrels = qrels_of(target, test)
        condition = Condition(short_name(test), short_name(first))
        stored = _stored_measures(target, test, first, names)
        rows.append(measured(names, condition, qrels, identity(qrels), ranking, values=stored))
    is_baseline = target.system in target.plan.recipe.untrained_systems()
    is_fixed = target.system == FIRST_STAGE or is_baseline or is_reference
    return System(
        label=target.label,
        measured=tuple(rows),
        run=target.folder.name if isinstance(target, RunTarget) else "",
        seed=None if is_fixed else target.plan.recipe.seed,
        shares=tuple(dict.fromkeys(share for run in runs_of(target) for share in _decided_by_seed(run))),
        is_fixed=is_fixed,
        is_baseline=is_baseline,
        notes=(REFERENCE_ORDERS[target.system],) if is_reference else (),
        tuning=None if is_fixed else system_tuning.of_system(target.plan.recipe, target.system),
        folds=_queries_by_fold(target) if isinstance(target, FoldsTarget) else (),
    )


def _queries_by_fold(target: FoldsTarget) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(qrels_of_run(run.folder, run.plan.recipe.data.test[0])) for run in target.members)


def _decided_by_seed(target: RunTarget) -> tuple[str, ...]:
    """Return what the run's seed decided up to this system: its stages, and the order in which each saw its data."""
    from cerank.planning import inputs, stage_keys

    plan = target.plan
    names = plan.recipe.chain
    chain = names[: names.index(target.system) + 1] if target.system in names else ()
    pinned = {(entry.role, entry.name): entry.sha256 for entry in plan.inputs}
    out = []
    for index, name in enumerate(chain):
        dataset = inputs.training_dataset(plan.recipe, plan.recipe.stages[name])
        if ("dataset", dataset) in pinned:
            out.append(f"order {name} {pinned['dataset', dataset]}")
        with contextlib.suppress(KeyError):  # a plan that does not hold every input's hash says nothing of its stages
            out.append(f"stage {stage_keys.stage_key(plan, index)}")
    return tuple(out)


def _stored_measures(
    target: RunTarget | FoldsTarget, test: str, first: str, names: Sequence[str]
) -> dict[str, dict[str, float]] | None:
    """Return measure -> query -> value as the run's worker stored them; None where one of `names` is not stored.

    `cerank verify` computes them again from rankings and qrels.
    """
    if isinstance(target, FoldsTarget):
        each = [_stored_measures(run, run.plan.recipe.data.test[0], first, names) for run in target.members]
        known = [values for values in each if values is not None]
        if len(known) < len(each):
            return None
        return {name: _together(target, [of[name] for of in known]) for name in names}
    path = target.folder.measures(target.system, test, first)
    if not path.exists():
        return None
    run_store.check_undamaged(target.folder, path)
    try:
        rows = decode_measures(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not rows or any(name not in row.measures for row in rows for name in names):
        return None
    return {name: {row.query_id: row.measures[name] for row in rows} for name in names}


class _LabelMaker(msgspec.Struct, frozen=True):
    """What is read here of the record that `cerank teach labels` writes beside its qrels."""

    model: str


def _label_maker(qrels: str) -> _LabelMaker | None:
    """Return who made the labels in a file, where a model did; None for labels of people."""
    path = Path(f"{qrels}.teacher.json").expanduser()
    if not qrels or qrels == STDIN or not path.is_file():
        return None
    try:
        return json_records.load(path, _LabelMaker)
    except CerankError:
        return _LabelMaker("")


def _qrels_of_folder(dataset: str) -> str:
    """Return the qrels file of a dataset that is a folder; "" for any other."""
    from cerank.datasets.open_datasets import whole_and_part

    whole, _ = whole_and_part(dataset)
    return str(Path(whole) / "qrels") if whole.startswith(("./", "../", "~", "/")) else ""


def _with_maker_notes(system: System, target: Target, makers: Sequence[_LabelMaker]) -> System:
    """Return a system with a note on each model whose labels measure it, and on what it may have in common with it."""
    from cerank.teachers.judging.labels import family_warnings

    notes: list[str] = []
    named = [system.label, *(run.plan.recipe.base for run in runs_of(target)[:1])]
    for maker in dict.fromkeys(makers):
        what = "the verdict says how well systems please that model, not people"
        notes.append(f"the labels are {maker.model}'s: {what}" if maker.model else _UNKNOWN_MAKER)
        notes += family_warnings(maker.model, named)
    return msgspec.structs.replace(system, notes=(*system.notes, *notes)) if notes else system


_UNKNOWN_MAKER = "the record of who made the labels is unreadable"


def _of_file(target: FileTarget, names: Sequence[str], judged: Mapping[Condition, Qrels], ignores: bool) -> System:
    from cerank.datasets.dataset import without_identical_ids
    from cerank.evaluation.systems import System, measured
    from cerank.trec.text_io import read_run

    run = read_run(target.path)
    own = sum(query in run.ranking[query] for query in run.ranking)
    ranking = without_identical_ids(run.ranking) if own and ignores else run.ranking
    rows = [measured(names, condition, qrels, identity(qrels), ranking) for condition, qrels in judged.items()]
    notes = [
        *run.notes,
        *_interpolation_note(run.tag),
        *(_identical_ids_note(own, len(run.ranking), ignores) if own else []),
    ]
    for condition, qrels in judged.items():
        notes += _coverage(target, run.ranking, qrels, str(condition))
    return System(label=target.label, measured=tuple(rows), is_fixed=True, notes=tuple(dict.fromkeys(notes)))


def _interpolation_note(tag: str) -> list[str]:
    """Return what the tag of an interpolated run says of its weight, as `cerank fuse` writes it."""
    kind, *facts = tag.split(";")
    if kind != INTERPOLATED or len(facts) != 2:
        return []
    return [f"interpolated with the first stage, {facts[0].replace('=', ' ')} ({facts[1].replace('=', ' ')})"]


def _identical_ids_note(own: int, queries: int, ignores: bool) -> list[str]:
    what = f"{own} of {counted(queries, 'query')} rank the document with their own id"
    if ignores:
        return [f"{what}, which is left out (ignore_identical_ids)"]
    return [f"{what}; BEIR leaves it out where queries are documents (ignore_identical_ids in collection.toml)"]


def _coverage(target: FileTarget, ranking: Mapping[str, Sequence[str]], qrels: Qrels, where: str) -> list[str]:
    """Return how many judged queries the ranking lacks, and how many of its own are not judged.

    Raises:
        UsageError: it shares no query or no document with the qrels, so that every measure would be 0.
    """
    missing = sum(query not in ranking for query in qrels)
    unjudged = sum(query not in qrels for query in ranking)
    if missing == len(qrels):
        if not ranking:
            raise UsageError(
                "the run is empty", where=str(target.path), hint="did the search that wrote it fail?", code="run-empty"
            )
        hint = f"its queries are called {_first_few(ranking)}, those of the qrels {_first_few(qrels)}"
        raise UsageError(
            f"no query of the run is judged in {where}", where=str(target.path), hint=hint, code="no-judged-query"
        )
    judged_docs = set().union(*qrels.values())
    if not any(doc in judged_docs for query in ranking for doc in ranking[query]):
        ranked = (doc for query in ranking for doc in ranking[query])
        hint = f"its documents are called {_first_few(ranked)}, those of the qrels {_first_few(sorted(judged_docs))}"
        raise UsageError(
            f"no document of the run is judged in {where}", where=str(target.path), hint=hint, code="no-judged-document"
        )
    parts = [f"{missing} of the {counted(len(qrels), 'judged query')} have no ranking and count 0"] if missing else []
    verbs = ("has", "does") if unjudged == 1 else ("have", "do")
    note = f"{counted(unjudged, 'query')} of the run {verbs[0]} no judgments and {verbs[1]} not count"
    parts += [note] if unjudged else []
    return ["; ".join(parts)] if parts else []


def _first_few(ids: Iterable[str]) -> str:
    return ", ".join(shown(query, 40) for query in itertools.islice(ids, 3))
