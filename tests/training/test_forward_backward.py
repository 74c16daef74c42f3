"""The gradient of a step does not depend on how much goes through the model at once, dropout included."""

from __future__ import annotations

import contextlib
import weakref

import msgspec
import pytest
import torch

import cerank.training.forward_backward as forward_backward_module
from cerank.core.groups import Group
from cerank.errors import RunFailedError
from cerank.models import forward_pass
from cerank.models.cross_encoder import load, load_tokenizer, set_dropout
from cerank.models.forward_pass import ForwardPass
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training import checkpoints
from cerank.training.batches import encode_groups
from cerank.training.forward_backward import MAX_HALVINGS, ForwardBackward
from cerank.training.losses import LOSSES
from cerank.training.microbatch_fit import MicrobatchFit, update_within_memory
from cerank.training.trainer import PausedError, Trainer
from cerank.training.weight_shares import WeightShares
from tests.model_fixtures import WORDS
from tests.refusals import refused

from .test_trainer import STAGE, Recorder, same_weights, trained

CPU = torch.device("cpu")
DOCUMENTS = {f"d{i}": " ".join(WORDS[(i + j) % 20] for j in range(i % 9)) for i in range(40)}
SIZES = (1, 9, 4, 2)


def groups():
    first = iter(DOCUMENTS)
    out = []
    for at, size in enumerate(SIZES):
        docs = tuple(next(first) for _ in range(size))
        out.append(Group(f"q{at}", docs, tuple(float(size - 1 - place) for place in range(size))))
    return out


class Ready:
    """A model with its texts, whose gradients can be asked for."""

    def __init__(self, files, dropout=0.0):
        self.model = load(files, "auto", seed=0).train()
        set_dropout(self.model, dropout)
        with torch.no_grad():  # as drawn, all pairs score so much alike that their gradients cancel out to rounding
            for parameter in self.model.parameters():
                parameter.mul_(8.0 if parameter.dim() > 1 else 1.0)
        self.tokens = PairTokenizer(load_tokenizer(files.folder), TokenLimits(24, 8))
        self.tokens.add("query", [f"q{at}" for at in range(4)], lambda keys: [WORDS[int(key[1:])] for key in keys])
        self.tokens.add("document", list(DOCUMENTS), lambda keys: [DOCUMENTS[key] for key in keys])
        self.folder = files.folder
        self.forward = ForwardPass(self.model, self.tokens, CPU, "fp32")

    def gradients(self, loss="ranknet", step=1, **stage):
        self.model.zero_grad()
        settings = Stage(steps=1, loss=loss, **stage)
        trainer = Trainer(0, "s", settings, seed=7, folder=self.folder, device="cpu")
        passes = ForwardBackward(self.forward, "s", 7, settings.tokens_at_once)
        value = sum(map(float, trainer.forward_backward(passes, encode_groups(self.tokens, groups()), step)))
        return value, torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])


def apart(left, right):
    return float((left - right).norm() / right.norm())


@pytest.mark.parametrize("files", ["tiny", "tiny_classifier"])
@pytest.mark.parametrize("loss", ["lce", "ranknet", "listnet"])
@pytest.mark.parametrize("microbatch", [1, 20, 45, 100])
def test_any_microbatch_gives_the_gradient_of_the_whole_step(files, loss, microbatch, request):
    if loss not in LOSSES:
        pytest.skip(f"there is no loss {loss} here")
    ready = Ready(request.getfixturevalue(files))
    whole, expected = ready.gradients(loss)
    value, found = ready.gradients(loss, microbatch=microbatch)
    assert value == pytest.approx(whole, rel=1e-5)
    assert apart(found, expected) < 1e-5


def test_a_group_goes_through_twice_with_the_same_dropout(tiny, monkeypatch):
    ready = Ready(tiny, dropout=0.3)
    value, found = ready.gradients(microbatch=30)
    _, other = ready.gradients(microbatch=30, step=2)
    monkeypatch.setattr(ForwardBackward, "forward_without_graph", ForwardBackward.forward_in_one_graph)
    whole, expected = ready.gradients(microbatch=30)
    assert value == pytest.approx(whole, rel=1e-6)
    assert apart(found, expected) < 1e-5
    assert apart(other, expected) > 1e-2


def test_a_mean_over_pairs_is_that_of_the_whole_step_however_it_is_cut(tiny):
    ready = Ready(tiny)
    whole, expected = ready.gradients(mean_over="pairs")
    value, found = ready.gradients(mean_over="pairs", microbatch=30)
    assert value == pytest.approx(whole, rel=1e-5)
    assert apart(found, expected) < 1e-5


def test_the_packed_gradient_is_that_of_padded_pairs(tiny, monkeypatch):
    ready = Ready(tiny)
    _, found = ready.gradients()
    assert ready.forward.is_packed
    monkeypatch.setattr(forward_pass, "packed_model", lambda _: None)
    padded = Ready(tiny)
    _, expected = padded.gradients()
    assert not padded.forward.is_packed
    assert apart(found, expected) < 1e-5


@pytest.fixture
def threads(monkeypatch):
    """Three threads, and steps small enough for a test shared among them."""
    monkeypatch.setattr(forward_backward_module, "MIN_SHARD_TOKENS", 16)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("files", ["tiny", "tiny_classifier"])
@pytest.mark.parametrize("loss", ["lce", "ranknet"])
def test_shards_in_threads_give_the_gradient_of_the_whole_step(files, loss, request, monkeypatch, threads):
    ready = Ready(request.getfixturevalue(files))
    value, found = ready.gradients(loss)
    shards = ForwardBackward(ready.forward, "s", 7, 8192).shards_of([9, 20, 3, 20, 19])
    assert shards == [[2, 3], [0, 1], [4]]
    monkeypatch.setattr(ForwardBackward, "shards_of", lambda *_: [])
    whole, expected = ready.gradients(loss)
    assert value == pytest.approx(whole, rel=1e-5)
    assert apart(found, expected) < 1e-5
    assert not torch.equal(found, expected)  # else nothing was sharded
    assert torch.get_num_threads() == threads


def test_shards_give_the_same_bits_in_whatever_order_threads_come_to_them(tiny, monkeypatch, threads):
    ready = Ready(tiny, dropout=0.3)
    value, found = ready.gradients()
    again, same = ready.gradients()
    _, other = ready.gradients(step=2)

    def last_first(work, items, inner):
        torch.set_num_threads(inner)
        list(map(work, reversed(items)))
        torch.set_num_threads(threads)

    monkeypatch.setattr(forward_backward_module, "run_in_threads", last_first)
    backwards, reversed_ = ready.gradients()
    assert value == again == backwards
    assert torch.equal(found, same)
    assert torch.equal(found, reversed_)
    assert apart(other, found) > 1e-2


def test_a_stage_of_sharded_steps_resumes_to_the_same_bits(tiny, tmp_path, threads):
    stage = msgspec.structs.replace(STAGE, dropout=0.2, groups_per_step=4)
    whole, _, expected = trained(tiny, tmp_path / "whole", stage)
    with pytest.raises(PausedError):
        trained(tiny, tmp_path / "cut", stage, Recorder(stop_after=5))
    model, _, rest = trained(tiny, tmp_path / "cut", stage)
    assert same_weights(whole, model)
    assert rest.readings == expected.readings[5:]


def test_shards_of_several_microbatches_add_up(tiny, monkeypatch, threads):
    ready = Ready(tiny)
    _, found = ready.gradients(microbatch=80)
    monkeypatch.setattr(ForwardBackward, "shards_of", lambda *_: [])
    _, expected = ready.gradients()
    assert apart(found, expected) < 1e-5


def test_a_shard_that_fails_fails_the_step_and_leaves_no_gradient(tiny, monkeypatch, threads):
    ready = Ready(tiny)
    ready.gradients()
    hold(monkeypatch, 30)
    with pytest.raises(torch.OutOfMemoryError):
        ready.gradients()
    assert all(parameter.grad is None for parameter in ready.model.parameters())
    assert torch.get_num_threads() == threads


def hold(monkeypatch, limit):
    """Stands in for a device whose memory holds `limit` tokens."""
    original = ForwardPass.scoring

    @contextlib.contextmanager
    def scoring(forward):
        with original(forward) as score:

            def guarded(pairs):
                if sum(len(pair.ids) for pair in pairs) > limit:
                    raise torch.OutOfMemoryError("out of memory. Tried to allocate too much")
                return score(pairs)

            yield guarded

    monkeypatch.setattr(ForwardPass, "scoring", scoring)


class MemoryRecorder(Recorder):
    """A callback that also remembers what memory did not hold."""

    def __init__(self, **given):
        super().__init__(**given)
        self.short = []

    def on_out_of_memory(self, what):
        self.short.append(what)


PLAIN = msgspec.structs.replace(STAGE, dropout=0.0, microbatch=64)


def test_memory_that_does_not_suffice_halves_the_microbatch_and_leaves_the_losses(tiny, tmp_path, monkeypatch):
    _, _, whole = trained(tiny, tmp_path / "1", PLAIN)
    hold(monkeypatch, 20)
    _, state, parts = trained(tiny, tmp_path / "2", PLAIN, MemoryRecorder())
    assert [note.split(";")[0] for note in parts.short] == [
        "step 1: 32 tokens at once from here on",
        "step 1: 16 tokens at once from here on",
    ]
    assert state.microbatch == 16
    assert [r.loss for r in parts.readings] == pytest.approx([r.loss for r in whole.readings], rel=1e-4)
    assert [r.groups for r in parts.readings] == [r.groups for r in whole.readings]


def test_a_resumed_stage_keeps_its_reduced_microbatch(tiny, tmp_path, monkeypatch):
    hold(monkeypatch, 20)
    trained(tiny, tmp_path, PLAIN, MemoryRecorder())
    again = MemoryRecorder()
    _, later, _ = trained(tiny, tmp_path, msgspec.structs.replace(PLAIN, steps=16), again)
    assert again.short == []
    assert (later.step, later.microbatch) == (16, 16)


def test_a_stage_killed_after_memory_was_short_repeats_its_steps_in_the_same_parts(tiny, tmp_path, monkeypatch):
    """With dropout, since each part samples its own: other parts would give other losses."""
    stage = msgspec.structs.replace(PLAIN, dropout=0.2, checkpoint_every=4, validate_every=0)

    class Killed(MemoryRecorder):
        def on_step(self, metrics):
            super().on_step(metrics)
            if metrics.step == 7:
                raise KeyboardInterrupt

    hold(monkeypatch, 20)
    killed = Killed()
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, tmp_path, stage, killed)
    assert killed.short
    monkeypatch.undo()  # memory is not short any more
    again = MemoryRecorder()
    trained(tiny, tmp_path, stage, again)
    assert again.short == []
    assert again.readings[:3] == killed.readings[4:]


@pytest.mark.parametrize("failing", [1, 2, 5, 12])
def test_an_optimizer_that_finds_no_memory_for_a_moment_begins_its_first_step_again(
    tiny, tmp_path, monkeypatch, failing
):
    """It may fail between the two moments of a weight, or after those of some weights."""

    def updated(fails_at):
        ready = Ready(tiny)
        trainer = Trainer(0, "s", PLAIN, seed=5, folder=tmp_path, device="cpu")
        optimizer, zeros_like, asked = trainer.optimizer(WeightShares(ready.model)), torch.zeros_like, []

        def short(*given, **named):
            asked.append(1)
            if len(asked) == fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return zeros_like(*given, **named)

        monkeypatch.setattr(torch, "zeros_like", short)
        for _ in range(2):
            for weight in ready.model.parameters():
                weight.grad = torch.ones_like(weight)
            update_within_memory(optimizer, trainer.device)
        monkeypatch.setattr(torch, "zeros_like", zeros_like)
        assert len(asked) > fails_at
        return torch.cat([weight.detach().flatten() for weight in ready.model.parameters()])

    assert torch.equal(updated(failing), updated(0))


def test_an_optimizer_that_finds_no_memory_later_is_not_asked_again(tiny, tmp_path, monkeypatch):
    """Its moments are there, so nothing would be freed by which it could go on."""
    ready = Ready(tiny)
    trainer = Trainer(0, "s", PLAIN, seed=5, folder=tmp_path, device="cpu")
    optimizer = trainer.optimizer(WeightShares(ready.model))
    for weight in ready.model.parameters():
        weight.grad = torch.ones_like(weight)
    update_within_memory(optimizer, trainer.device)

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(optimizer, "step", full)
    with pytest.raises(torch.OutOfMemoryError):
        update_within_memory(optimizer, trainer.device)
    assert optimizer.state


def test_a_stage_killed_before_its_first_checkpoint_does_not_choose_its_parts_again(tiny, tmp_path, monkeypatch):
    """The first attempt had room; the second has another program beside it."""
    stage = msgspec.structs.replace(PLAIN, dropout=0.2, validate_every=0, steps=4)
    probed = []

    def with_probe(init):
        def made(trainer, *given, **named):
            init(trainer, *given, **named)
            trainer.probes_memory = True

        return made

    class Killed(MemoryRecorder):
        def on_step(self, metrics):
            super().on_step(metrics)
            if metrics.step == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "__init__", with_probe(Trainer.__init__))
    monkeypatch.setattr(MicrobatchFit, "probe", lambda *given: probed.append(given))
    killed, again = Killed(), MemoryRecorder()
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, tmp_path, stage, killed)
    assert checkpoints.recorded_microbatches(tmp_path) == {0: PLAIN.microbatch}
    _, state, _ = trained(tiny, tmp_path, stage, again)
    assert again.readings[:3] == killed.readings
    assert (len(probed), state.microbatch) == (1, 0)


def test_the_memory_probe_holds_room_for_the_optimizer_once_however_often_it_tries(tiny, tmp_path, monkeypatch):
    alive, most, empty_like = [], [], torch.empty_like

    def counted(values):
        tensor = empty_like(values)
        alive.append(weakref.ref(tensor))
        most.append(sum(reference() is not None for reference in alive))
        return tensor

    hold(monkeypatch, 30)
    ready = Ready(tiny)
    monkeypatch.setattr(torch, "empty_like", counted)
    trainer = Trainer(0, "s", PLAIN, seed=5, folder=tmp_path, device="cpu")
    trainer.microbatch_fit(ready.model, trainer.passes(ready.model, ready.tokens), MemoryRecorder()).probe()
    weights = sum(parameter.requires_grad for parameter in ready.model.parameters())
    assert len(alive) == 2 * 2 * weights  # it was halved once
    assert max(most) == 2 * weights


def test_a_run_ends_where_a_sixteenth_does_not_fit(tiny, tmp_path, monkeypatch):
    hold(monkeypatch, 0)
    callback = MemoryRecorder()
    with refused(RunFailedError, "out-of-memory", 4):
        trained(tiny, tmp_path, PLAIN, callback)
    assert len(callback.short) == MAX_HALVINGS


def test_the_memory_probe_halves_the_microbatch_before_training(tiny, tmp_path, monkeypatch):
    hold(monkeypatch, 40)
    ready, callback = Ready(tiny), MemoryRecorder()
    trainer = Trainer(0, "s", PLAIN, seed=5, folder=tmp_path, device="cpu")
    trainer.microbatch_fit(ready.model, trainer.passes(ready.model, ready.tokens), callback).probe()
    assert [note.split(";")[0] for note in callback.short] == ["before training: 32 tokens at once from here on"]
    assert all(parameter.grad is None for parameter in ready.model.parameters())
