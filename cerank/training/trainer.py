"""The training loop, readable top to bottom in the order things happen.

Invariant: what a step does is a function of the plan and the step alone (and of the weights before it), so a step
that is done again after a resume gives the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

import msgspec
import torch
from torch.optim import AdamW

from cerank.core.groups import Group
from cerank.core.metrics import Reading
from cerank.core.schedule import learning_rate
from cerank.errors import RunFailedError
from cerank.inference.rerank import Texts
from cerank.models.cross_encoder import CrossEncoder, freeze, set_dropout
from cerank.models.forward_pass import Forward
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import Tokens
from cerank.training import checkpoints
from cerank.training.checkpoints import State
from cerank.training.gradients import Gradients, Rows, rows_of
from cerank.training.losses import LOSSES
from cerank.training.sampler import Sampler


class PausedError(Exception):
    """The person or the cluster asked to stop; the state is saved at `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(f"paused after step {step}")
        self.step = step


class Watch(Protocol):
    """Who looks on while a stage trains: the worker, or a test."""

    def read(self, reading: Reading) -> None:
        """Takes the reading of a step, before any checkpoint of it."""

    def validate(self, step: int) -> float:
        """Measures the model as it is; returns the stage's validation measure, larger is better."""

    def saving(self) -> None:
        """Hears that a checkpoint is about to be written: what was read so far must be on the disk before it."""

    def saved(self, state: State) -> None:
        """Hears that a checkpoint is on disk."""

    def rejected(self, reason: str) -> None:
        """Hears of a damaged checkpoint, or of an update that was left out."""

    def out_of_memory(self, what: str) -> None:
        """Hears that less goes through the model at once from here on; the groups of a step stay as they are."""

    def wants_to_stop(self) -> bool:
        """Says whether to stop before the next step."""


class Material(msgspec.Struct, frozen=True):
    """What a stage learns from."""

    sampler: Sampler
    tokens: Tokens
    queries: Texts
    documents: Texts

    def of(self, groups: Sequence[Group]) -> list[Rows]:
        """The groups with the ids of their pairs."""
        self.tokens.add("query", [group.query_id for group in groups], self.queries)
        self.tokens.add("document", [doc for group in groups for doc in group.doc_ids], self.documents)
        return rows_of(self.tokens, groups)


class _Ahead:
    """The rows of a step, made by a thread while the step before computes; what went wrong is raised in their step.

    It is the only one to ask the material while it works: whoever else is to, for a validation, waits for it first.
    """

    def __init__(self, material: Material) -> None:
        self._material = material
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._under_way: tuple[int, Future[list[Rows]]] | None = None

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def rows(self, step: int, steps: int) -> list[Rows]:
        """Those of a step; the next one's are begun, if there is one."""
        asked, self._under_way = self._under_way, None
        future = asked[1] if asked and asked[0] == step else self._thread.submit(self._made, step)
        found = future.result()
        if step < steps:
            self._under_way = step + 1, self._thread.submit(self._made, step + 1)
        return found

    def rest(self) -> None:
        """Returns once nothing is under way."""
        if self._under_way:
            wait([self._under_way[1]])

    def _made(self, step: int) -> list[Rows]:
        return self._material.of(self._material.sampler.groups(step))


class Trainer:
    """Trains one stage.

    Args:
        index: place of the stage in the chain, for the readings.
        name: of the stage; part of every seed.
        stage: its settings.
        seed: the run's.
        folder: of its checkpoints.
        device: where the model is.
    """

    def __init__(self, index: int, name: str, stage: Stage, *, seed: int, folder: Path, device: str) -> None:
        self.index, self.name, self.stage, self.seed, self.folder = index, name, stage, seed, folder
        self.device = torch.device(device)
        loss = LOSSES.find(stage.loss, f"stages.{name}.loss")
        self._gradients = Gradients(name, stage, seed, loss, self.device)
        self._forwards: tuple[CrossEncoder, Forward] | None = None

    def train(self, model: CrossEncoder, material: Material, watch: Watch) -> State:
        """Runs the stage from its newest checkpoint to its end; `model` then holds the weights of the last step.

        Raises:
            PausedError: `watch` wanted to stop; a checkpoint is saved.
            RunFailedError: a loss or gradient was not finite; the model holds the weights of the step before.
        """
        stage, steps = self.stage, material.sampler.steps
        set_dropout(model, stage.dropout)
        freeze(model, stage.freeze, stage.freeze_layers)
        optimizer = self.optimizer(model)
        state = checkpoints.resume(self.folder, model, optimizer, watch.rejected)
        model.train()
        self._gradients.microbatch = state.microbatch or stage.microbatch
        if self.device.type == "cuda" and not state.step:  # a stage that is gone on with keeps what it found before
            self._probe(model, material.tokens, watch)
        with _Ahead(material) as ahead:
            for step in range(state.step + 1, steps + 1):
                if state.stopped_early:
                    break
                if watch.wants_to_stop():
                    self._save(model, optimizer, state, watch)
                    raise PausedError(state.step)
                started = time.perf_counter()
                rows = ahead.rows(step, steps)
                rate = learning_rate(stage.schedule, step, steps=steps, peak=stage.learning_rate, warmup=stage.warmup)
                loss = self._gradients_in_memory(model, material.tokens, rows, step, watch)
                norm = self._clip(model)
                state = msgspec.structs.replace(state, step=step, microbatch=self._gradients.narrowed)
                if math.isfinite(loss) and math.isfinite(norm):
                    for parameters in optimizer.param_groups:
                        parameters["lr"] = rate
                    optimizer.step()
                    seconds, pairs = time.perf_counter() - started, sum(len(one.pairs) for one in rows)
                    watch.read(Reading(self.index, step, loss, rate, norm, len(rows), pairs, seconds))
                else:
                    state = self._left_out(state, loss, norm, watch)
                optimizer.zero_grad(set_to_none=True)
                if self._validates(step, steps):
                    ahead.rest()
                    state = state.after_validation(watch.validate(step), stage.patience)
                if self._saves(step, steps) or state.stopped_early:
                    self._save(model, optimizer, state, watch)
        return state

    def optimizer(self, model: CrossEncoder) -> AdamW:
        """AdamW over every trained parameter, decay on all of them alike, as the paper has it."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        stage = self.stage
        return AdamW(
            trained,
            lr=stage.learning_rate,
            betas=stage.betas,
            eps=stage.epsilon,
            weight_decay=stage.weight_decay,
            fused=True,
        )

    def gradients(
        self, model: CrossEncoder, material: Material, groups: Sequence[Group], step: int
    ) -> tuple[float, int]:
        """Adds the gradient of the mean loss over `groups`; returns that mean and how many pairs went through."""
        loss = self._gradients.add(self._forward(model, material.tokens), material.of(groups), step)
        return loss, sum(len(group) for group in groups)

    def _forward(self, model: CrossEncoder, tokens: Tokens) -> Forward:
        if self._forwards is None or self._forwards[0] is not model:
            self._forwards = model, Forward(model, tokens, self.device, self.stage.precision)
        return self._forwards[1]

    def _gradients_in_memory(
        self, model: CrossEncoder, tokens: Tokens, rows: Sequence[Rows], step: int, watch: Watch
    ) -> float:
        """Adds the gradient of a step and returns its loss.

        Half as much goes through the model at once wherever the device's memory does not suffice.
        """
        while True:
            try:
                return self._gradients.add(self._forward(model, tokens), rows, step)
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0][:200]
            model.zero_grad(set_to_none=True)  # what the parts before it added
            self._narrow(f"step {step}", reason, watch)

    def _narrow(self, when: str, reason: str, watch: Watch) -> None:
        """Halves what goes through the model at once; the end of the run where that was done often enough."""
        if not self._gradients.narrow():
            hint = "lower max_length, or take a smaller base or a device with more memory"
            where = f"stages.{self.name}"
            raise RunFailedError(
                f"out of memory at {self._gradients.microbatch} tokens: {reason}", where=where, hint=hint
            )
        watch.out_of_memory(f"{when}: {self._gradients.microbatch} tokens at once from here on; {reason}")

    def _probe(self, model: CrossEncoder, tokens: Tokens, watch: Watch) -> None:
        """Tries the largest part before training, with room for the optimizer; halves it until it fits."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        while True:
            try:
                room = [torch.empty_like(parameter) for parameter in trained for _ in ("exp_avg", "exp_avg_sq")]
                self._forward(model, tokens).rehearse(self._gradients.microbatch, self.stage.max_length)
                del room
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0][:200]
            else:
                return
            finally:
                model.zero_grad(set_to_none=True)
            self._narrow("before training", reason, watch)

    def _clip(self, model: CrossEncoder) -> float:
        """The gradient norm before clipping."""
        largest = self.stage.clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(model.parameters(), largest, error_if_nonfinite=False))

    def _left_out(self, state: State, loss: float, norm: float, watch: Watch) -> State:
        """The state after a step without an update, or the end of the run where the recipe allows no more of them."""
        allowed = int(self.stage.on_nonfinite.partition(":")[2] or 0)
        what = f"step {state.step}: loss {loss}, gradient norm {norm}"
        if state.skipped >= allowed:
            hint = "lower the learning rate, or set on_nonfinite = 'skip:3'"
            raise RunFailedError(f"not finite: {what}", where=f"stages.{self.name}", hint=hint)
        watch.rejected(f"update left out: {what}")
        return msgspec.structs.replace(state, skipped=state.skipped + 1)

    def _validates(self, step: int, steps: int) -> bool:
        every = self.stage.validate_every
        return step == steps or bool(every and step % every == 0)

    def _saves(self, step: int, steps: int) -> bool:
        every = self.stage.checkpoint_every
        return self._validates(step, steps) or bool(every and step % every == 0)

    def _save(self, model: CrossEncoder, optimizer: AdamW, state: State, watch: Watch) -> None:
        if state.step and not (self.folder / checkpoints.name_of(state.step)).exists():
            watch.saving()
            checkpoints.save(self.folder, model, optimizer, state)
            watch.saved(state)
