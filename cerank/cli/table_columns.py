"""What commands show, as tables: which columns, in which order, in which words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app import estimates
from cerank.app.run_views import run_list
from cerank.app.run_views.display import GLYPHS, age, at_words, clock, short
from cerank.app.run_views.seed_groups import RunSettings, SeedGroups
from cerank.cli.output import Column, Table, format_of, info, is_for_machines, rounded
from cerank.core.metrics import Progress, Validation
from cerank.files import journal, json_records
from cerank.recipes.plan import Plan
from cerank.recipes.schema import kept_name
from cerank.runs import job_records, run_store, run_summaries
from cerank.runs.job_records import JobStart
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.run_store import RunRow
from cerank.text.safe_text import counted, shown

if TYPE_CHECKING:
    from cerank.app.comparison.power_analysis import Expected, PowerCase, SeedGridCell
    from cerank.app.comparison.run_answer import RunAnswer
    from cerank.app.plans import WorkItem
    from cerank.app.run_views.run_monitor import RunEntry
    from cerank.datasets.open_datasets import DatasetDescription
    from cerank.datasets.query_overlaps import Overlap
    from cerank.evaluation.answers import Cost
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.studies.pooling import PooledResult
    from cerank.evaluation.systems import System


def run_table(rows: Sequence[RunEntry], lab: Path, form: str = "", *, all_trials: bool = False) -> Table:
    """Return the runs of a lab: everything for machines, what fits a line for people.

    Args:
        rows: the runs.
        lab: folder of the lab.
        form: format, as `--format` names it.
        all_trials: for people, each trial of a sweep as a row; otherwise a sweep is one row.
    """
    empty = f"No runs in {lab} yet. Start one with `cerank run --recipe contrastive-then-distill`."
    if format_of(form) != "table":
        first = ("run", "state", "chain", "base", "seed", "at", "left", "label", "why", "short_name")
        keys = (*first, "created", "measure", "score", "test")
        return Table("runs", tuple(Column(key, key) for key in keys), tuple(map(_full_row, rows)), empty=empty)
    if not all_trials:
        rows = SeedGroups(RunSettings()).folded(rows, are_seeds_folded=False)
    scores = [_score(row) for row in rows]
    measures = {measure for measure, _ in scores if measure}
    searched = any(row.trial or row.sweep for row in rows)
    heading = measures.pop() if len(measures) == 1 else "score"
    tests = list(map(run_list.named_test, rows))
    columns: tuple[Column, ...] = (
        Column("run", "run", "name"),
        Column("label", "label", priority=0 if searched else 2),  # nothing else tells trials apart
        Column("state", "state", "name"),
        Column("recipe", "recipe", priority=3),
        Column("base", "base", priority=4),
        Column("seed", "seed", "number", 0, priority=5),
        Column("age", "age", "name", priority=6),
        Column("score", heading, "number", 4, priority=1),
        *([Column("test", "on", priority=1)] if any(tests) else []),
        Column("now", "now", priority=1),
    )
    now = datetime.now(UTC)
    body = tuple(
        _short_row(row, score, now, [test] if any(tests) else [])
        for row, test, (_, score) in zip(rows, tests, scores, strict=True)
    )
    if searched and all(score is None for _, score in scores):
        places = [place for place, column in enumerate(columns) if column.key != "score"]
        columns, body = (
            tuple(columns[place] for place in places),
            tuple(tuple(row[place] for place in places) for row in body),
        )
    sweeps = sum(row.sweep is not None for row in rows)
    note = (
        f"{counted(sweeps, 'sweep')}, a row for each; --all shows the trials, `cerank sweep FILE --results` ranks them"
    )
    return Table("runs", columns, body, notes=(note,) if sweeps else (), empty=empty)


def _score(row: RunEntry) -> tuple[str, float | None]:
    """Return the first measure of a finished run on its first test dataset, with its mean."""
    return row.final or ("", None)


def state_text(state: str, form: str = "") -> str:
    """Return a state in its word, for people with its sign before it."""
    return f"{GLYPHS[state]} {state}" if format_of(form) == "table" else state


def _full_row(row: RunEntry) -> tuple[str | int | float | None, ...]:
    state, why = row.status.state, row.status.text
    if row.plan is None:
        return (row.folder.name, state, "", "", None, "", None, "", why, row.short_name, "", "", None, "")
    recipe = row.plan.recipe
    at, left = _position(row)
    chain = " > ".join(recipe.chain)
    run = (row.folder.name, state, chain, recipe.base, recipe.seed, at, left, row.label, why, row.short_name)
    measure, score = _score(row)
    return (*run, row.plan.created, measure, score, recipe.data.test[0] if score is not None else "")


def _short_row(
    row: RunEntry, score: float | None, until: datetime, test: Sequence[str]
) -> tuple[str | int | float | None, ...]:
    """Return a run in short cells, `test` after the score; the last says where it is, or why it stands."""
    at, left = _position(row)
    time = clock(left or 0)  # "" below half a second
    now = f"{at}, {time} left" if time else at or _reason(row)
    now = "files changed" if row.status.state == "damaged" else now
    recipe = row.plan.recipe if row.plan else None
    name = row.sweep.title if row.sweep else recipe.name if recipe else ""
    described = (name, recipe.base.rstrip("/").rpartition("/")[2], recipe.seed) if recipe else ("", "", None)
    created = age(row.plan.created, until) if row.plan else ""
    if row.sweep is not None:
        now = f"{row.sweep.progress}, {_validated(row)}".removesuffix(", ")
    elif row.trial is not None and row.state == "finished":
        now = _validated(row)
    elif row.trial is not None and row.trial.stopped:
        now = row.at
    label = row.trial.text() if row.trial is not None and not row.notes.label else row.label
    now = shown(at_words(now, 60))
    return (row.short_name, label, state_text(row.status.state, "table"), *described, created, score, *test, now)


def _validated(row: RunEntry) -> str:
    return f"valid. {row.validated[0]} {short(row.validated[1])}" if row.validated else ""


def _reason(row: RunRow | RunEntry) -> str:
    """Return why a run is in its state, with paths inside the run shortened."""
    return row.status.text.replace(f"{row.folder.path}/", "")


def _position(row: RunRow | RunEntry) -> tuple[str, float | None]:
    """Return where a live run is, and the seconds left of it (of its phase, where the run was not estimated)."""
    progress = row.status.progress
    if progress is None or row.status.state not in {"running", "stopping"}:
        return "", None
    return _position_text(progress), progress.expected_seconds


def _position_text(progress: Progress) -> str:
    count = f"{progress.done}/{progress.total}" if progress.total else ""
    return " ".join(part for part in (progress.phase, progress.detail, count) if part)


def state_table(row: RunRow, form: str = "") -> Table:
    """Return how one run stands, key by key."""
    status = row.status
    is_short = not is_for_machines(form)
    rows = [("run", row.short_name if is_short else row.folder.name)]
    rows.append(("state", f"{GLYPHS[status.state]} {status.state}"))
    if is_short and row.label:
        rows.insert(1, ("label", row.label))
    if status.text:
        rows.append(("why", _reason(row)))
    if status.progress and status.state in {"running", "stopping"}:
        rows.append(("at", _position_text(status.progress)))
    rows.append(("attempts", str(status.attempts)))
    rows += _job_rows(row.folder)
    if row.plan is not None:
        recipe, plan = row.plan.recipe, row.plan
        rows += [("recipe", recipe.name), ("chain", " > ".join(recipe.chain)), ("base", recipe.base)]
        rows += [("seed", str(recipe.seed)), ("device", f"{plan.device}, {counted(plan.threads, 'thread')}")]
        rows += [("created", plan.created), ("fingerprint", plan.fingerprint)]
        if row.label and not is_short:
            rows.append(("label", row.label))
    rows.append(("id", row.folder.name) if is_short else ("short_name", row.short_name))
    return _key_value_table("run", rows)


def _job_rows(folder: RunFolder) -> list[tuple[str, str]]:
    """Return what is known of a run's job on another machine: where it stands, its log, and how earlier ones ended."""
    job = job_records.job_of(folder)
    if job is None:
        return []
    has_ended = folder.done.exists()  # nobody asks for its job any more
    text = f"{job.record.executor} job {job.record.id}" if has_ended else job.text
    rows = [("job", text), ("submitted", f"{job.record.time} on {job.record.host}")]
    rows += [("log of the job", job.record.log)] if job.record.log else []
    if job.record.log and job.state.phase == "ended" and not has_ended:  # where no worker began, nothing else says why
        rows += [("its last line", line) for line in run_summaries.LogTail(Path(job.record.log)).new()[-1:]]
    starts, _ = journal.read_valid_rows(folder.job_starts, JobStart)
    for start in starts:
        if start.kind != "started":
            rows.append((f"{start.time}", f"job {start.job or '-'} on {start.host} {start.kind}: {start.text}"))
    return rows


def _key_value_table(name: str, rows: Sequence[tuple[str, str]], title: str = "") -> Table:
    return Table(name, (Column("key", "key"), Column("value", "value")), tuple(rows), title)


def input_table(plan: Plan) -> Table:
    """Return what a plan reads, with hashes."""
    columns = (Column("role", "role"), Column("name", "name"), Column("sha256", "sha256", priority=1))
    is_short = format_of("") == "table"
    rows = tuple((entry.role, entry.name, entry.sha256[:16] if is_short else entry.sha256) for entry in plan.inputs)
    return Table("inputs", columns, rows, "Inputs")


def work_table(parts: Sequence[WorkItem]) -> Table:
    """Return a plan's work, part by part, with its sum."""
    columns = (
        Column("part", "part"),
        Column("units", "steps or queries", "number", 0, priority=1),
        Column("pairs", "pairs through the model", "number", 0),
        Column("minutes", "time", "text"),
    )
    rows = [(part.part, part.units, part.pairs, estimates.format_minutes(part.minutes)) for part in parts]
    sums = (sum(part.pairs for part in parts), estimates.format_minutes(estimates.total(parts)))
    is_assumed = any(part.part.startswith("choose ") for part in parts)
    title = "Work, if filters keep half of the groups" if is_assumed else "Work, at most"
    return Table("work", columns, (*rows, ("all", None, *sums)), title)


def validation_table(folder: RunFolder, plan: Plan) -> Table:
    """Return what the validations of a run showed, step by step."""
    readings: list[ReadingRow]
    readings, _ = journal.read_valid_rows(folder.readings, ReadingRow)
    rows = {(row.stage, row.step): row for row in readings if isinstance(row, Validation)}
    names = list(dict.fromkeys(name for row in rows.values() for name in row.measures))
    columns = (Column("stage", "stage"), Column("step", "step", "number", 0), *(Column(n, n, "number") for n in names))
    body = tuple(
        (plan.recipe.chain[row.stage], row.step, *(row.measures.get(name) for name in names))
        for _, row in sorted(rows.items())
    )
    fresh = [plan.recipe.chain[row.stage] for row in rows.values() if row.fresh_head]
    has_start = any(row.step == 0 for row in rows.values())
    notes = ["step 0: the model that the stage starts from; the stage never hands it on"] if has_start else []
    notes += [f"step 0 of {', '.join(fresh)}: a fresh head, whose scores are noise"] if fresh else []
    sets = dict.fromkeys(stage.validation or plan.recipe.data.validation for _, stage in plan.recipe.chained())
    own = [name for name, stage in plan.recipe.chained() if stage.validation] if len(sets) > 1 else []
    notes += [f"{name} on {plan.recipe.stages[name].validation}" for name in own]
    return Table(
        "validations",
        columns,
        body,
        f"Validation on {', '.join(sets)}",
        tuple(notes),
        empty="The run has not been validated yet.",
    )


def shared_query_table(overlaps: Sequence[Overlap]) -> Table:
    """Return queries that two parts of a plan share, and what that comes to."""
    columns = (
        Column("left", "part"),
        Column("right", "shares queries with"),
        Column("shared", "shared", "number", 0),
        Column("of", "of", "number", 0),
        Column("by_id", "by id", "number", 0, priority=1),
        Column("by_text", "by text", "number", 0, priority=1),
        Column("example", "such as", priority=2),
    )
    rows = tuple(
        (str(row.left), str(row.right), row.shared, row.of, row.by_id, row.by_text, shown(row.examples[0], 60))
        for row in overlaps
    )
    return Table("shared_queries", columns, rows, "Shared queries", empty="No two parts share a query.")


def loss_table(folder: RunFolder, plan: Plan) -> Table | None:
    """Return what the losses of stages that train several came to; None for a run without such a stage."""
    from cerank.app.run_views import stage_losses

    columns = (
        Column("stage", "stage"),
        Column("loss", "loss", "name"),
        Column("weight", "weight", "number", 2),
        Column("learns_from", "learns from", "name"),
        Column("first", "at start", "number"),
        Column("last", "at end", "number"),
        Column("cosine", "cosine of gradients", "number", 2, priority=1),
    )
    rows = tuple(
        (row.stage, row.name, row.weight, row.learns_from, row.first, row.last, row.cosine)
        for row in stage_losses.of_run(folder, plan)
    )
    note = f"means over the first and last {stage_losses.SHARE:.0%} of the steps, before the weight"
    return Table("losses", columns, rows, "Losses", (note,)) if rows else None


def stage_table(folder: RunFolder, plan: Plan) -> Table:
    """Return what the finished stages of a run came to: what they drew from, and how far their weights moved."""
    from cerank.training import stage_summary

    columns = (
        Column("stage", "stage"),
        Column("precision", "precision"),
        Column("steps", "steps", "number", 0),
        Column("kept", "step handed on", "number", 0, priority=1),
        Column("start", "validated at start", "number", priority=1),
        Column("end", "at end", "number", priority=1),
        Column("fresh_head", "fresh head", priority=4),
        Column("moved", "weight change"),
        Column("changed", "weights changed", "percent", priority=2),
        Column("queries", "queries", "number", 0, priority=1),
        Column("usable", "usable queries", "number", 0, priority=1),
        Column("without_positive", "without positive", "number", 0, priority=3),
        Column("short", "undersized groups", "number", 0, priority=4),
        Column("unretrieved", "positives not retrieved", "number", 0, priority=4),
        Column("repaired", "lists completed", "number", 0, priority=4),
    )
    summaries = [stage_summary.read(folder.final(index, name)) for index, name in enumerate(plan.recipe.chain)]
    best_models = [
        (name, stage_summary.read(path))
        for index, name in enumerate(plan.recipe.chain)
        for path in folder.best_models(index, name)
    ]
    rows = tuple(
        (
            row.stage,
            run_store.measured_precision(folder, plan, row.stage),
            row.steps,
            row.kept_step,
            row.start,
            row.end,
            "yes" if row.fresh_head else "no",
            f"{row.weight_change.norm:.1e}",
            row.weight_change.changed,
            row.sampling.queries,
            row.sampling.usable,
            row.sampling.without_positive,
            row.sampling.undersized,
            row.sampling.unretrieved_positives,
            row.repairs.repaired,
        )
        for row in summaries
        if row is not None
    )
    still = [row.stage for row in summaries if row is not None and row.weight_change.is_negligible]
    notes: tuple[str, ...] = (f"weights hardly changed in: {', '.join(still)}",) if still else ()
    tied = [(row.stage, row.teacher_ties) for row in summaries if row is not None and row.teacher_ties is not None]
    notes += tuple(f"{stage}: {ties}" for stage, ties in tied if ties.tied)
    notes += tuple(f"{row.stage}: {row.no_gain}" for row in summaries if row is not None and row.no_gain)
    notes += tuple(f"{row.stage}: {row.filter}" for row in summaries if row is not None and row.filter is not None)
    notes += tuple(
        f"{kept_name(name, best.measure)}: {best.measure} {best.best:.4f} on validation at step {best.best_step}"
        for name, best in best_models
        if best is not None
    )
    note = "weight change: the norm of the change of the weights, divided by their norm"
    return Table("stages", columns, rows, "Stages", (note, *notes) if rows else (), empty="No stage is finished yet.")


def ranking_table(folder: RunFolder, plan: Plan) -> Table:
    """Return the measured rankings: how deep each is, and how much of its order was left to ties."""
    from cerank.app.comparison.named_systems import systems_of
    from cerank.training.stage_summary import RankingStats

    columns = (
        *(Column(name, name.replace("_", " ")) for name in ("system", "dataset", "first_stage")),
        Column("queries", "queries", "number", 0),
        Column("shallowest", "min depth", "number", 0, priority=2),
        Column("deepest", "max depth", "number", 0, priority=2),
        Column("tied", "tied documents", "percent", priority=1),
    )
    data = plan.recipe.data
    rows = []
    for test in data.test:
        for first in data.first_stages:
            for system in systems_of(plan):
                stats = json_records.load_if_there(folder.ranking_stats_file(system, test, first), RankingStats)
                if stats is not None:
                    figures = (stats.queries, stats.min_depth, stats.max_depth, stats.tied)
                    rows.append((system, test, first, *figures))
    return Table(
        "rankings", columns, tuple(rows), "Rankings, all cut at the same depth", empty="Nothing has been re-ranked yet."
    )


def file_table(folder: RunFolder, plan: Plan) -> Table:
    """Return where a run keeps what it made."""
    rows = [("run", str(folder.path))]
    for index, name in enumerate(plan.recipe.chain):
        rows.append((f"checkpoint {name}", str(folder.final(index, name))))
        for measure in plan.recipe.stages[name].keep_best:
            rows.append((f"checkpoint {kept_name(name, measure)}", str(folder.best_model(index, name, measure))))
    rows += [("TREC runs", str(folder.path / "rankings")), ("measures", str(folder.path / "measures"))]
    rows.append(("readings", str(folder.readings)))
    return _key_value_table("files", rows, "Files")


def result_tables(
    run_answer_: RunAnswer, form: str = "", hour_price: float = 0.0, *, run: str = "", with_all_notes: bool = False
) -> list[Table]:
    """Return what a run came to: its comparison and what each stage cost; for machines the answers, too.

    Args:
        run_answer_: the result.
        form: of the output.
        hour_price: what an hour of the device costs.
        run: its name, to say what shows the notes that are left out.
        with_all_notes: leave none out.
    """
    from cerank.app.comparison import export_comparison, run_answer, stage_costs

    cost = stage_costs.table(run_answer_.costs, hour_price)
    if is_for_machines(form):
        return [
            export_comparison.full_table(run_answer_.comparison, costs=run_answer_.by_stage),
            cost,
            run_answer.table(run_answer_),
            *([pooled_table(run_answer_.pooled, form)] if run_answer_.pooled is not None else []),
        ]
    is_short = format_of(form) == "table" and not with_all_notes
    shown = (
        list(export_comparison.by_stage(run_answer_.comparison, is_short=is_short))
        if format_of(form) == "table"
        else [export_comparison.short_table(run_answer_.comparison)]
    )
    notes = [*shown[-1].notes, *(() if is_short else run_answer_.spreads), *run_answer_.no_gains, *run_answer_.filters]
    if is_short:
        every = export_comparison.by_stage(run_answer_.comparison)[-1].notes
        more = len(every) - len(shown[-1].notes) + len(run_answer_.spreads)
        notes += [f"{counted(more, 'more note')}: cerank show {run} --notes"] if more else []
    shown[-1] = msgspec.structs.replace(shown[-1], notes=tuple(notes))
    together = [pooled_table(run_answer_.pooled, form)] if run_answer_.pooled is not None else []
    return [*shown, *together, cost]


def pooled_table(pooled: PooledResult, form: str = "") -> Table:
    """Return what several collections come to together: everything for machines, what decides for people."""
    from cerank.app.comparison import pool_comparisons

    return pool_comparisons.machine_table(pooled) if is_for_machines(form) else pool_comparisons.summary(pooled)


def comparison_table(
    comparison: Comparison, form: str = "", *, with_reasons: bool = False, costs: Mapping[str, Cost] | None = None
) -> Table:
    """Return a comparison: everything for machines, what decides for people."""
    from cerank.app.comparison import export_comparison

    if is_for_machines(form):
        return export_comparison.full_table(comparison, with_reasons=with_reasons, costs=costs)
    return export_comparison.short_table(comparison, with_reasons=with_reasons)


def print_footnotes(comparison: Comparison, form: str = "") -> None:
    """Print on stderr what stands under the table, where the format has no place for it."""
    from cerank.app.comparison import export_comparison

    if is_for_machines(form):
        for line in export_comparison.short_table(comparison, is_marked=False).notes:
            info(line)


def power_table(cases: Sequence[PowerCase], form: str = "") -> Table:
    """Return what queries can show: a row a case for machines, a column a case for people without empty figures."""
    from cerank.app.comparison.power_analysis import is_beyond, sentences

    def cell(case: PowerCase, key: str) -> str | float | None:
        value = getattr(case if hasattr(case, key) else case.estimate, key)
        # A size that the measure does not span would be read as one that can be.
        return None if key in {"smallest_difference", "smallest_margin"} and is_beyond(case, value) else value

    columns = (
        *(Column(name, name.replace("_", " ")) for name in ("dataset", "first_stage", "left", "right", "measure")),
        Column("queries", "queries", "number", 0),
        Column("sd", "sd", "number"),
        Column("spread", "source of the sd"),
        Column("tests", "tests", "number", 0),
        Column("alpha", "level of each test", "number"),
        Column("power", "power", "percent"),
        Column("smallest_difference", "smallest difference", "number"),
        Column("smallest_margin", "smallest margin", "number"),
        Column("difference", "delta", "number"),
        Column("power_for_difference", "power for delta", "percent"),
        Column("queries_for_difference", "queries for delta", "number", 0),
        Column("margin", "margin", "number"),
        Column("power_for_margin", "power for margin", "percent"),
        Column("queries_for_margin", "queries for margin", "number", 0),
        Column("can_show", "enough queries for the margin?"),
    )
    keys = [column.key for column in columns]
    rows = [tuple(cell(case, key) for key in keys) for case in cases]
    share = f"{100 * cases[0].estimate.power:.3g} %"
    notes = (
        f"smallest difference: what must truly be there to come out significant in {share} of cases; smallest margin: "
        f"how narrow 'equivalent' can be claimed in {share} of cases if both are truly equal",
        *sentences(cases),
    )
    if is_for_machines(form):
        return Table("power", columns, tuple(rows), "What the queries can show", notes)
    # Turned round: there are more figures than cases, and a terminal is narrow.
    shown_places = [place for place in range(len(keys)) if any(row[place] not in {None, ""} for row in rows)]
    body = tuple((columns[at].heading, *(rounded(row[at], columns[at]) for row in rows)) for at in shown_places)
    heads = (Column("figure", "what"), *(Column(f"case_{number}", str(number)) for number in range(1, len(rows) + 1)))
    return Table("power", heads, body, "What the queries can show", notes)


def seed_grid_tables(cells: Sequence[SeedGridCell], form: str = "") -> list[Table]:
    """Return what queries and seeds can show: a row a cell for machines, for people queries by seeds."""
    names = cells[0].__struct_fields__
    if is_for_machines(form):
        return [Table("seeds", tuple(Column(n, n) for n in names), tuple(msgspec.structs.astuple(c) for c in cells))]
    tables = []
    grids = dict.fromkeys((cell.dataset, cell.first_stage, cell.measure, cell.left, cell.right) for cell in cells)
    for grid in grids:
        own = [cell for cell in cells if (cell.dataset, cell.first_stage, cell.measure, cell.left, cell.right) == grid]
        counts = sorted({cell.seeds for cell in own})
        columns = (
            Column("queries", "queries", "number", 0),
            *(Column(f"k{k}", f"{k} seeds", "number") for k in counts),
        )
        rows = tuple(
            (queries, *(cell.smallest_difference for cell in own if cell.queries == queries))
            for queries in sorted({cell.queries for cell in own})
        )
        pilot = next(cell for cell in own if cell.is_pilot)
        more = "seeds" if pilot.seed_share >= 0.5 else "queries"
        notes = (
            "each number: the smallest true difference between the recipes that this power detects, seeds paired",
            f"with {pilot.queries} queries and {pilot.seeds} seeds, {100 * pilot.seed_share:.0f} % of the variance of "
            f"the mean comes from seeds: more {more} help most",
        )
        title = f"{pilot.right} against {pilot.left}, {pilot.measure} on {pilot.dataset}"
        tables.append(Table("seeds", columns, rows, title, notes))
    return tables


def expectations(expected: Sequence[Expected]) -> Table:
    """Return what a plan's test queries can show, a row for each kind of comparison."""
    from cerank.app.comparison.power_analysis import told

    columns = (
        *(Column(name, name) for name in ("dataset", "comparison", "measure")),
        Column("queries", "queries", "number", 0, priority=2),
        Column("tests", "comparisons", "number", 0, priority=4),
        Column("alpha", "level", "number", priority=4),
        Column("sd_low", "sd from", "number"),
        Column("sd_high", "sd to", "number"),
        Column("spread", "sd is from", priority=3),
        Column("smallest_difference_low", "shows from", "number", priority=1),
        Column("smallest_difference_high", "shows to", "number", priority=1),
        Column("margin", "margin", "number", 3),
        Column("power_for_margin_low", "power from", "percent"),
        Column("power_for_margin_high", "power to", "percent"),
        Column("queries_for_margin", "queries needed", "number", 0, priority=2),
        Column("can_show", "enough for the margin?"),
    )
    rows = tuple(
        (
            *(case.dataset, case.kind, case.measure, case.low.queries, case.low.tests, case.low.alpha),
            *(case.low.sd, case.high.sd, case.source, case.low.smallest_difference, case.high.smallest_difference),
            *(case.low.margin, case.high.power_for_margin, case.low.power_for_margin, case.high.queries_for_margin),
            case.can_show,
        )
        for case in expected
    )
    return Table("power", columns, rows, "What the queries can show", told(expected))


def measure_table(systems: Sequence[System], names: Sequence[str], *, per_query: bool, form: str = "") -> Table:
    """Return the measures of systems, their means or query by query; for machines with what was measured on."""
    from cerank.evaluation.measures import relevance_note

    head = (Column("system", "system"), Column("dataset", "dataset"), Column("query", "query"))
    is_full = is_for_machines(form)
    source = (Column("queries", "queries", "number", 0), Column("qrels_sha256", "qrels", "name")) if is_full else ()
    columns = (*head, *(Column(name, name, "number") for name in names), *source)
    rows: list[tuple[str | float, ...]] = []
    for system in systems:
        for entry in system.measured:
            queries, judged = list(entry.values[names[0]]), entry.qrels_sha256
            if per_query:
                for query in queries:
                    values = (entry.values[name][query] for name in names)
                    rows.append(
                        (system.label, entry.condition.dataset, query, *values, *((1, judged) if is_full else ()))
                    )
            means = (sum(entry.values[name].values()) / len(queries) for name in names)
            counts = (len(queries), judged) if is_full else ()
            rows.append((system.label, entry.condition.dataset, "all", *means, *counts))
        if len(system.measured) > 1 and not is_full:
            averages = [
                statistics.fmean(statistics.fmean(entry.values[name].values()) for entry in system.measured)
                for name in names
            ]
            rows.append((system.label, f"mean of {len(system.measured)} collections", "all", *averages))
    level = relevance_note(names)
    many = dict.fromkeys(
        f"{entry.condition.dataset}: means over {counted(len(entry.values[names[0]]), 'query')}"
        for system in systems
        for entry in system.measured
    )
    return Table("measures", columns, tuple(rows), notes=(*many, *([level] if level else ())))


def dataset_table(description: DatasetDescription) -> Table:
    """Return all that can be said of a dataset."""
    grades = ", ".join(f"{grade}: {count}" for grade, count in description.grades)
    rows = [
        ("dataset", description.name),
        ("what", description.description),
        ("where", description.location),
        ("documents", str(description.documents)),
        ("queries", str(description.queries)),
        ("judgments", f"{description.judgments} ({grades})" if grades else "0"),
        ("judged without text", str(description.judged_without_text)),
        ("runs", ", ".join(description.runs) or "none"),
        ("fingerprint", description.fingerprint),
    ]
    return _key_value_table("dataset", rows)


def size_of(folder: Path) -> str:
    """Return what a folder holds, in words."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return f"{size / 1e6:,.0f} MB"
