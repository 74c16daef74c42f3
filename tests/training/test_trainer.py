"""The training loop: what it learns, what it repeats bit for bit, when it stops."""

from __future__ import annotations

import shutil
import threading
import time

import msgspec
import pytest
import torch
from torch.overrides import TorchFunctionMode

from cerank.errors import RunFailedError
from cerank.models.cross_encoder import load, load_tokenizer
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training import checkpoints
from cerank.training.batches import TrainingData
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.training.trainer import PausedError, Trainer
from tests.model_fixtures import WORDS
from tests.refusals import refused

STAGE = Stage(
    steps=12,
    learning_rate=3e-3,
    group_size=4,
    groups_per_step=2,
    max_length=24,
    max_query_length=8,
    validate_every=4,
    schedule="constant",
)
DOCUMENTS = {f"d{i}": " ".join(WORDS[(i + j) % 20] for j in range(2 + i % 5)) for i in range(20)}
QUERIES = {f"q{i}": WORDS[i] for i in range(20)}
QRELS = {f"q{i}": {f"d{i}": 1} for i in range(20)}
RANKING = {query: sorted(DOCUMENTS) for query in QUERIES}


class Recorder:
    """A callback that remembers."""

    def __init__(self, stop_after=None, values=()):
        self.readings, self.saves, self.rejections, self.validations = [], [], [], []
        self.spreads = []
        self.stop_after, self.values = stop_after, list(values)

    def on_step(self, reading):
        self.readings.append(msgspec.structs.replace(reading, seconds=0.0))

    def on_scores(self, step, spread):
        self.spreads.append(spread)

    def validate(self, step):
        self.validations.append(step)
        return self.values.pop(0) if self.values else float(step)

    def before_save(self):
        self.before_saves = len(self.readings)

    def after_save(self, state):
        self.saves.append(state.step)

    def on_rejected(self, reason):
        self.rejections.append(reason)

    def should_stop(self):
        return self.stop_after is not None and len(self.readings) >= self.stop_after


def trained(files, folder, stage=STAGE, callback=None, seed=5):
    callback = callback or Recorder()
    model = load(files, "auto", seed)
    sampler = Sampler(
        "s",
        stage,
        seed,
        TrainingPool(query_ids=list(QUERIES), qrels=QRELS, ranking=RANKING, has_text=DOCUMENTS.__contains__),
    )
    tokens = PairTokenizer(load_tokenizer(files.folder), TokenLimits.of_stage(stage))
    data = TrainingData(
        sampler, tokens, lambda keys: [QUERIES[k] for k in keys], lambda keys: [DOCUMENTS[k] for k in keys]
    )
    trainer = Trainer(0, "s", stage, seed=seed, folder=folder, device="cpu")
    state = trainer.train(model, data, callback)
    return model, state, callback


def same_weights(left, right):
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


def test_the_loss_falls_on_groups_that_can_be_learned(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "QRELS", {query: {"d0": 1} for query in QUERIES})
    _, _, callback = trained(tiny, tmp_path, msgspec.structs.replace(STAGE, steps=80, validate_every=0, dropout=0.0))
    losses = [reading.loss for reading in callback.readings]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_the_same_plan_gives_the_same_bits_and_another_seed_others(tiny, tmp_path):
    one, _, first = trained(tiny, tmp_path / "1")
    two, _, second = trained(tiny, tmp_path / "2")
    three, _, _ = trained(tiny, tmp_path / "3", seed=6)
    assert first.readings == second.readings
    assert same_weights(one, two)
    assert not same_weights(one, three)


@pytest.mark.parametrize("stop_after", [1, 4, 7, 11])
def test_a_stage_stopped_anywhere_resumes_to_the_same_bits(tiny, tmp_path, stop_after):
    whole, _, expected = trained(tiny, tmp_path / "whole")
    with pytest.raises(PausedError):
        trained(tiny, tmp_path / "cut", callback=Recorder(stop_after=stop_after))
    model, _, rest = trained(tiny, tmp_path / "cut")
    assert same_weights(whole, model)
    assert rest.readings == expected.readings[stop_after:]
    names = ["model.safetensors", "optimizer.safetensors", "position.json"]
    last = checkpoints.folder_name(STAGE.steps)
    assert all(
        (tmp_path / "cut" / last / n).read_bytes() == (tmp_path / "whole" / last / n).read_bytes() for n in names
    )


def test_a_damaged_checkpoint_is_renamed_and_the_one_before_used(tiny, tmp_path):
    whole, _, expected = trained(tiny, tmp_path)
    with (tmp_path / checkpoints.folder_name(12) / "optimizer.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\x00\xff")
    model, _, callback = trained(tiny, tmp_path)
    assert "optimizer.safetensors" in callback.rejections[0]
    assert [reading.step for reading in callback.readings] == [9, 10, 11, 12]
    assert callback.readings == expected.readings[8:]
    assert same_weights(whole, model)
    assert (tmp_path / f"{checkpoints.folder_name(12)}.bad").is_dir()


def test_a_damaged_best_checkpoint_takes_those_that_rest_on_it_with_it(tiny, tmp_path):
    whole, _, expected = trained(tiny, tmp_path / "whole")
    with pytest.raises(PausedError):
        trained(tiny, tmp_path / "cut", callback=Recorder(stop_after=9))
    (tmp_path / "cut" / checkpoints.folder_name(8) / "position.json").write_bytes(b"{")
    model, _, callback = trained(tiny, tmp_path / "cut")
    assert len(callback.rejections) == 2
    assert callback.readings == expected.readings  # nothing older was kept
    assert same_weights(whole, model)


def test_without_its_best_checkpoint_a_stage_starts_again_from_its_own_start(tiny, tmp_path):
    whole, _, expected = trained(tiny, tmp_path / "whole")
    folder = tmp_path / "cut"
    trained(tiny, folder, callback=Recorder(values=[0.0, 0.9, 0.1, 0.2]))
    for step in (4, 8):
        shutil.rmtree(folder / checkpoints.folder_name(step))
    model, _, callback = trained(tiny, folder)
    assert callback.rejections
    assert callback.readings == expected.readings
    assert same_weights(whole, model)


def test_what_a_stage_starts_from_is_measured_once_and_never_kept(tiny, tmp_path):
    _, state, callback = trained(tiny, tmp_path, callback=Recorder(values=[0.9, 0.1, 0.5, 0.4]))
    assert callback.validations == [0, 4, 8, 12]
    assert (state.start_value, state.best_step, state.best_value, state.last_value) == (0.9, 8, 0.5, 0.4)
    _, again, resumed = trained(tiny, tmp_path)
    assert resumed.validations == []
    assert again == state


def test_microbatches_change_the_loss_by_rounding_alone(tiny, tmp_path):
    stage = msgspec.structs.replace(STAGE, dropout=0.0, groups_per_step=6)
    _, _, whole = trained(tiny, tmp_path / "1", stage)
    _, _, parts = trained(tiny, tmp_path / "2", msgspec.structs.replace(stage, microbatch=1))
    assert [r.loss for r in parts.readings] == pytest.approx([r.loss for r in whole.readings], rel=1e-4)
    assert [r.grad_norm for r in parts.readings] == pytest.approx([r.grad_norm for r in whole.readings], rel=1e-3)


def test_it_stops_early_once_patience_is_spent_and_keeps_the_best_checkpoint(tiny, tmp_path):
    stage = msgspec.structs.replace(STAGE, steps=40, patience=2)
    _, state, callback = trained(tiny, tmp_path, stage, Recorder(values=[0.7, 0.1, 0.5, 0.4, 0.5, 0.9]))
    assert callback.validations == [0, 4, 8, 12, 16]
    assert (state.step, state.best_step, state.stopped_early) == (16, 8, True)
    assert {path.name for path in tmp_path.iterdir()} == {checkpoints.folder_name(step) for step in (8, 12, 16)}


def test_a_loss_that_is_not_finite_stops_the_run_with_the_weights_of_the_step_before(tiny, tmp_path):
    stage = msgspec.structs.replace(STAGE, learning_rate=1e38, validate_every=0, clip=0.0)
    callback = Recorder()
    with refused(RunFailedError, "loss-not-finite"):
        trained(tiny, tmp_path, stage, callback)
    assert callback.readings


def test_steps_that_are_not_finite_are_skipped_as_often_as_the_recipe_allows(tiny, tmp_path):
    stage = msgspec.structs.replace(STAGE, learning_rate=1e38, validate_every=0, on_nonfinite="skip:3")
    callback = Recorder()
    with pytest.raises(RunFailedError):
        trained(tiny, tmp_path, stage, callback)
    assert len(callback.rejections) == 3


def test_a_ranknet_stage_learns_its_teachers_order(tiny, tmp_path):
    stage = msgspec.structs.replace(
        STAGE, loss="ranknet", source="teacher", teacher="x", steps=60, dropout=0.0, validate_every=0
    )
    _, _, callback = trained(tiny, tmp_path, stage)
    losses = [reading.loss for reading in callback.readings]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_batch_is_made_while_the_step_before_computes_and_its_error_is_raised_in_its_step(
    tiny, tmp_path, monkeypatch
):
    asked, made_by = [], set()
    of = TrainingData.encode

    def failing(data, groups):
        made_by.add(threading.current_thread().name)
        asked.append(len(asked) + 1)
        if asked[-1] == 4:
            raise RunFailedError("a text is gone", where="the test", code="text-missing")
        return of(data, groups)

    monkeypatch.setattr(TrainingData, "encode", failing)
    callback = Recorder()
    with refused(RunFailedError, "text-missing"):
        trained(tiny, tmp_path, callback=callback)
    assert [reading.step for reading in callback.readings] == [1, 2, 3]
    assert all(name.startswith("prefetch") for name in made_by)


def test_no_data_is_made_while_a_validation_reads_texts(tiny, tmp_path, monkeypatch):
    under_way, overlaps, begun, begun_then = [], [], [], []
    of = TrainingData.encode

    def slow(data, groups):
        under_way.append(1)
        begun.append(1)
        time.sleep(0.02)
        under_way.pop()
        return of(data, groups)

    monkeypatch.setattr(TrainingData, "encode", slow)
    callback = Recorder()
    validate = callback.validate
    callback.validate = lambda step: (overlaps.append(len(under_way)), begun_then.append(len(begun)), validate(step))[2]
    trained(tiny, tmp_path, callback=callback)
    assert overlaps == [0, 0, 0, 0]
    assert begun_then == [0, 5, 9, 12]  # one step ahead, but not beyond the last


class ReadBacks(TorchFunctionMode):
    """Counts what makes the host wait for a GPU: values read from tensors, and branches on them."""

    READS = ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "nonzero", "is_nonzero", "__index__")

    def __init__(self):
        super().__init__()
        self.reads = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.reads += getattr(function, "__name__", "") in self.READS
        return function(*args, **(kwargs or {}))


def test_a_step_waits_for_the_device_once(tiny, tmp_path):
    reads = []

    class Counting(Recorder):
        def on_step(self, metrics):
            super().on_step(metrics)
            reads.append(mode.reads)
            mode.reads = 0

    stage = msgspec.structs.replace(STAGE, steps=5, validate_every=0, checkpoint_every=0, microbatch=60)
    with ReadBacks() as mode:
        trained(tiny, tmp_path, stage, Counting())
    assert len(reads) == 5
    assert reads[1:] == [1] * 4  # the first one tries packing before


def test_checkpoints_written_beside_the_training_are_those_of_their_step(tiny, tmp_path, monkeypatch):
    """The first is held back until the training is two steps further: later weights must not reach it."""
    stage = msgspec.structs.replace(STAGE, steps=6, validate_every=0, checkpoint_every=2)
    model, _, whole = trained(tiny, tmp_path / "at-once", stage)
    further, write = threading.Event(), checkpoints.write

    def held_back(folder, snapshot, state):
        assert state.step != 2 or further.wait(60)
        write(folder, snapshot, state)

    class Callback(Recorder):
        def on_step(self, metrics):
            super().on_step(metrics)
            if metrics.step == 3:
                further.set()

    monkeypatch.setattr(checkpoints, "write", held_back)
    monkeypatch.setattr(Trainer, "__init__", _in_thread(Trainer.__init__))
    beside, _, recorder = trained(tiny, tmp_path / "beside", stage, Callback())
    assert recorder.readings == whole.readings
    assert same_weights(model, beside)
    for name in ("step-000004", "step-000006"):
        for file in ("model.safetensors", "optimizer.safetensors", "position.json"):
            assert (tmp_path / "beside" / name / file).read_bytes() == (tmp_path / "at-once" / name / file).read_bytes()


def test_a_disk_that_fails_beside_the_training_ends_it(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise RunFailedError("no space left on the disk", code="disk-full")

    monkeypatch.setattr(checkpoints, "write", full)
    monkeypatch.setattr(Trainer, "__init__", _in_thread(Trainer.__init__))
    with refused(RunFailedError, "disk-full"):
        trained(tiny, tmp_path, msgspec.structs.replace(STAGE, steps=3, validate_every=0, checkpoint_every=1))


def _in_thread(init):
    """Return the constructor of a trainer that writes checkpoints in a thread, as on a GPU."""

    def made(trainer, *given, **named):
        init(trainer, *given, **named)
        trainer.writes_checkpoints_in_thread = True

    return made
