"""Passages in `cerank rerank`: what is asked of them, what the model's run did, and the scores of each in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.core.passage_scores import document_scores
from cerank.datasets.dataset import Dataset
from cerank.errors import CerankError, UsageError
from cerank.files import disk, json_records
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.passage_specs import PassageSpec, passage_mistakes
from cerank.runs import run_store
from cerank.runs.layout import RunFolder

if TYPE_CHECKING:
    from cerank.inference.rerank import Scorer
    from cerank.inference.score_cache import Scores

PASSAGE_OPTIONS = {  # key of `PassageSpec` -> option
    "aggregation": "--aggregation",
    "max_passages": "--max-passages",
    "length": "--passage-length",
    "stride": "--stride",
    "title": "--title",
    "top": "--top",
}


def check_request(
    spec: PassageSpec | None,
    scores_file: Path | None,
    output: Path,
    *,
    is_server: bool,
    is_shard: bool,
    replace: bool,
) -> None:
    """Check what is asked of passages, before anything is read.

    Args:
        spec: how documents are to be cut; None where the command does not say.
        scores_file: where the scores of passages are to be written.
        output: where the ranking is to be written.
        is_server: whether a server scores.
        is_shard: whether only a part of the queries is scored.
        replace: whether an existing file is overwritten.

    Raises:
        UsageError: it contradicts itself, or the file cannot be written.
    """
    if spec is not None and is_server:
        what = "a server scores whole texts; passages are cut for models that cerank runs itself"
        raise UsageError(what, where="--aggregation", code="options-conflict")
    for mistake in passage_mistakes(spec, "passages") if spec is not None else ():
        where, _, what = mistake.partition(": ")
        raise UsageError(what, where=PASSAGE_OPTIONS[where.rpartition(".")[2]], code="passages-wrong")
    if scores_file is None:
        return
    if is_server or is_shard:
        what = "it is written with the whole ranking: give it with --merge" if is_shard else "a server has none"
        raise UsageError(what, where="--passage-scores", code="options-conflict")
    if scores_file.resolve() == output.resolve():
        what = f"the ranking is written to {output}, too"
        hint = "name another file for the scores"
        raise UsageError(what, where="--passage-scores", hint=hint, code="options-conflict")
    if not scores_file.parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(scores_file))
    if scores_file.exists() and not replace:
        hint = "--replace overwrites it"
        raise UsageError("the file exists already", where=str(scores_file), hint=hint, code="file-exists")


class DocumentForms(msgspec.Struct, frozen=True):
    """Texts of a document from its fields; "" where they are as the dataset has them."""

    template: str = ""  # as everything reads it, a first stage too
    base_template: str = ""  # as the model reads it; "" for the same


def as_in_run(
    spec: PassageSpec | None, template: str, folder: Path | None
) -> tuple[PassageSpec | None, DocumentForms, tuple[str, ...]]:
    """Return how documents are cut and written, and notes on it: as asked for, else as the model's run did.

    Args:
        spec: how documents are to be cut; None where the command does not say.
        template: text of a document from its fields; "" where the command does not say.
        folder: folder of the model; None for a server.
    """
    whole = spec is not None and not spec.has_passages  # asked for whole documents, whatever the run read
    recipe, stage, home = _recipe_of(folder)
    if recipe is None or home is None:
        return None if whole else spec, DocumentForms(template), ()
    of_run = DocumentForms(recipe.data.document_template, recipe.base_template)
    forms = DocumentForms(template) if template else of_run
    own = recipe.passages_of(stage)
    if spec is not None or not own.has_passages:
        return None if whole else spec, forms, ()
    from cerank.evaluation.studies.aggregation_choice import AggregationChoice

    choice = json_records.load_if_there(home.aggregation(stage), AggregationChoice)
    aggregation = choice.chosen if choice is not None else own.first_aggregation
    own = msgspec.structs.replace(own, aggregation=aggregation)
    what = f"{own.max_passages} passages of {own.length} tokens, stride {own.stride}, {aggregation}"
    return own, forms, (f"{what}: as {stage} read documents in {run_store.title(home)}",)


def precision_of_run(folder: Path | None, device: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the precision in which the model's run measured it, and a note on that; None for a model of no run.

    What the device cannot multiply, or only emulates many times slower, is not taken: the note says so.

    Args:
        folder: folder of the model; None for a server.
        device: the device that scores.
    """
    from cerank.kernels import processor

    recipe, stage, home = _recipe_of(folder)
    if recipe is None or home is None:
        return None, ()
    precision = run_store.measured_precision(home, run_store.load_plan(home), stage)
    if precision == "auto":
        return None, ()
    of_run = f"{stage} of {run_store.title(home)} was measured in {precision}"
    is_emulated = precision == "bf16" and not processor.multiplies_bf16()
    if device.startswith("cuda") or precision == "fp32" or (precision == "bf16" and not is_emulated):
        return precision, (f"{of_run}, and so is this; --precision takes another",)
    own = f"--precision {precision}" + (" gives its figures, slowly" if is_emulated else " needs an NVIDIA GPU")
    return None, (f"{of_run}, which {device} does not multiply, and this is fp32; {own}",)


def check_scores_file(spec: PassageSpec | None, scores_file: Path | None) -> None:
    """Check that there are passages where their scores are to be written.

    Raises:
        UsageError: documents are scored whole.
    """
    if scores_file is not None and spec is None:
        what, hint = "documents are not cut into passages", "add --aggregation, such as --aggregation MaxP"
        raise UsageError(what, where="--passage-scores", hint=hint, code="options-conflict")


def use_passages(spec: PassageSpec | None, scorer: Scorer, dataset: Dataset) -> None:
    """Let the scorer cut documents into passages, if that is asked for.

    Raises:
        UsageError: passages do not fit beside a query, or titles are asked for and there are none.
    """
    from cerank.inference import documents_of_run

    documents_of_run.use_passages(spec, scorer, dataset, PASSAGE_OPTIONS["title"])


def windows_text(spec: PassageSpec | None) -> str:
    """Return how documents are cut, as a part of the identity of shards; "" where they are not."""
    return f" passages {(spec.max_passages, spec.length, spec.stride, spec.title)}" if spec is not None else ""


def aggregated(spec: PassageSpec | None, scores: Scores) -> Scores:
    """Return the scores of documents, from those that finished shards hold: of passages, if documents are cut."""
    return document_scores(scores, spec.first_aggregation, spec.top) if spec is not None else scores


def write_scores(scores_file: Path | None, passages: Mapping[str, Mapping[str, float]]) -> None:
    """Write the scores of passages, exactly, a line each: query, passage, score; nothing where no file is asked for."""
    if scores_file is None:
        return
    rows = (
        f"{query}\t{passage}\t{score!r}\n"
        for query, of_query in passages.items()
        for passage, score in of_query.items()
    )
    disk.write(scores_file.resolve(), "".join(rows).encode())


def run_of(folder: Path) -> RunFolder | None:
    """Return the run whose stage left the model in `folder`; None for a model of another origin."""
    parents = folder.resolve().parents
    home = RunFolder(parents[2]) if len(parents) > 2 else None
    return home if home is not None and home.plan.is_file() else None


def stage_index(home: RunFolder, recipe: Recipe, folder: Path) -> int:
    """Return the place of the stage in the chain that left the model in `folder`; -1 if none did."""
    places = (at for at, stage in enumerate(recipe.chain) if home.stage(at, stage).resolve() == folder.resolve().parent)
    return next(places, -1)


def _recipe_of(folder: Path | None) -> tuple[Recipe | None, str, RunFolder | None]:
    """Return recipe, stage and run that left the model in `folder`; None for one of another origin."""
    home = run_of(folder) if folder is not None else None
    if home is None or folder is None:
        return None, "", None
    try:
        recipe = run_store.load_plan(home).recipe
    except CerankError:
        return None, "", None  # the note on what the model was trained on says that the plan cannot be read
    index = stage_index(home, recipe, folder)
    return (recipe, recipe.chain[index], home) if index >= 0 else (None, "", None)
