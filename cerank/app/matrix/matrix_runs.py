"""A declared matrix from its file to runs in the queue: its recipes, an outline before anything is opened, its record.

Invariant: the record with the declared family is in the lab before the first run starts; asked for again, a matrix
queues only what is missing, and no stage that runs share is trained twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from cerank import recipes
from cerank.app import estimates, plans
from cerank.app.lab import Lab
from cerank.app.matrix import matrix_planning
from cerank.app.matrix.drafts import MOST_RUNS, DraftRun, FieldError
from cerank.app.matrix.fold_recipes import fold_recipes
from cerank.app.matrix.matrix_planning import ReportProgress, WorkTotals
from cerank.app.matrix.outline_times import OutlineTimes
from cerank.app.missing_inputs import MissingInput, check_inputs, with_single_tests
from cerank.app.plans import WorkItem
from cerank.datasets.folds import whole_of_fold
from cerank.errors import CerankError, MissingError, RecipeError, UsageError
from cerank.files import json_records
from cerank.files.disk import DamagedError
from cerank.planning import node_schedule, stage_keys
from cerank.planning.node_schedule import StageTask
from cerank.planning.shared_speed import shared_work
from cerank.recipes import factors
from cerank.recipes.matrix_schema import Matrix, MatrixCell, MatrixRecord, is_same_or_inside
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Data, Evaluate, Recipe
from cerank.registry import nearest
from cerank.runs import run_store
from cerank.runs.declared_records import MATRICES
from cerank.runs.layout import RunFolder, runs_folder
from cerank.runs.records import StoredPlan
from cerank.settings import Settings

# Keys of `evaluate` that decide verdicts, and no numbers; and those of them that a matrix' record holds.
JUDGING = ("margins", "margins_because", "primary", "seeds_as", "worth", "harm")
DECLARED = ("margins", "primary", "worth", "harm")
NOT_TO_QUEUE = {"finished", "running", "stopping", "queued"}


class MatrixRuns(msgspec.Struct, frozen=True):
    """A matrix with its recipes loaded: a cell for each run, in the order in which they are queued."""

    matrix: Matrix
    cells: tuple[DraftRun, ...]
    baseline: str  # the name that the baseline's recipe gives itself
    folds: str = ""  # as its recipes' `data.folds` said before each became a run


class MatrixOutlineRow(msgspec.Struct, frozen=True):
    """One run of a matrix, before it is planned."""

    recipe: str
    base: str
    seed: int
    chain: tuple[str, ...]
    taken: tuple[str, ...]  # stages of the chain that another run before it trains
    run: str = ""  # its name, where the lab has it
    state: str = ""
    fold: int = 0  # that it is tested on, from 1; 0 in a matrix without folds
    minutes: float | None = None  # of what it does itself on one device, at most; None where a part was never timed


class MatrixOutline(msgspec.Struct, frozen=True, kw_only=True):
    """The runs, work and missing inputs of a matrix, found without starting, building or fetching anything."""

    rows: tuple[MatrixOutlineRow, ...]
    work: tuple[WorkItem, ...]
    shared: tuple[WorkItem, ...]
    needs: tuple[MissingInput, ...]
    together: tuple[WorkItem, ...] = ()  # the work as several devices do it that share each run; () for one device
    tasks: tuple[StageTask, ...] | None = ()  # what is left to do, stage by stage; None where a time is unknown
    is_measured: bool = False  # whether the devices of a node were timed together, where several share a run
    comparisons: int  # tests of the family: every other recipe against the baseline, by each measure in each condition


class QueuedMatrix(msgspec.Struct, frozen=True):
    """The runs of a matrix after a request to queue it: those queued now, and those that were there."""

    record: MatrixRecord
    added: tuple[RunFolder, ...]  # queued now
    attempts: tuple[int, ...]  # that each of `added` had before
    there: tuple[RunFolder, ...]  # finished, running or queued before


# --- from the declaration to recipes


def load_runs(loaded: recipes.LoadedMatrix, overrides: Sequence[str] = ()) -> MatrixRuns:
    """Return the runs that a matrix stands for.

    Args:
        loaded: matrix as it was read from its file.
        overrides: `key.path=VALUE` each, laid over every recipe that has the place; they win over everything.

    Raises:
        CerankError: a recipe cannot be read, or is wrong with what the matrix lays over it; a setting that no recipe
            has a place for; an override of what a factor varies; more than 500 runs.
    """
    matrix = loaded.matrix
    plain = [recipes.load(name) for name in matrix.recipes]
    names = [named_recipe.recipe.name for named_recipe in plain]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise UsageError(
            f"two recipes of the matrix are called '{twice}'", where=f"matrix {matrix.name}", code="name-twice"
        )
    stages = [set(named_recipe.recipe.stages) for named_recipe in plain]
    varied = [path for levels in matrix.factors.values() for settings in levels.values() for path in settings]
    given = [*matrix.settings, *varied, *(text.partition("=")[0] for text in overrides)]
    _check_stages_exist(given, set().union(*stages))
    _check_overrides(matrix, overrides)
    over = _matrix_tables(matrix)
    loaded_recipes = []
    for name, known, unchanged in zip(matrix.recipes, stages, plain, strict=True):
        fitting = [text for text in overrides if _fits(text, known)]
        for levels in _combinations(matrix, set(unchanged.recipe.chain)):
            settings = {**matrix.settings, **_settings_at(matrix, levels)}
            varied_recipe = recipes.load(
                name,
                fitting,
                _changes(over, settings, known),
                given=f"in matrix {matrix.name} or on the command line",
            )
            named = _named(varied_recipe.recipe, matrix, levels)
            loaded_recipes.append((named, levels, varied_recipe.recipe.name))
    count = len(loaded_recipes) * max(len(matrix.bases), 1) * max(len(matrix.seeds), 1)
    if count > MOST_RUNS:
        raise UsageError(
            f"{count:,} runs; a matrix has {MOST_RUNS} at most", where=f"matrix {matrix.name}", code="matrix-too-large"
        )
    draft_runs: list[DraftRun] = []
    is_overridden = any(text.partition("=")[0].strip() == "base_template" for text in overrides)
    for base in matrix.bases or ("",):
        template = "" if is_overridden else matrix.base_templates.get(base, "")
        for seed in matrix.seeds or (None,):
            for named, levels, unvaried_name in loaded_recipes:
                recipe = plans.absolute(plans.checked(_with(named, base, seed, template)))
                label = f"{recipe.name} {recipe.base.rpartition('/')[2]} s{recipe.seed}"
                toml = recipes.render(recipe).encode()
                draft_runs.append(DraftRun(recipe, toml, label, "", levels, unvaried_name if matrix.factors else ""))
    _check_one_family(draft_runs)
    of_folds = draft_runs[0].recipe.data.folds
    draft_runs = [of_fold for draft_run in draft_runs for of_fold in _runs_of_folds(draft_run)]
    if len(draft_runs) > MOST_RUNS:
        what = f"{len(draft_runs):,} runs; a matrix has {MOST_RUNS} at most"
        raise UsageError(what, where=f"matrix {matrix.name}", code="matrix-too-large")
    at = matrix.recipes.index(matrix.baseline) if matrix.baseline else 0
    return MatrixRuns(matrix, tuple(draft_runs), names[at], of_folds)


def _runs_of_folds(draft_run: DraftRun) -> list[DraftRun]:
    """Return the run of each fold; a run without folds as it is."""
    if not draft_run.recipe.data.folds:
        return [draft_run]
    return [
        msgspec.structs.replace(
            draft_run, recipe=each.recipe, given=each.toml, label=each.label(draft_run.label), fold=each.number
        )
        for each in fold_recipes(draft_run.recipe)
    ]


def _combinations(matrix: Matrix, stages: set[str]) -> list[dict[str, str]]:
    """Return the combinations of levels at which a recipe that runs these stages is run, by factors that change it."""
    levels = {
        name: names for name, names in matrix.levels().items() if _changes_recipe(matrix.factors[name].values(), stages)
    }
    rows = [{name: row[name] for name in levels} for row in factors.design(matrix.levels(), matrix.fraction)]
    return list({tuple(row.items()): row for row in rows}.values())


def _changes_recipe(levels: Iterable[Mapping[str, object]], stages: set[str]) -> bool:
    """Return whether any level of a factor sets something that a recipe which runs these stages has a place for."""
    paths = [path for settings in levels for path in settings]
    of_stages = [path for path in paths if _stage_of(path)]
    return any(_fits(path, stages) for path in of_stages) if of_stages else bool(paths)


def _settings_at(matrix: Matrix, levels: Mapping[str, str]) -> dict[str, object]:
    return {path: value for name, level in levels.items() for path, value in matrix.factors[name][level].items()}


def _named(recipe: Recipe, matrix: Matrix, levels: Mapping[str, str]) -> Recipe:
    """Return the recipe with the levels off the reference in its name, by which tables tell it apart."""
    off = [f"{name}={level}" for name, level in levels.items() if level != next(iter(matrix.factors[name]))]
    return msgspec.structs.replace(recipe, name=" ".join([recipe.name, *off]))


def _check_one_family(cells: Sequence[DraftRun]) -> None:
    """Reject recipes with different tests, because their tests could not be corrected together."""
    first = cells[0].recipe
    for cell in cells:
        data, evaluate = cell.recipe.data, cell.recipe.evaluate
        pairs = (
            ("test", data.test, first.data.test),
            ("first_stages", data.first_stages, first.data.first_stages),
            ("depth", data.depth, first.data.depth),
            ("folds", data.folds, first.data.folds),
            ("measures", evaluate.measures, first.evaluate.measures),
            *((key, getattr(evaluate, key), getattr(first.evaluate, key)) for key in JUDGING),
        )
        for key, own, theirs in pairs:
            if own != theirs:
                what = f"recipes {first.name} and {cell.recipe.name} differ in {key}"
                raise UsageError(what, hint=f"set {key} in the matrix, for all of its recipes", code="settings-differ")


def _with(recipe: Recipe, base: str, seed: int | None, template: str) -> Recipe:
    """Return the recipe with a base, a seed and the text of documents for the base; those left open are its own."""
    chosen = msgspec.structs.replace(recipe, base=base) if base else recipe
    chosen = msgspec.structs.replace(chosen, base_template=template) if template else chosen
    return msgspec.structs.replace(chosen, seed=seed) if seed is not None else chosen


def _matrix_tables(matrix: Matrix) -> dict[str, dict[str, object]]:
    """Return the tables that the matrix lays over each recipe's."""
    data: dict[str, object] = {}
    evaluate: dict[str, object] = {}
    given = (
        (data, "test", list(matrix.test)),
        (data, "first_stages", list(matrix.first_stages)),
        (data, "depth", matrix.depth),
        (data, "folds", matrix.folds),
        (evaluate, "measures", list(matrix.measures)),
        *((evaluate, key, msgspec.to_builtins(getattr(matrix, key))) for key in JUDGING),
    )
    for table, key, value in given:
        if value:
            table[key] = value
    return {key: table for key, table in (("data", data), ("evaluate", evaluate)) if table}


def _changes(over: Mapping[str, object], settings: Mapping[str, object], stages: set[str]) -> dict[str, object]:
    """Return what the matrix lays over a recipe that has these stages."""
    from cerank.core.decode import merge_tables

    table: dict[str, object] = dict(over)
    for path, value in settings.items():
        if _fits(path, stages):
            nested: object = value
            for key in reversed(path.split(".")):
                nested = {key: nested}
            if isinstance(nested, dict):
                table = merge_tables(table, nested)
    return table


def _stage_of(path: str) -> str:
    keys = path.partition("=")[0].split(".")
    return keys[1].strip() if keys[0].strip() == "stages" and len(keys) > 1 else ""


def _fits(path: str, stages: set[str]) -> bool:
    return not _stage_of(path) or _stage_of(path) in stages


def _check_stages_exist(paths: Sequence[str], stages: set[str]) -> None:
    for path in paths:
        if not _fits(path, stages):
            name = _stage_of(path)
            raise RecipeError(
                f"stages.{name}: unknown stage; the recipes have: {', '.join(sorted(stages))}",
                hint=nearest(name, stages),
                code="unknown-stage",
            )


def _check_overrides(matrix: Matrix, overrides: Sequence[str]) -> None:
    """Reject overrides of what a factor varies: its levels would all be the same training."""
    for path in (text.partition("=")[0].strip() for text in overrides):
        for name, varied in matrix.varied_paths().items():
            if any(is_same_or_inside(path, own) for own in varied):
                raise RecipeError(
                    f"{path}: factor '{name}' varies it, and a setting for every run would undo that",
                    where=f"matrix {matrix.name}",
                    hint="leave it out, or take the factor out of the matrix",
                )


# --- what it comes to


def outline(
    grid_: MatrixRuns,
    settings: Settings,
    pairs_per_second: float = 0.0,
    node_devices: int = 1,
    times: OutlineTimes | None = None,
) -> MatrixOutline:
    """Return what the matrix comes to: runs, work with its time, and everything missing, not only the first thing.

    Args:
        grid_: runs of the matrix, as `load_runs` returned them.
        settings: settings in force; their lab has finished runs to reuse and the speed of earlier training.
        pairs_per_second: training speed, where the user knows it; scoring is assumed three times as fast. 0 estimates
            it.
        node_devices: devices of a node that share a run; `tasks` are timed for them.
        times: what gives the work its time; default: the user's word, or earlier runs of the lab.
    """
    times = times or OutlineTimes(settings, pairs_per_second)
    each_of_tests = [
        msgspec.structs.replace(cell, recipe=with_single_tests(cell.recipe, settings.cache)) for cell in grid_.cells
    ]
    grid_ = msgspec.structs.replace(grid_, cells=tuple(each_of_tests))
    input_check = check_inputs([cell.recipe for cell in grid_.cells], settings.cache)
    record = MATRICES.load_if_there(settings.lab, grid_.matrix.name)
    there = {(cell.recipe, cell.base, cell.seed, cell.fold): cell.run for cell in record.cells} if record else {}
    lab, totals, totals_together, rows = Lab(settings), WorkTotals(), WorkTotals(), []
    coming: set[str] = set()
    given: set[str] = set()  # keys of stages that finished runs of the matrix have
    tasks: list[StageTask] | None = []
    is_measured = True
    for cell in grid_.cells:
        recipe = cell.recipe
        cache_keys = [stage_keys.stage_key_by_names(recipe, index) for index in range(len(recipe.chain))]
        taken = tuple(name for name, identity in zip(recipe.chain, cache_keys, strict=True) if identity in coming)
        run, state = _run_and_state(lab, there.get((recipe.name, recipe.base, recipe.seed, cell.fold), ""))
        coming.update(cache_keys)
        given.update(cache_keys if state == "finished" else ())
        work = plans.count_work(recipe, input_check.queries, input_check.documents)
        work = work if state == "finished" else times.timed(recipe, work)
        own = totals.add(recipe, cache_keys, work, given)
        if state != "finished":
            together = times.together(recipe, node_devices)
            is_measured = is_measured and len(together) == len(recipe.chain)
            shared = shared_work(work, node_devices, together)
            if node_devices > 1:
                totals_together.add(recipe, cache_keys, shared, given)
            tasks_of_run = node_schedule.tasks_of(list(zip(recipe.chain, cache_keys, strict=True)), shared)
            tasks = None if tasks is None or tasks_of_run is None else tasks + tasks_of_run
        minutes = estimates.total(own) if own else 0.0
        rows.append(
            MatrixOutlineRow(recipe.name, recipe.base, recipe.seed, recipe.chain, taken, run, state, cell.fold, minutes)
        )
    return MatrixOutline(
        rows=tuple(rows),
        work=totals.done,
        shared=totals.shared,
        needs=input_check.needs,
        together=totals_together.done,
        tasks=None if tasks is None else tuple(task for task in tasks if task.key not in given),
        comparisons=_comparisons(grid_),
        is_measured=is_measured,
    )


def _run_and_state(lab: Lab, name: str) -> tuple[str, str]:
    """Return a run's name and state; "" for one that is not there."""
    folder = RunFolder(runs_folder(lab.folder) / name)
    return (name, lab.status(folder).state) if name and folder.path.is_dir() else ("", "")


def _comparisons(grid_: MatrixRuns) -> int:
    """Return how many comparisons the declared family has, as `cerank report` counts them: its primary ones."""
    from cerank.evaluation.primary_questions import questions

    recipe = grid_.cells[0].recipe
    primary = questions(recipe.evaluate.primary, "primary")
    measures = [name for test in recipe.data.test for name in _measures_on(test, recipe.evaluate.measures)]
    recipes = {cell.recipe.name for cell in grid_.cells}
    couples = {(name, grid_.baseline) for name in recipes if name != grid_.baseline}
    couples |= {(question.right, question.left) for question in primary if {question.right, question.left} <= recipes}
    models = {(cell.recipe.name, cell.recipe.base) for cell in grid_.cells}  # a recipe may have a base of its own
    rows = sum(
        sum(name == right for name, _ in models)
        for right, left in couples
        for measure in measures
        if not primary or any(question.names(measure, {right}, {left}) for question in primary)
    )
    return rows * len(recipe.data.first_stages)


def _measures_on(test: str, names: Sequence[str]) -> list[str]:
    """Return the measures of a test set, those that its kind of judgments decides included."""
    from cerank.datasets import aliases, irds
    from cerank.datasets.open_datasets import whole_and_part
    from cerank.evaluation.measures import canonical

    measures = []
    for name in names:
        if name != aliases.AUTO:
            measures.append(canonical(name, test))
            continue
        collection, _ = whole_and_part(test)
        try:
            grade = irds.catalog_metadata(aliases.id_of(collection)).largest_grade
        except CerankError:
            grade = 0  # a folder: three measures whatever its grades are
        measures += aliases.declared_measures(collection, grade)
    return measures


# --- into the queue


def queue_missing_runs(lab: Lab, grid_: MatrixRuns, now: datetime, say: ReportProgress) -> QueuedMatrix:
    """Plan every run of the matrix, record the matrix, and queue the runs that are not finished, running or queued.

    Args:
        lab: lab that gets the matrix and its runs.
        grid_: runs of the matrix, as `load_runs` returned them.
        now: time at which the runs are queued, with a time zone.
        say: called with a text for each step.

    Raises:
        CerankError: something is missing or wrong (all of it is said); the lab has another matrix of this name.
    """
    settings = lab.plan_settings()
    planned = matrix_planning.plan_runs(grid_.cells, settings, now, say)
    if planned.errors:
        raise _planning_error(grid_, planned.errors, settings)
    shared = [msgspec.structs.replace(plan, shares=True) for plan in planned.plans]
    run_of = runs_by_plan(lab)
    before = MATRICES.load_if_there(lab.folder, grid_.matrix.name)
    _check_same_declaration(before, _record(grid_, shared, [""] * len(shared), before, now))
    folders: list[RunFolder] = []
    for cell, plan in zip(grid_.cells, shared, strict=True):
        folders.append(run_of.get((plan.recipe.name, plan.fingerprint)) or lab.create(plan, cell.toml))
    record = _record(grid_, shared, [folder.name for folder in folders], before, now)
    MATRICES.save(lab.folder, record)
    waiting = [folder for folder in folders if lab.status(folder).state not in NOT_TO_QUEUE]
    attempts = tuple(max(folder.attempt_numbers(), default=0) for folder in waiting)
    if lab.executor is not None and waiting:
        lab.submit(waiting)
    else:
        for folder in waiting:
            lab.resume_queued(folder)
    there = tuple(folder for folder in folders if folder not in waiting)
    return QueuedMatrix(record, tuple(waiting), attempts, there)


def _planning_error(grid_: MatrixRuns, errors: Sequence[FieldError], settings: Settings) -> CerankError:
    """Return why the matrix cannot be planned: everything that is missing, else what planning stumbled over."""
    where = f"matrix {grid_.matrix.name}"
    needs = check_inputs([cell.recipe for cell in grid_.cells], settings.cache).needs
    if not needs:
        return RecipeError("\n".join(f"{entry.path}: {entry.text}" for entry in errors), where=where)
    hint = "add --dry-run to see how to get each of them"
    return MissingError(
        "\n".join(f"{entry.kind} {entry.name}: {entry.text}" for entry in needs), where=where, hint=hint
    )


def runs_by_plan(lab: Lab) -> dict[tuple[str, str], RunFolder]:
    """Return the lab's runs by their recipes' names, by which a report finds them, and their plans' fingerprints.

    Of several, the one that came furthest, then the newest.
    """
    run_of: dict[tuple[str, str], RunFolder] = {}
    order = {"finished": 3, "running": 2, "stopping": 2, "queued": 1, "damaged": -1}
    best: dict[tuple[str, str], int] = {}
    for folder in run_store.folders(lab.folder):
        try:
            key = (run_store.load_plan(folder).recipe.name, json_records.load(folder.plan, StoredPlan).fingerprint)
        except DamagedError:  # the list of runs says so
            continue
        rank = order.get(lab.status(folder).state, 0)
        if rank >= best.get(key, 0):
            run_of[key], best[key] = folder, rank
    return run_of


def _record(
    grid_: MatrixRuns, planned: Sequence[Plan], names: Sequence[str], before: MatrixRecord | None, now: datetime
) -> MatrixRecord:
    """Return the record of the matrix, with the runs that an earlier asking added to it."""
    first = planned[0]
    data, time = first.recipe.data, json_records.timestamp(now)
    cells = {
        (plan.recipe.name, plan.recipe.base, plan.recipe.seed, cell.fold): MatrixCell(
            run=name,
            recipe=plan.recipe.name,
            base=plan.recipe.base,
            seed=plan.recipe.seed,
            levels=cell.levels,
            varied=cell.varied,
            fold=cell.fold,
        )
        for cell, plan, name in zip(grid_.cells, planned, names, strict=True)
    }
    earlier = {(cell.recipe, cell.base, cell.seed, cell.fold): cell for cell in before.cells} if before else {}
    return MatrixRecord(
        name=grid_.matrix.name,
        sha256=_declared(planned),
        description=grid_.matrix.description,
        created=before.created if before else time,
        changed=time,
        baseline=grid_.baseline,
        tests=tuple(map(whole_of_fold, data.test)),
        first_stages=data.first_stages,
        depth=data.depth,
        measures={whole_of_fold(test): first.measures_on(test) for test in data.test},
        **{key: getattr(first.recipe.evaluate, key) for key in DECLARED},
        factors=grid_.matrix.levels(),
        fraction=grid_.matrix.fraction,
        paper=grid_.matrix.paper,
        folds=grid_.folds,
        cells=tuple({**earlier, **cells}.values()),
    )


class _FirstDeclaration(msgspec.Struct, frozen=True, kw_only=True):
    """What the first release hashed of `evaluate`, in its order."""

    measures: tuple[str, ...]
    margins: dict[str, float | str]


# What the hash has of `data`: all but `folds`, which the names of each run's datasets say.
_DeclaredData = msgspec.defstruct("_DeclaredData", [key for key in Data.__struct_fields__ if key != "folds"])


def _declared(planned: Sequence[Plan]) -> str:
    """Return the SHA-256 of what all runs of a matrix share, whatever bases, seeds and recipes are added to it."""
    first = planned[0]
    inputs = sorted(
        {(entry.name, entry.sha256) for plan in planned for entry in plan.inputs if entry.role == "dataset"}
    )
    data, evaluate = first.recipe.data, first.recipe.evaluate
    # The first two keys in this order, and later ones only where they are set: a matrix declared before keeps its hash.
    first_keys = _FirstDeclaration(measures=evaluate.measures, margins=evaluate.margins)
    plain = Evaluate(measures=evaluate.measures, margins=evaluate.margins)
    added = {key: getattr(evaluate, key) for key in JUDGING if getattr(evaluate, key) != getattr(plain, key)}
    declared_data = _DeclaredData(*(getattr(data, key) for key in _DeclaredData.__struct_fields__))
    shared = (
        declared_data,
        first_keys,
        [first.measures_on(test) for test in data.test],
        inputs,
        *([added] if added else []),
    )
    return hashlib.sha256(msgspec.json.encode(shared, order="deterministic")).hexdigest()


def _check_same_declaration(before: MatrixRecord | None, matrix_record: MatrixRecord) -> None:
    """Reject a second family of tests under the same name; only recipes, base models and seeds may be added later."""
    if before is None or before.declaration == matrix_record.declaration:
        return
    keys = ("baseline", "tests", "first_stages", "depth", "measures", *DECLARED, "factors", "fraction", "folds")
    differing = [key.replace("_", " ") for key in keys if getattr(before, key) != getattr(matrix_record, key)]
    what = f"the lab already has a matrix '{before.name}' with different {', '.join(differing) or 'data'}"
    raise UsageError(what, hint="give the new matrix another name with --name", code="matrix-exists")
