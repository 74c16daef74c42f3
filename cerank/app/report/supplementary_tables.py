"""The supplementary tables of a report as data for any form: published figures, stages, rankings, inputs, sources.

Invariant: plain `table_data.Table`s; whoever writes a form escapes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from cerank.app.report.report_data import Report
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table, Value
from cerank.training.stage_summary import StageSummary


def published(report: Report) -> Table:
    """Return this report's means beside published ones."""
    columns = (
        Column("paper", "paper"),
        Column("measure", "measure"),
        Column("test", "test set"),
        Column("first_stage", "first stage"),
        Column("model", "model"),
        Column("published_as", "published as"),
        Column("ours", "ours", "number"),
        Column("theirs", "theirs", "number"),
        Column("difference", "difference", "signed"),
        Column("remark", "remark"),
    )
    rows = tuple(
        (
            *(figure.paper, figure.measure, figure.test, figure.first_stage, figure.model, figure.published_as),
            *(figure.ours, figure.theirs, figure.difference, figure.remark),
        )
        for figure in report.facing
    )
    notes = tuple(f"{key}: {text}" for key, text in report.papers)
    return Table("published", columns, rows, "Beside published figures", notes)


def stages(report: Report) -> Table:
    """Return how far each stage moved its weights, and what it chose its checkpoint by."""
    columns = (
        Column("run", "run", "name"),
        Column("stage", "stage"),
        Column("steps", "steps", "number"),
        Column("kept", "kept", "number"),
        Column("learning_rate", "peak rate", "number", 8),
        Column("drift", "weights moved", "number"),
        Column("changed", "weights changed", "percent"),
        Column("start", "validation before", "number"),
        Column("best", "best validation", "number"),
        Column("measure", "by"),
    )
    rows, still, worse = [], [], list[str]()
    for run, facts in _facts(report):
        moved = facts.weight_change
        rows.append(
            (
                run,
                facts.stage,
                facts.steps,
                facts.kept_step,
                facts.learning_rate,
                moved.norm,
                moved.changed,
                facts.start,
                facts.best,
                facts.measure,
            )
        )
        worse += [f"{run}, {facts.stage}: {facts.no_gain}"] if facts.no_gain else []
        worse += [f"{run}, {facts.stage}: {facts.filter}"] if facts.filter is not None else []
        still += [f"{run}, {facts.stage}: {moved.norm:.2g}"] if moved.is_negligible else []
    notes = ["weights moved: the norm of their change over the stage, divided by their norm"] if rows else []
    notes += [f"stages that hardly moved the model: {'; '.join(still)}"] if still else []
    notes += worse
    return Table("stages", columns, tuple(rows), "How far each stage moved the model", tuple(notes))


def groups(report: Report) -> Table:
    """Return what each stage sampled from, and what was repaired in its teacher."""
    columns = (
        Column("run", "run", "name"),
        Column("stage", "stage"),
        Column("queries", "queries", "number"),
        Column("usable", "usable", "number"),
        Column("without_positive", "no positive", "number"),
        Column("without_candidates", "no candidates", "number"),
        Column("without_negative", "no negative", "number"),
        Column("short", "short lists", "number"),
        Column("unretrieved", "positives not retrieved", "number"),
        Column("dropped", "left out", "number"),
        Column("lists", "teacher's lists", "number"),
        Column("repaired", "lists repaired", "number"),
        Column("missing", "ids added", "number"),
        Column("repeated", "repeats dropped", "number"),
        Column("out_of_range", "out of range", "number"),
    )
    rows = []
    for run, facts in _facts(report):
        had, repairs = facts.sampling, facts.repairs
        lacked = (had.without_positive, had.without_candidates, had.without_negative, had.undersized)
        outside = (had.unretrieved_positives, had.dropped_positives)
        faults = (facts.teacher_lists, repairs.repaired, repairs.missing, repairs.repeated, repairs.out_of_range)
        rows.append((run, facts.stage, had.queries, had.usable, *lacked, *outside, *faults))
    return Table("groups", columns, tuple(rows), "What each stage drew its groups from")


def _facts(report: Report) -> Iterator[tuple[str, StageSummary]]:
    return ((run.short_name, stage.facts) for run in report.runs for stage in run.stages if stage.facts is not None)


def shared(report: Report) -> Table:
    """Return queries that two parts of a recipe share, each such pair once with the number of runs it is of."""
    columns = (
        Column("left", "queries of"),
        Column("right", "that are in"),
        Column("shared", "shared", "number"),
        Column("of", "of", "number"),
        Column("by_id", "by id", "number"),
        Column("by_text", "by text", "number"),
        Column("example", "such as"),
        Column("runs", "runs"),
    )
    looked = [run.shared for run in report.runs if run.shared is not None]
    counts = Counter(overlap for overlaps in looked for overlap in overlaps)
    rows = tuple(
        (
            str(overlap.right),
            str(overlap.left),
            overlap.shared,
            overlap.of,
            overlap.by_id,
            overlap.by_text,
            overlap.examples[0],
            f"{count} of {len(report.runs)}",
        )
        for overlap, count in counts.items()
    )
    notes = (
        [f"{len(report.runs) - len(looked)} of {counted(len(report.runs), 'run')} did not look"]
        if len(looked) < len(report.runs)
        else []
    )
    return Table("shared", columns, rows, "Queries that training, validation and test share", tuple(notes))


def events(report: Report) -> Table:
    """Return what else the runs recorded: stages reused, refusals let pass, changes of environment."""
    columns = (Column("run", "run", "name"), Column("kind", "kind"), Column("text", "recorded"))
    rows = [
        (run.short_name, kind, f"{stage.stage}: {text}")
        for run in report.runs
        for stage in run.stages
        for kind, text in stage.events
    ]
    rows += [(run.short_name, kind, text) for run in report.runs for kind, text in run.events]
    return Table("events", columns, tuple(rows), "What else the runs recorded")


def rankings(report: Report) -> Table:
    """Return depth, ties and judged share of every ranking that was measured."""
    columns = (
        Column("model", "model"),
        Column("place", "test set and first stage"),
        Column("shallowest", "least depth", "number"),
        Column("deepest", "depth", "number"),
        Column("ties", "ties in top 10", "percent"),
        Column("tied", "tied documents", "percent"),
        Column("judged", "judged", "percent"),
        Column("missing", "queries missing", "number"),
    )
    rows = tuple(
        (
            place.system,
            place.place,
            place.shallowest,
            place.deepest,
            place.ties,
            place.tied,
            place.judged,
            place.missing,
        )
        for place in report.places
    )
    note = (
        "every ranking is measured at the depth shown, the first stage included; ties are neighbors in the top 10 "
        "with equal scores, broken by the first stage's order before measuring"
    )
    return Table("rankings", columns, rows, "The rankings that were measured", (note,) if rows else ())


def inputs(report: Report) -> Table:
    """Return what each run read, by hash; the same input of several runs stands once."""
    columns = (
        Column("role", "role"),
        Column("name", "name"),
        Column("sha256", "sha256", "name"),
        Column("runs", "runs"),
    )
    counts: dict[tuple[str, str, str], int] = {}
    for run in report.runs:
        for entry in run.inputs:
            counts[entry] = counts.get(entry, 0) + 1
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (*entry, f"{count} of {len(report.runs)}") for entry, count in counts.items()
    )
    return Table("inputs", columns, rows, "What the runs read")


def runs(report: Report) -> Table:
    """Return the runs, and the command that does each again."""
    columns = (
        Column("short_name", "run", "name"),
        Column("run", "id", "name"),
        Column("model", "model"),
        Column("seed", "seed"),
        Column("state", "state"),
        Column("fingerprint", "fingerprint", "name"),
        Column("command", "command, from this folder"),
    )
    rows = tuple(
        (run.short_name, run.run, run.model, str(run.seed), run.state, run.fingerprint[:16], run.command)
        for run in report.runs
    )
    return Table("runs", columns, rows, "The runs")


def sources(report: Report) -> Table:
    """Return the files that figures come from."""
    columns = (Column("run", "run", "name"), Column("role", "role"), Column("path", "path"), Column("sha256", "sha256"))
    rows = tuple((source.run, source.role, source.path, source.sha256) for source in report.sources)
    return Table("sources", columns, rows, "The files behind the figures, from the lab's folder")


def cells(report: Report) -> Table:
    """Return every cell of every table for machines: the mean, the test against the baseline, published figures."""
    tests = (
        "against",
        "difference",
        "sd",
        "low",
        "high",
        "judged_low",
        "judged_high",
        "judged_level",
        "p",
        "p_corrected",
    )
    within = ("effect", "p_equivalence", "p_equivalence_corrected", "margin", "is_margin_declared", "verdict")
    gains = ("worth", "answer_worth")
    where = ("measure", "test", "first_stage", "base", "recipe", "model", "seeds", "queries", "depth", "mean")
    beside = ("family", "correction", "published", "published_difference", "published_in", "is_best")
    names = (*where, *tests, *within, *gains, *beside)
    theirs = {(figure.model, figure.test, figure.first_stage, figure.measure): figure for figure in report.facing}
    body = []
    for grid in report.grids:
        for line in grid.lines:
            for place, cell in zip(grid.places, line.cells, strict=True):
                model, first = line.model, place.condition.first_stage
                known = theirs.get((model.label, place.heading, first, cell.measure))
                row: list[Value] = [
                    cell.measure or grid.measure,
                    place.condition.dataset,  # no path: a supplement would tell of a home folder
                    first,
                    model.base,
                    model.recipe,
                    model.label,
                ]
                row += [len(model.seeds) or None, place.queries, place.depth, cell.value]
                row += _tested(report, model.label, cell.measure, str(place.condition))
                row += [report.family, report.comparison.method if report.comparison else None]
                row += [known.theirs, known.difference, known.paper] if known else [None, None, None]
                body.append((*row, cell.is_best))
    return Table("cells", tuple(Column(name, name) for name in names), tuple(body))


def _tested(report: Report, model: str, measure: str, condition: str) -> list[Value]:
    rows = report.comparison.rows if report.comparison else ()
    for row in rows:
        if (row.right, row.measure, str(row.condition)) == (model, measure, condition):
            paired, judgment = row.paired, row.judgment
            margin = judgment.margin.value if judgment.margin else None
            figures: list[Value] = [row.left, paired.difference, paired.sd, row.low, row.high]
            figures += [judgment.low, judgment.high, judgment.level, judgment.p, row.p_corrected, paired.effect]
            figures += [judgment.p_equivalence, judgment.p_equivalence_corrected, margin]
            worth = (row.worth.gain.value, row.worth.answer) if row.worth else (None, None)
            return [*figures, judgment.margin.before if judgment.margin else None, row.verdict, *worth]
    return [None] * 18


def costs(report: Report) -> Table:
    """Return what each model took to train."""
    from cerank.app.evidence import system_costs

    return msgspec.structs.replace(system_costs.table(report.costs), title="What each model took to train")


def gains_per_cost(report: Report) -> Table:
    """Return what each model gained for what it cost more, in time, calls and money."""
    from cerank.app.evidence import system_costs

    if report.comparison is None:
        return Table("gain-per-cost", (), ())
    return system_costs.gains_per_cost(report.comparison, report.costs)


def pooled(report: Report) -> Table:
    """Return each difference over all test sets."""
    from cerank.app.comparison.several_collections import pooled_tables

    if report.pooled is None:
        return Table("pooled", (), ())
    return msgspec.structs.replace(pooled_tables.tables(report.pooled)[0], title="Pooled over the test sets")


SIDES = (costs, gains_per_cost, pooled, published, stages, groups, shared, events, rankings, runs, inputs)


def sides(report: Report) -> tuple[Table, ...]:
    """Return the supplementary tables that have something to say, for people."""
    return (*report.released, *(table for make in SIDES if (table := make(report)).rows), *report.depths)
