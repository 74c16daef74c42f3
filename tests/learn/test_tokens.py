"""Pairs assembled from ids are those of the tokenizer itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.learn.model import tokenizer_of
from cerank.learn.tokens import Tokens, batches_by_length


def pair_of(tokens, query, document):
    tokens.forget()
    tokens.add("query", ["q"], lambda keys: [query])
    tokens.add("document", ["d"], lambda keys: [document])
    return tokens.pair("q", "d")


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("what is lce", "a loss"),
        ("x", ""),
        ("", ""),
        ("naïve café 東京", "emoji 🙂 and tabs\t\n"),
        ("q", "word " * 400),
    ],
)
def test_a_pair_equals_what_the_real_tokenizer_gives(minilm, query, document):
    tokenizer = tokenizer_of(minilm.folder)
    tokens = Tokens(tokenizer, 64, 32)
    pair = pair_of(tokens, query, document)
    # as a batch of one: alone, transformers takes an empty document for no document
    expected = tokenizer([query], [document], truncation="only_second", max_length=64)
    batch = tokens.batch([pair], torch.device("cpu"))
    assert batch.ids[0].tolist() == expected["input_ids"][0]
    assert batch.segments[0].tolist() == expected["token_type_ids"][0]


def test_a_long_query_is_cut_to_its_share_and_the_document_keeps_the_rest(tiny):
    tokens = Tokens(tokenizer_of(tiny.folder), 16, 5)
    pair = pair_of(tokens, "alpha " * 30, "beta " * 30)
    assert len(pair.ids) == 16
    assert pair.split == 1 + 5 + 1


def test_a_batch_is_padded_to_its_longest_and_masked(tiny):
    tokens = Tokens(tokenizer_of(tiny.folder), 16, 8)
    pairs = [pair_of(tokens, "alpha", "beta"), pair_of(tokens, "alpha", "beta gamma delta")]
    batch = tokens.batch(pairs, torch.device("cpu"))
    assert batch.ids.shape == (2, 7)
    assert batch.mask.sum(dim=1).tolist() == [5, 7]
    assert batch.ids[0, 5:].tolist() == [0, 0]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 200))
def test_batches_hold_every_pair_once_sorted_by_length_within_the_budget(lengths, budget):
    cut = batches_by_length(lengths, budget)
    flat = [index for part in cut for index in part]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths)
    assert all(len(part) == 1 or len(part) * max(lengths[i] for i in part) <= budget for part in cut)
