"""A lab that holds a small matrix: two bases, three recipes, two test sets, two first stages; nothing was trained."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import msgspec

from cerank.core.metrics import Event, StepMetrics, Validation
from cerank.datasets.query_overlaps import Overlap, QuerySet, SharedQueries
from cerank.files import disk, json_records
from cerank.files.journal import Journal
from cerank.recipes.matrix_schema import MatrixCell, MatrixRecord
from cerank.recipes.plan import Plan
from cerank.retrieval.teachers import Repairs
from cerank.runs.declared_records import MATRICES
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.training import stage_summary
from cerank.training.sampling.sampler import SamplingStats
from tests.app.made_runs import made_run
from tests.worker.small import small_plan, write_dataset

RECIPES = {
    "ecir2025-cl": (("contrastive",), 0.55),
    "ecir2025-cl-kd": (("contrastive", "distill"), 0.6),
    "ecir2025-kd": (("distill",), 0.2),
}
OVERLAP = Overlap(QuerySet("training", "x", ("distill",)), QuerySet("test", "y"), 3, 9, 1, 3, ("what is x",))
BASES = ("google/electra-base-discriminator", "roberta")
MEASURES = ("nDCG@10", "RR@10"), ("nDCG@10", "RR(rel=2)@10")


def made_matrix(folder: Path) -> SimpleNamespace:
    """The lab, its settings, the record of matrix "grid", and its runs by (base, recipe)."""
    plan, settings = small_plan(folder, force=["shared_queries"])
    graded = write_dataset(folder / "trec-dl-2020-top100", seed=9)
    (graded / "qrels").write_text((graded / "qrels").read_text().replace(" 1\n", " 2\n"))
    tests = (plan.recipe.data.test[0], str(graded))
    measures = dict(zip(tests, MEASURES, strict=True))
    runs: dict[tuple[str, str], RunFolder] = {}
    for base in BASES:
        for recipe, (chain, skill) in RECIPES.items():
            one = planned(plan, base, recipe, chain, measures)
            runs[base, recipe] = made_run(settings, one, f"{recipe} on {base}", skill=skill)
    cells = tuple(MatrixCell(run=run.name, recipe=recipe, base=base, seed=42) for (base, recipe), run in runs.items())
    record = MatrixRecord(
        name="grid",
        sha256="5" * 64,
        created="2026-01-01T00:00:00+00:00",
        baseline="ecir2025-cl",
        tests=tests,
        first_stages=plan.recipe.data.first_stages,
        depth=plan.recipe.data.depth,
        measures=measures,
        cells=cells,
    )
    MATRICES.save(settings.lab, record)
    return SimpleNamespace(settings=settings, record=record, runs=runs, plan=plan, tests=tests)


def planned(plan: Plan, base: str, recipe: str, chain: tuple[str, ...], measures: dict[str, tuple[str, ...]]) -> Plan:
    """The small plan under another name, on another base, tested on more."""
    whole = plan.recipe
    data = msgspec.structs.replace(whole.data, test=tuple(measures))
    evaluate = msgspec.structs.replace(whole.evaluate, measures=tuple({name: 0 for row in MEASURES for name in row}))
    changed = msgspec.structs.replace(whole, name=recipe, base=base, chain=chain, data=data, evaluate=evaluate)
    return msgspec.structs.replace(plan, recipe=changed, measures=measures)


def record_training(folder: RunFolder, *, drift: float = 0.02) -> None:
    """Readings, validations, an event and the facts of a run of two stages."""
    with Journal[ReadingRow](folder.readings, ReadingRow) as readings:
        for stage in (0, 1):
            for step in range(1, 41):
                loss = (2.0 - stage) / step**0.5 if step != 7 else float(10)
                row = StepMetrics(stage, step, loss, 1e-5, 1.0, groups=2, pairs=8, seconds=0.1, attempt=1)
                readings.append(row)
            readings.append(Validation(stage, 40, {"nDCG@10": 0.5 + 0.1 * stage}, attempt=1))
    with Journal[Event](folder.events, Event) as events:
        now = datetime(2026, 1, 2, tzinfo=UTC).isoformat()
        events.append(Event("started", "attempt 1", now, 1))
        events.append(Event("queries shared", str(OVERLAP), now, 1))
        events.append(Event("environment changed", "torch 1 -> 2", now, 1))
    json_records.save(folder.overlaps, SharedQueries((OVERLAP,)))
    for index, name in enumerate(("contrastive", "distill")):
        final = folder.final(index, name)
        disk.make_folder(final)
        stage_summary.write(final, _facts(name, drift if index else 0.05))


def _facts(name: str, drift: float) -> stage_summary.StageSummary:
    return stage_summary.StageSummary(
        stage=name,
        steps=40,
        kept_step=40,
        measure="nDCG@10",
        best=0.61,
        best_step=40,
        learning_rate=1e-5,
        sampling=SamplingStats(100, 90, 1, 7, 2, 3, 11),
        weight_change=stage_summary.WeightChange(norm=drift, changed=0.9),
        teacher_lists=20,
        repairs=Repairs(5, 4, 3, 2),
    )
