"""Divide a model's weights among the processes of a run by torch's fully_shard (FSDP2), and hold one process's shares.

Each process holds neighboring rows of every weight, with their gradients and the optimizer's moments. A layer's weights
are gathered when it is computed, forward and backward, and freed again.

Invariant: what is added or measured has the order of whole weights, so that their number decides no bit on a CPU: sums
of gradients go by shards of the step (`ordered_sum.py`), and a norm is that of a whole gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_

from cerank.kernels.rank_group import RankGroup
from cerank.models.cross_encoder import CrossEncoder
from cerank.training.parameter_shards.ordered_sum import OrderedSum, WeightGather
from cerank.training.weight_shares import WeightShares


class ShardedWeights(WeightShares):
    """The shares of this process.

    Args:
        model: the model, whole and on the CPU; only its shares go to the device. It then is computed by all processes
            together: each pass of one is a pass of all.
        ranks: the processes.
        device: device of this one.
    """

    is_divided = True

    def __init__(self, model: CrossEncoder, ranks: RankGroup, device: torch.device) -> None:
        super().__init__(model)
        self._ranks, self._device = ranks, device
        to_save = list(model.checkpoint_weights())  # before: models tell tensors with several names by their memory
        mesh = DeviceMesh.from_group(ranks.tensor_group, device.type)
        self._sums: list[OrderedSum] = []
        for module in (*layers_of(model), model):  # the rest, such as embeddings and head, is gathered for a whole pass
            fully_shard(module, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
                self._sums.append(OrderedSum(ranks))
                module.set_custom_reduce_scatter(self._sums[-1])  # type: ignore[arg-type]  # it has the same calls
                module.set_custom_all_gather(WeightGather(ranks))  # type: ignore[arg-type]
                module.unshard()  # torch makes the gathered weights once: not in a pass without gradients
                module.reshard()
        model.to(device)  # buffers that no layer holds
        self._parameters: dict[str, Any] = dict(model.named_parameters(remove_duplicate=False))
        self._trained: dict[str, Tensor] = {
            name: nn.Parameter(_local(value)) for name, value in model.named_parameters() if value.requires_grad
        }
        every = {**dict(model.named_buffers()), **self._parameters}
        self._to_save: dict[str, Tensor] = {name: _local(every[name]) for name in to_save}

    @property
    def trained(self) -> dict[str, Tensor]:
        """Return the rows of each trained weight that this process changes; they lie in the model's own memory."""
        return self._trained

    def to_save(self) -> dict[str, Tensor]:
        """Return this process's rows of what a checkpoint must hold."""
        return self._to_save

    def whole(self, name: str, share: Tensor) -> Tensor:
        """Return a whole tensor in the first process, from the rows of all."""
        parameter = self._parameters.get(name)
        if parameter is None or not share.shape:  # a buffer, or a count of steps
            return share
        return self._gathered(parameter, share, 0)

    def rows(self, name: str, count: int) -> slice:
        """Return the rows of this process: as many as others have, but for the last ones."""
        if name not in self._parameters:
            return slice(None)
        each = -(-count // self._ranks.count)
        return slice(min(count, self._ranks.number * each), min(count, (self._ranks.number + 1) * each))

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Give the weights values, of which each is this process's share."""
        own = self.to_save()
        if values.keys() != own.keys() or any(own[name].shape != value.shape for name, value in values.items()):
            raise RuntimeError("the weights are of another model")
        for name, value in values.items():
            own[name].copy_(value)

    def begin_pass(self, is_real: Sequence[bool]) -> None:
        """Let the next backward pass add the gradients of those processes whose pass is real."""
        for parameter in self._parameters.values():
            parameter.grad = None  # the sum so far is kept apart
        for total in self._sums:
            total.is_real = is_real

    def take_gradients(self) -> None:
        """Give the shares the gradients of the step."""
        for name, share in self._trained.items():
            gradient = self._parameters[name].grad
            share.grad = None if gradient is None else gradient.to_local()
            self._parameters[name].grad = None
        for total in self._sums:
            total.forget()

    @torch.no_grad()
    def clip(self, largest: float) -> Tensor:
        """Return the norm () of the gradients of all processes, and scale this one's down to the largest allowed.

        Each process computes the norms of some of the weights, for which it gathers their whole gradients one by one.
        """
        count, used = self._ranks.count, [name for name, share in self._trained.items() if share.grad is not None]
        own = []
        for at, name in enumerate(used):
            whole = self._gathered(self._parameters[name], self._gradient(name), at % count)
            if at % count == self._ranks.number:
                own.append(torch.linalg.vector_norm(whole))
        longest = -(-len(used) // count)
        norms = torch.zeros(longest, device=self._device)
        if own:
            norms[: len(own)] = torch.stack(own)
        every = self._ranks.gather_tensor(norms).t().flatten()[: len(used)]
        norm: Tensor = torch.linalg.vector_norm(every)
        clip_grads_with_norm_(self._trained.values(), largest or math.inf, norm, foreach=False)
        return norm

    def _gradient(self, name: str) -> Tensor:
        gradient = self._trained[name].grad
        if gradient is None:
            raise ValueError(f"no gradient: {name}")
        return gradient

    def _gathered(self, parameter: Any, share: Tensor, to: int) -> Tensor:
        """Return a whole tensor of the shape of a parameter in process `to`, and an empty one in others."""
        count = parameter.shape[0]
        each = -(-count // self._ranks.count)
        padded = share.new_zeros(each, *parameter.shape[1:])
        padded[: share.shape[0]] = share
        return self._ranks.gather_to(padded, to)[:count]


def layers_of(model: CrossEncoder) -> list[nn.Module]:
    """Return the layers of a model's encoder; none where it computes one several times, as ALBERT does."""
    stacks: list[str] = []
    layers: list[nn.Module] = []
    for name, module in model.encoder.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in stacks):
            stacks.append(name)
            layers += [layer for layer in module if any(True for _ in layer.parameters())]
    config: Any = model.encoder.config
    depth = getattr(config, "num_hidden_layers", len(layers))
    return layers if len(layers) >= depth else []


def _local(value: Any) -> Tensor:
    whole: Any = value.detach() if isinstance(value, DTensor) else None  # torch types a DTensor's methods as a tensor's
    share: Tensor = value if whole is None else whole.to_local()
    return share
