"""Attention span by span: whichever way a span is computed, the same numbers; and whoever asks for a way gets it."""

from __future__ import annotations

import pytest
import torch

from cerank.kernels import varlen_attention
from cerank.kernels.packing import Span, pack, pad_row
from cerank.kernels.varlen_attention import AttentionOptions, attend_by_spans
from cerank.tokenization.tokens import Pair

HEADS, SIZE = 3, 8
LENGTHS = (1, 5, 40, 40, 40, 77, 130, 130, 300)


def row_of(lengths):
    return pack([Pair((1,) * length, length) for length in lengths], has_types=False, device=torch.device("cpu"))


def states(lengths, spread=1.0):
    """Query, key and value as an encoder gives them: parts of one product."""
    torch.manual_seed(7)
    whole = spread * torch.randn(sum(lengths), 3 * HEADS * SIZE)
    return [part.view(-1, HEADS, SIZE) for part in whole.chunk(3, dim=-1)]


def alone(query, key, value, lengths):
    """Each pair by the definition, in float64."""
    out = []
    for q, k, v in zip(*(part.double().split(lengths) for part in (query, key, value)), strict=True):
        products = torch.einsum("ihs,jhs->hij", q, k) * SIZE**-0.5
        out.append(torch.einsum("hij,jhs->ihs", products.softmax(dim=-1), v))
    return torch.cat(out)


@pytest.fixture
def taken(monkeypatch):
    """What `_singly` answered, span by span."""
    answers = []
    single = varlen_attention.attend_pair_by_pair

    def told(*given, **named):
        answers.append(single(*given, **named))
        return answers[-1]

    monkeypatch.setattr(varlen_attention, "attend_pair_by_pair", told)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    return answers


@pytest.mark.parametrize("cached", [1, 60_000, 1 << 20])  # heads one by one, two by two at 77 tokens, all at once
def test_pairs_one_by_one_draw_what_the_definition_says(taken, monkeypatch, cached):
    monkeypatch.setattr(varlen_attention, "CACHE_BYTES", cached)
    parts = states(LENGTHS)
    with torch.inference_mode():
        found = attend_by_spans(*parts, row_of(LENGTHS), AttentionOptions(SIZE**-0.5))
    assert taken == [True, True, True]  # 40, 77 and 130; the others are shorter or longer
    assert torch.allclose(found.double(), alone(*parts, LENGTHS), atol=2e-6)


@pytest.mark.parametrize("spread", [30.0, 1e4])
def test_products_beyond_float32_take_the_way_that_cannot_overflow(taken, spread):
    parts = states((50, 60), spread)
    parts[2] = parts[2] / spread
    with torch.inference_mode():
        found = attend_by_spans(*parts, row_of((50, 60)), AttentionOptions(SIZE**-0.5))
    assert False in taken
    assert bool(found.isfinite().all())
    assert torch.allclose(found.double(), alone(*parts, (50, 60)), atol=1e-2)


def test_products_so_small_that_their_exponentials_vanish_take_it_too(taken):
    query, key, value = states((50,))
    query, key = torch.full_like(query, 10.0), torch.full_like(key, -10.0)
    with torch.inference_mode():
        found = attend_by_spans(query, key, value, row_of((50,)), AttentionOptions(SIZE**-0.5))
    assert taken == [False]
    assert torch.allclose(found.double(), alone(query, key, value, (50,)), atol=1e-6)


def test_a_state_that_is_no_number_stays_one(taken):
    query, key, value = states((50, 60))
    query = query.clone()
    query[3] = torch.nan
    with torch.inference_mode():
        found = attend_by_spans(query, key, value, row_of((50, 60)), AttentionOptions(SIZE**-0.5))
    assert taken == [False, True]
    assert bool(found[3].isnan().all())
    assert bool(found[50:].isfinite().all())


def test_who_wants_gradients_or_a_window_is_not_computed_one_by_one(taken):
    parts = states((50, 60))
    attend_by_spans(*parts, row_of((50, 60)), AttentionOptions(SIZE**-0.5))
    with torch.inference_mode():
        attend_by_spans(*parts, row_of((50, 60)), AttentionOptions(SIZE**-0.5, window=10))
        attend_by_spans(*(part.bfloat16() for part in parts), row_of((50, 60)), AttentionOptions(SIZE**-0.5))
    assert taken == []


def test_gradients_are_those_of_the_definition():
    parts = [part.clone().requires_grad_() for part in states(LENGTHS)]
    wanted = torch.randn(sum(LENGTHS), HEADS, SIZE)
    found = torch.autograd.grad(attend_by_spans(*parts, row_of(LENGTHS), AttentionOptions(SIZE**-0.5)), parts, wanted)
    expected = torch.autograd.grad(alone(*parts, LENGTHS), parts, wanted.double())
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_row_is_filled_up_to_a_multiple_by_a_pair_no_longer_than_the_others():
    pairs = [Pair((5, 6, 7) * 10, 4), Pair((8, 9) * 5, 2)]
    more = pad_row(pairs, 32)
    assert more[:2] == pairs
    assert more[2:] == [Pair((5,) * 24, 24)]
    assert row_of([len(pair.ids) for pair in more]).spans[-1] == Span(1, 24)
    assert pad_row(more, 32) is more
    assert pad_row([Pair((5, 6), 1)], 32) == [Pair((5, 6), 1)]  # a pair of 30 might be more than the model can read
    assert pad_row(pairs, 1) is pairs
