"""What a person asks for: a base model, a chain of stages, datasets, a seed. Every default stands here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from cerank.domain import decode
from cerank.domain.schedule import ScheduleName
from cerank.errors import RecipeError
from cerank.registry import nearest

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
Rate = Annotated[float, msgspec.Meta(gt=0.0)]
Amount = Annotated[float, msgspec.Meta(ge=0.0)]


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage of fine-tuning: which groups it sees, what loss it takes, how it steps, when it looks up."""

    # what it learns from
    loss: str = "lce"  # see `cerank recipes losses`
    source: Literal["labels", "teacher"] = "labels"  # where a group's targets come from
    dataset: str = ""  # training dataset of this stage; "" takes data.train
    first_stage: str = ""  # candidates for negatives and teacher; "" takes the first of data.first_stages
    teacher: str = ""  # "embedding", a TREC run file, or RankGPT permutations (.json beside its .jsonl)
    relevance: Positive = 1  # smallest grade that counts as a positive

    # how groups are drawn
    group_size: Annotated[int, msgspec.Meta(ge=2)] = 8  # candidates a query: 1 positive + 7 negatives
    groups_per_step: Positive = 4
    positives: Positive = 1  # positives in a group, as far as the query has them
    negatives: Literal["random", "top"] = "random"  # uniformly from the window, or its first ones
    window: tuple[Positive, Positive] = (1, 100)  # ranks of the first stage (or teacher) to draw from, both included
    without_pair: Literal["skip", "refuse"] = "skip"  # a query without anything to learn from: count it, or stop

    # how long, how fast
    steps: Count = 0  # exactly one of steps and epochs is above 0
    epochs: Amount = 0.0  # passes over the queries with something to learn from
    learning_rate: Rate = 1e-5
    schedule: ScheduleName = "linear"
    warmup: Share = 0.1  # share of the steps in which the rate rises from 0
    weight_decay: Amount = 0.01
    betas: tuple[Share, Share] = (0.9, 0.999)
    epsilon: Rate = 1e-8
    clip: Amount = 1.0  # largest gradient norm; 0 leaves gradients alone
    dropout: Share | None = None  # None keeps the base's own

    # what the model reads
    max_length: Annotated[int, msgspec.Meta(ge=8)] = 256  # tokens of query and document together, with special tokens
    max_query_length: Positive = 64  # tokens of the query; the document gets the rest
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast; weights, head and loss stay float32
    microbatch: Positive = 8192  # tokens, padding included, through the model at once; memory, not groups

    # when it looks up
    validate_every: Count = 0  # steps between validations; 0 validates at the end only
    validation_measure: str = "nDCG@10"
    validation_queries: Count = 0  # first ones of the validation dataset; 0 takes all
    validation_depth: Positive = 20  # candidates re-ranked for each validation query
    patience: Count = 0  # stop after this many validations without a better one; 0 never stops early
    keep: Literal["best", "last"] = "best"  # which checkpoint the stage hands on
    checkpoint_every: Count = 0  # steps between checkpoints; 0: at each validation
    on_nonfinite: Annotated[str, msgspec.Meta(pattern=r"^(stop|skip:[1-9]\d*)$")] = "stop"  # inf or NaN


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where queries, documents and labels come from; a name, an ir_datasets id, or a folder; `[:80%]` takes a part."""

    train: str = "pydocs/train"
    validation: str = "pydocs/validation"
    test: tuple[str, ...] = ("pydocs/test",)
    first_stages: tuple[str, ...] = ("bm25",)  # "bm25", "scoreddocs", a run of the dataset by name, or a TREC run file
    depth: Positive = 100  # candidates re-ranked for each test query


class Evaluate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is measured on the test datasets."""

    measures: tuple[str, ...] = ("nDCG@10", "RR@10")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A complete request. `stages` holds settings by name, `chain` says which of them run, in order."""

    name: str
    description: str = ""
    base: str = "minilm"
    seed: Count = 42
    chain: tuple[str, ...]
    data: Data = Data()
    evaluate: Evaluate = Evaluate()
    stages: dict[str, Stage] = {}

    def chained(self) -> tuple[tuple[str, Stage], ...]:
        """The stages that run, in order, with their names."""
        return tuple((name, self.stages[name]) for name in self.chain)


def _stage_mistakes(name: str, stage: Stage) -> list[str]:
    at = f"stages.{name}"
    mistakes = []
    if (stage.steps > 0) == (stage.epochs > 0):
        mistakes.append(f"{at}: give either steps or epochs above 0, not {'both' if stage.steps else 'neither'}")
    if stage.source == "teacher" and not stage.teacher:
        mistakes.append(f'{at}.teacher: missing; source = "teacher" needs "embedding", a TREC run or permutations')
    if stage.window[0] > stage.window[1]:
        mistakes.append(f"{at}.window: starts at rank {stage.window[0]} and ends before it, at {stage.window[1]}")
    if stage.source == "labels" and stage.positives >= stage.group_size:
        mistakes.append(f"{at}.positives: {stage.positives} leave no negative in a group of {stage.group_size}")
    if stage.max_query_length > stage.max_length - 5:
        mistakes.append(f"{at}.max_query_length: {stage.max_query_length} leaves no document in {stage.max_length}")
    if stage.patience and not stage.validate_every:
        mistakes.append(f"{at}.patience: needs validate_every, or there is nothing to wait for")
    return mistakes


def _chain_mistakes(recipe: Recipe) -> list[str]:
    mistakes = []
    if not recipe.chain:
        mistakes.append("chain: empty; name at least one stage")
    for name in recipe.chain:
        if name not in recipe.stages:
            mistakes.append(f"chain: no stage is called '{name}'; {nearest(name, recipe.stages)}")
    if len(set(recipe.chain)) != len(recipe.chain):
        mistakes.append("chain: a stage stands twice; give the second its own name and settings")
    return mistakes


def _recipe_mistakes(recipe: Recipe) -> list[str]:
    mistakes = _chain_mistakes(recipe)
    for name in recipe.stages:
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            mistakes.append(f"stages.{name}: a stage's name holds letters, digits, '-' and '_' only")
    for name, field in (("data.test", recipe.data.test), ("data.first_stages", recipe.data.first_stages)):
        if not field:
            mistakes.append(f"{name}: empty; name at least one")
    if not recipe.evaluate.measures:
        mistakes.append("evaluate.measures: empty; name at least one, such as nDCG@10")
    for name in recipe.chain:
        if name in recipe.stages:
            mistakes += _stage_mistakes(name, recipe.stages[name])
    return mistakes


def recipe_from(values: Mapping[str, object], where: str) -> Recipe:
    """The recipe in a merged table (no `extends` left), complete with defaults.

    Args:
        values: the table, as TOML gives it.
        where: the file or name it came from, for the error.

    Raises:
        RecipeError: with all mistakes at once, each with its key path.
    """
    mistakes: list[str] = []
    recipe = decode.table(Recipe, values, "", mistakes)
    if recipe is not None:
        mistakes += _recipe_mistakes(recipe)
    if recipe is None or mistakes:
        hint = "`cerank recipes show NAME --full` lists every key with its default"
        raise RecipeError("\n".join(mistakes), where=where, hint=hint)
    return recipe
