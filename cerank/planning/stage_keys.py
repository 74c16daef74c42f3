"""Keys that are equal if and only if two stages are the same training: same start, settings, inputs and seed.

Invariant: pure functions of plans and recipes; no file is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from cerank.files.hashing import sha256_json
from cerank.planning import inputs
from cerank.recipes.plan import Plan, without_defaults
from cerank.recipes.schema import Recipe, Stage
from cerank.recipes.sections.set_mixtures import is_mixture, numbers_of

ContentOf = Callable[[str, str], str]  # (role, name) of an input -> the hash of its content


def stage_key(plan: Plan, index: int) -> str:
    """Return the key of the stage at `index`: a hash of everything that decides the weights it produces.

    64 hex digits.

    Equal identities mean equal weights, bit for bit, on one machine with one set of versions. Like a plan's
    fingerprint it counts only settings that differ from the defaults; unlike it, neither test sets nor measures.
    """
    stages = plan.recipe.chained()[: index + 1]
    names = [("loss", part.name) for _, stage in stages for part in stage.parts]
    names += [("sampler of negatives", stage.negatives) for _, stage in stages]
    names += [("sampler of negatives", source.sampler) for _, stage in stages for source in stage.negative_sources]
    key = _hash_stages(plan.recipe, index, lambda role, name: plan.input(role, name).sha256, plan.device, plan.threads)
    extensions = plan.extension_hashes(*names)
    shards = [("step shards", plan.step_shards)] if plan.step_shards else []
    return sha256_json((key, extensions, *shards)) if extensions or shards else key


def stage_keys(plan: Plan) -> tuple[str, ...]:
    """Return the key of each stage of the plan, in order."""
    return tuple(stage_key(plan, index) for index in range(len(plan.recipe.chain)))


def stage_key_by_names(recipe: Recipe, index: int) -> str:
    """Return a stage's key before its inputs are hashed: their names stand for their contents.

    A dataset's content depends on the template of its documents, so that this stands beside its name.
    """
    template = recipe.data.document_template
    written = {"dataset": f" as {template}"} if template else {}
    return _hash_stages(recipe, index, lambda role, name: f"{role} {name}{written.get(role, '')}", "", 0)


def _hash_stages(recipe: Recipe, index: int, pinned: ContentOf, device: str, threads: int) -> str:
    parts = [_stage_parts(recipe, name, stage, pinned) for name, stage in recipe.chained()[: index + 1]]
    start = (pinned("base", recipe.base), recipe.pooling, recipe.seed, device.partition(":")[0], threads)
    divided = ["shard parameters"] if recipe.compute.shard_parameters else []
    written = [("base template", recipe.base_template)] if recipe.base_template else []
    return sha256_json((start, parts, *divided, *written))


def _stage_parts(recipe: Recipe, name: str, stage: Stage, pinned: ContentOf) -> list[object]:
    """Return one stage's part of the key: its name (seeds depend on it), its settings, and its inputs' hashes."""
    # where a teacher is does not matter, but which of the losses learns from which
    numbers = {teacher: str(at) for at, teacher in enumerate(dict.fromkeys(part.teacher for part in stage.parts))}
    trained_on = inputs.training_dataset(recipe, stage)  # and of a mixture, which of its sets a loss is for
    losses = [
        msgspec.structs.replace(
            part,
            teacher=part.teacher and numbers[part.teacher],
            sets=tuple(sorted(numbers_of(trained_on, part.sets))) if part.sets else (),
        )
        for part in stage.losses
    ]
    sources = tuple(msgspec.structs.replace(source, run="") for source in stage.negative_sources)
    filters = msgspec.structs.replace(stage.false_negatives, scores="")
    named_by_hash = {"dataset": "", "validation": "", "first_stage": "", "teacher": "", "false_negatives": filters}
    unplaced = {"losses": tuple(losses), "negative_sources": sources, "passages": recipe.passages_of(name)}
    settings = without_defaults(msgspec.structs.replace(stage, **named_by_hash, **unplaced))
    dataset, validation = inputs.training_dataset(recipe, stage), inputs.validation_dataset(recipe, stage)
    ranked = partial("{1} on {0}".format)
    parts: list[object] = [name, settings, pinned("dataset", dataset), pinned("dataset", validation)]
    parts.append(pinned("first_stage", ranked(validation, inputs.validation_first_stage(recipe))))
    views = stage.by_source()
    if any(
        view.source == "labels" or inputs.ranks_candidates(recipe, view) or inputs.cuts_lists(view) for view in views
    ):
        parts.append(pinned("first_stage", ranked(dataset, inputs.training_first_stage(recipe, stage))))
    parts += [pinned("teacher", f"{view.asked_teacher} for {name}") for view in views if view.asked_teacher]
    own = inputs.training_first_stage(recipe, stage)
    parts += [
        pinned("first_stage", ranked(dataset, source.run or own))
        for source in stage.negative_sources
        if source.is_ranked
    ]
    if recipe.data.train_temperature and is_mixture(dataset):  # it says how often each set is sampled
        parts.append(("temperature", recipe.data.train_temperature))
    if stage.false_negatives.scores:
        parts.append(pinned("false_negatives", inputs.scored_by(name, stage)))
    return parts
