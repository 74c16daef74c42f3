"""The average of weights, the best weights by several measures, and what all of it is after a resume."""

from __future__ import annotations

import msgspec
import pytest
import torch
from safetensors.torch import load_file

import cerank.training.trainer as trainer_module
from cerank.core.ranks import Ranks
from cerank.errors import RunFailedError
from cerank.models.cross_encoder import load
from cerank.training import checkpoints
from cerank.training.checkpoints import BestStep, TrainingState
from cerank.training.optimization.weight_average import WeightAverage
from cerank.training.trainer import PausedError, Trainer
from tests.rank_processes import run_ranks
from tests.training.test_step_shards import SHARED, SilentRecorder, train
from tests.training.test_trainer import STAGE, Recorder, same_weights, trained

EVERYTHING = msgspec.structs.replace(
    STAGE, steps=8, optimizer="lion", learning_rate=1e-3, layer_decay=0.5, head_rate_factor=10.0, ema=0.9,
    keep_best=("RR@10", "loss"),
)  # fmt: skip


class Measures(Recorder):
    """A callback whose validations give several measures: by step, or by the weights that they see."""

    def __init__(self, rows=None, **settings):
        super().__init__(**settings)
        self.rows, self.model, self.seen = rows or {}, None, []

    def validate(self, step):
        if self.model is not None:
            self.seen.append(self.model.head.weight.detach().clone())
        return super().validate(step)

    def measured(self):
        return self.rows.get(self.validations[-1], {"RR@10": 0.0, "loss": -1.0})


@pytest.mark.parametrize("stop_after", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_a_stage_with_all_of_it_resumes_to_the_same_bits(tiny, tmp_path, stop_after):
    whole, ended, expected = trained(tiny, tmp_path / "whole", EVERYTHING, Measures())
    with pytest.raises(PausedError):
        trained(tiny, tmp_path / "cut", EVERYTHING, Measures(stop_after=stop_after))
    model, state, rest = trained(tiny, tmp_path / "cut", EVERYTHING, Measures())
    assert same_weights(whole, model)
    assert state == ended
    assert rest.readings == expected.readings[stop_after:]
    names = ["model.safetensors", "optimizer.safetensors", "average.safetensors", "position.json"]
    last = checkpoints.folder_name(EVERYTHING.steps)
    assert all(
        (tmp_path / "cut" / last / n).read_bytes() == (tmp_path / "whole" / last / n).read_bytes() for n in names
    )
    moments = {name.partition("/")[0] for name in load_file(tmp_path / "cut" / last / "optimizer.safetensors")}
    assert moments == {"exp_avg"}


def test_two_processes_train_to_the_bits_of_one(tiny, tmp_path):
    stage = msgspec.structs.replace(
        SHARED, optimizer="lion", layer_decay=0.5, ema=0.5, keep_best=("RR@10",), learning_rate=1e-3
    )

    class Callback(SilentRecorder):
        def measured(self):
            return {"RR@10": float(self.validations[-1]) * self.sign}

    def work(ranks, folder="two"):
        callback = Callback()
        callback.sign = 1.0 if ranks.is_first else -1.0  # the first one's values count
        state, _, weights = train(tiny, tmp_path / folder, ranks, callback, stage)
        return state, weights

    def average(folder):
        return (tmp_path / folder / checkpoints.folder_name(4) / "average.safetensors").read_bytes()

    first, second = run_ranks(2, work, tmp_path)
    assert first == second
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert work(Ranks(), "one") == first
    finally:
        torch.set_num_threads(threads)
    assert average("one") == average("two")
    assert first[0].bests == {"RR@10": BestStep(4, 4.0)}


@pytest.mark.slow
def test_processes_whose_averages_differ_are_found_out(tiny, tmp_path, monkeypatch):
    stage = msgspec.structs.replace(SHARED, ema=0.5, steps=2)
    real = WeightAverage.update

    def work(ranks):
        def update(average):
            real(average)
            if not ranks.is_first:
                next(iter(average.tensors.values())).add_(1.0)

        monkeypatch.setattr(WeightAverage, "update", update)
        with pytest.raises(RunFailedError):
            train(tiny, tmp_path / "two", ranks, SilentRecorder(), stage)
        return True

    assert run_ranks(2, work, tmp_path) == [True, True]


def test_the_average_is_the_formulas_over_the_weights_of_every_step(tiny, tmp_path, monkeypatch):
    weights = []
    real = trainer_module.update_within_memory

    def noted(optimizer, device):
        real(optimizer, device)
        weights.append([value.detach().double() for group in optimizer.param_groups for value in group["params"]])

    monkeypatch.setattr(trainer_module, "update_within_memory", noted)
    model, _, _ = trained(tiny, tmp_path, msgspec.structs.replace(STAGE, ema=0.75))
    expected = weights[0]
    for of_step in weights[1:]:
        expected = [0.75 * mean + 0.25 * value for mean, value in zip(expected, of_step, strict=True)]
    saved = load_file(tmp_path / checkpoints.folder_name(12) / "average.safetensors")
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    assert sorted(saved) == sorted(names)
    for name, mean in zip(names, expected, strict=True):
        assert torch.allclose(saved[name].double(), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("used_for", "is_average"), [("both", True), ("validation", True), ("result", False)])
def test_a_validation_sees_the_average_where_the_stage_says_so_and_training_goes_on_with_the_weights(
    tiny, tmp_path, monkeypatch, used_for, is_average
):
    plain, _, expected = trained(tiny, tmp_path / "plain")
    callback = Measures()
    real = Trainer.prepare
    monkeypatch.setattr(Trainer, "prepare", lambda own, model: (setattr(callback, "model", model), real(own, model))[1])
    stage = msgspec.structs.replace(STAGE, ema=0.9, ema_for=used_for)
    model, _, _ = trained(tiny, tmp_path / "averaged", stage, callback)
    assert same_weights(plain, model)
    assert callback.readings == expected.readings
    last = tmp_path / "averaged" / checkpoints.folder_name(12)
    file = "average.safetensors" if is_average else "model.safetensors"
    assert torch.equal(callback.seen[-1], load_file(last / file)["head.weight"])
    assert not torch.equal(callback.seen[-1], callback.seen[0])


@pytest.mark.slow
def test_the_average_replaces_the_trained_weights_when_a_checkpoint_is_loaded(tiny, tmp_path):
    model, _, _ = trained(tiny, tmp_path, msgspec.structs.replace(STAGE, ema=0.9))
    folder, averaged = tmp_path / checkpoints.folder_name(12), load(tiny, "auto", 5)
    checkpoints.load_weights(folder, averaged, averaged=True)
    saved = load_file(folder / "average.safetensors")
    assert not same_weights(model, averaged)
    assert all(torch.equal(value, saved[name]) for name, value in averaged.named_parameters() if name in saved)
    checkpoints.load_weights(folder, averaged)
    assert same_weights(model, averaged)


def test_an_average_of_another_model_is_refused(tiny):
    average = WeightAverage(dict(load(tiny, "auto", 5).named_parameters()), 0.9)
    with pytest.raises(RunFailedError):
        average.load({"another.weight": torch.ones(1)})


def test_the_checkpoint_that_is_best_by_each_measure_is_kept(tiny, tmp_path):
    rows = {
        4: {"RR@10": 0.9, "loss": -0.5},
        8: {"RR@10": 0.9, "loss": -0.1},
        12: {"RR@10": 0.3, "loss": float("nan")},
        16: {"RR@10": 0.2, "loss": -0.2},
        20: {"RR@10": 0.1, "loss": -0.3},
    }
    stage = msgspec.structs.replace(STAGE, steps=20, keep_best=("RR@10", "loss"))
    callback = Measures(rows, values=[0.0, 0.1, 0.2, 0.9, 0.3, 0.4])
    _, state, _ = trained(tiny, tmp_path, stage, callback)
    assert state.bests == {"RR@10": BestStep(4, 0.9), "loss": BestStep(8, -0.1)}
    assert state.best_step == 12
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {checkpoints.folder_name(step) for step in (4, 8, 12, 16, 20)}
    assert state.needed_steps == {4, 8, 12}


@pytest.mark.slow
def test_a_checkpoint_that_names_a_damaged_best_one_is_not_resumed_from(tiny, tmp_path):
    stage = msgspec.structs.replace(STAGE, keep_best=("RR@10",))
    rows = {4: {"RR@10": 0.9}, 8: {"RR@10": 0.1}, 12: {"RR@10": 0.2}}
    trained(tiny, tmp_path, stage, Measures(rows))
    (tmp_path / checkpoints.folder_name(4) / "model.safetensors").write_bytes(b"x")
    _, state, callback = trained(tiny, tmp_path, stage, Measures(rows))
    assert callback.rejections
    assert callback.readings[0].step == 1
    assert state.bests == {"RR@10": BestStep(4, 0.9)}


def test_without_these_options_a_state_has_no_bests_and_a_checkpoint_no_average(tiny, tmp_path):
    _, state, _ = trained(tiny, tmp_path)
    assert state.bests == {}
    assert TrainingState().with_measures({}) == TrainingState()
    assert not list(tmp_path.rglob("average*"))


def test_the_average_changes_places_with_the_weights_and_back_whatever_happens(tiny):
    model = load(tiny, "mean", seed=0)
    average = WeightAverage(dict(model.named_parameters()), 0.5)
    average.update()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    average.update()
    own, kept = ({name: value.clone() for name, value in values.items()} for values in (
        dict(model.named_parameters()), average.tensors,
    ))  # fmt: skip
    places = {value.data_ptr() for value in (*model.parameters(), *average.tensors.values())}
    with pytest.raises(KeyError), average.in_model():  # noqa: PT012 - the error comes last
        inside = dict(model.named_parameters())
        assert all(torch.equal(inside[name], value) for name, value in kept.items())
        assert {value.data_ptr() for value in (*model.parameters(), *average.tensors.values())} == places
        raise KeyError
    assert all(torch.equal(value, own[name]) for name, value in model.named_parameters())
    assert all(torch.equal(value, kept[name]) for name, value in average.tensors.items())
