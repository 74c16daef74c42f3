"""What a stage minimizes: the weighted sum of its losses, each a mean over the groups of a step with its targets.

Invariant: a stage with one loss computes the same bits as that loss alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cerank.core.groups import Group, count_pairs
from cerank.kernels.packing import to_device
from cerank.recipes.schema import Stage
from cerank.recipes.sections.loss_parts import part_names
from cerank.training.losses import loss_of


class Objective:
    """The losses of a stage.

    Args:
        stage: settings of the stage.
        where: key path of the stage, for errors: "stages.NAME".

    Raises:
        UsageError: a loss is unknown.
    """

    def __init__(self, stage: Stage, where: str = "") -> None:
        self.parts = stage.parts
        self.names = part_names(self.parts)
        self.factors = tuple(part.weight for part in self.parts)
        key = f"{where}.losses" if stage.losses else f"{where}.loss"
        self._losses = [loss_of(part, key) for part in self.parts]

    def __len__(self) -> int:
        return len(self.parts)

    def group_weights(self, groups: Sequence[Group], device: torch.device) -> list[Tensor]:
        """Return for each loss the weights (groups,) of a step's groups in its mean, 0 for one without its targets.

        With `mean_over = "pairs"` a group counts as many times as it has pairs of a better and a worse candidate.

        A loss for some sets of a mixture is summed over their groups and divided by all groups of the step: each
        group counts alike, whichever losses it has, and a set counts by its share of the groups.
        """
        counts = [self._counts(number, groups) for number in range(len(self))]
        table = to_device([value for row in counts for value in row], torch.float32, device).view(len(self), -1)
        totals = [float(len(groups)) if part.sets else sum(row) for part, row in zip(self.parts, counts, strict=True)]
        return [weights / (total or 1.0) for weights, total in zip(table, totals, strict=True)]

    def group_losses(self, scores: Tensor, groups: Sequence[Group]) -> tuple[list[Tensor], Tensor]:
        """Return each loss of each group, (groups,) a loss, and the mask (groups, size) of its candidates.

        Args:
            scores: (groups, size) in float32, padded where groups are smaller than the largest.
            groups: the groups.
        """
        width, shape, device = scores.shape[1], scores.shape, scores.device
        places = [place < len(group) for group in groups for place in range(width)]
        mask = to_device(places, torch.bool, device).view(shape)
        losses = []
        for number, loss in enumerate(self._losses):
            targets = [(*group.targets_of(number), *[None] * (width - len(group))) for group in groups]
            flat = [value for row in targets for value in row]
            labels = to_device([value or 0.0 for value in flat], torch.float32, device).view(shape)
            has_all = len(self) == 1 or all(None not in group.targets_of(number) for group in groups)
            known = (
                mask if has_all else to_device([value is not None for value in flat], torch.bool, device).view(shape)
            )
            losses.append(loss(scores, labels, known))
        return losses, mask

    def of_groups(self, losses: Sequence[Tensor], groups: Sequence[Group]) -> Tensor:
        """Return the weighted sum (groups,) of the losses of each group, by which a filter chooses.

        A loss without targets for a group adds 0 to it.

        Args:
            losses: each loss of each group, as `group_losses` returned them.
            groups: the groups.
        """
        if len(self) == 1:
            return losses[0]
        total = torch.zeros_like(losses[0])
        for number, (factor, loss) in enumerate(zip(self.factors, losses, strict=True)):
            has_targets = [sum(value is not None for value in group.targets_of(number)) > 1 for group in groups]
            total = total + factor * loss.masked_fill(~to_device(has_targets, torch.bool, loss.device), 0.0)
        return total

    def total(self, values: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum () of the losses' means ()."""
        if len(values) == 1 and self.factors[0] == 1.0:
            return values[0]
        return torch.stack([factor * value for factor, value in zip(self.factors, values, strict=True)]).sum()

    def combined(self, values: Sequence[float]) -> float:
        """Return the weighted sum of the losses' means, as numbers."""
        return sum(factor * value for factor, value in zip(self.factors, values, strict=True))

    def sum_up(self, values: Sequence[float]) -> tuple[float, list[float]]:
        """Return the weighted sum of the losses of a step, and each by itself.

        Args:
            values: what each microbatch adds: a number for each loss, then those of the next microbatch.

        >>> Objective(Stage(steps=1)).sum_up([0.5, 0.25])
        (0.75, [0.75])
        """
        means = [sum(values[number :: len(self)]) for number in range(len(self))]
        return self.combined(means), means

    def mean_over(self, groups: Sequence[Group], scores: Sequence[Sequence[float]]) -> list[float]:
        """Return the mean of each loss over groups of any number, given the scores of each group's candidates."""
        totals, weights = [0.0] * len(self), [0.0] * len(self)
        counts = [self._counts(number, groups) for number in range(len(self))]
        for at, (group, of_group) in enumerate(zip(groups, scores, strict=True)):
            losses, _ = self.group_losses(torch.tensor([list(of_group)]), [group])
            for number, loss in enumerate(losses):
                totals[number] += counts[number][at] * float(loss)
                weights[number] += counts[number][at]
        return [total / (weight or 1.0) for total, weight in zip(totals, weights, strict=True)]

    def _counts(self, number: int, groups: Sequence[Group]) -> list[float]:
        """Return how often each group counts in the mean of a loss."""
        if self.parts[number].mean_over == "pairs":
            return [float(count_pairs(group.targets_of(number))) for group in groups]
        if len(self) == 1:
            return [1.0] * len(groups)
        return [float(sum(value is not None for value in group.targets_of(number)) > 1) for group in groups]
