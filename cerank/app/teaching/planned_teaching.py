"""What the teachers of a plan take, before it starts: calls, tokens, money and time, stage by stage."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import CerankError
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe, Stage
from cerank.recipes.sections.negative_specs import FalseNegativeFilters
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
    from cerank.teachers.estimate import parts_of

    place = TeachingPlace(lab, Path(plan.cache), plan.device, plan.threads)
    seen: set[str] = set()
    return [
        planned
        for use, request in _requests(plan.recipe, place)
        for part in parts_of(request)
        for planned in _counted(use, part, seen)
    ]


class TeachingPlace(msgspec.Struct, frozen=True):
    """Where teachers would be made: folders, device and threads."""

    lab: Path
    cache: Path
    device: str
    threads: int


class SharedTeaching(msgspec.Struct, frozen=True):
    """What the teachers of several runs take together: one row a teacher, and each call once."""

    teachers: tuple[PlannedTeaching, ...] = ()
    unknown: dict[str, str] = {}  # recipe -> why what its teachers take is not known


def of_recipes(recipes: Sequence[Recipe], place: TeachingPlace) -> SharedTeaching:
    """Return what the teachers of recipes take together; answers that runs share count once. Nothing is fetched."""
    from cerank.datasets import irds
    from cerank.teachers import declared
    from cerank.teachers.estimate import parts_of

    requests: dict[str, _Wanted] = {}
    unknown: dict[str, str] = {}
    with irds.offline():
        for recipe in recipes:
            try:
                for _, request in _requests(recipe, place):
                    for part in parts_of(request):
                        identity = declared.identity(part.spec, part.teachers, part.dataset, part.first_stage)
                        each = requests.setdefault(f"{part.dataset.name} {identity}", _Wanted(part))
                        each.queries |= dict.fromkeys(part.queries)
                        each.recipes |= {recipe.name: None}
            except CerankError as error:
                unknown.setdefault(recipe.name, error.what)
        rows: dict[tuple[str, str, str], list[PlannedTeaching]] = {}
        seen: set[str] = set()
        for each in requests.values():
            request = msgspec.structs.replace(each.request, queries=tuple(each.queries))
            use = ", ".join(each.recipes)
            try:
                planned = _counted(use, request, seen)
            except CerankError as error:
                unknown |= dict.fromkeys(each.recipes, error.what)
                continue
            for row in planned:
                rows.setdefault((row.estimate.name, request.spec.model, row.estimate.place), []).append(row)
    return SharedTeaching(tuple(map(_together, rows.values())), unknown)


class _Wanted:
    """What several runs ask one teacher: about which queries of a dataset, and for which recipes."""

    def __init__(self, request: TeachRequest) -> None:
        self.request = request
        self.queries: dict[str, None] = {}
        self.recipes: dict[str, None] = {}


def _counted(use: str, request: TeachRequest, seen: set[str]) -> list[PlannedTeaching]:
    """Return the estimate for a request; of many queries some are counted, and the rest is taken to be like them."""
    from cerank.teachers.estimate import estimate

    queries = request.queries
    few = queries if len(queries) <= MOST_COUNTED else tuple(random.Random(0).sample(queries, MOST_COUNTED))
    factor = len(queries) / max(1, len(few))
    estimates = estimate(msgspec.structs.replace(request, queries=few), seen=seen)
    return [PlannedTeaching(use=use, estimate=_multiplied(each, factor), is_sampled=factor > 1) for each in estimates]


def _together(planned: Sequence[PlannedTeaching]) -> PlannedTeaching:
    """Return the sum of what one teacher does for different datasets."""
    from cerank.teachers.engines.engine import Usage

    parts = [row.estimate for row in planned]
    costs = [part.cost for part in parts]
    seconds = [part.seconds if part.left else 0.0 for part in parts]
    return PlannedTeaching(
        use=", ".join(dict.fromkeys(name for row in planned for name in row.use.split(", "))),
        estimate=msgspec.structs.replace(
            parts[0],
            queries=sum(part.queries for part in parts),
            calls=sum(part.calls for part in parts),
            known=sum(part.known for part in parts),
            usage=Usage(
                sum(part.usage.input_tokens for part in parts), sum(part.usage.output_tokens for part in parts)
            ),
            are_tokens_counted=all(part.are_tokens_counted for part in parts),
            are_calls_exact=all(part.are_calls_exact for part in parts),
            cost=None if None in costs else math.fsum(cost for cost in costs if cost is not None),
            seconds=None if None in seconds else math.fsum(time for time in seconds if time is not None),
            rounds=sum(part.rounds for part in parts),
        ),
        is_sampled=any(row.is_sampled for row in planned),
    )


def total_in_words(shared: SharedTeaching) -> str:
    """Return the calls, tokens and money of all teachers together, such as for a line below their table."""
    parts = [row.estimate for row in shared.teachers]
    left = sum(part.left for part in parts)
    tokens = sum(part.usage.input_tokens + part.usage.output_tokens for part in parts)
    money: dict[str, float] = {}
    for part in parts:
        if part.cost is not None:
            money[part.currency] = money.get(part.currency, 0.0) + part.cost
    prices = " and ".join(f"{cost:.2f} {currency}" for currency, cost in money.items())
    unpriced = [part.name for part in parts if part.cost is None and part.left]
    without = f"{', '.join(unpriced)} without a price" if unpriced else ""
    return f"Teachers: {counted(left, 'call')} to make, {tokens:,} tokens" + "".join(
        f"; {part}" for part in (prices, without) if part
    )


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


def _requests(recipe: Recipe, place: TeachingPlace) -> Iterator[tuple[str, TeachRequest]]:
    """Yield what is asked of each teacher, in the order of the work."""
    from cerank.planning import inputs
    from cerank.teachers.requests import TeachRequest

    used = {stage.asked_teacher for _, stage in recipe.sources()} | {*recipe.evaluate.teachers}
    if not used & recipe.teachers.keys():
        return
    datasets = inputs.open_datasets(recipe, place.cache)

    def request(name: str, dataset: str, first: str, queries: Sequence[str], depth: int = 0) -> TeachRequest:
        return TeachRequest(
            lab=place.lab,
            cache=place.cache,
            name=name,
            teachers=recipe.teachers,
            dataset=datasets[dataset],
            first_stage=first,
            queries=tuple(queries),
            depth=depth,
            device=place.device,
            threads=place.threads,
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
        sampled = _sampled_queries(recipe, name, stage, datasets[training], place.cache)
        yield stage_name, request(stage.asked_teacher, training, first, sampled)
        if stage.validates_by_loss and stage.source == "teacher":
            queries = list(datasets[inputs.validation_dataset(recipe, stage)].queries)[
                : stage.validation_queries or None
            ]
            first = inputs.validation_first_stage(recipe)
            yield (
                f"{stage_name} in validation",
                request(stage.teacher, inputs.validation_dataset(recipe, stage), first, queries),
            )


def _sampled_queries(recipe: Recipe, name: str, stage: Stage, dataset: Dataset, cache: Path) -> Sequence[str]:
    """Return the training queries that a stage samples, or as many others where the training dataset is large."""
    from cerank.planning import inputs
    from cerank.retrieval import first_stage
    from cerank.training.sampling.negative_rankings import set_shares
    from cerank.training.sampling.sampler import Sampler, TrainingPool

    queries = list(dataset.queries)
    if len(queries) > MOST_EXACT:
        uses = stage.steps * stage.groups_per_step or math.ceil(stage.epochs * len(queries))
        return random.Random(0).sample(queries, min(uses, len(queries)))
    first = inputs.training_first_stage(recipe, stage)
    depth = stage.window[1] if stage.source == "labels" else inputs.taught_depth(recipe, stage)
    ranking = first_stage.candidates(dataset, first, depth, cache, queries)
    pool = TrainingPool(
        query_ids=queries,
        qrels={},
        ranking=ranking,
        has_text=dataset.documents.__contains__,
        scores=None,
        shares=set_shares(dataset, recipe.data.train_temperature),
    )
    sampled = recipe.stages[name].by_source()[0]
    if sampled.source == "labels" and not sampled.labels_by:  # several losses, one of them on the dataset's labels
        with_labels = msgspec.structs.replace(pool, qrels=dataset.qrels)
        # which queries the sources and filters of negatives leave out is known when the run starts
        plain = msgspec.structs.replace(sampled, negative_sources=(), false_negatives=FalseNegativeFilters())
        return Sampler(name, plain, recipe.seed, with_labels).sampled_queries
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
    Column("seconds", "time", "duration"),
)


def table(planned: Sequence[PlannedTeaching], title: str) -> Table:
    """Return estimates as a table, with notes on what is estimated in them."""
    rows = []
    notes: dict[str, None] = {}
    for part in planned:
        each = part.estimate
        cost = "no price" if each.cost is None else f"{each.cost:.2f} {each.currency}"
        rows.append(
            (
                part.use, each.name, each.place, each.queries, each.calls, each.known,
                each.usage.input_tokens, each.usage.output_tokens, cost, each.seconds,
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
