"""Show a sample of negatives for the eye: those that a run's stage samples and drops, or those in a mined file.

Invariant: nothing is written; a run's groups are sampled again from its plan, so what is shown is what it trains on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking
from cerank.core.seeds import derive
from cerank.datasets.dataset import Dataset
from cerank.datasets.document_fields import with_template
from cerank.errors import MissingError, UsageError
from cerank.files import json_records
from cerank.planning import inputs
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Stage
from cerank.registry import nearest
from cerank.retrieval import false_negatives, first_stage
from cerank.retrieval.false_negatives import DroppedNegative
from cerank.retrieval.mined_files import provenance_of
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.training.sampling.negative_rankings import set_shares, source_collections, source_rankings
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.trec.open_run import open_run_file


class SampleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whose negatives to show, and how many."""

    what: str  # a run, RUN:STAGE, or a mined file
    dataset: str = ""  # of a file without provenance
    queries: int = 5
    per_query: int = 4
    seed: int = 0
    only_dropped: bool = False


class ShownNegative(msgspec.Struct, frozen=True, kw_only=True):
    """A negative, or a candidate that a filter dropped, with its query and a positive of it."""

    query: str
    query_text: str
    positive: str
    positive_text: str
    negative: str
    negative_text: str
    source: str
    rank: int | None
    score: float | None
    dropped_by: str  # "" for one that is sampled


class NegativeSample(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown, and sentences about it."""

    title: str
    rows: tuple[ShownNegative, ...]
    notes: tuple[str, ...]


def sample(settings: Settings, request: SampleRequest) -> NegativeSample:
    """Return a sample of the negatives of a run's stage or of a mined file.

    Raises:
        UsageError: there is no such run, stage or file; the stage has no negatives, or drops none.
        MissingError: the run has not come as far as to filter them.
    """
    path = Path(request.what).expanduser()
    return _of_file(settings, request, path) if path.is_file() else _of_run(settings, request)


def _of_file(settings: Settings, request: SampleRequest, path: Path) -> NegativeSample:
    from cerank.datasets.open_datasets import open_dataset

    mined = provenance_of(path)
    name = request.dataset or (mined.dataset if mined is not None else "")
    if not name:
        hint = "give --dataset DATASET"
        raise UsageError(
            "the file has no provenance that names its dataset", where=str(path), hint=hint, code="no-provenance"
        )
    if request.only_dropped:
        raise UsageError("filters drop candidates in a stage of a run, not in a file", where="--dropped")
    template = mined.settings.get("document_template", "") if mined is not None and name == mined.dataset else ""
    dataset = with_template(open_dataset(name, settings.cache), str(template))
    ranking = open_run_file(path, settings.cache).ranking
    relevance = mined.settings.get("relevance", 1) if mined is not None else 1
    chosen = _some([query for query in dataset.queries if query in ranking], request)
    rows: list[ShownNegative] = []
    for query in chosen:
        grades = dataset.qrels.get(query, {})
        positives = [doc for doc, grade in grades.items() if grade >= int(relevance) and doc in dataset.documents]
        pool = [
            (rank, doc, score)
            for rank, (doc, score) in enumerate(zip(ranking[query], ranking.scores(query), strict=True), 1)
            if doc not in positives
        ]
        picked = sorted(_random(request, query).sample(pool, min(request.per_query, len(pool))))
        rows += [
            _row(dataset, query, positives, doc, source="mined", rank=rank, score=score) for rank, doc, score in picked
        ]
    notes = ["the file has no provenance"]
    if mined is not None:
        notes = [
            f"mined by the {mined.by} {mined.model}, sha256 {mined.model_sha256[:12]}, for {mined.dataset}: "
            f"{mined.candidates:,} candidates of {counted(mined.queries, 'query')}"
        ]
    return NegativeSample(title=f"Candidates in {path.name}", rows=tuple(rows), notes=tuple(notes))


def _random(request: SampleRequest, *what: str) -> random.Random:
    return random.Random(derive(request.seed, "shown negatives", *what))


def _some(queries: Sequence[str], request: SampleRequest) -> list[str]:
    return _random(request).sample(list(queries), min(request.queries, len(queries)))


def _row(
    dataset: Dataset,
    query: str,
    positives: Sequence[str],
    negative: str,
    *,
    source: str,
    rank: int | None,
    score: float | None,
    dropped_by: str = "",
) -> ShownNegative:
    positive = positives[0] if positives else ""
    return ShownNegative(
        query=query,
        query_text=dataset.queries[query],
        positive=positive,
        positive_text=dataset.documents.text(positive) if positive else "",
        negative=negative,
        negative_text=dataset.documents.text(negative),
        source=source,
        rank=rank or None,
        score=score,
        dropped_by=dropped_by,
    )


def _of_run(settings: Settings, request: SampleRequest) -> NegativeSample:
    title, colon, stage_name = request.what.partition(":")
    folder = run_store.find(settings.lab, title)
    plan = run_store.load_plan(folder)
    name, stage = _stage(plan, stage_name, has_name=bool(colon))
    dataset = inputs.open_with_template(inputs.training_dataset(plan.recipe, stage), plan.recipe, settings.cache)
    candidates = _candidates(plan, dataset, settings)
    dropped = _dropped(folder, name, stage)
    sampler = _sampler(plan, name, stage, dataset, candidates).dropping(false_negatives.by_query(dropped))
    of_query: dict[str, list[DroppedNegative]] = {}
    for entry in dropped:
        of_query.setdefault(entry.query, []).append(entry)
    if request.only_dropped:
        rows = _dropped_rows(request, dataset, sampler, of_query)
    else:
        rows = _sampled_rows(request, plan, stage, dataset, sampler, of_query=of_query)
    notes = [f"groups of {name}, as the run's plan samples them; dropped candidates beside them"]
    counts = folder.filter_counts(name)
    if counts.exists():
        notes.append(str(json_records.decode(counts.read_bytes(), false_negatives.FilterCounts)))
    return NegativeSample(title=f"Negatives of {run_store.title(folder)}:{name}", rows=tuple(rows), notes=tuple(notes))


def _stage(plan: Plan, stage_name: str, *, has_name: bool) -> tuple[str, Stage]:
    """Return the stage that is asked for, or the first of the run that has negatives.

    Raises:
        UsageError: there is no such stage, or it has no negatives.
    """
    stages = dict(plan.recipe.chained())
    with_negatives = [name for name, stage in stages.items() if stage.source == "labels" and not stage.labels_by]
    if has_name and stage_name not in stages:
        raise UsageError(
            f"the run has no stage '{stage_name}'", hint=nearest(stage_name, stages), code="stage-not-found"
        )
    name = stage_name if has_name else next(iter(with_negatives), "")
    if name not in with_negatives:
        what = f"stage {name} takes its labels from a teacher" if has_name else "no stage learns from labels"
        hint = f"stages with negatives: {', '.join(with_negatives) or 'none'}"
        raise UsageError(f"{what}, so there are no negatives to show", hint=hint, code="no-negatives")
    return name, stages[name]


def _candidates(plan: Plan, dataset: Dataset, settings: Settings) -> Callable[[str, str], Ranking]:
    """Return the function from dataset and first stage to the ranking that the run samples from."""
    depths = {(use.dataset, use.first_stage): use.depth for use in inputs.first_stage_uses(plan.recipe)}

    def candidates(of: str, first: str) -> Ranking:
        return first_stage.candidates(dataset, first, depths[of, first], settings.cache)

    return candidates


def _dropped(folder: RunFolder, name: str, stage: Stage) -> list[DroppedNegative]:
    if not stage.false_negatives.is_used:
        return []
    path = folder.dropped_negatives(name)
    if not path.exists():
        what = f"the run has not filtered the negatives of {name} yet"
        raise MissingError(what, where=run_store.title(folder), hint="start or resume it", code="not-filtered")
    return false_negatives.read_list(path)


def _sampler(
    plan: Plan, name: str, stage: Stage, dataset: Dataset, candidates: Callable[[str, str], Ranking]
) -> Sampler:
    recipe = plan.recipe
    own = candidates(inputs.training_dataset(recipe, stage), inputs.training_first_stage(recipe, stage))
    return Sampler(
        name,
        stage,
        recipe.seed,
        TrainingPool(
            query_ids=list(dataset.queries),
            qrels=dataset.qrels,
            ranking=own.top(stage.window[1]),
            has_text=dataset.documents.__contains__,
            sources=source_rankings(recipe, stage, candidates),
            collections=source_collections(stage, dataset),
            shares=set_shares(dataset, recipe.data.train_temperature),
        ),
    )


def _dropped_rows(
    request: SampleRequest, dataset: Dataset, sampler: Sampler, of_query: Mapping[str, Sequence[DroppedNegative]]
) -> list[ShownNegative]:
    rows = []
    for query in _some(list(of_query), request):
        positives = sampler.candidates_of(query)[0]
        for entry in of_query[query][: request.per_query]:
            rows.append(_dropped_row(dataset, query, positives, entry))
    return rows


def _dropped_row(dataset: Dataset, query: str, positives: Sequence[str], entry: DroppedNegative) -> ShownNegative:
    return _row(
        dataset,
        query,
        positives,
        entry.document,
        source=entry.source,
        rank=entry.rank,
        score=entry.score,
        dropped_by=entry.filter,
    )


def _groups(request: SampleRequest, sampler: Sampler) -> Iterator[tuple[str, list[str], list[tuple[int, str, int]]]]:
    """Yield (query, its positives in the group, its negatives as (source, document, rank)) of random steps."""
    steps = _random(request, "steps").sample(range(1, sampler.steps + 1), min(sampler.steps, request.queries))
    shown = 0
    for step in sorted(steps):
        for group, sampled in sampler.sampled_negatives(step):
            if shown == request.queries:
                return
            shown += 1
            documents = {negative.doc_id for negative in sampled}
            positives = [doc for doc in group.doc_ids if doc not in documents]
            yield group.query_id, positives, [(entry.source, entry.doc_id, entry.rank) for entry in sampled]


def _sampled_rows(
    request: SampleRequest,
    plan: Plan,
    stage: Stage,
    dataset: Dataset,
    sampler: Sampler,
    *,
    of_query: Mapping[str, Sequence[DroppedNegative]],
) -> list[ShownNegative]:
    """Return the negatives of some groups, with the scores that the filters saw where a file holds them."""
    sources = [str(source) for source in stage.negative_sources] or ["first-stage"]
    scorer = stage.false_negatives.scores
    scores: Ranking | None = None
    if scorer and scorer not in plan.recipe.teachers:
        scores = first_stage.open_given_run(dataset, scorer).ranking
    rows = []
    for query, positives, negatives in _groups(request, sampler):
        known = dict(zip(scores[query], scores.scores(query), strict=True)) if scores and query in scores else {}
        for place, doc, rank in negatives[: request.per_query]:
            rows.append(_row(dataset, query, positives, doc, source=sources[place], rank=rank, score=known.get(doc)))
        rows += [
            _dropped_row(dataset, query, positives, entry) for entry in of_query.get(query, ())[: request.per_query]
        ]
    return rows
