"""Lion: a step of the learning rate in the sign of an average of gradients, with decoupled weight decay.

Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023 (arXiv 2302.06675), algorithm 2.

torch has no Lion. The package lion-pytorch has this one; it is not used, because its step changes weights while it
still takes memory, and a step that found none could then not be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """The optimizer.

    Args:
        params: weights, or groups of them with settings of their own.
        lr: the learning rate; every weight moves by it in each step.
        betas: shares of the average before in what gives the step's direction, and in the average that is kept.
        weight_decay: share of a weight, times the learning rate, that it loses in each step.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient. All memory is taken before any weight changes."""
        if closure is not None:
            raise ValueError("a closure is not supported")
        moves: list[tuple[dict[str, Any], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]] = []
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients: list[Tensor] = [weight.grad for weight in weights]
            for weight in weights:
                if "exp_avg" not in self.state[weight]:
                    self.state[weight]["exp_avg"] = torch.zeros_like(weight)
            averages: list[Tensor] = [self.state[weight]["exp_avg"] for weight in weights]
            first, _ = group["betas"]
            directions = list(torch._foreach_mul(averages, first))
            torch._foreach_add_(directions, gradients, alpha=1.0 - first)
            torch._foreach_sign_(directions)
            moves.append((group, weights, directions, averages, gradients))
        for group, weights, directions, averages, gradients in moves:
            rate, (_, second) = group["lr"], group["betas"]
            torch._foreach_mul_(weights, 1.0 - rate * group["weight_decay"])
            torch._foreach_add_(weights, directions, alpha=-rate)
            torch._foreach_mul_(averages, second)
            torch._foreach_add_(averages, gradients, alpha=1.0 - second)
