"""A kept score is the one that computing would give, bit for bit, and only new blocks are computed."""

from __future__ import annotations

import pytest

from cerank.inference.rerank import Scorer, rerank
from cerank.inference.score_cache import ScoreCache, score_cache_key
from cerank.models.cross_encoder import load, load_tokenizer
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from tests.model_fixtures import WORDS

DOCUMENTS = {f"d{n}": " ".join(WORDS[(n * 7 + j) % 20] for j in range(1 + n % 9)) for n in range(40)}
QUERIES = {f"q{n}": f"{WORDS[n]} {WORDS[-n]}" for n in range(5)}


class Counting(Scorer):
    """A scorer that counts the pairs it computes."""

    def __init__(self, files):
        super().__init__(load(files, "auto", 3), PairTokenizer(load_tokenizer(files.folder), TokenLimits(24, 8)))
        self.pairs = 0

    def score_pairs(self, pairs):
        self.pairs += len(pairs)
        return super().score_pairs(pairs)


@pytest.fixture
def scorer(tiny):
    return Counting(tiny)


def run(scorer, candidates, cache, store=None):
    """Return the scores of all candidates, with blocks of 8."""
    texts = (lambda ids: [QUERIES[i] for i in ids]), (lambda ids: [DOCUMENTS[i] for i in ids])
    scores, pairs = {}, 0
    for chunk in rerank(scorer, candidates, candidates.get, *texts, cache=cache, store=store, block_depth=8):
        scores |= chunk.scores
        pairs += chunk.pairs
    assert pairs <= scorer.pairs
    return scores


def lists(depth, start=0):
    return {query: [f"d{(start + n * 3 + at) % 40}" for at in range(depth)] for n, query in enumerate(QUERIES)}


def test_scores_are_the_same_bits_whether_kept_or_computed(scorer, tmp_path):
    kept = ScoreCache(tmp_path, ["m"])
    wanted = lists(20)
    fresh = run(scorer, wanted, None)
    assert run(scorer, wanted, kept) == fresh
    assert scorer.pairs == 200
    assert run(scorer, wanted, kept) == fresh
    assert scorer.pairs == 200
    assert [list(row) for row in fresh.values()] == list(wanted.values())


def test_a_deeper_list_computes_only_its_new_blocks_and_gives_the_bits_of_computing_all(scorer, tmp_path):
    kept = ScoreCache(tmp_path, ["m"])
    run(scorer, lists(8), kept)
    assert scorer.pairs == 40
    deeper = run(scorer, lists(24), kept)
    assert scorer.pairs == 120
    assert deeper == run(scorer, lists(24), None)


def test_a_further_first_stage_behind_the_ones_before_computes_only_what_it_brings(scorer, tmp_path):
    kept = ScoreCache(tmp_path, ["m"])
    before = lists(8)
    run(scorer, before, kept)
    both = {query: list(dict.fromkeys([*docs, *lists(8, start=5)[query]])) for query, docs in before.items()}
    found = run(scorer, both, kept)
    assert scorer.pairs == 40 + sum(len(docs) - 8 for docs in both.values())
    assert found == run(scorer, both, None)


def test_lists_of_unlike_lengths_and_empty_ones_are_scored_whole(scorer, tmp_path):
    wanted = {"q0": ["d1"], "q1": [f"d{n}" for n in range(19)], "q2": []}
    found = run(scorer, wanted, ScoreCache(tmp_path, ["m"]))
    assert {query: list(row) for query, row in found.items()} == wanted
    assert found == run(scorer, wanted, ScoreCache(tmp_path, ["m"]))


def test_whatever_moves_a_bit_is_part_of_the_identity():
    base = {"device": "cpu", "threads": 2, "precision": "fp32"}
    known = {score_cache_key("m", "t", **base)}
    known.add(score_cache_key("n", "t", **base))
    known.add(score_cache_key("m", "u", **base))
    known.add(score_cache_key("m", "t", **{**base, "threads": 1}))
    known.add(score_cache_key("m", "t", **{**base, "precision": "bf16"}))
    assert len(known) == 5
    assert score_cache_key("m", "t", **base) in known
