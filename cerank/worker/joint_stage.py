"""Bring together what a stage with several losses samples from: labels, candidates, and the rankings of its teachers.

A query takes part if each loss has targets for it: the labels, where one learns from them, give it a positive and a
negative, and every teacher ranks it. Negatives are candidates that every teacher ranks; they keep their places in the
first stage's ranking, and a positive that a teacher did not rank is left out of that teacher's loss alone. So is a
negative from another source than the stage's own first stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cerank.core.rankings import Ranking
from cerank.datasets.mixtures import set_number
from cerank.planning import inputs
from cerank.recipes.schema import Recipe, Stage
from cerank.recipes.sections.set_mixtures import numbers_of
from cerank.training.sampling.joint_sampler import JointSampler
from cerank.training.sampling.negative_rankings import set_shares, source_collections, source_rankings
from cerank.training.sampling.sampler import TrainingPool
from cerank.worker.run_inputs import RunInputs

Qrels = Mapping[str, Mapping[str, int]]


def joint_sampler(
    sources: RunInputs,
    recipe: Recipe,
    name: str,
    stage: Stage,
    labels: Callable[[Ranking], Qrels] | None,
    *,
    filtered: Callable[[JointSampler], JointSampler] = lambda sampler: sampler,
) -> JointSampler:
    """Return the sampler of a stage's training groups.

    Teachers that are made here rank only queries that are sampled; one that a teacher could not rank is left out, and
    others are sampled in its place.

    Args:
        sources: what the run reads.
        recipe: the run's recipe.
        name: name of the stage.
        stage: its settings.
        labels: returns the labels that a model gives, from the candidates; None takes the dataset's own.
        filtered: returns a sampler without the candidates that the stage's filters drop; called before teachers rank
            what it samples, and again where others are sampled in the place of queries that a teacher could not rank.
    """
    dataset_name = inputs.training_dataset(recipe, stage)
    dataset = sources.datasets[dataset_name]
    every = list(dataset.queries)
    taught = [(key, view) for key, view in recipe.sources_of(name) if view.source == "teacher"]
    made = [(key, view) for key, view in taught if inputs.ranks_candidates(recipe, view)]
    part_sets = [numbers_of(dataset_name, part.sets) if part.sets else frozenset[str]() for part in stage.parts]
    teacher_sets = _sets_of_teachers(stage, part_sets)
    given = {view.teacher: sources.teacher(key, view, every) for key, view in taught if (key, view) not in made}
    first_view = stage.by_source()[0]
    depth = min(inputs.taught_depth(recipe, view) for view in (first_view, *(view for _, view in made)))
    scores = None
    qrels: Qrels = dataset.qrels
    unranked_docs: Mapping[str, frozenset[str]] = {}
    ranking: Mapping[str, Sequence[str]]
    if first_view.source == "labels" or inputs.ranks_candidates(recipe, first_view):
        candidates = sources.candidates(dataset_name, inputs.training_first_stage(recipe, stage))
        candidates = candidates.top(min(depth, stage.window[1]) if first_view.source == "labels" else depth)
        qrels = labels(candidates) if labels is not None else qrels
        known = ranked_by_all(candidates, list(given.values()), [teacher_sets[teacher] for teacher in given])
        if first_view.source == "labels":
            ranking, unranked_docs = _whole_lists(candidates, known)
        else:
            ranking = known  # the lists to sample from are the teacher's, made later
    else:
        all_sets = [teacher_sets[teacher] for teacher in given]
        ranking = of_first = given[first_view.teacher].only(_queries_of_all(every, list(given.values()), all_sets))
        scores = of_first.scores
    pool = TrainingPool(
        query_ids=list(qrels) if labels is not None else every,
        qrels={query: qrels[query] for query in ranking if query in qrels} if taught else qrels,
        ranking=ranking,
        has_text=dataset.documents.__contains__,
        scores=scores,
        unranked=unranked_docs,
        sources=source_rankings(recipe, stage, sources.candidates),
        collections=source_collections(stage, dataset),
        shares=set_shares(dataset, recipe.data.train_temperature),
    )
    sampler = filtered(JointSampler(name, stage, recipe.seed, pool, given, sets=part_sets))
    while True:
        sampled = sampler.sampled_queries
        lists, unranked = dict(given), list[str]()
        for key, view in sorted(made, key=lambda each: each[1].teacher == inputs.EMBEDDING):
            if unranked and view.teacher == inputs.EMBEDDING:
                break  # it ranks any query, but once: not before the others have left none out
            own_queries = [query for query in sampled if _is_of(query, teacher_sets[view.teacher])]
            if not own_queries:  # the few steps of the stage meet none of the teacher's sets
                lists[view.teacher] = Ranking({}, {})
                continue
            lists[view.teacher] = sources.teacher(key, view, own_queries)
            unranked += [query for query in own_queries if query not in lists[view.teacher]]
        if not unranked:
            return sampler.with_lists(lists)
        sampler = filtered(sampler.leaving_out(unranked))


def validation_sampler(
    sources: RunInputs, recipe: Recipe, name: str, stage: Stage, queries: Sequence[str]
) -> JointSampler:
    """Return the sampler of groups of the validation queries; each is given to every teacher.

    Args:
        sources: what the run reads.
        recipe: the run's recipe.
        name: name of the stage.
        stage: its settings, with one group a step.
        queries: ids of the validation queries.
    """
    validation = inputs.validation_dataset(recipe, stage)
    dataset = sources.datasets[validation]
    taught = [(key, view) for key, view in recipe.sources_of(name) if view.source == "teacher"]
    lists = {view.teacher: sources.teacher(key, view, queries, in_validation=True) for key, view in taught}
    first_view = stage.by_source()[0]
    scores = None
    unranked_docs: Mapping[str, frozenset[str]] = {}
    ranking: Mapping[str, Sequence[str]]
    if first_view.source == "labels":
        first = inputs.validation_first_stage(recipe)
        candidates = sources.candidates(validation, first).only(queries).top(stage.window[1])
        ranking, unranked_docs = _whole_lists(candidates, ranked_by_all(candidates, list(lists.values())))
    else:
        ranking = of_first = lists[first_view.teacher].only(_queries_of_all(queries, list(lists.values())))
        scores = of_first.scores
    pool = TrainingPool(
        query_ids=queries,
        qrels={query: dataset.qrels[query] for query in ranking if query in dataset.qrels} if taught else dataset.qrels,
        ranking=ranking,
        has_text=dataset.documents.__contains__,
        scores=scores,
        unranked=unranked_docs,
    )
    return JointSampler(f"{name} in validation", stage, recipe.seed, pool, lists).with_lists(lists)


def _sets_of_teachers(stage: Stage, part_sets: Sequence[frozenset[str]]) -> dict[str, frozenset[str]]:
    """Return teacher -> the numbers of the sets of a mixture whose queries it must rank; none for all."""
    of_teachers: dict[str, frozenset[str]] = {}
    for part, sets in zip(stage.parts, part_sets, strict=True):
        before = of_teachers.get(part.teacher)
        # of one loss for all sets and one for some, the teacher ranks all
        of_teachers[part.teacher] = sets if before is None else before | sets if before and sets else frozenset()
    return of_teachers


def _is_of(query: str, sets: frozenset[str]) -> bool:
    """Return whether a query is of one of the sets of a mixture, by their numbers; none are all."""
    return not sets or set_number(query) in sets


def ranked_by_all(
    candidates: Ranking, lists: Sequence[Ranking], sets: Sequence[frozenset[str]] = ()
) -> Mapping[str, Sequence[str]]:
    """Return the candidates that are in the lists of all teachers, of the queries that all of them rank.

    With `sets`, numbers of sets of a mixture for each teacher, only the teachers of a query's own set count; none are
    all sets.

    >>> first = Ranking({"q1": ["d1", "d2", "d3"], "q2": ["d1"]}, {"q1": [3.0, 2.0, 1.0], "q2": [1.0]})
    >>> ranked_by_all(first, [Ranking({"q1": ["d3", "d1"]}, {"q1": [2.0, 1.0]})])
    {'q1': ['d1', 'd3']}
    """
    if not lists:
        return candidates
    sets = sets or [frozenset[str]()] * len(lists)
    shared = {}
    for query in _queries_of_all(
        list(candidates) if any(sets) else list(lists[0]), [candidates, *lists], [frozenset(), *sets]
    ):
        own = [set(ranking[query]) for ranking, of_list in zip(lists, sets, strict=True) if _is_of(query, of_list)]
        shared[query] = [doc for doc in candidates[query] if all(doc in known for known in own)]
    return shared


def _whole_lists(
    candidates: Ranking, known: Mapping[str, Sequence[str]]
) -> tuple[Mapping[str, Sequence[str]], dict[str, frozenset[str]]]:
    """Return the whole lists of the queries in `known`, and query -> the candidates that are not in its list there."""
    if known is candidates:
        return candidates, {}
    missing = {query: frozenset(candidates[query]).difference(docs) for query, docs in known.items()}
    return candidates.only(list(known)), {query: docs for query, docs in missing.items() if docs}


def _queries_of_all(queries: Sequence[str], lists: Sequence[Ranking], sets: Sequence[frozenset[str]] = ()) -> list[str]:
    needed = sets or [frozenset[str]()] * len(lists)
    return [
        query
        for query in queries
        if all(query in ranking or not _is_of(query, of_list) for ranking, of_list in zip(lists, needed, strict=True))
    ]
