"""Whether a recipe's base model can do what the recipe asks, by its files alone: lengths, adapters, rates, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cerank.errors import RecipeError, UsageError
from cerank.models.bases import locate
from cerank.models.finite_weights import check_finite
from cerank.models.lora.adapter_targets import AdapterShape, adapter_shape, check_library
from cerank.models.lora.rounded_matrices import rounded_weights
from cerank.models.model_folders import json_object
from cerank.models.model_reading import weight_shapes
from cerank.models.preflight import check_base
from cerank.planning import optimization
from cerank.planning.learning_rates import RateGroup, changes_rates, rate_groups
from cerank.planning.training_memory import TrainingMemory, trained_parameters, training_memory
from cerank.planning.workload import WorkItem
from cerank.recipes.plan import Input, Plan
from cerank.recipes.recipe_checks import SMALLEST_RATE
from cerank.recipes.schema import Recipe, Stage


def base_folder(inputs: Sequence[Input]) -> Path:
    """Return the folder of the base model among a plan's inputs."""
    return next(Path(entry.location) for entry in inputs if entry.role == "base")


def check_base_of(recipe: Recipe, inputs: Sequence[Input]) -> None:
    """Check what the files of the base model say against what the recipe asks of it.

    Raises:
        UsageError: a run could not use it; the error says why.
    """
    folder = base_folder(inputs)
    lengths = {f"stages.{name}.max_length": stage.max_length for name, stage in recipe.chained()}
    reading = locate(recipe.base, fetch=False, pooling=recipe.pooling).reading()
    has_one_score = reading.pooling == "classifier" and reading.label is None
    is_prompted = reading.declaration is not None
    facts = check_base(folder, lengths, needs_one_score=has_one_score, is_language_model=is_prompted)
    untyped = next((name for name, stage in recipe.chained() if stage.has_one_token_type), "")
    if untyped and facts.token_types < 2:
        what = f"the base {recipe.base} tells no token types apart"
        where = f"stages.{untyped}.token_types"
        raise UsageError(what, where=where, hint="leave it out", code="token-types-differ")
    check_finite(folder)
    for name, stage in recipe.chained():
        if stage.adapter.is_lora:
            adapter_of_stage(recipe, name, stage)
    _check_lowest_rates(recipe, rates_of(recipe))


def rates_of(recipe: Recipe) -> dict[str, list[RateGroup]]:
    """Return stage -> its weights by learning rate, from the bottom up, of those stages where the rates differ.

    Raises:
        UsageError: the base has no layers that could be told apart, or no head.
    """
    files = locate(recipe.base, fetch=False, pooling=recipe.pooling)
    names, reading = list(weight_shapes(files.folder)), files.reading()
    if not names:  # told by `check_base`
        return {}
    has_head = reading.pooling != "answer" or any("score." in name for name in names)
    every = optimization.all_names(names, files.layers)
    return {
        name: rate_groups(
            stage,
            optimization.trained_names(names, stage, files.layers, has_head=has_head),
            every,
            f"stages.{name}",
        )
        for name, stage in recipe.chained()
        if changes_rates(stage)
    }


def _check_lowest_rates(recipe: Recipe, rates: Mapping[str, Sequence[RateGroup]]) -> None:
    """Check that the lowest learning rate of each stage can move float32 weights.

    Raises:
        RecipeError: one cannot.
    """
    mistakes = [
        f"stages.{name}.layer_decay: leaves {group.name} a learning rate of "
        f"{recipe.stages[name].learning_rate * group.factor:.1e}, which cannot move float32 weights "
        f'(the least is {SMALLEST_RATE:.1e}); give more, or force = ["learning_rate"]'
        for name, groups in rates.items()
        for group in groups[:1]
        if recipe.stages[name].learning_rate * group.factor < SMALLEST_RATE
    ]
    if mistakes and "learning_rate" not in recipe.force:
        raise RecipeError("\n".join(mistakes), where=f"recipe {recipe.name}")


def optimization_sentences(plan: Plan, work: Sequence[WorkItem]) -> list[str]:
    """Return what the stages' learning rates by layer, averages and kept weights come to, a sentence each."""
    recipe = plan.recipe
    parameters = locate(recipe.base, fetch=False, pooling=recipe.pooling).reading().parameters
    return optimization.sentences(recipe, work, rates_of(recipe), memory_of(plan), parameters)


def adapter_of_stage(recipe: Recipe, name: str, stage: Stage) -> AdapterShape:
    """Return what a stage's adapter updates in the recipe's base.

    Raises:
        MissingError: the library for adapters is not installed.
        UsageError: the adapter does not fit the base, or continues one that the base is not.
    """
    spec, where = stage.adapter, f"stages.{name}.adapter"
    check_library(where)
    files = locate(recipe.base, fetch=False, pooling=recipe.pooling)
    if name == recipe.chain[0]:
        if spec.start == "continue" and files.adapter is None:
            hint = 'set start = "new", or name the folder of an adapter as base'
            raise UsageError("the base is no adapter", where=f"{where}.start", hint=hint, code="adapter-targets")
        if spec.start == "continue" and files.adapter is not None and files.adapter.rank != spec.rank:
            what = f"{spec.rank}, but the adapter that it continues has rank {files.adapter.rank}"
            raise UsageError(what, where=f"{where}.rank", hint=f"set rank = {files.adapter.rank}", code="adapter-rank")
        if spec.start == "new" and files.adapter is not None and spec.save != "merged":
            what = "a new adapter would lie over the adapter that is the base"
            hint = 'set start = "continue", or save = "merged"'
            raise UsageError(what, where=f"{where}.start", hint=hint, code="adapter-over-adapter")
    shapes = weight_shapes(files.folder)
    return adapter_shape(spec, shapes, str(files.reading().model_type), stage.freeze_layers, where)


def memory_of(plan: Plan) -> dict[str, TrainingMemory]:
    """Return stage -> the memory that its training takes; {} where the base does not give its sizes."""
    recipe = plan.recipe
    files = locate(recipe.base, fetch=False, pooling=recipe.pooling)
    config, parameters = json_object(files.folder / "config.json"), files.reading().parameters
    shapes = weight_shapes(files.folder)
    memories: dict[str, TrainingMemory] = {}
    for name, stage in recipe.chained():
        is_lora = stage.adapter.is_lora
        trained = adapter_of_stage(recipe, name, stage).parameters if is_lora else trained_parameters(stage, shapes)
        memory = training_memory(
            stage,
            config,
            parameters=parameters,
            trained=trained,
            layers=len(files.layers),
            device=plan.device,
            rounded=rounded_weights(stage.adapter, shapes, str(config.get("model_type", ""))),
            shares=max(1, len(plan.devices)) if recipe.compute.shard_parameters else 1,
        )
        memories |= {name: memory} if memory is not None else {}
    return memories


def check_baselines_of(inputs: Sequence[Input]) -> None:
    """Check that each baseline's files are whole and fit one another, before a run is made.

    Raises:
        UsageError: a run could not score with it; the error says why.
    """
    for entry in inputs:
        if entry.role == "baseline":
            reading = locate(entry.name, fetch=False).reading()
            has_one_score = reading.pooling == "classifier" and reading.label is None
            check_base(
                Path(entry.location),
                {},
                needs_one_score=has_one_score,
                is_language_model=reading.declaration is not None,
            )
