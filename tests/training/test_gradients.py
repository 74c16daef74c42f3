"""The gradient of a step does not depend on how much goes through the model at once, dropout included."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
import torch

import cerank.training.gradients as gradients_module
from cerank.core.groups import Group
from cerank.errors import RunFailedError
from cerank.models.cross_encoder import load, set_dropout, tokenizer_of
from cerank.models.forward_pass import Forward
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import Tokens
from cerank.training.gradients import HALVINGS, Gradients, _in_order, rows_of
from cerank.training.losses import LOSSES
from cerank.training.trainer import PausedError, Trainer
from tests.model_fixtures import WORDS

from .test_trainer import STAGE, Notes, same_weights, trained

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
        self.tokens = Tokens(tokenizer_of(files.folder), 24, 8)
        self.tokens.add("query", [f"q{at}" for at in range(4)], lambda keys: [WORDS[int(key[1:])] for key in keys])
        self.tokens.add("document", list(DOCUMENTS), lambda keys: [DOCUMENTS[key] for key in keys])
        self.forward = Forward(self.model, self.tokens, CPU, "fp32")

    def gradients(self, loss="ranknet", step=1, **stage):
        self.model.zero_grad()
        made = Gradients("s", Stage(steps=1, **stage), 7, LOSSES.find(loss, "loss"), CPU)
        value = made.add(self.forward, rows_of(self.tokens, groups()), step)
        return value, torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])


def apart(left, right):
    return float((left - right).norm() / right.norm())


@pytest.mark.parametrize("files", ["tiny", "tiny_classifier"])
@pytest.mark.parametrize("loss", ["lce", "ranknet", "listnet"])
@pytest.mark.parametrize("microbatch", [1, 20, 45, 100])
def test_any_bound_gives_the_gradient_of_the_whole_step(files, loss, microbatch, request):
    if loss not in LOSSES:
        pytest.skip(f"there is no loss {loss} here")
    ready = Ready(request.getfixturevalue(files))
    whole, expected = ready.gradients(loss)
    value, found = ready.gradients(loss, microbatch=microbatch)
    assert value == pytest.approx(whole, rel=1e-5)
    assert apart(found, expected) < 1e-5


def in_one_pass(self, forward, rows, weights, place, cuts):
    """The same parts with a graph for all of them at once."""
    with forward.scoring() as score:
        parts = []
        for number, cut in enumerate(cuts):
            self._draw_dropout(place, number)
            parts.append(score([rows.pairs[at] for at in cut]))
    total = self._total(_in_order(parts, cuts), rows.groups, weights)
    total.backward()
    return float(total.detach())


def test_a_group_goes_through_twice_with_the_same_dropout(tiny, monkeypatch):
    ready = Ready(tiny, dropout=0.3)
    value, found = ready.gradients(microbatch=30)
    _, other = ready.gradients(microbatch=30, step=2)
    monkeypatch.setattr(Gradients, "_add_twice", in_one_pass)
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


def test_the_packed_gradient_is_that_of_padded_pairs(tiny):
    ready = Ready(tiny)
    _, found = ready.gradients()
    assert ready.forward.packs
    ready.forward._packed = None
    _, expected = ready.gradients()
    assert apart(found, expected) < 1e-5


@pytest.fixture
def threads(monkeypatch):
    """Three threads, and steps small enough for a test shared among them."""
    monkeypatch.setattr(gradients_module, "_LEAST_SHARE", 16)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("files", ["tiny", "tiny_classifier"])
@pytest.mark.parametrize("loss", ["lce", "ranknet"])
def test_shares_in_threads_give_the_gradient_of_the_whole_step(files, loss, request, monkeypatch, threads):
    ready = Ready(request.getfixturevalue(files))
    value, found = ready.gradients(loss)
    shared = Gradients("s", Stage(steps=1), 7, LOSSES.find(loss, "loss"), CPU)._shares(
        ready.forward, [9, 20, 3, 20, 19]
    )
    assert shared == [[2, 3], [0, 1], [4]]
    monkeypatch.setattr(Gradients, "_shares", lambda *_: [])
    whole, expected = ready.gradients(loss)
    assert value == pytest.approx(whole, rel=1e-5)
    assert apart(found, expected) < 1e-5
    assert not torch.equal(found, expected)  # else nothing was shared
    assert torch.get_num_threads() == threads


def test_shares_give_the_same_bits_in_whatever_order_threads_come_to_them(tiny, monkeypatch, threads):
    ready = Ready(tiny, dropout=0.3)
    value, found = ready.gradients()
    again, same = ready.gradients()
    _, other = ready.gradients(step=2)

    def last_first(work, items, inner):
        torch.set_num_threads(inner)
        list(map(work, reversed(items)))
        torch.set_num_threads(threads)

    monkeypatch.setattr(gradients_module, "side_by_side", last_first)
    backwards, reversed_ = ready.gradients()
    assert value == again == backwards
    assert torch.equal(found, same)
    assert torch.equal(found, reversed_)
    assert apart(other, found) > 1e-2


def test_a_stage_of_shared_steps_goes_on_to_the_same_bits(tiny, tmp_path, threads):
    stage = msgspec.structs.replace(STAGE, dropout=0.2, groups_per_step=4)
    whole, _, expected = trained(tiny, tmp_path / "whole", stage)
    with pytest.raises(PausedError):
        trained(tiny, tmp_path / "cut", stage, Notes(stop_after=5))
    model, _, rest = trained(tiny, tmp_path / "cut", stage)
    assert same_weights(whole, model)
    assert rest.readings == expected.readings[5:]


def test_shares_of_several_parts_add_up(tiny, monkeypatch, threads):
    ready = Ready(tiny)
    _, found = ready.gradients(microbatch=80)
    monkeypatch.setattr(Gradients, "_shares", lambda *_: [])
    _, expected = ready.gradients()
    assert apart(found, expected) < 1e-5


def test_a_share_that_fails_fails_the_step_and_leaves_no_gradient(tiny, monkeypatch, threads):
    ready = Ready(tiny)
    ready.gradients()
    hold(monkeypatch, 30)
    with pytest.raises(torch.OutOfMemoryError):
        ready.gradients()
    assert all(parameter.grad is None for parameter in ready.model.parameters())
    assert torch.get_num_threads() == threads


def hold(monkeypatch, limit):
    """Stands in for a device whose memory holds `limit` tokens."""
    original = Forward.scoring

    @contextlib.contextmanager
    def scoring(forward):
        with original(forward) as score:

            def guarded(pairs):
                if sum(len(pair.ids) for pair in pairs) > limit:
                    raise torch.OutOfMemoryError("out of memory. Tried to allocate too much")
                return score(pairs)

            yield guarded

    monkeypatch.setattr(Forward, "scoring", scoring)


class Heard(Notes):
    """A watch that also remembers what memory did not hold."""

    def __init__(self, **given):
        super().__init__(**given)
        self.short = []

    def out_of_memory(self, what):
        self.short.append(what)


PLAIN = msgspec.structs.replace(STAGE, dropout=0.0, microbatch=64)


def test_memory_that_does_not_suffice_halves_the_bound_and_leaves_the_losses(tiny, tmp_path, monkeypatch):
    _, _, whole = trained(tiny, tmp_path / "1", PLAIN)
    hold(monkeypatch, 20)
    _, state, parts = trained(tiny, tmp_path / "2", PLAIN, Heard())
    assert [note.split(";")[0] for note in parts.short] == [
        "step 1: 32 tokens at once from here on",
        "step 1: 16 tokens at once from here on",
    ]
    assert state.microbatch == 16
    assert [r.loss for r in parts.readings] == pytest.approx([r.loss for r in whole.readings], rel=1e-4)
    assert [r.groups for r in parts.readings] == [r.groups for r in whole.readings]


def test_a_stage_gone_on_with_keeps_the_bound_that_it_found(tiny, tmp_path, monkeypatch):
    hold(monkeypatch, 20)
    trained(tiny, tmp_path, PLAIN, Heard())
    again = Heard()
    _, later, _ = trained(tiny, tmp_path, msgspec.structs.replace(PLAIN, steps=16), again)
    assert again.short == []
    assert (later.step, later.microbatch) == (16, 16)


def test_a_run_ends_where_a_sixteenth_does_not_fit(tiny, tmp_path, monkeypatch):
    hold(monkeypatch, 0)
    watch = Heard()
    with pytest.raises(RunFailedError, match="out of memory at 4 tokens"):
        trained(tiny, tmp_path, PLAIN, watch)
    assert len(watch.short) == HALVINGS


def test_the_probe_halves_the_bound_before_training(tiny, tmp_path, monkeypatch):
    hold(monkeypatch, 40)
    ready, watch = Ready(tiny), Heard()
    trainer = Trainer(0, "s", PLAIN, seed=5, folder=tmp_path, device="cpu")
    trainer._probe(ready.model, ready.tokens, watch)
    assert [note.split(";")[0] for note in watch.short] == ["before training: 32 tokens at once from here on"]
    assert all(parameter.grad is None for parameter in ready.model.parameters())
