"""A stage with a filter in the training loop: which groups make updates, and the same bits after every stop."""

from __future__ import annotations

import msgspec
import pytest
import torch

from cerank.models.cross_encoder import load, load_tokenizer
from cerank.recipes.schema import Stage
from cerank.recipes.sections.filter_specs import FilterSpec
from cerank.recipes.sections.loss_parts import LossPart
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training import checkpoints
from cerank.training.batches import TrainingData
from cerank.training.sampling.joint_sampler import JointSampler
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.training.trainer import PausedError, Trainer
from tests.model_fixtures import WORDS
from tests.training.test_trainer import Recorder, same_weights

FILTER = FilterSpec(
    kind="multistage", plain=0.25, window=8, floor=0.2, predictor_loss=5.0, predictor_window=8, predictor_reads="query"
)
STAGE = Stage(
    steps=24,
    learning_rate=3e-3,
    group_size=4,
    groups_per_step=2,
    max_length=24,
    max_query_length=8,
    validate_every=8,
    filter=FILTER,
)
DOCUMENTS = {f"d{i}": " ".join(WORDS[(i + j) % 20] for j in range(2 + i % 5)) for i in range(20)}
QUERIES = {f"q{i}": WORDS[i] for i in range(20)}
POOL = TrainingPool(
    query_ids=list(QUERIES),
    qrels={f"q{i}": {f"d{i}": 1} for i in range(20)},
    ranking={query: sorted(DOCUMENTS) for query in QUERIES},
    has_text=DOCUMENTS.__contains__,
)


class FilterRecorder(Recorder):
    """A callback that also remembers what it is told of the filter."""

    def __init__(self, stop_after=None, values=()):
        super().__init__(stop_after, values)
        self.changes = []

    def on_filter(self, step, what):
        self.changes.append(step)

    def on_out_of_memory(self, what):
        self.memory = what


def trained(files, folder, stage=STAGE, stop_after=None, values=(), change=None):
    callback, model = FilterRecorder(stop_after, values), load(files, "auto", 5)
    tokens = PairTokenizer(load_tokenizer(files.folder), TokenLimits.of_stage(stage))
    data = TrainingData(
        JointSampler("s", stage, 5, POOL, {}) if stage.losses else Sampler("s", stage, 5, POOL),
        tokens,
        lambda keys: [QUERIES[key] for key in keys],
        lambda keys: [DOCUMENTS[key] for key in keys],
    )
    trainer = Trainer(0, "s", stage, seed=5, folder=folder, device="cpu")
    if change is not None:
        change(trainer)
    return model, trainer.train(model, data, callback), callback


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine would take most of the time of so small a model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(one_thread, tiny, tmp_path_factory):
    """A stage that nobody stopped: its model, its last state, and what the callback was told."""
    return trained(tiny, tmp_path_factory.mktemp("whole"))


def test_steps_without_enough_chosen_groups_make_no_update(whole):
    _, state, callback = whole
    counts = state.filter.counts
    rows = callback.readings
    assert [row.step for row in rows] == list(range(1, 25))
    assert sum(row.groups for row in rows) == counts.trained == counts.chosen < counts.seen == 48
    assert sum(bool(row.groups) for row in rows) == counts.updates < 24
    assert all((row.groups == 0) == (row.loss == 0.0 and row.grad_norm == 0.0) for row in rows)
    assert sum(row.forward_pairs for row in rows) == 4 * counts.scored
    assert callback.changes == [7, state.filter.by_prediction_from - 1]


def test_the_threshold_is_the_mean_loss_of_the_last_groups_of_the_first_steps(whole):
    _, state, callback = whole
    plain = [row.loss for row in callback.readings[2:6]]  # each the mean of two groups, eight in all
    assert state.filter.threshold == pytest.approx(sum(plain) / 4)


def test_a_filter_that_chooses_everything_in_its_own_step_trains_as_a_stage_without_one(tiny, tmp_path):
    everything = msgspec.structs.replace(STAGE, filter=FilterSpec(kind="random", share=1 - 1e-12))
    model, _, filtered = trained(tiny, tmp_path / "filtered", everything)
    plain, state, callback = trained(tiny, tmp_path / "plain", msgspec.structs.replace(STAGE, filter=FilterSpec()))
    assert same_weights(model, plain)
    assert filtered.readings == callback.readings
    assert state.filter is None


@pytest.mark.parametrize(
    "stop_after", [pytest.param(3, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.slow), 21]
)  # in each of the three phases
def test_a_stage_stopped_in_any_phase_resumes_with_the_same_bits(whole, tiny, tmp_path, stop_after):
    model, state, callback = whole
    phases = (state.filter.by_loss_from, state.filter.by_prediction_from)
    assert phases[0] <= 10 < phases[1] <= 21
    with pytest.raises(PausedError):
        trained(tiny, tmp_path / "stopped", stop_after=stop_after)
    resumed, after, rest = trained(tiny, tmp_path / "stopped")
    assert same_weights(model, resumed)
    assert after.filter == state.filter
    assert rest.readings == callback.readings[stop_after:]


@pytest.mark.slow
def test_a_stage_killed_between_checkpoints_repeats_its_steps_with_the_same_bits(whole, tiny, tmp_path):
    model, _, callback = whole
    trained(tiny, tmp_path / "killed")
    for step in (16, 24):
        checkpoint = tmp_path / "killed" / checkpoints.folder_name(step)
        (checkpoint / "model.safetensors").write_bytes(b"half of it")
    again, _, rest = trained(tiny, tmp_path / "killed")
    assert same_weights(model, again)
    assert rest.readings == callback.readings


@pytest.mark.slow
def test_short_memory_in_an_update_repeats_the_choice_too_and_a_resume_gives_the_same_bits(tiny, tmp_path):
    def fails_once(trainer):
        usual, failed = trainer.forward_backward, []

        def forward_backward(passes, batch, step):
            if step == 20 and not failed:
                failed.append(step)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return usual(passes, batch, step)

        trainer.forward_backward = forward_backward

    every = msgspec.structs.replace(STAGE, filter=FilterSpec(kind="multistage", plain=0.25, window=8, floor=0.9))
    model, state, callback = trained(tiny, tmp_path, every, change=fails_once)
    assert callback.memory
    checkpoint = tmp_path / checkpoints.folder_name(24)
    (checkpoint / "model.safetensors").write_bytes(b"half of it")
    again, after, _ = trained(tiny, tmp_path, every)
    assert same_weights(model, again)
    assert after.filter == state.filter


@pytest.mark.slow
def test_a_stage_that_stops_early_says_how_many_chosen_groups_were_left(tiny, tmp_path):
    patient = msgspec.structs.replace(STAGE, patience=1, validate_every=1)
    _, state, _ = trained(tiny, tmp_path, patient, values=[0.0, *range(1, 12), 0.0])
    assert state.stopped_early
    assert state.filter.counts.chosen == state.filter.counts.trained + len(state.filter.queue)


JOINT = msgspec.structs.replace(STAGE, losses=(LossPart(name="lce"), LossPart(name="listnet", weight=0.5)))


def test_of_several_losses_the_weighted_sum_is_what_a_filter_chooses_by(tiny, tmp_path):
    _, state, callback = trained(tiny, tmp_path / "joint", JOINT)
    plain = callback.readings[2:6]  # each the mean of two groups, eight in all
    assert all(row.loss == pytest.approx(row.parts["lce"] + 0.5 * row.parts["listnet"]) for row in callback.readings)
    assert state.filter.threshold == pytest.approx(sum(row.loss for row in plain) / 4)
    assert 0 < state.filter.counts.trained < state.filter.counts.seen


def test_a_filtered_stage_with_several_losses_goes_on_with_the_same_bits(tiny, tmp_path):
    whole_model, _, whole_callback = trained(tiny, tmp_path / "whole", JOINT)
    folder = tmp_path / "stopped"
    with pytest.raises(PausedError):
        trained(tiny, folder, JOINT, stop_after=11)
    model, _, callback = trained(tiny, folder, JOINT)
    assert same_weights(model, whole_model)
    assert callback.readings == whole_callback.readings[-len(callback.readings) :]
