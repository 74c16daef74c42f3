"""Take as many tokens through the model at once as the device's memory holds, from a stage's first step to its last.

Invariant: the groups of a step and its mean loss stay the same. A size that was found is recorded with its step (0:
before training), so that a step that is repeated after a kill computes in the same parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch.optim import Optimizer

from cerank.core.ranks import Ranks
from cerank.errors import RunFailedError
from cerank.kernels.memory import is_out_of_memory, release_memory
from cerank.models.cross_encoder import CrossEncoder
from cerank.planning.training_memory import MOMENTS
from cerank.recipes.schema import Stage
from cerank.training import checkpoints
from cerank.training.forward_backward import MAX_HALVINGS, ForwardBackward
from cerank.training.parameter_shards.shard_turns import ShardTurns

Result = TypeVar("Result")


class MemoryCallback(Protocol):
    """What is called when memory was short."""

    def on_out_of_memory(self, what: str) -> None:
        """Record that fewer tokens go through the model at once from here on; the groups of a step stay the same."""


class MicrobatchFit:
    """Does work of a stage again with half as many tokens at once, wherever the device runs out of memory.

    Args:
        name: name of the stage.
        stage: its settings.
        model: the model; its gradients are removed before work is done again.
        passes: runs the model; its `microbatch` is what is halved.
        folder: folder of the stage's checkpoints, where sizes are recorded.
        device: device that the model is on.
        ranks: the processes that share the steps; too little memory in one of them concerns all.
        callback: called each time the microbatch was halved.
        turns: the shards of a step, where the processes compute each pass together.
    """

    def __init__(
        self, name: str, stage: Stage, *, model: CrossEncoder, passes: ForwardBackward, folder: Path,
        device: torch.device, ranks: Ranks, callback: MemoryCallback, turns: ShardTurns | None = None,
    ) -> None:  # fmt: skip
        self.name, self.stage, self.model, self.passes, self.folder = name, stage, model, passes, folder
        self.device, self.ranks, self.turns = device, ranks, turns
        self.callback = callback

    def fit(self) -> None:
        """Find how many tokens the device's memory holds at once, before the first step of a stage.

        The number is recorded even if it is as the stage has it: a stage that is killed before its first checkpoint
        begins again in the same parts, whatever else is on the device by then.
        """
        self.probe()
        self._record(0)

    def probe(self) -> None:
        """Try the largest microbatch before training, with room for the optimizer, and halve it until it fits."""

        def try_largest() -> None:
            copies = MOMENTS[self.stage.optimizer] + (self.stage.ema > 0)
            moments = [torch.empty_like(weight) for weight in self.passes.model.trained_weights for _ in range(copies)]
            with self.turns.trial() if self.turns is not None else contextlib.nullcontext():
                self.passes.model.probe_memory(self.passes.microbatch, self.stage.max_length)
            del moments

        self.run(try_largest, 0)
        self.model.zero_grad(set_to_none=True)

    def run(self, work: Callable[[], Result], step: int) -> Result:
        """Return what `work` returns; wherever the device runs out of memory, halve the microbatch and try again.

        Args:
            work: what a step does up to its update; it may be done again.
            step: the step, 0 before training.

        Raises:
            RunFailedError: the microbatch was halved `MAX_HALVINGS` times already.
        """
        while True:
            reason = ""
            try:
                result = work()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0][:200]
            if reason and self.turns is not None and self.ranks.count > 1:  # the others wait within this pass
                raise self._refusal(reason, "set microbatch to half as many tokens")
            if not (reason := self.ranks.any(reason)):  # too little memory in one process concerns all
                return result
            self.model.zero_grad(set_to_none=True)  # remove what the microbatches before it added
            release_memory(self.device)
            if self.stage.tokens_at_once // self.passes.microbatch >= 2**MAX_HALVINGS or self.passes.microbatch < 2:
                raise self._refusal(reason, "lower max_length, or take a smaller base or a device with more memory")
            self.passes.microbatch //= 2
            self._record(step)
            when = f"step {step}" if step else "before training"
            self.callback.on_out_of_memory(f"{when}: {self.passes.microbatch} tokens at once from here on; {reason}")

    def _record(self, step: int) -> None:
        """Record that from `step` on at most so many tokens go through the model at once."""
        if self.ranks.is_first:
            checkpoints.record_microbatch(self.folder, step, self.passes.microbatch)

    def _refusal(self, reason: str, hint: str) -> RunFailedError:
        what = f"out of memory at {self.passes.microbatch} tokens: {reason}"
        return RunFailedError(what, where=f"stages.{self.name}", hint=hint, code="out-of-memory")


def update_within_memory(optimizer: Optimizer, device: torch.device) -> None:
    """Make the optimizer's step; where the first one finds no memory for the moments, free the cache and repeat it.

    All memory is taken before any weight changes, so a step that fails so has changed none. Later steps take none.
    """
    is_first = not optimizer.state
    try:
        optimizer.step()
    except RuntimeError as error:
        if not is_first or not is_out_of_memory(error):
            raise
    else:
        return
    optimizer.state.clear()  # of the moments some are missing, and all that are there would count a step twice
    release_memory(device)
    optimizer.step()
