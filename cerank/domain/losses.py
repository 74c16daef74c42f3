"""What the losses are called and what they need, known without torch, so that a plan is refused before it is launched.

The losses themselves are in learn/losses.py; a test holds the two to the same names.
"""

from __future__ import annotations

import msgspec

from cerank.domain.recipe import Recipe
from cerank.registry import nearest


class LossNeeds(msgspec.Struct, frozen=True):
    """A loss by name: where its targets may come from, and what it does in a line."""

    name: str
    sources: tuple[str, ...]  # values of a stage's `source` it can learn from
    description: str


LOSSES: dict[str, LossNeeds] = {
    entry.name: entry
    for entry in (
        LossNeeds(
            "lce",
            ("labels",),
            "localized contrastive estimation: cross-entropy of a positive against its negatives (Gao et al. 2021)",
        ),
        LossNeeds(
            "ranknet",
            ("labels", "teacher"),
            "RankNet: logistic loss over pairs of a better and a worse document, mean per query (Burges et al. 2005)",
        ),
    )
}


def loss_mistakes(recipe: Recipe) -> list[str]:
    """Stages whose loss is unknown or cannot learn from their source, each as `key.path: what is wrong`."""
    mistakes = []
    for name, stage in recipe.chained():
        needs = LOSSES.get(stage.loss)
        if needs is None:
            mistakes.append(f"stages.{name}.loss: no loss is called '{stage.loss}'; {nearest(stage.loss, LOSSES)}")
        elif stage.source not in needs.sources:
            wanted = " or ".join(f'"{source}"' for source in needs.sources)
            mistakes.append(f'stages.{name}.source: loss "{stage.loss}" learns from {wanted}, not "{stage.source}"')
    return mistakes
