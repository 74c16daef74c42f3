"""Keep an exponential moving average of the trained weights through a stage, and put it into the model for a while.

The average is torch's (`torch.optim.swa_utils`): after the first step the weights themselves, then `decay` of the
average before and the rest of the weights. Only what is trained has one, so that it costs a copy of the trained weights
and none of the model; `AveragedModel` would copy a frozen or rounded base, too.

Invariant: a function of the weights after each step, so that a resumed stage has the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cerank.errors import RunFailedError


class WeightAverage:
    """The average of a model's trained weights.

    Args:
        weights: the trained weights by name; the average begins with what they are after the first update.
        decay: share of the average before, between 0 and 1.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self._weights = dict(weights)
        self._averages: dict[str, Tensor] = {}
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Return the average of each trained weight by its name; {} before the first step."""
        return self._averages

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after an update in."""
        if not self._averages:
            self._averages = {name: value.detach().clone() for name, value in self._weights.items()}
            return
        self._update(list(self._averages.values()), [value.detach() for value in self._weights.values()], None)

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from an average that a checkpoint holds.

        Raises:
            RunFailedError: it is of other weights.
        """
        if saved and saved.keys() != self._weights.keys():
            raise RunFailedError("the average in the checkpoint is of another model")
        self._averages = {name: saved[name].to(value.device) for name, value in self._weights.items() if saved}

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """Let the model have the average in place of its weights inside the `with` block.

        The two change places, one weight after another, so that it takes no more memory than a copy of the largest.
        """
        if not self._averages:
            yield
            return
        self._change_places()
        try:
            yield
        finally:
            self._change_places()

    @torch.no_grad()
    def _change_places(self) -> None:
        for name, weight in self._weights.items():
            value = weight.detach().clone()
            weight.copy_(self._averages[name])
            self._averages[name].copy_(value)
