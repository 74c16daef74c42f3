"""Make a stage's optimizer, and set its learning rate in each step: one for all weights, or one for each group."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from cerank.planning.learning_rates import changes_rates, rate_groups
from cerank.recipes.schema import Stage
from cerank.training.optimization.lion import Lion


def make_optimizer(stage: Stage, model: nn.Module, where: str) -> Optimizer:
    """Return the optimizer of every trained weight, with the same decay on all of them, as the paper has it.

    Args:
        stage: settings of the stage.
        model: the cross-encoder.
        where: key path of the stage, for errors.

    Raises:
        UsageError: learning rates by layer or of a head are asked for, and the model has none.
    """
    weights: list[Any] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if changes_rates(stage):
        named = dict(model.named_parameters())
        trained = [name for name, parameter in named.items() if parameter.requires_grad]
        groups = rate_groups(stage, trained, named, where)
        weights = [{"params": [named[name] for name in group.names], "rate_factor": group.factor} for group in groups]
    if stage.optimizer == "lion":
        return Lion(weights, lr=stage.learning_rate, betas=stage.lion_betas, weight_decay=stage.weight_decay)
    return AdamW(
        weights,
        lr=stage.learning_rate,
        betas=stage.betas,
        eps=stage.epsilon,
        weight_decay=stage.weight_decay,
        fused=True,
    )


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of the next step; groups with a factor of their own get that multiple."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
