"""Make a stage's optimizer, and set its learning rate in each step: one for all weights, or one for each group."""

from __future__ import annotations

from typing import Any

from torch.optim import AdamW, Optimizer

from cerank.planning.learning_rates import changes_rates, rate_groups
from cerank.recipes.schema import Stage
from cerank.training.optimization.lion import Lion
from cerank.training.weight_shares import WeightShares


def make_optimizer(stage: Stage, shares: WeightShares, where: str, *, is_alike: bool = False) -> Optimizer:
    """Return the optimizer of every trained weight, with the same decay on all of them, as the paper has it.

    Args:
        stage: settings of the stage.
        shares: the weights.
        where: key path of the stage, for errors.
        is_alike: whether a weight must change by the same bits however it is divided: the fused step of AdamW rounds
            otherwise at the end of a piece.

    Raises:
        UsageError: learning rates by layer or of a head are asked for, and the model has none.
    """
    named = shares.trained
    weights: list[Any] = list(named.values())
    if changes_rates(stage):
        groups = rate_groups(stage, list(named), shares.names, where)
        weights = [{"params": [named[name] for name in group.names], "rate_factor": group.factor} for group in groups]
    if stage.optimizer == "lion":
        return Lion(weights, lr=stage.learning_rate, betas=stage.lion_betas, weight_decay=stage.weight_decay)
    return AdamW(
        weights,
        lr=stage.learning_rate,
        betas=stage.betas,
        eps=stage.epsilon,
        weight_decay=stage.weight_decay,
        fused=not is_alike,
        foreach=is_alike,
    )


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of the next step; groups with a factor of their own get that multiple."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
