"""The losses' names and requirements, known without torch, so that a plan is rejected before it is launched.

The losses themselves are in training/losses; a test checks that both have the same names. An extension brings both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Literal

import msgspec

from cerank.recipes.schema import Recipe, Stage
from cerank.recipes.sections.loss_parts import LossPart
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
    options: tuple[tuple[str, float | int | str | None], ...] = ()  # keys of `[[stages.NAME.losses]]`, their defaults
    function: Callable[..., Any] | None = None  # the loss of an extension; None for those in training/losses

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the values of a stage's `source` that it can learn from."""
        kinds = (("labels", LABELS), ("teacher", TEACHER))
        return tuple(source for source, targets in kinds if set(targets) & set(self.takes))


LOSSES: Registry[LossNeeds] = Registry("loss")
_TEMPERATURE = ("temperature", 1.0)
for _entry in (
    LossNeeds(
        "lce",
        ("positives",),
        "localized contrastive estimation: cross-entropy of a positive against its negatives (Gao et al. 2021)",
        options=(_TEMPERATURE,),
    ),
    LossNeeds(
        "infonce",
        ("positives",),
        "InfoNCE with several positives: cross-entropy of a uniform target over them (van den Oord et al. 2018)",
        options=(_TEMPERATURE,),
    ),
    LossNeeds(
        "ranknet",
        ("grades", "ranks"),
        "RankNet: logistic loss over pairs of a better and a worse document, mean per query (Burges et al. 2005)",
        has_pairs=True,
        options=(_TEMPERATURE,),
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
        "hinge",
        ("grades", "ranks"),
        "pairwise hinge: max(0, margin - lead of the better document), mean per query (Joachims 2002)",
        has_pairs=True,
        options=(("margin", 1.0),),
    ),
    LossNeeds(
        "constant-margin-mse",
        ("grades", "ranks"),
        "squared error of the better document's lead against a margin, whatever a teacher's (lightning-ir's)",
        has_pairs=True,
        options=(("margin", 1.0),),
    ),
    LossNeeds(
        "listnet",
        ("grades", "ranks"),
        "ListNet: cross-entropy of the softmax of targets and that of scores (Cao et al. 2007)",
        options=(_TEMPERATURE,),
    ),
    LossNeeds(
        "listmle",
        ("ranks", "grades"),
        "ListMLE: likelihood of the target order, document after document (Xia et al. 2008)",
        options=(_TEMPERATURE,),
    ),
    LossNeeds(
        "p-listmle",
        ("ranks", "grades"),
        "p-ListMLE: ListMLE whose first places weigh most (Lan et al. 2014)",
        options=(_TEMPERATURE,),
    ),
    LossNeeds(
        "kl",
        ("scores",),
        "softmax KL: divergence of the scores' softmax from that of the teacher's scores (Hinton et al. 2015)",
        options=(_TEMPERATURE,),
    ),
    LossNeeds(
        "lambdaloss",
        ("grades", "ranks"),
        "LambdaLoss with NDCG-Loss2++: pairs weighted by what they can change of nDCG (Wang et al. 2018)",
        has_pairs=True,
        options=(("scheme", "ndcg-loss2++"), ("cutoff", None), ("sigma", 1.0), ("mu", 10.0)),
    ),
    LossNeeds(
        "approx-ndcg",
        ("grades", "ranks"),
        "1 - nDCG with ranks approximated by sums of sigmoids (Qin et al. 2010)",
        options=(_TEMPERATURE,),
    ),
    LossNeeds(
        "approx-mrr",
        ("positives",),
        "1 - reciprocal rank of the first positive, ranks approximated by sums of sigmoids (Qin et al. 2010)",
        options=(_TEMPERATURE,),
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
        "pearson", ("scores",), "1 - correlation with the teacher's scores, whatever their scale (lightning-ir's)"
    ),
    LossNeeds(
        "bce",
        ("positives",),
        "binary cross-entropy of each document by itself, relevant or not (Nogueira and Cho 2019)",
        options=(("positive_weight", 1.0),),
    ),
    LossNeeds(
        "soft-bce",
        ("scores",),
        "binary cross-entropy of each document against the sigmoid of the teacher's score",
    ),
    LossNeeds(
        "gbce",
        ("positives",),
        "binary cross-entropy that undoes the overconfidence of sampled negatives (Petrov and Macdonald 2023)",
        options=(("sampling_rate", 0.1), ("calibration", 0.75)),
    ),
    LossNeeds(
        "ordinal",
        ("grades",),
        "each grade from the one below by a threshold of its own, evenly spaced (McCullagh 1980; here fixed)",
        options=(("levels", 4), ("spacing", 2.0)),
    ),
):
    LOSSES.add(_entry.name)(_entry)


def target_of(stage: Stage) -> Target:
    """Return the kind of target that a stage's labels hold; for an invalid stage, its source's first kind."""
    part = stage.parts[0]
    if stage.source == "teacher" and not part.teacher:  # a stage of an incomplete recipe
        part = msgspec.structs.replace(part, teacher="any")
    return part_target(part)


def part_target(part: LossPart) -> Target:
    """Return the kind of target that one of a stage's losses learns from; for an invalid one, its source's first."""
    if part.teacher and part.targets != "auto":
        return part.targets
    available = TEACHER if part.teacher else LABELS
    takes = LOSSES[part.name].takes if part.name in LOSSES else ()
    return next((target for target in takes if target in available), available[0])


def loss_mistakes(recipe: Recipe) -> list[str]:
    """Return an error for each stage whose loss is unknown or does not fit its targets, as `key.path: what`."""
    mistakes = []
    for name, stage in recipe.chained():
        for number, part in enumerate(stage.parts):
            at = _Place(f"stages.{name}", number if stage.losses else None)
            needs = LOSSES.get(part.name)
            if needs is None:
                where = at.key("name" if stage.losses else "loss")
                mistakes.append(f"{where}: no loss is called '{part.name}'; {nearest(part.name, LOSSES)}")
            else:
                mistakes += _target_mistakes(at, part, needs)
                mistakes += _order_mistakes(at, part, recipe)
                mistakes += _option_mistakes(at, part, needs)
    return mistakes


class _Place(msgspec.Struct, frozen=True):
    """Where a recipe names a loss: a stage, or one of the losses of a stage."""

    stage: str  # "stages.NAME"
    number: int | None  # in `losses`, from 0; None for a stage without

    def key(self, name: str) -> str:
        """Return the path of a key."""
        return f"{self.stage}.{name}" if self.number is None else f"{self.stage}.losses[{self.number}].{name}"


def _order_mistakes(at: _Place, part: LossPart, recipe: Recipe) -> list[str]:
    """Return an error if the loss needs scores, and the teacher that is made for the stage gives an order alone."""
    spec = recipe.teachers.get(part.teacher)
    if spec is None or spec.has_scores or part_target(part) != "scores":
        return []
    hint = f"take a teacher with scores, or a loss on ranks: {_taking('ranks')}"
    what = f'loss "{part.name}" needs scores, and a teacher of kind "{spec.kind}" gives an order alone'
    return [f"{at.key('teacher')}: {what}; {hint}"]


def _target_mistakes(at: _Place, part: LossPart, needs: LossNeeds) -> list[str]:
    mistakes = []
    if _source(part) not in needs.sources:
        mistakes.append(_source_mistake(at, part, needs))
    elif part.targets != "auto" and not part.teacher:
        what = f'"{part.targets}" are a teacher\'s; name one, or leave targets out'
        mistakes.append(f"{at.key('targets')}: {what}")
    elif part.targets != "auto" and part.targets not in needs.takes:
        others = _taking(part.targets)
        mistakes.append(f'{at.key("targets")}: loss "{part.name}" takes no {part.targets}; those that do: {others}')
    elif part_target(part) == "scores" and PurePath(part.teacher).suffix == ".json":
        hint = f"give a TREC run with scores, or a loss on ranks: {_taking('ranks')}"
        mistakes.append(f'{at.key("teacher")}: loss "{part.name}" needs scores, and permutations have none; {hint}')
    if part.mean_over == "pairs" and not needs.has_pairs:
        pairwise = ", ".join(loss.name for loss in LOSSES.values() if loss.has_pairs)
        mistakes.append(f'{at.key("mean_over")}: loss "{part.name}" has no pairs to pool; those that do: {pairwise}')
    return mistakes


def _source_mistake(at: _Place, part: LossPart, needs: LossNeeds) -> str:
    """Return the error for a loss that learns from what the recipe does not give it."""
    sources = " or ".join(f'"{source}"' for source in needs.sources)
    if at.number is None:
        return f'{at.key("source")}: loss "{part.name}" learns from {sources}, not "{_source(part)}"'
    what = f'loss "{part.name}" learns from {sources}'
    needed = "name a teacher" if not part.teacher else "leave the teacher out"
    return f"{at.key('teacher')}: {what}; {needed}"


def _source(part: LossPart) -> str:
    return "teacher" if part.teacher else "labels"


def _option_mistakes(at: _Place, part: LossPart, needs: LossNeeds) -> list[str]:
    """Return an error for each option that the loss does not have."""
    known = [name for name, _ in needs.options]
    has = f"its options: {', '.join(known)}" if known else "it has no options"
    return [
        f'{at.key(name)}: loss "{part.name}" has no such option; {has}' for name in part.options() if name not in known
    ]


def _taking(target: str) -> str:
    return ", ".join(loss.name for loss in LOSSES.values() if target in loss.takes)
