"""Pairs assembled from ids are those of the tokenizer itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.models import cross_encoder
from cerank.models.cross_encoder import load_tokenizer
from cerank.tokenization.tokens import PairTokenizer, TokenLimits, batches_by_length
from tests.model_fixtures import WORDS


def pair_of(tokens, query, document):
    tokens.clear()
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
    tokenizer = load_tokenizer(minilm.folder)
    tokens = PairTokenizer(tokenizer, TokenLimits(64, 32))
    pair = pair_of(tokens, query, document)
    # as a batch of one: alone, transformers takes an empty document for no document
    expected = tokenizer([query], [document], truncation="only_second", max_length=64)
    batch = tokens.batch([pair], torch.device("cpu"))
    assert batch.ids[0].tolist() == expected["input_ids"][0]
    assert batch.segments[0].tolist() == expected["token_type_ids"][0]


def test_a_long_query_is_cut_to_its_share_and_the_document_keeps_the_rest(tiny):
    tokens = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(16, 5))
    pair = pair_of(tokens, "alpha " * 30, "beta " * 30)
    assert len(pair.ids) == 16
    assert pair.split == 1 + 5 + 1


def test_a_batch_is_padded_to_its_longest_and_masked(tiny):
    tokens = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(16, 8))
    pairs = [pair_of(tokens, "alpha", "beta"), pair_of(tokens, "alpha", "beta gamma delta")]
    batch = tokens.batch(pairs, torch.device("cpu"))
    assert batch.ids.shape == (2, 7)
    assert batch.mask.sum(dim=1).tolist() == [5, 7]
    assert batch.ids[0, 5:].tolist() == [0, 0]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1]]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 200))
def test_batches_hold_every_pair_once_sorted_by_length_within_the_budget(lengths, budget):
    cut = batches_by_length(lengths, budget)
    flat = [index for part in cut for index in part]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths)
    assert all(len(part) == 1 or len(part) * max(lengths[i] for i in part) <= budget for part in cut)


@pytest.mark.parametrize("room", range(8, 26))
def test_longest_first_cuts_a_pair_as_the_tokenizer_itself_does(tiny, room):
    tokenizer = load_tokenizer(tiny.folder)
    for query_size, document_size in itertools.product((1, 5, 9, 10, 11, 20, 60), repeat=2):
        query, document = " ".join((WORDS * 3)[:query_size]), " ".join(reversed((WORDS * 3)[:document_size]))
        tokens = PairTokenizer(tokenizer, TokenLimits(room, room, truncation="longest_first"))
        tokens.add("query", ["q"], lambda _, text=query: [text])
        tokens.add("document", ["d"], lambda _, text=document: [text])
        expected = tokenizer(query, document, truncation="longest_first", max_length=room)["input_ids"]
        assert list(tokens.pair("q", "d").ids) == expected


def test_a_document_keeps_no_more_than_its_own_length(tiny):
    tokenizer = load_tokenizer(tiny.folder)
    tokens = PairTokenizer(tokenizer, TokenLimits(32, 8, max_document_length=3))
    tokens.add("query", ["q"], lambda _: ["alpha beta"])
    tokens.add("document", ["d"], lambda _: [" ".join(WORDS)])
    assert list(tokens.pair("q", "d").ids) == tokenizer("alpha beta", " ".join(WORDS[:3]))["input_ids"]


def test_a_checkpoint_remembers_how_its_pairs_were_cut(tiny, tmp_path):
    cross_encoder.save(
        cross_encoder.load(tiny, "mean", 0),
        load_tokenizer(tiny.folder),
        tmp_path / "one",
        TokenLimits(16, 8, max_document_length=5, truncation="longest_first"),
    )
    mark = cross_encoder.CheckpointConfig.read(tmp_path / "one").limits
    assert (mark.max_length, mark.max_query_length, mark.max_document_length, mark.truncation) == (
        16,
        8,
        5,
        "longest_first",
    )
