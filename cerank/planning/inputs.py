"""Finds and hashes everything that a recipe reads: when a plan is made, and again when its worker starts."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cerank.core.negative_samplers import NEGATIVE_SAMPLERS
from cerank.core.rankings import Ranking
from cerank.datasets.dataset import Dataset, no_document
from cerank.datasets.document_fields import check_template, check_titles, with_template
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import MissingError, UsageError
from cerank.files.hashing import input_sha256, sha256_text
from cerank.models import bases
from cerank.models.model_reading import CHECKPOINT_CONFIG
from cerank.planning.depth_checks import check_depths
from cerank.recipes.loss_specs import LOSSES
from cerank.recipes.plan import Input
from cerank.recipes.schema import VALIDATION_LOSS, Recipe, Stage
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.registry import Extension, Registry
from cerank.retrieval import first_stage
from cerank.retrieval.first_stage import RETRIEVERS
from cerank.retrieval.known_candidates import Lookup, look_up
from cerank.retrieval.mined_files import check_mined_files
from cerank.retrieval.teachers import read_teacher
from cerank.teachers import declared
from cerank.text.safe_text import counted, shown

BASE_TEMPLATE = "base_template"  # key of a recipe, for errors
EMBEDDING = "embedding"  # the teacher that cerank computes: sentence similarity by the base below
EMBEDDING_BASE = "minilm"
_LONGEST_EMBEDDED = 128  # tokens: nine docstrings of ten are shorter; the embedder's own training went to 256
_LONGEST_LIST = 1_000  # documents of a query that are looked at, of a teacher or of scores of negatives
_COUNTED = 2000  # queries whose candidates are counted at most


class FirstStageUse(msgspec.Struct, frozen=True, order=True):
    """One dataset ranked by one first stage, to a depth."""

    dataset: str
    first_stage: str
    depth: int


def training_dataset(recipe: Recipe, stage: Stage) -> str:
    """Return the name of the dataset on which a stage trains."""
    return stage.dataset or recipe.data.train


def validation_dataset(recipe: Recipe, stage: Stage) -> str:
    """Return the name of the dataset on whose queries a stage is validated."""
    return stage.validation or recipe.data.validation


def training_first_stage(recipe: Recipe, stage: Stage) -> str:
    """Return the first stage from whose candidates a stage samples."""
    return stage.first_stage or recipe.data.first_stages[0]


def validation_first_stage(recipe: Recipe) -> str:
    """Return the first stage whose candidates are re-ranked in validation."""
    return recipe.data.validation_first_stage or recipe.data.first_stages[0]


def ranks_candidates(recipe: Recipe, stage: Stage) -> bool:
    """Return whether a stage's teacher is made here from the candidates of its first stage.

    That is the embedding teacher, or one of the recipe's `[teachers]`; any other comes from a file.
    """
    return stage.source == "teacher" and (stage.teacher == EMBEDDING or stage.teacher in recipe.teachers)


def cuts_lists(stage: Stage) -> bool:
    """Return whether the lists of a stage's teacher are cut to the ranks of its first stage, which is read for that."""
    return stage.source == "teacher" and bool(stage.list_depth)


def tested_teacher(teacher: str, test: str) -> str:
    """Return the name of the input that a teacher is as a system on a test dataset."""
    return f"{teacher} on {test}"


def taught_depth(recipe: Recipe, stage: Stage) -> int:
    """Return how many candidates of a query a stage samples from, or its teacher ranks."""
    spec = recipe.teachers.get(stage.asked_teacher)
    if stage.source == "labels":
        return max(stage.window[1], spec.depth) if spec is not None else stage.window[1]
    return spec.depth if spec is not None else stage.window[1]


def negative_runs(stage: Stage) -> dict[str, int]:
    """Return the rankings that a stage's `negative_sources` sample from, with the greatest rank of each.

    The stage's own first stage is called "", as the sources call it.
    """
    deepest: dict[str, int] = {}
    for source in stage.negative_sources:
        if source.is_ranked:
            last = (source.ranks or stage.window)[1]
            deepest[source.run] = max(last, deepest.get(source.run, 0))
    return deepest


def scored_by(stage_name: str, stage: Stage) -> str:
    """Return the name of the input that scores candidates for a stage's filters against false negatives."""
    return f"{stage.false_negatives.scores} for {stage_name}"


def first_stage_uses(recipe: Recipe) -> tuple[FirstStageUse, ...]:
    """Return each pair of dataset and first stage that the recipe uses, with the greatest depth that it needs."""
    data = recipe.data
    all_uses = [FirstStageUse(test, first, data.depth) for test in data.test for first in data.first_stages]
    for _, stage in recipe.sources():
        all_uses.append(
            FirstStageUse(validation_dataset(recipe, stage), validation_first_stage(recipe), stage.validation_depth)
        )
        if cuts_lists(stage):
            cut = training_dataset(recipe, stage), training_first_stage(recipe, stage)
            all_uses.append(FirstStageUse(*cut, stage.list_depth))
        if stage.source != "labels" and not ranks_candidates(recipe, stage):
            continue
        depth = taught_depth(recipe, stage)
        if stage.validates_by_loss:
            all_uses.append(FirstStageUse(validation_dataset(recipe, stage), validation_first_stage(recipe), depth))
        own, dataset = training_first_stage(recipe, stage), training_dataset(recipe, stage)
        all_uses.append(FirstStageUse(dataset, own, depth))
        runs = negative_runs(stage)
        all_uses += [FirstStageUse(dataset, run or own, rank) for run, rank in runs.items()]
    deepest: dict[tuple[str, str], int] = {}
    for use in all_uses:
        key = (use.dataset, use.first_stage)
        deepest[key] = max(use.depth, deepest.get(key, 0))
    return tuple(FirstStageUse(dataset, first, depth) for (dataset, first), depth in deepest.items())


def embedding_length(stage: Stage) -> int:
    """Return how many tokens of a text the embedding teacher of a stage reads: never more than the model it teaches."""
    return min(stage.max_length, _LONGEST_EMBEDDED)


def texts_to_embed(recipe: Recipe, datasets: Mapping[str, Dataset], cache: Path) -> dict[str, int]:
    """Return stage -> the approximate number of texts that its embedding teacher encodes.

    Counted on as many queries as the stage draws, though not the same ones, and on 2,000 at most; from there in
    proportion.
    """
    texts = {}
    taught = [(name, view) for name, stage in recipe.chained() for view in stage.by_source()]
    for name, stage in taught:
        if stage.source != "teacher" or stage.teacher != EMBEDDING:
            continue
        dataset = datasets[training_dataset(recipe, stage)]
        queries = dataset.query_ids
        all_uses = stage.steps * stage.groups_per_step or math.ceil(stage.epochs * len(queries))
        queries_used = min(len(queries), all_uses)
        sampled = random.Random(0).sample(queries, min(queries_used, _COUNTED))
        first = training_first_stage(recipe, stage)
        ranking = first_stage.candidates(dataset, first, stage.window[1], cache, sampled)
        documents = len({doc for query in ranking for doc in ranking[query]})
        texts[name] = queries_used + min(len(dataset.documents), round(documents * queries_used / len(sampled)))
    return texts


def dataset_names(recipe: Recipe) -> tuple[str, ...]:
    """Return every dataset the recipe reads, once, in the order of use."""
    training = [training_dataset(recipe, stage) for _, stage in recipe.chained()]
    validation = [validation_dataset(recipe, stage) for _, stage in recipe.chained()]
    return tuple(dict.fromkeys([*training, recipe.data.validation, *validation, *recipe.data.test]))


def open_datasets(recipe: Recipe, cache: Path) -> dict[str, Dataset]:
    """Open the recipe's datasets, by name; raises as `open_dataset`."""
    return {name: open_with_template(name, recipe, cache) for name in dataset_names(recipe)}


def open_with_template(name: str, recipe: Recipe, cache: Path) -> Dataset:
    """Open a dataset with its documents as the recipe writes them.

    Raises:
        UsageError: the recipe's template names a field that the documents do not have.
        CerankError: as `open_dataset`.
    """
    return with_template(open_dataset(name, cache), recipe.data.document_template)


def as_base_reads(dataset: Dataset, recipe: Recipe) -> Dataset:
    """Return an open dataset with its documents as the base reads them; what ranks or judges them reads them as before.

    Raises:
        UsageError: the base's template names a field that the documents do not have.
    """
    return with_template(dataset, recipe.base_template, BASE_TEMPLATE)


def open_as_base_reads(name: str, recipe: Recipe, cache: Path) -> Dataset:
    """Open a dataset with its documents as the recipe's base reads them; raises as `open_with_template`."""
    return as_base_reads(open_with_template(name, recipe, cache), recipe)


def hash_inputs(recipe: Recipe, datasets: dict[str, Dataset], *, fetch: bool) -> tuple[Input, ...]:
    """Return everything that the recipe reads with its SHA-256, in a stable order.

    Args:
        recipe: recipe with every default filled in.
        datasets: name -> dataset, as `opened` returned them.
        fetch: whether a base may be fetched from the hub.

    Raises:
        CerankError: something is missing, malformed or unknown.
    """
    pinned = [_base(recipe, datasets, fetch=fetch)]
    pinned += [
        Input("dataset", name, data.fingerprint(), data.location, data.decisions()) for name, data in datasets.items()
    ]
    pinned += [_baseline(entry, fetch=fetch) for entry in recipe.baselines]
    for use in first_stage_uses(recipe):
        pinned.append(_first_stage(use, recipe, datasets[use.dataset]))
    for name, stage in ((name, view) for name, each in recipe.chained() for view in each.by_source()):
        if stage.asked_teacher:
            pinned.append(_teacher(name, stage, recipe, datasets, fetch=fetch))
        if stage.false_negatives.scores:
            pinned.append(_scorer_of_negatives(name, stage, recipe, datasets, fetch=fetch))
        check_mined_files(name, stage, datasets[training_dataset(recipe, stage)], recipe.data.document_template)
    check_depths(recipe, datasets)
    if any(recipe.passages_of(system).title for system in (*recipe.chain, *recipe.baseline_models())):
        for data in datasets.values():
            check_titles(data)
    for teacher in recipe.evaluate.teachers:
        spec = recipe.teachers[teacher]
        for test in recipe.data.test:
            declared.documents_read(spec, recipe.teachers, datasets[test], f"teachers.{teacher}.model", fetch=fetch)
            firsts = [
                declared.identity(spec, recipe.teachers, datasets[test], first, fetch=fetch)
                for first in recipe.data.first_stages
            ]
            digest = sha256_text(" ".join(firsts))
            pinned.append(Input("tested_teacher", tested_teacher(teacher, test), digest, place_of(spec)))
    return tuple(pinned)


def _base(recipe: Recipe, datasets: dict[str, Dataset], *, fetch: bool) -> Input:
    """Return the base as an input, with how it is read.

    Raises:
        UsageError: prompts leave no room for documents, or its template names a field that a dataset lacks.
        MissingError: there is no such base.
    """
    base = bases.locate(recipe.base, fetch=fetch, pooling=recipe.pooling)
    if base.declaration is not None:
        _check_prompt(base, recipe)
    for data in datasets.values():
        check_template(data, recipe.base_template, BASE_TEMPLATE)
    reads = (f"documents as {shown(recipe.base_template, 200)}",) if recipe.base_template else ()
    return Input("base", recipe.base, base.sha256, str(base.folder), (base.reading().family, *reads))


def _first_stage(use: FirstStageUse, recipe: Recipe, dataset: Dataset) -> Input:
    """Return a first stage as an input, with a note where its collection lacks some of the candidates.

    Raises:
        UsageError: it is a run that ranks no query, or no document, of the dataset.
        MissingError: a candidate that would be re-ranked in a test has no text.
    """
    sha256 = first_stage.fingerprint(dataset, use.first_stage)
    lookup = first_stage.check_given_run(dataset, use.first_stage, use.depth)
    data = recipe.data
    is_tested = use.dataset in data.test and use.first_stage in data.first_stages
    if lookup.unknown and is_tested and use.depth == data.depth:
        missing = no_document(lookup.unknown[0], dataset.name)
        where = f"first stage {shown(use.first_stage, 120)}"
        raise MissingError(missing.what, where=where, hint=f"{missing.hint} {lookup.sentence}", code=missing.code)
    notes = (*lookup.notes, *_notes_on(lookup))
    return Input("first_stage", f"{use.first_stage} on {use.dataset}", sha256, notes=notes)


def _notes_on(lookup: Lookup) -> tuple[str, ...]:
    return (f"{lookup.sentence}; a run that meets one of them fails",) if lookup.unknown else ()


def _scorer_of_negatives(
    name: str, stage: Stage, recipe: Recipe, datasets: dict[str, Dataset], *, fetch: bool
) -> Input:
    """Return what scores candidates for a stage's filters as an input: a declared cross-encoder, or a scored run.

    Raises:
        UsageError: the run scores none of the training queries, or is no run.
    """
    scores, dataset = stage.false_negatives.scores, datasets[training_dataset(recipe, stage)]
    spec = recipe.teachers.get(scores)
    if spec is not None:
        first = training_first_stage(recipe, stage)
        notes = declared.documents_read(spec, recipe.teachers, dataset, f"teachers.{scores}.model", fetch=fetch)
        identity = declared.identity(spec, recipe.teachers, dataset, first, fetch=fetch)
        return Input("false_negatives", scored_by(name, stage), identity, place_of(spec), notes)
    where = f"stages.{name}.false_negatives.scores"
    try:
        run = first_stage.open_given_run(dataset, scores)
    except UsageError as error:
        hint = "name a scored TREC run, a run of the dataset, or a cross-encoder in [teachers]"
        raise UsageError(error.what, where=where, hint=hint, code=error.code) from error
    scored = sum(query in run.ranking for query in dataset.queries)
    of = f"the {counted(len(dataset.queries), 'query')} of {dataset.name}"
    if not scored:
        what = f"the run scores candidates of none of {of}"
        raise UsageError(what, where=where, hint="was it made from this dataset?", code="no-ranked-query")
    look_up(dataset, f"run '{shown(scores, 120)}'", run.ranking, _LONGEST_LIST, where)
    notes = (f"scores candidates of {scored:,} of {of}",) if scored < len(dataset.queries) else ()
    sha256 = run.sha256 or first_stage.fingerprint(dataset, scores)
    return Input("false_negatives", scored_by(name, stage), sha256, scores, notes)


def _baseline(entry: str, *, fetch: bool) -> Input:
    """Return a finished re-ranker as an input; a checkpoint of cerank counts with the lengths that it reads.

    Raises:
        UsageError: it has no trained head, so that its scores would be noise; or it is no re-ranker at all.
        MissingError: there is no such model.
    """
    try:
        files = bases.locate(entry, fetch=fetch)
        reading = files.reading()
    except (UsageError, MissingError) as error:
        if error.where != "base":
            raise
        what = f"no model is called '{entry}'" if error.code == "unknown-base" else error.what
        raise type(error)(what, where="baselines", hint=error.hint, code=error.code) from error
    if reading.head == "fresh":
        hint = "fine-tune it as the base of a recipe, or take a finished re-ranker"
        what = f"has no trained head ({reading.family}); its scores would be noise"
        raise UsageError(what, where=f"baselines: {entry}", hint=hint, code="head-untrained")
    config = files.folder / CHECKPOINT_CONFIG
    sha256 = sha256_text(f"{files.sha256} {input_sha256(config)}") if config.is_file() else files.sha256
    return Input("baseline", entry, sha256, str(files.folder), (reading.family,))


def _check_teacher_ranks_validation(
    name: str, stage: Stage, training: Dataset, validation: Dataset, teacher: Ranking
) -> None:
    """Check that the teacher ranks the validation queries, as a validation loss requires.

    Raises:
        UsageError: it ranks other documents, or none of the queries.
    """
    key = "keep_best" if VALIDATION_LOSS in stage.keep_best else "validation_measure"
    where = f"stages.{name}.{'validation_loss' if stage.validation_loss == 'yes' else key}"
    if training.documents.fingerprint() != validation.documents.fingerprint():
        what = f"the teacher ranks documents of {training.name}, and {validation.name} has others"
        hint = "take validation queries of the same collection, or a measure to choose by"
        raise UsageError(
            f"{what}, so its loss there is unknown", where=where, hint=hint, code="teacher-of-other-documents"
        )
    if not any(query in teacher for query in validation.queries):
        what = f"the teacher ranks none of the {counted(len(validation.queries), 'query')} of {validation.name}"
        hint = "take a part of the queries that it ranks for validation, such as [99%:], or a measure to choose by"
        raise UsageError(what, where=where, hint=hint, code="teacher-without-queries")


def _check_list_queries(name: str, stage: Stage, ranked: int) -> None:
    """Check that the teacher ranks as many queries as the stage asks for.

    Raises:
        UsageError: it ranks fewer.
    """
    if 0 < ranked < stage.list_queries:
        what = f"the teacher ranks {ranked:,} of the training queries, fewer than {stage.list_queries:,}"
        where = f"stages.{name}.list_queries"
        raise UsageError(what, where=where, hint="0 takes all of them", code="teacher-without-queries")


def _check_prompt(base: bases.BaseFiles, recipe: Recipe) -> None:
    """Check that each stage's lengths leave room for a document beside a language model's prompt.

    Raises:
        UsageError: they do not, or a stage cuts pairs in a way that prompts are not cut.
    """
    from cerank.models.load_model import check_prompt_limits

    for name, stage in recipe.chained():
        check_prompt_limits(base, stage, f"stages.{name}")


def _teacher(name: str, stage: Stage, recipe: Recipe, datasets: dict[str, Dataset], *, fetch: bool) -> Input:
    if stage.teacher == EMBEDDING:
        files = bases.locate(EMBEDDING_BASE, fetch=fetch)
        return Input("teacher", f"{EMBEDDING} for {name}", files.sha256, str(files.folder))
    dataset = datasets[training_dataset(recipe, stage)]
    spec = recipe.teachers.get(stage.asked_teacher)
    if spec is not None:
        first = training_first_stage(recipe, stage)
        where = f"teachers.{stage.asked_teacher}.model"
        notes = declared.documents_read(spec, recipe.teachers, dataset, where, fetch=fetch)
        identity = declared.identity(spec, recipe.teachers, dataset, first, fetch=fetch)
        return Input("teacher", f"{stage.asked_teacher} for {name}", identity, place_of(spec), notes)
    teacher = read_teacher(stage.teacher, dataset, drops_malformed=stage.malformed_lists == "drop")
    if not teacher.ranking:
        where, hint = f"stages.{name}.teacher: {shown(stage.teacher, 200)}", "did what wrote it fail?"
        raise UsageError("the teacher's file ranks no query", where=where, hint=hint, code="run-empty")
    queries = counted(len(dataset.queries), "query")
    ranked = sum(query in teacher.ranking for query in dataset.queries)
    if not ranked:
        some = next(iter(teacher.ranking), "")
        raise UsageError(
            f"the teacher ranks none of the {queries} of {dataset.name}",
            where=f"stages.{name}.teacher",
            hint=f"its queries are called like '{shown(some, 40)}', those of the dataset like "
            f"'{shown(next(iter(dataset.queries), ''), 40)}'",
            code="teacher-without-queries",
        )
    _check_list_queries(name, stage, ranked)
    if stage.validates_by_loss:
        _check_teacher_ranks_validation(
            name, stage, dataset, datasets[validation_dataset(recipe, stage)], teacher.ranking
        )
    of_file = f"teacher '{shown(stage.teacher, 120)}'"
    lookup = look_up(dataset, of_file, teacher.ranking, _LONGEST_LIST, f"stages.{name}.teacher")
    notes = (f"ranks {ranked:,} of the {queries} of {dataset.name}",) if ranked < len(dataset.queries) else ()
    all_notes = (*notes, *_notes_on(lookup))
    return Input("teacher", f"{stage.teacher} for {name}", teacher.sha256, stage.teacher, all_notes)


def place_of(spec: TeacherSpec) -> str:
    """Return where a teacher's passages go: the host that the plan names, or "in process"."""
    return spec.server or "in process"


def extensions_used(recipe: Recipe) -> tuple[Extension, ...]:
    """Return every extension that decides a number of the recipe, sorted."""
    names: list[tuple[Registry[Any], str]] = []
    for _, stage in recipe.chained():
        names += [(LOSSES, part.name) for part in stage.parts]
        names.append((NEGATIVE_SAMPLERS, stage.negatives))
        names += [(NEGATIVE_SAMPLERS, source.sampler) for source in stage.negative_sources if source.sampler]
        names += [(RETRIEVERS, run) for run in negative_runs(stage) if run]
        names.append((RETRIEVERS, training_first_stage(recipe, stage)))
    names += [(RETRIEVERS, first) for first in (*recipe.data.first_stages, validation_first_stage(recipe))]
    extensions = (registry.extension(name) for registry, name in names)
    return tuple(sorted({extension for extension in extensions if extension is not None}))
