"""Which groups a filter chooses: every phase traced by hand on a stream whose losses are known."""

from __future__ import annotations

import math

import msgspec
import pytest

from cerank.core.groups import Group
from cerank.errors import RunFailedError
from cerank.recipes.schema import Stage
from cerank.recipes.sections.filter_specs import FilterSpec
from cerank.tokenization.tokens import Pair
from cerank.training.batches import EncodedGroup
from cerank.training.filtering.filter_state import FilterState, FilterSummary
from cerank.training.filtering.group_filter import GroupFilter
from tests.refusals import refused

EASY_TOKEN, HARD_TOKEN = 3, 4


def group(name, loss):
    """A group that holds a token of its own kind; the name says which one it is."""
    tokens = (HARD_TOKEN if loss >= 1 else EASY_TOKEN, 9)
    return EncodedGroup(Group(name, ("d",), (1.0,)), (Pair(tokens, 1),))


def stage(steps, **settings):
    spec = FilterSpec(
        **{"kind": "multistage", "plain": 0.2, "window": 4, "floor": 0.0, "predictor_loss": 0.0} | settings
    )
    return Stage(steps=steps, groups_per_step=2, filter=spec)


class Stream:
    """Carries a filter through a stream of losses; `trained` and `scored` are the names of each step's groups."""

    def __init__(self, stage, losses):
        self.filter = GroupFilter("s", stage, stage.steps, 16)
        self.losses, self.size = losses, stage.groups_per_step
        self.state = self.filter.start()
        self.trained, self.scored, self.phases = [], [], []

    def step(self, number):
        losses = self.losses[(number - 1) * self.size : number * self.size]
        batch = [group(f"{number}{'ab'[place]}", loss) for place, loss in enumerate(losses)]
        places = self.filter.places_to_score(self.state, number, batch)
        choice = self.filter.choose(self.state, number, batch, {place: losses[place] for place in places})
        by_name = {f"{at // self.size + 1}{'ab'[at % self.size]}": loss for at, loss in enumerate(self.losses)}
        seen = [by_name[encoded.group.query_id] for encoded in choice.groups]
        self.state = self.filter.with_losses(choice.state, number, seen)
        self.trained.append(" ".join(encoded.group.query_id for encoded in choice.groups))
        self.scored.append(" ".join(batch[place].group.query_id for place in places))
        self.phases.append(self.state.phase)

    def run(self):
        for number in range(1, len(self.losses) // self.size + 1):
            self.step(number)
        return self


def test_a_stream_goes_from_all_groups_to_those_of_a_large_loss():
    # the threshold is the mean of the last four losses of the first two steps, (3 + 1 + 2 + 2) / 4 = 2
    losses = [3.0, 1.0, 2.0, 2.0, 1.9, 2.0, 5.0, 0.5, 0.1, 0.1, 3.0, 4.0, 9.0, 0.0, 0.0, 0.0, 7.0, 0.0, 0.0, 8.0]
    stream = Stream(stage(10), losses).run()
    assert stream.trained == ["1a 1b", "2a 2b", "", "3b 4a", "", "6a 6b", "", "", "7a 9a", "10b"]
    assert stream.scored == ["", "", "3a 3b", "4a 4b", "5a 5b", "6a 6b", "7a 7b", "8a 8b", "9a 9b", "10a 10b"]
    assert stream.state.threshold == 2.0
    assert stream.state.by_loss_from == 3
    counts = stream.state.counts
    assert (counts.seen, counts.scored, counts.trained, counts.updates) == (20, 16, 11, 6)
    assert counts.cost_share == pytest.approx((11 + 16 / 3) / 20)


def test_the_last_step_trains_on_all_that_is_left():
    losses = [1.0] * 4 + [0.0, 2.0] * 3 + [2.0, 2.0] + [0.0] * 8
    stream = Stream(stage(10), losses).run()
    assert stream.state.queue == ()
    assert stream.state.counts.trained == stream.state.counts.chosen == 9
    assert stream.trained[-1] == "6b"


def test_of_the_easy_groups_at_least_the_floor_is_kept():
    losses = [1.0] * 8 + [0.0] * 32
    stream = Stream(stage(20, floor=0.3), losses).run()
    counts = stream.state.counts
    assert (counts.easy_by_loss, counts.kept_easy) == (32, math.ceil(0.3 * 32))
    assert counts.trained == 8 + counts.kept_easy


def predicting(**settings):
    return stage(40, plain=0.05, predictor_loss=0.3, predictor_window=8, **settings)


def test_a_predictor_that_is_good_enough_spares_the_forward_pass_of_what_it_takes_for_easy():
    stream = Stream(predicting(), [1.0, 0.9] * 2 + [2.0, 0.0] * 38).run()
    first = stream.state.by_prediction_from
    assert 0 < first < 20
    assert stream.phases[first - 2 :] == ["by prediction"] * (42 - first)
    later = stream.scored[first - 1 :]
    assert later == [f"{number}a" for number in range(first, 41)]  # the second group of each step is easy
    counts = stream.state.counts
    assert counts.easy_by_prediction == len(later)
    assert counts.scored == 2 * (first - 3) + len(later)


def test_a_floor_of_the_groups_predicted_easy_is_scored_trained_on_and_learned_from():
    stream = Stream(predicting(floor=0.1), [1.0, 0.9] * 2 + [2.0, 0.0] * 38).run()
    first, counts = stream.state.by_prediction_from, stream.state.counts
    spared = 41 - first
    kept = math.ceil(0.1 * spared)
    assert counts.easy_by_prediction == spared
    assert counts.scored == 2 * (first - 3) + spared + kept
    easy, hard = stream.state.predictor.weights
    assert easy == pytest.approx((first - 3) + kept / 0.1)  # each stands for ten
    assert hard == 38


def test_without_a_floor_a_predictor_does_not_learn_from_the_hard_groups_alone():
    stream = Stream(predicting(), [1.0, 0.9] * 2 + [2.0, 0.0] * 38)
    for number in range(1, 41):
        stream.step(number)
        if stream.phases[-1] == "by prediction" and stream.phases[-2] != "by prediction":
            at_start = stream.state.predictor
    assert stream.state.predictor == at_start


def test_a_predictor_that_stays_poor_never_takes_over():
    losses = [1.0] * 4 + [2.0, 0.0] * 38
    stream = Stream(stage(40, plain=0.05, predictor_loss=1e-9, predictor_window=8), losses).run()
    assert stream.state.by_prediction_from == 0
    assert stream.phases[-1] == "by loss"


def test_at_random_an_exact_share_is_trained_on_and_nothing_goes_forward_alone():
    stream = Stream(Stage(steps=20, groups_per_step=2, filter=FilterSpec(kind="random", share=0.4)), [1.0] * 40).run()
    assert stream.state.counts.trained == 16
    assert set(stream.scored) == {""}
    assert stream.state.counts.cost_share == pytest.approx(0.4)


def test_a_loss_that_is_not_finite_is_chosen_so_that_an_update_says_so():
    stream = Stream(stage(10), [1.0] * 4 + [math.nan, math.inf] + [0.0] * 14).run()
    assert stream.trained[2] == "3a 3b"


def test_a_step_that_is_done_again_chooses_the_same():
    losses = [3.0, 1.0, 2.0, 2.0, 1.9, 2.0, 5.0, 0.5] + [0.0] * 12
    stream = Stream(stage(10), losses)
    for number in (1, 2, 3):
        stream.step(number)
    before = stream.state
    stream.step(4)
    after, stream.state = stream.state, before
    stream.step(4)
    assert stream.state == after
    assert stream.trained[-1] == stream.trained[-2] == "3b 4a"


def test_its_state_survives_a_checkpoint():
    stream = Stream(predicting(floor=0.1), [1.0, 0.9] * 2 + [2.0, 0.0] * 38)
    for number in range(1, 30):
        stream.step(number)
    saved = msgspec.json.encode(stream.state)
    assert msgspec.json.decode(saved, type=FilterState) == stream.state


@pytest.mark.parametrize(("steps", "spec"), [(10, {"window": 5}), (1, {"plain": 0.9, "window": 1})])
def test_too_few_first_steps_for_the_threshold_are_refused(steps, spec):
    with refused(RunFailedError, "filter-window"):
        GroupFilter("s", stage(steps, **spec), steps, 16)


def test_a_summary_says_when_a_filter_does_not_pay():
    every = Stream(stage(10), [1.0] * 4 + [2.0] * 16).run()
    few = Stream(stage(10), [1.0] * 4 + [2.0, 0.0, 0.0, 0.0] * 4).run()
    assert not FilterSummary.of("multistage", every.state).pays
    assert FilterSummary.of("multistage", few.state).pays
    assert str(FilterSummary.of("multistage", every.state)).endswith("does not pay")
