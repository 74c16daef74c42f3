"""The losses' names and requirements, known without torch, so that a plan is rejected before it is launched.

The losses themselves are in training/losses; a test checks that both have the same names. An extension brings both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Literal

import msgspec

from cerank.recipes.schema import Recipe, Stage
from cerank.registry import Registry, nearest

Target = Literal["positives", "grades", "ranks", "scores"]

LABELS: tuple[Target, ...] = ("positives", "grades")  # what qrels give
TEACHER: tuple[Target, ...] = ("ranks", "scores")  # what a teacher gives; permutations have no scores


class LossNeeds(msgspec.Struct, frozen=True):
    """A loss by name: the targets it can learn from, best first, and what it does in a line.

    positives: whether a label is above 0. grades: how large the qrels' grade is. ranks: `size - rank + 1` in a
    teacher's order. scores: a teacher's own numbers.
    """

    name: str
    takes: tuple[Target, ...]
    description: str
    has_pairs: bool = False  # a mean over pairs of documents, which a step may pool: `mean_over = "pairs"`
    function: Callable[..., Any] | None = None  # the loss of an extension; None for those in training/losses

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the values of a stage's `source` that it can learn from."""
        kinds = (("labels", LABELS), ("teacher", TEACHER))
        return tuple(source for source, targets in kinds if set(targets) & set(self.takes))


LOSSES: Registry[LossNeeds] = Registry("loss")
for _entry in (
    LossNeeds(
        "lce",
        ("positives",),
        "localized contrastive estimation: cross-entropy of a positive against its negatives (Gao et al. 2021)",
    ),
    LossNeeds(
        "ranknet",
        ("grades", "ranks"),
        "RankNet: logistic loss over pairs of a better and a worse document, mean per query (Burges et al. 2005)",
        has_pairs=True,
    ),
    LossNeeds(
        "weighted-ranknet",
        ("grades", "ranks"),
        "RankNet, pairs weighted by 1/(i+j) of the model's own ranks (Pezzuti et al. 2025, their code)",
        has_pairs=True,
    ),
    LossNeeds(
        "weighted-ranknet-teacher",
        ("ranks",),
        "RankNet, pairs weighted by 1/(i+j) of the teacher's ranks (FIRST, Gangi Reddy et al. 2024)",
        has_pairs=True,
    ),
    LossNeeds(
        "listnet",
        ("grades", "ranks"),
        "ListNet: cross-entropy of the softmax of targets and that of scores (Cao et al. 2007)",
    ),
    LossNeeds(
        "kl",
        ("scores",),
        "softmax KL: divergence of the scores' softmax from that of the teacher's scores (Hinton et al. 2015)",
    ),
    LossNeeds(
        "lambdaloss",
        ("grades", "ranks"),
        "LambdaLoss with NDCG-Loss2++: pairs weighted by what they can change of nDCG (Wang et al. 2018)",
        has_pairs=True,
    ),
    LossNeeds(
        "adr-mse",
        ("ranks", "grades"),
        "ADR-MSE: squared error of approximate ranks, discounted by log2 (Schlatt et al. 2025)",
    ),
    LossNeeds(
        "margin-mse",
        ("scores",),
        "MarginMSE: squared error of score differences against the teacher's (Hofstätter et al. 2020)",
        has_pairs=True,
    ),
    LossNeeds("mse", ("scores",), "squared error of scores against the teacher's, document by document"),
    LossNeeds(
        "bce",
        ("positives",),
        "binary cross-entropy of each document by itself, relevant or not (Nogueira and Cho 2019)",
    ),
):
    LOSSES.add(_entry.name)(_entry)


def target_of(stage: Stage) -> Target:
    """Return the kind of target that a stage's labels hold; for an invalid stage, its source's first kind."""
    if stage.source == "teacher" and stage.targets != "auto":
        return stage.targets
    available = TEACHER if stage.source == "teacher" else LABELS
    takes = LOSSES[stage.loss].takes if stage.loss in LOSSES else ()
    return next((target for target in takes if target in available), available[0])


def loss_mistakes(recipe: Recipe) -> list[str]:
    """Return an error for each stage whose loss is unknown or does not fit its targets, as `key.path: what`."""
    mistakes = []
    for name, stage in recipe.chained():
        needs = LOSSES.get(stage.loss)
        if needs is None:
            mistakes.append(f"stages.{name}.loss: no loss is called '{stage.loss}'; {nearest(stage.loss, LOSSES)}")
        else:
            mistakes += _target_mistakes(f"stages.{name}", stage, needs)
            mistakes += _order_mistakes(f"stages.{name}", stage, recipe)
    return mistakes


def _order_mistakes(at: str, stage: Stage, recipe: Recipe) -> list[str]:
    """Return an error if the loss needs scores, and the teacher that is made for the stage gives an order alone."""
    spec = recipe.teachers.get(stage.teacher) if stage.source == "teacher" else None
    if spec is None or spec.has_scores or target_of(stage) != "scores":
        return []
    hint = f"take a teacher with scores, or a loss on ranks: {_taking('ranks')}"
    what = f'loss "{stage.loss}" needs scores, and a teacher of kind "{spec.kind}" gives an order alone'
    return [f"{at}.teacher: {what}; {hint}"]


def _target_mistakes(at: str, stage: Stage, needs: LossNeeds) -> list[str]:
    mistakes = []
    if stage.source not in needs.sources:
        sources = " or ".join(f'"{source}"' for source in needs.sources)
        mistakes.append(f'{at}.source: loss "{stage.loss}" learns from {sources}, not "{stage.source}"')
    elif stage.targets != "auto" and stage.source == "teacher" and stage.targets not in needs.takes:
        others = _taking(stage.targets)
        mistakes.append(f'{at}.targets: loss "{stage.loss}" takes no {stage.targets}; those that do: {others}')
    elif target_of(stage) == "scores" and PurePath(stage.teacher).suffix == ".json":
        hint = f"give a TREC run with scores, or a loss on ranks: {_taking('ranks')}"
        mistakes.append(f'{at}.teacher: loss "{stage.loss}" needs scores, and permutations have none; {hint}')
    if stage.mean_over == "pairs" and not needs.has_pairs:
        pairwise = ", ".join(loss.name for loss in LOSSES.values() if loss.has_pairs)
        mistakes.append(f'{at}.mean_over: loss "{stage.loss}" has no pairs to pool; those that do: {pairwise}')
    return mistakes


def _taking(target: str) -> str:
    return ", ".join(loss.name for loss in LOSSES.values() if target in loss.takes)
