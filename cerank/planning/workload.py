"""The work of a recipe, counted in query-document pairs, and estimates of its time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import msgspec

from cerank.datasets.dataset import Dataset
from cerank.recipes.schema import Recipe, Stage
from cerank.recipes.sections.filter_specs import ASSUMED_SHARE
from cerank.text.safe_text import counted
from cerank.text.table_data import duration


class WorkItem(msgspec.Struct, frozen=True):
    """A part of a run's work, counted in pairs through the model before anything is started."""

    part: str  # "train contrastive", "choose ...", "filter negatives of ...", "validate ...", "re-rank TEST by ..."
    units: int  # steps, validations, queries, texts
    pairs: int  # 0 for an embedding teacher, which reads texts one by one
    stage: str = ""  # whose work it is; "" for a sum over several
    minutes: float | None = None  # None if unknown; see `app.estimates`


def count_work(
    recipe: Recipe, queries: Mapping[str, int], documents: Mapping[str, int] = MappingProxyType({})
) -> tuple[WorkItem, ...]:
    """Return a recipe's work, part by part, with the stages in order.

    Args:
        recipe: recipe with every default filled in; its baselines come last, though a run scores with them first.
        queries: name of a dataset -> number of its queries.
        documents: name of a dataset -> number of its documents, where it is known: no list is longer.
    """
    items = []

    def depth_in(dataset: str, depth: int) -> int:
        return min(depth, documents.get(dataset, depth))

    for name, stage in recipe.chained():
        taught = queries[stage.dataset or recipe.data.train]
        steps = _steps(stage, min(taught, stage.list_queries or taught))
        passages = _passages(recipe, name)
        size = (stage.group_size + stage.in_batch) * (passages if recipe.passages_of(name).train_on == "all" else 1)
        passes = filter_passes(stage, steps)
        groups = passes.trained + _groups_of_cosines(stage, steps)
        items.append(WorkItem(f"train {name}", steps, groups * size, name))
        if passes.scored:
            items.append(
                WorkItem(f"choose {name}", steps - stage.filter.plain_steps(steps), passes.scored * size, name)
            )
        if stage.false_negatives.scores in recipe.teachers:
            sampled = min(steps * stage.groups_per_step, taught)
            items.append(WorkItem(f"filter negatives of {name}", sampled, sampled * _scored_by_filter(stage), name))
        validation = stage.validation or recipe.data.validation
        validation_queries = queries[validation]
        times = 1 + -(-steps // (stage.validate_every or steps))  # one of them before the first step
        per_validation = min(validation_queries, stage.validation_queries or validation_queries)
        each = depth_in(validation, stage.validation_depth) + (stage.group_size if stage.validates_by_loss else 0)
        items.append(WorkItem(f"validate {name}", times, times * per_validation * each * passages, name))
        for test in recipe.data.test:
            pairs = queries[test] * depth_in(test, recipe.data.depth) * len(recipe.data.first_stages) * passages
            items.append(WorkItem(f"re-rank {test} by {name}", queries[test], pairs, name))
    for system in recipe.baseline_models():
        for test in recipe.data.test:
            pairs = (
                queries[test]
                * depth_in(test, recipe.data.depth)
                * len(recipe.data.first_stages)
                * _passages(recipe, system)
            )
            items.append(WorkItem(f"re-rank {test} by {system}", queries[test], pairs, system))
    return tuple(items)


def _scored_by_filter(stage: Stage) -> int:
    """Return how many documents of a query a model scores at most so that false negatives can be told, positives too.

    A query with more positives than a group takes has some more.
    """
    ranks = [source.ranks or stage.window for source in stage.negative_sources if source.is_ranked]
    if not stage.negative_sources:
        ranks = [stage.window]
    return stage.positives + sum(last - first + 1 for first, last in ranks)


def _passages(recipe: Recipe, system: str) -> int:
    """Return how many passages of a document a system scores at most."""
    spec = recipe.passages_of(system)
    return spec.max_passages if spec.has_passages else 1


def sizes_of(datasets: Mapping[str, Dataset]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the number of queries of each dataset, and of the documents of those that are here without fetching."""
    documents = {name: len(dataset.documents) for name, dataset in datasets.items() if not dataset.reads_catalog}
    return {name: len(dataset.queries) for name, dataset in datasets.items()}, documents


class FilterPasses(msgspec.Struct, frozen=True):
    """Passes of a stage's groups through the model, as expected before it is trained."""

    seen: int  # groups that its steps see
    plain: int  # of them, those of the first steps, which are trained on whatever their loss is
    scored: int  # go forward alone, at most, to be chosen or left out
    trained: int  # go forward and backward; for a multistage filter an assumption


def filter_passes(stage: Stage, steps: int) -> FilterPasses:
    """Return the expected passes of a stage's groups; without a filter each goes forward and backward."""
    spec, seen = stage.filter, steps * stage.groups_per_step
    if spec.kind == "random":
        return FilterPasses(seen, 0, 0, math.ceil(seen * spec.share))
    plain = spec.plain_steps(steps) * stage.groups_per_step if spec.is_on else seen
    return FilterPasses(seen, plain, seen - plain, plain + math.ceil(ASSUMED_SHARE * (seen - plain)))


def _groups_of_cosines(stage: Stage, steps: int) -> int:
    """Return how many groups go forward and backward once more so that the losses' gradients can be compared."""
    readings = steps // stage.gradient_cosine_every if stage.gradient_cosine_every else 0
    return readings * stage.groups_per_step * len(stage.losses)


def filter_sentences(recipe: Recipe, work: Sequence[WorkItem]) -> list[str]:
    """Return what the filters of a recipe come to before it is trained, a sentence each; [] without one."""
    steps = {item.stage: item.units for item in work if item.part.startswith("train ")}
    sentences = []
    for name, stage in recipe.chained():
        if not stage.filter.is_on or name not in steps:
            continue
        passes = filter_passes(stage, steps[name])
        text = f"{name}: of {counted(passes.seen, 'group')} {passes.trained:,} go forward and backward"
        if stage.filter.kind == "multistage":
            text += (
                f": the first {passes.plain:,}, and half of the {passes.scored:,} others (assumed), each of which goes "
                "forward once before it is chosen, unless the predictor spares it that. By loss alone this is faster "
                "than training on all only if less than two thirds are chosen"
            )
        sentences.append(text)
    return sentences


def _steps(stage: Stage, queries: int) -> int:
    """Return the steps of a stage if every query is usable for training."""
    return stage.steps or max(1, int(-(-stage.epochs * queries // stage.groups_per_step)))


def format_minutes(minutes: float | None) -> str:
    """Return a duration for display: "40 s", "12 min", "3 h 20 min", "2 d 4 h", or "unknown"."""
    return "unknown" if minutes is None else duration(minutes * 60)


def seconds_of(minutes: float | None) -> float | None:
    """Return an estimate in seconds, as tables hold it; None where it is not known."""
    return None if minutes is None else minutes * 60


class StageSpeed(Protocol):
    """How fast a stage was measured to be, in units a second."""

    @property
    def train(self) -> float:
        """Return pairs a second in training."""

    @property
    def score(self) -> float:
        """Return pairs a second in scoring."""

    @property
    def load(self) -> float:
        """Return the seconds that loading the model takes."""

    @property
    def embed(self) -> float:
        """Return texts a second through the embedding teacher; 0 where there is none."""


_OVERHEAD_SECONDS = 0.75  # seconds of a stage's training and of its re-ranking: checkpoints, hashes, measures


def estimate_minutes(
    work: Sequence[WorkItem],
    speeds: Mapping[str, StageSpeed],
    texts: Mapping[str, int],
) -> tuple[WorkItem, ...]:
    """Return the work with the expected minutes of each part, and a part for each embedding teacher.

    Args:
        work: the parts, as `count_work` returns them.
        speeds: stage -> its speed; parts of other stages get no time.
        texts: stage -> how many its embedding teacher encodes, where it has one.
    """
    out: list[WorkItem] = []
    for part in work:
        speed = speeds.get(part.stage)
        if speed is None:
            out.append(part)
            continue
        if part.part.startswith("train ") and speed.embed and part.stage in texts:
            count = texts[part.stage]
            minutes = (count / speed.embed + speed.load) / 60
            out.append(WorkItem(f"teacher {part.stage}", count, 0, part.stage, minutes))
        rate = speed.train if part.part.startswith("train ") else speed.score
        beside = 0.0 if part.part.startswith(("validate ", "choose ")) else speed.load + _OVERHEAD_SECONDS
        out.append(msgspec.structs.replace(part, minutes=(part.pairs / rate + beside) / 60))
    return tuple(out)
