"""How many operations a step asks a GPU for, counted on the meta device: each costs the host some microseconds."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cerank.kernels import attention
from cerank.kernels.packing import Pack, Span
from cerank.models.cross_encoder import CrossEncoder
from cerank.models.forward_pass import packed_model

META = torch.device("meta")
VIEWS = (
    "view",
    "_unsafe_view",
    "t",
    "transpose",
    "expand",
    "slice",
    "split",
    "select",
    "unsqueeze",
    "squeeze",
    "detach",
)
VIEWS += ("alias", "as_strided", "permute", "chunk", "split_with_sizes", "_reshape_alias", "unbind")


class Counter(TorchDispatchMode):
    """Counts operations that compute something; views cost a GPU nothing."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += function.overloadpacket.__name__ not in VIEWS
        return function(*args, **(kwargs or {}))


def meta_row(pairs):
    """A row of pairs of about 100 tokens each, as `pack` makes it, without values."""
    draw = random.Random(0)
    lengths = sorted(max(10, min(256, round(draw.gauss(100, 45)))) for _ in range(pairs))
    tokens = sum(lengths)
    spans = [Span(lengths.count(length), length) for length in sorted(set(lengths))]
    whole = torch.empty(tokens, dtype=torch.int64, device=META)
    starts = torch.empty(pairs, dtype=torch.int64, device=META)
    edges = torch.empty(pairs + 1, dtype=torch.int32, device=META)
    return Pack(whole, whole, whole, starts, edges, tuple(spans), has_types=True)


@pytest.fixture(scope="module")
def bert():
    from transformers import BertConfig, BertForSequenceClassification

    with META:
        model = BertForSequenceClassification(BertConfig(num_labels=1))
    return CrossEncoder(model, "classifier", None)


@pytest.fixture
def flash(monkeypatch):
    monkeypatch.setattr(attention, "kernel_name", lambda *_, **__: "torch flash")


def operations_of(model, row, *, train):
    packed = packed_model(model)
    model.train(train)
    with Counter() as counter, torch.set_grad_enabled(train), packed.encoder.prepared(torch.bfloat16) as weights:
        scores = packed.scores(row, weights)
        if train:
            scores.sum().backward()
    return counter.operations


def test_a_training_step_of_bert_base_with_dropout_takes_less_than_a_thousand_operations(bert, flash):
    assert bert.encoder.config.hidden_dropout_prob == bert.encoder.config.attention_probs_dropout_prob == 0.1
    assert operations_of(bert, meta_row(32), train=True) < 1000


def test_they_do_not_grow_with_the_pairs_nor_with_their_lengths(bert, flash):
    assert operations_of(bert, meta_row(640), train=True) == operations_of(bert, meta_row(32), train=True)
    assert operations_of(bert, meta_row(640), train=False) == operations_of(bert, meta_row(32), train=False) < 500


def test_spans_instead_would_take_ten_times_as_many(bert, monkeypatch):
    monkeypatch.setattr(attention, "kernel_name", lambda *_, **__: attention.SPANS)
    assert operations_of(bert, meta_row(32), train=True) > 3000
