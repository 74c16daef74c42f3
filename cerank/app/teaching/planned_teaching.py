"""What the teachers of a plan take, before it starts: calls, tokens, money and time, stage by stage."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe, Stage
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.teachers.estimate import TeachingEstimate
    from cerank.teachers.requests import TeachRequest

MOST_EXACT = 5000  # training queries up to which those that the stage will sample are found; of more, any are taken
MOST_COUNTED = 500  # queries whose prompts are counted; of more, from these in proportion


class PlannedTeaching(msgspec.Struct, frozen=True, kw_only=True):
    """What a teacher does for one part of a plan."""

    use: str  # "distill", "distill in validation", "pydocs/test"
    estimate: TeachingEstimate
    is_sampled: bool = False  # counted on some of the queries, and multiplied


def of_plan(plan: Plan, lab: Path) -> list[PlannedTeaching]:
    """Return what each teacher of `[teachers]` is asked for in a plan; empty where it uses none.

    Raises:
        CerankError: a teacher cannot be made as declared.
    """
    from cerank.teachers.estimate import estimate

    planned = []
    for use, request in _requests(plan, lab):
        queries = request.queries
        few = queries
        if len(queries) > MOST_COUNTED:
            few = tuple(random.Random(0).sample(queries, MOST_COUNTED))
        factor = len(queries) / max(1, len(few))
        for each in estimate(msgspec.structs.replace(request, queries=few)):
            planned.append(PlannedTeaching(use=use, estimate=_multiplied(each, factor), is_sampled=factor > 1))
    return planned


def _multiplied(each: TeachingEstimate, factor: float) -> TeachingEstimate:
    """Return an estimate for more queries like those that were counted."""
    if factor == 1:
        return each
    usage = msgspec.structs.replace(
        each.usage,
        input_tokens=round(each.usage.input_tokens * factor),
        output_tokens=round(each.usage.output_tokens * factor),
    )
    return msgspec.structs.replace(
        each,
        queries=round(each.queries * factor),
        calls=round(each.calls * factor),
        known=round(each.known * factor),
        usage=usage,
        cost=None if each.cost is None else each.cost * factor,
        seconds=None if each.seconds is None else each.seconds * factor,
        are_calls_exact=False,
    )


def _requests(plan: Plan, lab: Path) -> Iterator[tuple[str, TeachRequest]]:
    """Yield what is asked of each teacher, in the order of the work."""
    from cerank.planning import inputs
    from cerank.teachers.requests import TeachRequest

    recipe, cache = plan.recipe, Path(plan.cache)
    used = {stage.asked_teacher for _, stage in recipe.sources()} | {*recipe.evaluate.teachers}
    if not used & recipe.teachers.keys():
        return
    datasets = inputs.open_datasets(recipe, cache)

    def request(name: str, dataset: str, first: str, queries: Sequence[str], depth: int = 0) -> TeachRequest:
        return TeachRequest(
            lab=lab,
            cache=cache,
            name=name,
            teachers=recipe.teachers,
            dataset=datasets[dataset],
            first_stage=first,
            queries=tuple(queries),
            depth=depth,
            device=plan.device,
            threads=plan.threads,
            fetch=False,
        )

    for name in recipe.evaluate.teachers:
        depth = min(recipe.teachers[name].depth, recipe.data.depth)
        for test in recipe.data.test:
            for first in recipe.data.first_stages:
                yield test, request(name, test, first, list(datasets[test].queries), depth)
    for name, stage_name, stage in ((each, *source) for each in recipe.chain for source in recipe.sources_of(each)):
        if stage.asked_teacher not in recipe.teachers:
            continue
        training, first = inputs.training_dataset(recipe, stage), inputs.training_first_stage(recipe, stage)
        sampled = _sampled_queries(recipe, name, stage, datasets[training], cache)
        yield stage_name, request(stage.asked_teacher, training, first, sampled)
        if stage.validates_by_loss and stage.source == "teacher":
            queries = list(datasets[recipe.data.validation].queries)[: stage.validation_queries or None]
            first = inputs.validation_first_stage(recipe)
            yield f"{stage_name} in validation", request(stage.teacher, recipe.data.validation, first, queries)


def _sampled_queries(recipe: Recipe, name: str, stage: Stage, dataset: Dataset, cache: Path) -> Sequence[str]:
    """Return the training queries that a stage samples, or as many others where the training dataset is large."""
    from cerank.planning import inputs
    from cerank.retrieval import first_stage
    from cerank.training.sampler import Sampler, TrainingPool

    queries = list(dataset.queries)
    if len(queries) > MOST_EXACT:
        uses = stage.steps * stage.groups_per_step or math.ceil(stage.epochs * len(queries))
        return random.Random(0).sample(queries, min(uses, len(queries)))
    first = inputs.training_first_stage(recipe, stage)
    depth = stage.window[1] if stage.source == "labels" else inputs.taught_depth(recipe, stage)
    ranking = first_stage.candidates(dataset, first, depth, cache, queries)
    pool = TrainingPool(
        query_ids=queries, qrels={}, ranking=ranking, has_text=dataset.documents.__contains__, scores=None
    )
    sampled = recipe.stages[name].by_source()[0]
    if sampled.source == "labels" and not sampled.labels_by:  # several losses, one of them on the dataset's labels
        with_labels = msgspec.structs.replace(pool, qrels=dataset.qrels)
        return Sampler(name, sampled, recipe.seed, with_labels).sampled_queries
    every = msgspec.structs.replace(stage, source="teacher", labels_by="")  # labels of a model are not known yet
    return Sampler(name, every, recipe.seed, pool).sampled_queries


_COLUMNS = (
    Column("use", "for", "name"),
    Column("teacher", "teacher", "name"),
    Column("host", "passages go to", "name"),
    Column("queries", "queries", "number", 0),
    Column("calls", "calls", "number", 0),
    Column("known", "answered before", "number", 0),
    Column("input_tokens", "tokens in", "number", 0),
    Column("output_tokens", "out", "number", 0),
    Column("cost", "cost"),
    Column("time", "time"),
)


def table(planned: Sequence[PlannedTeaching], title: str) -> Table:
    """Return estimates as a table, with notes on what is estimated in them."""
    from cerank.planning.workload import format_minutes

    rows = []
    notes: dict[str, None] = {}
    for part in planned:
        each = part.estimate
        cost = "no price" if each.cost is None else f"{each.cost:.2f} {each.currency}"
        time = "unknown" if each.seconds is None else format_minutes(each.seconds / 60)
        rows.append(
            (
                part.use, each.name, each.place, each.queries, each.calls, each.known,
                each.usage.input_tokens, each.usage.output_tokens, cost, time,
            )
        )  # fmt: skip
        if each.rounds:
            rounds = counted(each.rounds, "batch")
            notes[f"{each.name}: {rounds} one after the other, each within a day as a rule"] = None
        if each.price_date:
            notes[f"{each.name}: price of {each.price_date}"] = None
        if not each.are_tokens_counted:
            what = "tokens are estimated from words; the model's tokenizer is not on this machine"
            notes[f"{each.name}: {what}"] = None
        if part.is_sampled:
            notes[f"{each.name} for {part.use}: counted on {MOST_COUNTED} queries, in proportion"] = None
        elif not each.are_calls_exact:
            what = "how many calls sorting takes depends on the answers; this is an estimate"
            notes[f"{each.name}: {what}"] = None
    has_uses = any(part.use for part in planned)
    shown = rows if has_uses else [row[1:] for row in rows]
    columns = _COLUMNS if has_uses else _COLUMNS[1:]
    return Table("teaching", columns, tuple(shown), title=title, notes=tuple(notes))
