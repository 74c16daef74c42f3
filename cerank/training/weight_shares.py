"""The weights that this process trains, clips and saves: all of each, unless they are divided among several processes.

`parameter_shards/sharded_weights.py` has the same calls for the latter; callers never ask which of the two they have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from cerank.models.cross_encoder import CrossEncoder


class WeightShares:
    """Weights that this process has whole.

    Args:
        model: the model; its parameters that require a gradient are those that are trained.
    """

    is_divided = False  # whether other processes hold the rest of the weights

    def __init__(self, model: CrossEncoder) -> None:
        self._model = model

    @property
    def names(self) -> list[str]:
        """Return the names of all weights, trained or not."""
        return [name for name, _ in self._model.named_parameters()]

    @property
    def trained(self) -> dict[str, Tensor]:
        """Return by its name what an optimizer changes of each trained weight: this process's share of it."""
        return {name: value for name, value in self._model.named_parameters() if value.requires_grad}

    def to_save(self) -> dict[str, Tensor]:
        """Return this process's share of what a checkpoint must hold; see `CrossEncoder.checkpoint_weights`."""
        return self._model.checkpoint_weights()

    def whole(self, name: str, share: Tensor) -> Tensor:
        """Return a whole tensor, of the shape of the weight of that name, from the shares of all processes.

        Processes but the first get an empty one.
        """
        del name
        return share

    def rows(self, name: str, count: int) -> slice:
        """Return which of the `count` rows of a tensor of the shape of that weight this process holds."""
        del name, count
        return slice(None)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Give the weights values, of which each is this process's share.

        Raises:
            RuntimeError: they are of another model.
        """
        self._model.load_checkpoint_weights(values)

    def begin_pass(self, is_real: Sequence[bool]) -> None:
        """Prepare for a backward pass of all processes; those whose pass is not real only take part."""

    def take_gradients(self) -> None:
        """Give what `trained` returns the gradients of the step."""

    def clip(self, largest: float) -> Tensor:
        """Return the norm () of all gradients, and scale them down to the largest norm allowed; 0 allows any."""
        return clip_grad_norm_(self._model.parameters(), largest or math.inf, error_if_nonfinite=False)


def read_shares(path: Path, weights: WeightShares) -> dict[str, Tensor]:
    """Return this process's share of each tensor in a file, on the CPU; no more of the file is read.

    Args:
        path: a safetensors file; its tensors are called like weights, or "exp_avg/" and so on before such a name.
        weights: those weights.
    """
    with safe_open(path, framework="pt") as file:
        shares = {}
        for key in file.keys():  # noqa: SIM118 - the file is no dict
            part = file.get_slice(key)
            shape = part.get_shape()
            rows = weights.rows(key.rpartition("/")[2], shape[0]) if shape else slice(None)
            shares[key] = file.get_tensor(key) if rows == slice(None) else part[rows]
        return shares
