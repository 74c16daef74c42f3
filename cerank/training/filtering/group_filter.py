"""Choose which groups of a stage are trained on; a step's own groups stay those that its sampler gives it.

Chosen groups wait in a queue, and a step that finds enough of them there makes an update; the last step takes all.

Invariant: what a step chooses is a function of the plan, the state after the step before, and the losses of its groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from cerank.core.groups import Group
from cerank.errors import RunFailedError
from cerank.recipes.schema import Stage
from cerank.training.batches import EncodedGroup, TrainingData
from cerank.training.filtering.filter_state import ChoiceCounts, FilterState
from cerank.training.filtering.token_predictor import TokenPredictor


class Choice(NamedTuple):
    """What a step trains on: nothing, where the queue holds too few groups yet."""

    state: FilterState
    groups: list[EncodedGroup]


class GroupFilter:
    """Chooses the groups of a stage's updates.

    Args:
        name: name of the stage, for errors.
        stage: settings of the stage; its `filter` is on.
        steps: steps of the stage.
        vocabulary: number of token ids of the model.

    Raises:
        RunFailedError: the first steps have fewer groups than the threshold is the mean of.
    """

    def __init__(self, name: str, stage: Stage, steps: int, vocabulary: int) -> None:
        self._spec, self._size, self._steps, self._vocabulary = stage.filter, stage.groups_per_step, steps, vocabulary
        self._plain_steps = self._spec.plain_steps(steps)
        self._encoded: dict[Group, EncodedGroup] = {}  # those in the queue
        seen = self._plain_steps * self._size
        if self._spec.kind == "multistage" and (seen < self._spec.window or self._plain_steps >= steps):
            what = (
                f"{self._plain_steps} of {steps} steps train on every group, {seen} of them; the threshold is the mean "
            )
            what += f"loss of {self._spec.window}, and some steps must be left to filter"
            hint = "raise `plain`, lower `window`, or give the stage more steps"
            raise RunFailedError(what, where=f"stages.{name}.filter", hint=hint, code="filter-window")

    def start(self) -> FilterState:
        """Return the state before the first step."""
        if self._spec.kind == "random":
            return FilterState()
        return FilterState(predictor=TokenPredictor.untrained(self._vocabulary) if self._spec.predictor_loss else None)

    def resume(self, state: FilterState, data: TrainingData) -> None:
        """Encode the groups that wait in the queue of a checkpoint."""
        self._encoded = {encoded.group: encoded for encoded in data.encode(state.queue)} if state.queue else {}

    def places_to_score(self, state: FilterState, step: int, batch: Sequence[EncodedGroup]) -> list[int]:
        """Return the places of the groups whose loss must be known before a choice is made."""
        if self._spec.kind == "random" or step <= self._plain_steps:
            return []
        if state.phase != "by prediction" or state.predictor is None:
            return list(range(len(batch)))
        easy = self._predicted_easy(state, batch)
        number, places = state.counts.easy_by_prediction, []
        for place in range(len(batch)):
            number += easy[place]
            if not easy[place] or self._is_kept(number):
                places.append(place)
        return places

    def choose(
        self, state: FilterState, step: int, batch: Sequence[EncodedGroup], losses: Mapping[int, float]
    ) -> Choice:
        """Return the groups that the step trains on, and the state after it.

        Args:
            state: the state after the step before.
            step: number of the step, from 1.
            batch: the groups of the step, as they were sampled.
            losses: place in the batch -> loss, for the places that `places_to_score` returned.
        """
        if self._spec.kind == "random":
            return self._from_queue(self._at_random(state, batch), step, batch)
        if step <= self._plain_steps:
            return Choice(self._all_of(state, batch), list(batch))
        if state.phase == "plain":
            threshold = math.fsum(state.losses) / max(1, len(state.losses))
            state = msgspec.structs.replace(state, phase="by loss", threshold=threshold, losses=(), by_loss_from=step)
        chosen = self._by_loss if state.phase == "by loss" else self._by_prediction
        return self._from_queue(self._passed_on(chosen(state, batch, losses), step), step, batch)

    def with_losses(self, state: FilterState, step: int, losses: Sequence[float]) -> FilterState:
        """Return the state after the losses of a step that trained on every group are known."""
        if step > self._plain_steps:
            return state
        finite = [loss for loss in losses if math.isfinite(loss)]
        return msgspec.structs.replace(state, losses=(*state.losses, *finite)[-self._spec.window :])

    def _is_kept(self, number: int) -> bool:
        """Return whether the easy group of this number, from 1, is kept: of any number at least the floor's share."""
        return math.ceil(number * self._spec.floor) > math.ceil((number - 1) * self._spec.floor)

    def _predicted_easy(self, state: FilterState, batch: Sequence[EncodedGroup]) -> list[bool]:
        if state.predictor is None:
            return [False] * len(batch)
        logs = state.predictor.log_probabilities([self._tokens(encoded) for encoded in batch])
        return [bool(easy > hard) for easy, hard in logs]

    def _tokens(self, encoded: EncodedGroup) -> set[int]:
        if self._spec.predictor_reads == "query":
            return set(encoded.pairs[0].ids[: encoded.pairs[0].split])
        return {token for pair in encoded.pairs for token in pair.ids}

    def _all_of(self, state: FilterState, batch: Sequence[EncodedGroup]) -> FilterState:
        counts, size = state.counts, len(batch)
        return msgspec.structs.replace(
            state,
            counts=msgspec.structs.replace(
                counts,
                seen=counts.seen + size,
                chosen=counts.chosen + size,
                trained=counts.trained + size,
                updates=counts.updates + 1,
            ),
        )

    def _at_random(self, state: FilterState, batch: Sequence[EncodedGroup]) -> FilterState:
        """Return the state with an equal share of the groups in the queue; their order is random already."""
        counts, share = state.counts, self._spec.share
        numbers = range(counts.seen + 1, counts.seen + len(batch) + 1)
        chosen = [
            encoded
            for number, encoded in zip(numbers, batch, strict=True)
            if math.ceil(number * share) > math.ceil((number - 1) * share)
        ]
        return _queued(state, chosen, msgspec.structs.replace(counts, seen=counts.seen + len(batch)))

    def _by_loss(self, state: FilterState, batch: Sequence[EncodedGroup], losses: Mapping[int, float]) -> FilterState:
        """Return the state after all groups of a step went forward: the hard ones are in the queue."""
        counts = state.counts
        is_hard = [_reaches(losses[place], state.threshold) for place in range(len(batch))]
        chosen, easy, kept_easy = [], counts.easy_by_loss, counts.kept_easy
        for encoded, hard in zip(batch, is_hard, strict=True):
            easy += not hard
            if hard or self._is_kept(easy):
                chosen.append(encoded)
                kept_easy += not hard
        scored = counts.scored + len(batch)
        counts = msgspec.structs.replace(
            counts, seen=counts.seen + len(batch), scored=scored, easy_by_loss=easy, kept_easy=kept_easy
        )
        return _queued(self._learned(state, batch, is_hard, [1.0] * len(batch)), chosen, counts)

    def _by_prediction(
        self, state: FilterState, batch: Sequence[EncodedGroup], losses: Mapping[int, float]
    ) -> FilterState:
        """Return the state after the groups that are predicted hard went forward, and a few of the others.

        Of the groups that are predicted easy the floor's share is trained on, and the predictor learns from it alone;
        each counts 1 / share times. From the predicted hard ones alone it would unlearn what easy groups look like.
        """
        predicted_easy, counts = self._predicted_easy(state, batch), state.counts
        chosen, weights, kept_easy, easy_by_loss = [], [], counts.kept_easy, counts.easy_by_loss
        for place in sorted(losses):
            hard, expected_easy = _reaches(losses[place], state.threshold), predicted_easy[place]
            easy_by_loss += not hard and not expected_easy
            is_kept = not hard and (expected_easy or self._is_kept(easy_by_loss))
            kept_easy += is_kept
            chosen += [batch[place]] if hard or is_kept else []
            weights.append(1.0 / self._spec.floor if expected_easy else 1.0)
        counts = msgspec.structs.replace(
            counts,
            seen=counts.seen + len(batch),
            scored=counts.scored + len(losses),
            easy_by_loss=easy_by_loss,
            easy_by_prediction=counts.easy_by_prediction + sum(predicted_easy),
            kept_easy=kept_easy,
        )
        if not self._spec.floor:  # nothing would be learned of the groups that are predicted easy
            return _queued(state, chosen, counts)
        scored = [batch[place] for place in sorted(losses)]
        is_hard = [_reaches(losses[place], state.threshold) for place in sorted(losses)]
        return _queued(self._learned(state, scored, is_hard, weights), chosen, counts)

    def _learned(
        self, state: FilterState, groups: Sequence[EncodedGroup], is_hard: Sequence[bool], weights: Sequence[float]
    ) -> FilterState:
        """Return the state with a predictor that has learned from groups, after its log-loss on them was noted."""
        if state.predictor is None:
            return state
        tokens = [self._tokens(encoded) for encoded in groups]
        logs = state.predictor.log_probabilities(tokens)
        newest = [-float(logs[at, int(hard)]) for at, hard in enumerate(is_hard)]
        return msgspec.structs.replace(
            state,
            predictor=state.predictor.updated(tokens, is_hard, weights),
            log_losses=(*state.log_losses, *newest)[-self._spec.predictor_window :],
        )

    def _passed_on(self, state: FilterState, step: int) -> FilterState:
        """Return the state in which the predictor takes over from the next step on, where it is good enough."""
        window = self._spec.predictor_window
        if state.phase != "by loss" or state.predictor is None or len(state.log_losses) < window:
            return state
        if math.fsum(state.log_losses) / window > self._spec.predictor_loss or step == self._steps:
            return state
        return msgspec.structs.replace(state, phase="by prediction", by_prediction_from=step + 1)

    def _from_queue(self, state: FilterState, step: int, batch: Sequence[EncodedGroup]) -> Choice:
        """Return what the step takes from the queue: as many groups as a step has, all that is left in the last one."""
        known = self._encoded | {encoded.group: encoded for encoded in batch}
        count = len(state.queue) if step == self._steps else self._size if len(state.queue) >= self._size else 0
        taken, left = state.queue[:count], state.queue[count:]
        self._encoded = {group: known[group] for group in state.queue}
        counts = state.counts
        if taken:
            counts = msgspec.structs.replace(counts, trained=counts.trained + count, updates=counts.updates + 1)
        return Choice(msgspec.structs.replace(state, queue=left, counts=counts), [known[group] for group in taken])


def _reaches(loss: float, threshold: float) -> bool:
    """Return whether a group is hard; one whose loss is not finite is, for an update must say so."""
    return not loss < threshold


def _queued(state: FilterState, chosen: Sequence[EncodedGroup], counts: ChoiceCounts) -> FilterState:
    counts = msgspec.structs.replace(counts, chosen=counts.chosen + len(chosen))
    return msgspec.structs.replace(state, queue=(*state.queue, *(encoded.group for encoded in chosen)), counts=counts)
