"""ANNCUR and ADACUR compute what their formulas say, spend exactly their budget, and their index survives kills."""

from __future__ import annotations

import numpy as np
import pytest

from cerank.errors import RunFailedError, UsageError
from cerank.retrieval.cur_retrieval import CurSettings, random_anchors, retrieve
from cerank.retrieval.score_matrix import ScoreMatrix
from tests.refusals import refused

QUERIES, DOCUMENTS, RANK = 24, 80, 6


def low_rank(rows: int, seed: int, noise: float = 0.0) -> np.ndarray:
    """Scores of rank `RANK` over the same documents, and some noise."""
    columns = np.random.default_rng(0).normal(size=(RANK, DOCUMENTS))
    draw = np.random.default_rng(seed)
    return draw.normal(size=(rows, RANK)) @ columns + noise * draw.normal(size=(rows, DOCUMENTS))


def built(folder, scores: np.ndarray, shard_scores: int = 5 * DOCUMENTS) -> ScoreMatrix:
    queries, documents = [f"t{i}" for i in range(len(scores))], [f"d{i:02d}" for i in range(scores.shape[1])]
    matrix = ScoreMatrix(folder, queries, documents, shard_scores)
    matrix.build(lambda query: scores[queries.index(query)])
    return matrix


class Calls:
    """A cross-encoder whose scores are known; counts what it is asked."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.asked = scores, []

    def __call__(self, wanted):
        self.asked += [(query, place) for query, places in wanted.items() for place in places]
        return {query: self.scores[int(query[1:]), list(places)] for query, places in wanted.items()}


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_anncur_scores_next_what_numpy_s_pseudo_inverse_puts_first(tmp_path, noise):
    train, test = low_rank(QUERIES, 1, noise), low_rank(3, 2, noise)
    matrix, calls = built(tmp_path / "m", train), Calls(test)
    found = retrieve(matrix, ["q0", "q1", "q2"], calls, CurSettings(method="anncur", budget=18, anchors=10, rcond=1e-6))
    anchors = random_anchors(DOCUMENTS, 10, 42)
    stored = train.astype(np.float32).astype(np.float64)  # as the index keeps them
    by_hand = test[:, anchors] @ np.linalg.pinv(stored[:, anchors], rcond=1e-6) @ stored
    for row, query in enumerate(["q0", "q1", "q2"]):
        others = [place for place in np.argsort(-by_hand[row]) if place not in anchors][:8]
        places = sorted([*anchors, *others], key=lambda place: -test[row, place])
        assert list(found[query]) == [f"d{place:02d}" for place in places]
        assert found.scores(query) == pytest.approx([test[row, place] for place in places])


def test_on_scores_of_low_rank_the_best_documents_are_found_exactly(tmp_path):
    test = low_rank(4, 2)
    for method in ("anncur", "adacur"):
        settings = CurSettings(method=method, budget=20, anchors=10, rounds=3)
        found = retrieve(
            built(tmp_path / method, low_rank(QUERIES, 1)), [f"q{i}" for i in range(4)], Calls(test), settings
        )
        for row in range(4):
            best = np.argsort(-test[row])[:10]
            assert list(found[f"q{row}"][:10]) == [f"d{place:02d}" for place in best]


@pytest.mark.parametrize(("method", "rounds"), [("anncur", 5), ("adacur", 2), ("adacur", 4), ("adacur", 7)])
def test_a_query_costs_exactly_the_budget_and_no_document_is_scored_twice(tmp_path, method, rounds):
    calls = Calls(low_rank(34, 2, noise=1.0))  # more queries than a chunk has
    queries = [f"q{i}" for i in range(34)]
    matrix = built(tmp_path / "m", low_rank(QUERIES, 1, noise=1.0))
    settings = CurSettings(method=method, budget=20, anchors=7, rounds=rounds)
    found = retrieve(matrix, queries, calls, settings)
    assert len(calls.asked) == len(set(calls.asked)) == 20 * 34
    assert {len(found[query]) for query in queries} == {20}
    assert retrieve(matrix, queries, calls, settings) == found


def test_adacur_chooses_each_round_by_all_scores_so_far(tmp_path):
    train, test = low_rank(QUERIES, 1, noise=0.5), low_rank(1, 2, noise=0.5)
    matrix, calls = built(tmp_path / "m", train), Calls(test)
    retrieve(matrix, ["q0"], calls, CurSettings(method="adacur", budget=12, anchors=4, rounds=3, rcond=1e-6))
    asked = [place for _, place in calls.asked]
    stored = train.astype(np.float32).astype(np.float64)
    for before in (4, 8):  # two rounds of four
        scored = asked[:before]
        by_hand = test[0, scored] @ np.linalg.pinv(stored[:, scored], rcond=1e-6) @ stored
        assert asked[before : before + 4] == [p for p in np.argsort(-by_hand, kind="stable") if p not in scored][:4]


def test_singular_values_below_rcond_do_not_count(tmp_path):
    train, test = low_rank(QUERIES, 1, noise=1e-4), low_rank(1, 2, noise=1.0)
    matrix, stored = built(tmp_path / "m", train), train.astype(np.float32).astype(np.float64)
    anchors = random_anchors(DOCUMENTS, 24, 42)
    chosen = {}
    for rcond in (1e-12, 1e-2):
        calls = Calls(test)
        retrieve(matrix, ["q0"], calls, CurSettings(method="anncur", budget=40, anchors=24, rcond=rcond))
        by_hand = test[0, anchors] @ np.linalg.pinv(stored[:, anchors], rcond=rcond) @ stored
        chosen[rcond] = {place for _, place in calls.asked[24:]}
        assert chosen[rcond] == set([place for place in np.argsort(-by_hand) if place not in anchors][:16])
    assert chosen[1e-2] != chosen[1e-12]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"method": "cur"}, "method-unknown"),
        ({"budget": 10}, "budget-too-small"),
        ({"budget": 9}, "budget-too-small"),
        ({"budget": DOCUMENTS + 1}, "budget-too-large"),
        ({"anchors": 0}, "no-anchor"),
        ({"rounds": 1, "method": "adacur"}, "rounds-out-of-range"),
        ({"rounds": 12, "method": "adacur"}, "rounds-out-of-range"),
        ({"rcond": 0.0}, "rcond-out-of-range"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_a_call(tmp_path, changes, code):
    calls = Calls(low_rank(1, 2))
    settings = CurSettings(**{"method": "anncur", "budget": 20, "anchors": 10} | changes)
    with refused(UsageError, code):
        retrieve(built(tmp_path / "m", low_rank(4, 1)), ["q0"], calls, settings)
    assert calls.asked == []


def test_a_matrix_that_was_interrupted_goes_on_with_the_shards_that_are_missing(tmp_path):
    scores = low_rank(12, 1)
    queries, documents = [f"t{i}" for i in range(12)], [f"d{i:02d}" for i in range(DOCUMENTS)]
    matrix, asked = ScoreMatrix(tmp_path / "m", queries, documents, 5 * DOCUMENTS), []

    def stops(query: str):
        asked.append(query)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return scores[queries.index(query)]

    with pytest.raises(KeyboardInterrupt):
        matrix.build(stops)
    assert matrix.missing() == [5, 10]
    again, seen = [], []
    matrix.build(lambda query: again.append(query) or scores[queries.index(query)], lambda *row: seen.append(row))
    assert (again, seen[0], seen[-1]) == (queries[5:], (6, 12), (12, 12))
    assert np.array_equal(np.concatenate([shard for _, shard in matrix.read()]), scores.astype(np.float32))
    assert np.array_equal(matrix.row("t7"), scores[7].astype(np.float32))


def test_a_damaged_shard_is_put_aside_and_made_again(tmp_path):
    scores = low_rank(12, 1)
    matrix = built(tmp_path / "m", scores)
    path = tmp_path / "m" / "rows-00000005" / "scores.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert matrix.missing() == [5]
    assert (tmp_path / "m" / "rows-00000005.bad").is_dir()
    asked = []
    matrix.build(lambda query: asked.append(query) or scores[int(query[1:])])
    assert asked == [f"t{i}" for i in range(5, 10)]
    assert matrix.missing() == []


def test_a_score_that_is_not_finite_is_refused_and_leaves_no_shard(tmp_path):
    scores = low_rank(3, 1)
    scores[1, 7] = np.nan
    with refused(RunFailedError, "score-not-finite", "t1"):
        built(tmp_path / "m", scores)
    assert not list((tmp_path / "m").glob("rows-*"))


def test_the_place_in_the_cache_depends_on_model_queries_and_texts(tmp_path):
    def of(key="a", text="x", ids="q"):
        return ScoreMatrix.in_cache(tmp_path, [key], [(ids, text)], ["d1"]).folder

    assert of() == of()
    assert len({of(), of(key="b"), of(text="y"), of(ids="p")}) == 4
