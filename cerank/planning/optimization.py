"""Say before a run starts what its stages' learning rates by layer, averages of weights and kept weights come to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cerank.planning.learning_rates import RateGroup, in_words, layer_of
from cerank.planning.training_memory import TrainingMemory, size_text
from cerank.planning.workload import WorkItem
from cerank.recipes.schema import Recipe, Stage, kept_name
from cerank.text.safe_text import counted

_OF_PRETRAINING = re.compile(r"(?:^|\.)(?:cls|[a-z]*_?predictions|lm_head)\.")  # heads that a re-ranker leaves out
CHECKPOINTS = 3  # beside the best ones: the two newest, and one that is being written


def trained_names(names: Sequence[str], stage: Stage, layers: Sequence[int], *, has_head: bool) -> tuple[str, ...]:
    """Return what a stage would train, by the names in its base's files; a head is one weight, whatever it is made of.

    Args:
        names: names of the weights in the files.
        stage: settings of the stage.
        layers: numbers of the layers that are used, in order; none for all.
        has_head: whether the model has a head, be it in the files or new.
    """
    trained = []
    for name in names:
        layer = layer_of(name)
        number = layer[1] if layer is not None else -1
        place = list(layers).index(number) if number in layers else number
        if layer is None and (stage.adapter.is_lora or _OF_PRETRAINING.search(name)):
            continue
        if layer is not None and ((layers and number not in layers) or place < stage.freeze_layers):
            continue
        is_frozen = stage.freeze == "embeddings" or (stage.freeze == "positions" and "position" in name)
        if layer is None and "embed" in name and is_frozen:
            continue
        is_scoring = re.search(r"(?:^|\.)(?:classifier|score|pre_classifier|head|pooler)\.", name)
        if layer is not None or not is_scoring:
            trained.append(f"encoder.{name}")
    return (*trained, *(["head.weight"] if has_head else []))


def all_names(names: Sequence[str], layers: Sequence[int]) -> tuple[str, ...]:
    """Return the names of all weights of the layers that are used, and of what is beside them."""
    return tuple(
        f"encoder.{name}" for name in names if (layer := layer_of(name)) is None or not layers or layer[1] in layers
    )


def sentences(
    recipe: Recipe,
    work: Sequence[WorkItem],
    rates: Mapping[str, Sequence[RateGroup]],
    memories: Mapping[str, TrainingMemory],
    parameters: int,
) -> list[str]:
    """Return a sentence for each choice of a stage's optimization that changes what a run computes or keeps.

    Args:
        recipe: the recipe.
        work: its work, part by part.
        rates: stage -> its weights by learning rate, of stages where they differ.
        memories: stage -> the memory that its training takes.
        parameters: number of the model's weights.
    """
    steps = {item.stage: item.units for item in work if item.part.startswith("train ")}
    texts = []
    for name, stage in recipe.chained():
        if name in rates:
            texts.append(f"{name}: {in_words(stage, rates[name])}")
        if stage.ema and name in steps:
            texts.append(f"{name}: {_average_in_words(stage, steps[name])}")
        if stage.curriculum.is_on and name in steps:
            ordered = stage.curriculum.ordered_steps(steps[name])
            texts.append(
                f"{name}: the queries of its first {ordered:,} of {steps[name]:,} steps come by the "
                f"{stage.curriculum.by} of the teacher's scores, the surest first; which they are does not change"
            )
        if stage.keep_best and name in memories:
            texts.append(f"{name}: {_disk_in_words(name, stage, memories[name], parameters)}")
    return texts


def _average_in_words(stage: Stage, steps: int) -> str:
    """Return how far the average of weights reaches back, and how much of the first step's weights stays in it."""
    span, first = 1.0 / (1.0 - stage.ema), stage.ema ** (steps - 1)
    text = f"its average of weights reaches back some {counted(round(span), 'step')} of {steps:,}"
    if first >= 0.05:
        text += f"; {first:.0%} of it will still be the weights after the first step, so that it lags behind"
    if first >= 0.05 and steps >= 50:
        text += f": ema = {1.0 - 5.0 / steps:.2g} would reach back over a fifth of the stage"
    return text


def _disk_in_words(name: str, stage: Stage, memory: TrainingMemory, parameters: int) -> str:
    """Return what the weights that a stage keeps take on the disk, while it is trained and afterwards."""
    weights = memory.gradients if stage.adapter.is_lora else memory.weights
    checkpoint = weights + memory.moments + memory.average
    most, further = CHECKPOINTS + 1 + len(stage.keep_best), len(stage.keep_best)
    model = 4 * parameters
    names = ", ".join(kept_name(name, measure) for measure in stage.keep_best)
    return (
        f"keeps {names}; on the disk at most {counted(most, 'checkpoint')} of {size_text(checkpoint)} while it is "
        f"trained, then one and {counted(further + 1, 'model')} of {size_text(model)}: "
        f"{size_text(further * model)} more than without keep_best"
    )
