"""Measure whether the losses of a stage pull the weights the same way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

Gradient = Sequence[Tensor | None]  # of each trained weight; None for one that was not used


@torch.no_grad()
def cosines_of(names: Sequence[str], gradients: Sequence[Gradient]) -> dict[str, float]:
    """Return the cosine of the gradients of each two losses: 1 where they agree, below 0 where they work against it.

    A gradient of length 0, of a loss without targets in the step, has no direction: its cosine is 0.

    >>> cosines_of(["lce", "kl"], [[torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 1.0])]])
    {'lce, kl': 0.7071067811865475}
    """
    norms = [math.sqrt(_product(gradient, gradient)) for gradient in gradients]
    out = {}
    for left, right in itertools.combinations(range(len(names)), 2):
        lengths = norms[left] * norms[right]
        product = _product(gradients[left], gradients[right])
        out[f"{names[left]}, {names[right]}"] = product / lengths if lengths else 0.0
    return out


def _product(left: Gradient, right: Gradient) -> float:
    """Return the scalar product, summed up in float64."""
    products = [
        (mine.double() * other.double()).sum()
        for mine, other in zip(left, right, strict=True)
        if mine is not None and other is not None
    ]
    return float(torch.stack(products).sum()) if products else 0.0
