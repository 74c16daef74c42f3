"""The training loop of a stage, to be read from top to bottom.

batch -> forward -> loss -> backward -> clip -> optimizer step -> log -> validate -> save

Invariant: what a step does is a function of the plan, the step and the weights before it, so that a step which is done
again after a resume gives the same bits.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer

from cerank.core.metrics import StepMetrics
from cerank.core.ranks import Ranks, shard_count
from cerank.core.schedule import learning_rate
from cerank.errors import RunFailedError
from cerank.kernels.packing import to_device
from cerank.kernels.rank_group import RankGroup
from cerank.kernels.recomputation import recompute_layers
from cerank.models.cross_encoder import CrossEncoder, freeze, set_dropout, tie_token_types
from cerank.models.forward_pass import ForwardPass
from cerank.models.lora.adapter_training import add_adapter
from cerank.recipes.schema import Stage
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.tokenization.tokens import PairTokenizer
from cerank.training import checkpoints
from cerank.training.batches import EncodedGroup, Prefetcher, TrainingData, split_by_tokens
from cerank.training.checkpoints import CheckpointWriter, TrainingState
from cerank.training.filtering.filter_state import FilterState
from cerank.training.filtering.filtered_steps import LossProbe, changes
from cerank.training.filtering.group_filter import GroupFilter
from cerank.training.forward_backward import ForwardBackward
from cerank.training.gradient_cosines import cosines_of
from cerank.training.microbatch_fit import MemoryCallback, MicrobatchFit, update_within_memory
from cerank.training.objective import Objective
from cerank.training.optimization.optimizers import make_optimizer, set_rate
from cerank.training.optimization.weight_average import WeightAverage
from cerank.training.parameter_shards.shard_turns import JointLockstep, ShardTurns
from cerank.training.parameter_shards.sharded_weights import ShardedWeights
from cerank.training.parameter_shards.whole_weights import WholeWeights
from cerank.training.passage_pooling import pool_passages
from cerank.training.step_shards import RankStats, StepShards, bits_of
from cerank.training.weight_shares import WeightShares


class PausedError(Exception):
    """The user or the cluster asked to stop; the state after `step` is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"paused after step {step}")
        self.step = step


class StepResult(NamedTuple):
    """What the passes of a step gave."""

    losses: list[Tensor]  # each microbatch's part of the mean; [] where the step's groups wait for more
    batch: list[EncodedGroup]  # what was trained on
    filter_state: FilterState | None = None  # of a stage with a filter, after the step
    scored: int = 0  # pairs that went forward alone, to choose the groups

    @property
    def sizes(self) -> tuple[int, int]:
        """Return how many groups and pairs were trained on."""
        return len(self.batch), sum(len(encoded.pairs) for encoded in self.batch)


class TrainerCallback(MemoryCallback, Protocol):
    """What a trainer calls while it trains: the worker logs and validates in it, a test records."""

    def on_step(self, metrics: StepMetrics) -> None:
        """Log the metrics of a step, before any checkpoint of it."""

    def on_scores(self, step: int, spread: float) -> None:
        """Look at how far apart the scores of one group lie at most in a step, before `on_step` of the same step."""

    def validate(self, step: int) -> float:
        """Measure the model as it is after `step` steps, 0 for its start, and return the measure; larger is better."""

    def measured(self) -> Mapping[str, float]:
        """Return the newest validation's value of each measure in the stage's `keep_best`; larger is better.

        Called only where there are such measures; of several processes the first one's values count.
        """

    def before_save(self) -> None:
        """Write what was logged to the disk: a checkpoint that outlived its log would leave a gap in it."""

    def after_save(self, state: TrainingState) -> None:
        """Record that a checkpoint is on disk."""

    def on_rejected(self, reason: str) -> None:
        """Record that a damaged checkpoint, or an update that was not finite, is not used."""

    def on_filter(self, step: int, what: str) -> None:
        """Record how groups are chosen from here on, in a stage with a filter."""

    def on_rank_stats(self, stats: Sequence[RankStats]) -> None:
        """Log what each process did since the last validation; called only where several share the steps."""

    def should_stop(self) -> bool:
        """Return whether to save and stop before the next step; of several processes the first one decides."""


class Trainer:
    """Trains one stage of a run.

    Args:
        index: position of the stage in the recipe's chain, from 0; it appears in the metrics.
        name: name of the stage; part of the seed of everything random in it.
        stage: settings of the stage: loss, learning rate, steps, batch size, and validation.
        seed: seed of the run, from 0.
        folder: folder that holds the stage's checkpoints.
        device: device that the model is on, such as "cpu" or "cuda:0".
        shards: shards of a step at most, for a run that may go on with another number of devices: their gradients are
            added in an order of its own. 0 takes the groups of a step as they fit into memory.
        ranks: the processes that share the shards of a step, this one among them.
        divides_weights: whether each process holds a share of every weight in place of all; the model then comes on the
            CPU. In one process, the stage has the bits that several would give it.

    Example:
        Given a stage of two steps, its training data (see `Sampler`), a cross-encoder and a callback:

        >>> trainer = Trainer(0, "contrastive", stage, seed=1, folder=Path("checkpoints"), device="cpu")
        >>> state = trainer.train(model, data, callback)
        >>> state.step
        2
    """

    def __init__(
        self, index: int, name: str, stage: Stage, *, seed: int, folder: Path, device: str, shards: int = 0,
        ranks: Ranks | None = None, passages: PassageSpec | None = None, divides_weights: bool = False,
    ) -> None:  # fmt: skip
        self.index, self.name, self.stage, self.seed, self.folder = index, name, stage, seed, folder
        self.device = torch.device(device)
        self.writes_checkpoints_in_thread = self.device.type == "cuda"  # a CPU has no core to spare
        self.probes_memory = self.device.type == "cuda"
        self.passages = passages or stage.passages  # how documents are cut; a recipe's table holds for its stages, too
        self.objective = Objective(stage, f"stages.{name}")
        self._spread = torch.zeros((), device=self.device)  # largest difference of scores within a group of the step
        self.ranks = ranks or Ranks()
        self._shard_count = shard_count(stage.groups_per_step, shards) if shards else 0
        self._shards: StepShards | None = None  # the shards of a step, where it is divided into shards
        self._divides_weights = divides_weights
        self._turns: ShardTurns | None = None  # the same shards, where processes compute each pass together
        self._filter: GroupFilter | None = None  # chooses among a step's groups, where the stage has a filter
        self._probe: LossProbe | None = None  # with it: computes the losses that it chooses by
        self._average: WeightAverage | None = None  # of the weights, where the stage keeps one
        self._group_loss_parts: list[Tensor] = []  # with it: losses of the groups that the step trained on

    def train(self, model: CrossEncoder, data: TrainingData, callback: TrainerCallback) -> TrainingState:
        """Train from the newest checkpoint to the end of the stage; `model` then holds the weights of the last step.

        Raises:
            PausedError: the callback asked to stop; a checkpoint is saved.
            RunFailedError: a loss or gradient is not finite, or memory does not suffice for a sixteenth of the
                microbatch; the model holds the weights of the step before.
        """
        stage, steps = self.stage, data.sampler.steps
        shares = self._hold(model)
        optimizer = self.optimizer(shares)
        state = self._resume(shares, optimizer, callback)
        model.train()
        microbatches = checkpoints.recorded_microbatches(self.folder)  # step -> tokens at once from that step on
        passes = self.passes(model, data.tokens, state.microbatch or microbatches.get(0, 0))
        self._shards = self._divide_steps(shares)
        memory = self.microbatch_fit(model, passes, callback)
        if self.probes_memory and not state.step and not microbatches:
            memory.fit()
        state = self._start_filter(self._with_start(state, callback), model, data, passes)

        with Prefetcher(data, steps) as prefetcher, self._writer(callback) as writer:
            for step in range(state.step + 1, steps + 1):
                if state.stopped_early:
                    break
                if self.ranks.agree(callback.should_stop()):
                    self._save(writer, shares, optimizer, state, callback)
                    writer.wait()
                    raise PausedError(state.step)
                # batch: a thread made it while the step before computed
                started = time.perf_counter()
                batch = prefetcher.batch(step)

                # at some steps: the angle between what the stage's losses ask for; it changes nothing
                passes.microbatch = microbatches.get(step, passes.microbatch)
                cosines = self._gradient_cosines(passes, batch, step, memory)

                # forward, loss, backward: `forward_backward` below, with fewer tokens at once where memory is short
                result = memory.run(partial(self._pass_of_step, passes, batch, step, state.filter), step)
                self._tell_of_filter(state.filter, result.filter_state, step, callback)

                # on several devices: the gradient of the whole step, added in the same order for any number of them
                losses = self._sum_over_ranks(result.losses)

                # clip; the only time in a step that the device is waited for, but for a filter's losses
                gradient_norm = shares.clip(stage.clip)
                # `to`: where nothing has a gradient, torch's norm of 0 is on the CPU
                *parts, norm, spread = torch.stack([*losses, gradient_norm.to(self.device), self._spread]).tolist()
                loss, values = self.objective.sum_up(parts)
                callback.on_scores(step, spread)

                # optimizer step
                rate = learning_rate(stage.schedule, step, steps=steps, peak=stage.learning_rate, warmup=stage.warmup)
                is_finite = math.isfinite(loss) and math.isfinite(norm)
                if is_finite:
                    self._update(optimizer, rate)
                optimizer.zero_grad(set_to_none=True)

                # log
                state = state.after_step(step, passes.reduced_from(stage.tokens_at_once), result.filter_state)
                if is_finite:
                    figures = (loss, rate, norm, *result.sizes, time.perf_counter() - started)
                    row = StepMetrics(self.index, step, *figures, forward_pairs=result.scored)
                    callback.on_step(self._with_parts(row, values, cosines))
                else:
                    state = self._skip_update(state, loss, norm, callback)

                # validate
                validates = step == steps or (stage.validate_every and step % stage.validate_every == 0)
                if validates:
                    prefetcher.wait()
                    self._report_ranks(callback)
                    state = self._validated(state, callback)

                # save
                if validates or (stage.checkpoint_every and step % stage.checkpoint_every == 0):
                    self._save(writer, shares, optimizer, state, callback)
        return state

    def prepare(self, model: CrossEncoder) -> None:
        """Make the model what the stage trains: dropout, an adapter, what stays as it is."""
        set_dropout(model, self.stage.dropout)
        add_adapter(model, self.stage.adapter, self.seed, self.name, self.stage.freeze_layers)
        if self.stage.has_one_token_type:
            tie_token_types(model)  # not before the adapter, which may train copies of whole modules
        recompute_layers(model.encoder, enabled=self.stage.gradient_checkpointing)
        freeze(model, self.stage.freeze, self.stage.freeze_layers)

    def _hold(self, model: CrossEncoder) -> WeightShares:
        """Prepare the model, and return what this process holds of its weights: all of each, or its share."""
        self.prepare(model)
        shares = WeightShares(model)
        if self._divides_weights:
            model.lockstep = JointLockstep(self.ranks)
            if isinstance(self.ranks, RankGroup):
                shares = ShardedWeights(model, self.ranks, self.device)
            else:
                shares = WholeWeights(model, self.device)
        self._average = WeightAverage(shares.trained, self.stage.ema) if self.stage.ema else None
        return shares

    def _with_start(self, state: TrainingState, callback: TrainerCallback) -> TrainingState:
        """Return the state with the measure before the first step; that model is no checkpoint a stage may keep."""
        if state.step:
            return state
        return msgspec.structs.replace(state, start_value=self.ranks.agree(callback.validate(0)))

    def _validated(self, state: TrainingState, callback: TrainerCallback) -> TrainingState:
        """Return the state after a validation of the weights, or of their average where the stage says so."""
        averaged = self._average if self._average is not None and self.stage.averages_in_validation else None
        with averaged.in_model() if averaged is not None else contextlib.nullcontext():
            value = self.ranks.agree(callback.validate(state.step))
        state = state.after_validation(value, self.stage.patience)
        return state.with_measures(self.ranks.agree(dict(callback.measured()))) if self.stage.keep_best else state

    def _start_filter(
        self, state: TrainingState, model: CrossEncoder, data: TrainingData, passes: ForwardBackward
    ) -> TrainingState:
        """Return the state with that of the stage's filter, if it has one: as it was saved, or at its start."""
        if not self.stage.filter.is_on:
            return state
        settings: Any = model.encoder.config
        self._filter = GroupFilter(self.name, self.stage, data.sampler.steps, settings.vocab_size)
        self._probe = LossProbe(passes, self.name, self.seed)
        if state.filter is None:
            return msgspec.structs.replace(state, filter=self._filter.start())
        self._filter.resume(state.filter, data)
        return state

    def _pass_of_step(
        self, passes: ForwardBackward, batch: list[EncodedGroup], step: int, filter_state: FilterState | None
    ) -> StepResult:
        """Choose the groups of the step if the stage has a filter, and add the gradient of their mean loss.

        Nothing is changed but gradients, so that it can be done again where memory was short.
        """
        if self._filter is None or self._probe is None or filter_state is None:
            return StepResult(self.forward_backward(passes, batch, step), batch)
        places = self._filter.places_to_score(filter_state, step, batch)
        to_score = [batch[place] for place in places]
        losses = self._probe.losses(to_score, step, self._loss_of_groups)
        choice = self._filter.choose(filter_state, step, batch, dict(zip(places, losses, strict=True)))
        self._group_loss_parts = []
        parts = self.forward_backward(passes, choice.groups, step) if choice.groups else []
        seen = torch.cat(self._group_loss_parts).tolist() if self._group_loss_parts else []
        chosen = self._filter.with_losses(choice.state, step, seen)
        return StepResult(parts, choice.groups, chosen, sum(len(encoded.pairs) for encoded in to_score))

    def _tell_of_filter(
        self, before: FilterState | None, after: FilterState | None, step: int, callback: TrainerCallback
    ) -> None:
        """Tell the callback of each phase of a filter that a step began or announced."""
        if before is not None and after is not None:
            for what in changes(before, after):
                callback.on_filter(step, what)

    def _divide_steps(self, shares: WeightShares) -> StepShards | None:
        """Return the shards of the steps; None where the stage stays in one process for good."""
        if not self._shard_count:
            return None
        if self._divides_weights:
            self._turns = ShardTurns(shares, self._shard_count, self.ranks)
            return self._turns
        return StepShards(list(shares.trained.values()), self._shard_count, self.ranks)

    def _sum_over_ranks(self, losses: list[Tensor]) -> list[Tensor]:
        """Give the weights the gradient of all shards of the step, and return the losses of all shards in order."""
        if self._shards is None:
            return losses
        losses, self._spread = self._shards.sum_over_ranks(losses, self._spread)
        return losses

    def _report_ranks(self, callback: TrainerCallback) -> None:
        """Tell the callback what each process did since the last validation, where there are several."""
        if self._shards is not None and self.ranks.count > 1:
            callback.on_rank_stats(self._shards.report())

    def _resume(self, shares: WeightShares, optimizer: Optimizer, callback: TrainerCallback) -> TrainingState:
        """Load the newest valid checkpoint; the first process does so first, because it renames damaged ones."""
        with self.ranks.first_one_first():
            return checkpoints.resume(self.folder, shares, optimizer, callback.on_rejected, self._average)

    def _writer(self, callback: TrainerCallback) -> CheckpointWriter:
        """Return what writes checkpoints: of several processes, only the first does."""
        in_thread = self.writes_checkpoints_in_thread
        return CheckpointWriter(self.folder, self.device, callback.after_save, in_thread=in_thread, ranks=self.ranks)

    def _save(
        self, writer: CheckpointWriter, shares: WeightShares, optimizer: Optimizer, state: TrainingState,
        callback: TrainerCallback,
    ) -> None:  # fmt: skip
        """Save a checkpoint, after checking that all processes have the same weights, unless these are divided.

        Raises:
            RunFailedError: one has others.
        """
        if self.ranks.count > 1 and not shares.is_divided:
            trained: list[Tensor] = list(shares.trained.values())
            trained += self._average.tensors.values() if self._average is not None else ()
            self.ranks.check_equal(bits_of(trained), f"stages.{self.name}")
        writer.save(shares, optimizer, state, callback.before_save, self._average)

    def _with_parts(self, metrics: StepMetrics, values: Sequence[float], cosines: dict[str, float]) -> StepMetrics:
        """Return the metrics of a step with the value of each loss, where the stage has several."""
        if len(self.objective) == 1:
            return metrics
        parts = dict(zip(self.objective.names, values, strict=True))
        return msgspec.structs.replace(metrics, parts=parts, cosines=cosines)

    def _gradient_cosines(
        self, passes: ForwardBackward, batch: Sequence[EncodedGroup], step: int, memory: MicrobatchFit
    ) -> dict[str, float]:
        """Return the cosine of the gradients of each two of the stage's losses; {} at a step where they are not read.

        Each loss takes a forward and a backward pass of its own, with the same dropout as the step, and its gradient
        as much memory as the trained weights.
        """
        every = self.stage.gradient_cosine_every
        if not every or step % every:
            return {}
        gradients = []
        for number in range(len(self.objective)):
            compute = partial(self.forward_backward, passes, batch, step, number)
            self._sum_over_ranks(memory.run(compute, step))
            gradients.append([weight.grad for weight in passes.model.trained_weights])
            memory.model.zero_grad(set_to_none=True)
        return cosines_of(self.objective.names, gradients)

    def forward_backward(
        self, passes: ForwardBackward, batch: Sequence[EncodedGroup], step: int, only: int | None = None
    ) -> list[Tensor]:
        """Add the gradient of the batch's mean loss to the parameters; return each microbatch's part of that mean.

        Of several losses each has its part, all of a microbatch before those of the next.

        Where steps are divided into shards, only the shards of this process are computed. Their gradients are kept
        apart until `sum_over_ranks`, and what is returned are the parts of the shards.

        With `mean_over = "pairs"` a group counts as many times as it has pairs of a better and a worse candidate, so
        that the mean is that over all such pairs of the step.

        Args:
            passes: runs the model, `passes.microbatch` tokens at once.
            batch: the groups of the step.
            step: number of the step; with the stage's name and the seed it determines dropout.
            only: number of the one loss whose gradient is added, from 0; None for the sum of all.
        """
        weights = self.objective.group_weights([encoded.group for encoded in batch], self.device)
        self._spread = torch.zeros((), device=self.device)
        if self._shards is None:
            return self._add_gradient(passes, batch, weights, (step,), only)
        if self._turns is not None:

            def losses_of(scores: Tensor, places: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
                values = self._weighted_losses(
                    scores,
                    [batch[place] for place in places],
                    [of_loss[to_device(places, torch.int64, self.device)] for of_loss in weights],
                )
                return self.objective.total(values) if only is None else values[only], values

            return self._turns.compute(passes, batch, step, losses_of)
        parts, count = [], len(self.objective)
        for shard, places in self._shards.own(batch):
            of_shard = [of_loss[to_device(places, torch.int64, self.device)] for of_loss in weights]
            losses = self._add_gradient(passes, [batch[place] for place in places], of_shard, (step, shard), only)
            parts += [torch.stack(losses[number::count]).sum() for number in range(count)]
            self._shards.add()
        return parts

    def _add_gradient(
        self, passes: ForwardBackward, batch: Sequence[EncodedGroup], weights: Sequence[Tensor],
        position: tuple[int, ...], only: int | None,
    ) -> list[Tensor]:  # fmt: skip
        """Add the gradient of the losses of some groups, one microbatch after another; return the parts.

        Args:
            passes: runs the model, `passes.microbatch` tokens at once.
            batch: the groups.
            weights: (groups,) for each loss: weight of each group in its mean.
            position: the step, and the shard where it is divided; part of the seed of dropout.
            only: number of the one loss whose gradient is added, or None.
        """
        parts: list[Tensor] = []
        start = 0
        for number, microbatch in enumerate(split_by_tokens(batch, passes.microbatch)):
            pairs = [pair for encoded in microbatch for pair in encoded.pairs]
            scores = passes.forward(pairs, (*position, number))
            end = start + len(microbatch)
            values = self._weighted_losses(scores, microbatch, [of_loss[start:end] for of_loss in weights])
            passes.backward(self.objective.total(values) if only is None else values[only])
            parts += [value.detach() for value in values]
            start = end
        return parts

    def _weighted_losses(
        self, scores: Tensor, groups: Sequence[EncodedGroup], weights: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the part () of each loss that some groups add to the step's, from the scores (pairs,) of all.

        Args:
            scores: the scores of their pairs, end to end.
            groups: the groups.
            weights: (groups,) for each loss: weight of each group in its mean.
        """
        losses = self._group_losses(scores, groups)
        if self._filter is not None:
            of_groups = self.objective.of_groups(losses, [encoded.group for encoded in groups])
            self._group_loss_parts.append(of_groups.detach())
        return [(loss * of_loss).sum() for loss, of_loss in zip(losses, weights, strict=True)]

    def passes(self, model: CrossEncoder, tokens: PairTokenizer, microbatch: int = 0) -> ForwardBackward:
        """Return what runs `model` forward and backward; `microbatch` tokens at once, 0 for the stage's own number."""
        forward = ForwardPass(model, tokens, self.device, self.stage.precision)
        return ForwardBackward(forward, self.name, self.seed, microbatch or self.stage.tokens_at_once)

    def microbatch_fit(self, model: CrossEncoder, passes: ForwardBackward, callback: TrainerCallback) -> MicrobatchFit:
        """Return what does a step again with fewer tokens at once, where the device's memory is short."""
        return MicrobatchFit(
            self.name,
            self.stage,
            model=model,
            passes=passes,
            folder=self.folder,
            device=self.device,
            ranks=self.ranks,
            callback=callback,
            turns=self._turns,
        )

    def optimizer(self, shares: WeightShares) -> Optimizer:
        """Return the stage's optimizer over every trained weight, or this process's share of it."""
        return make_optimizer(self.stage, shares, f"stages.{self.name}", is_alike=self._divides_weights)

    def _update(self, optimizer: Optimizer, rate: float) -> None:
        """Make the optimizer's step at a learning rate, and take its weights into their average, if there is one."""
        set_rate(optimizer, rate)
        update_within_memory(optimizer, self.device)
        if self._average is not None:
            self._average.update()

    def _loss_of_groups(self, scores: Tensor, microbatch: Sequence[EncodedGroup]) -> Tensor:
        """Return the weighted sum (groups,) of each group's losses, from the scores (pairs,) of all groups."""
        losses = self._group_losses(scores, microbatch)
        return self.objective.of_groups(losses, [encoded.group for encoded in microbatch])

    def _group_losses(self, scores: Tensor, microbatch: Sequence[EncodedGroup]) -> list[Tensor]:
        """Return each loss of each group, (groups,) a loss, from the scores (pairs,) of all groups end to end."""
        if counts := [count for encoded in microbatch for count in encoded.counts]:
            scores = pool_passages(scores, counts, self.passages.first_aggregation, self.passages.top)
        groups = [encoded.group for encoded in microbatch]
        sizes = [len(group) for group in groups]
        if len(set(sizes)) == 1:
            padded = scores.view(len(sizes), -1)
        else:
            padded = pad_sequence(list(torch.split(scores, sizes)), batch_first=True)
        losses, mask = self.objective.group_losses(padded, groups)
        self._note_spread(padded.detach(), mask)
        return losses

    def _note_spread(self, scores: Tensor, mask: Tensor) -> None:
        """Keep the largest difference of scores within a group of the step, without waiting for the device."""
        largest = scores.masked_fill(~mask, -math.inf).amax(dim=1)
        smallest = scores.masked_fill(~mask, math.inf).amin(dim=1)
        self._spread = torch.maximum(self._spread, (largest - smallest).amax().to(self._spread.dtype))

    def _skip_update(self, state: TrainingState, loss: float, norm: float, callback: TrainerCallback) -> TrainingState:
        """Return the state after a step whose update is not made, or end the run if the recipe allows no more."""
        allowed = int(self.stage.on_nonfinite.partition(":")[2] or 0)
        what = f"step {state.step}: loss {loss}, gradient norm {norm}"
        if state.skipped >= allowed:
            hint = "lower the learning rate, or set on_nonfinite = 'skip:3'"
            raise RunFailedError(f"not finite: {what}", where=f"stages.{self.name}", hint=hint, code="loss-not-finite")
        callback.on_rejected(f"update left out: {what}")
        return msgspec.structs.replace(state, skipped=state.skipped + 1)
