"""Filters against false negatives: each against numbers by hand, and all margins against sentence-transformers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cerank.errors import FormatError
from cerank.recipes.sections.negative_specs import FalseNegativeFilters
from cerank.retrieval.false_negatives import (
    DroppedNegative,
    by_query,
    count_dropped,
    filter_query,
    list_bytes,
    read_list,
)

CANDIDATES = {f"d{place}": ("first-stage", place) for place in range(1, 6)}
SCORES = {"p": 10.0, "d1": 9.8, "d2": 9.4, "d3": 8.0, "d4": 11.0, "d5": -3.0}


def dropped(scores=SCORES, positives=("p",), texts=None, **filters):
    found = filter_query(
        FalseNegativeFilters(**filters), "q", list(positives), CANDIDATES, scores=scores, texts=texts or {}
    )
    return {entry.document: entry.filter for entry in found}


def test_the_relative_margin_drops_what_scores_above_a_share_of_the_positive() -> None:
    assert dropped(relative_margin=0.05) == dict.fromkeys(("d1", "d4"), "relative-margin")


def test_the_absolute_margin_drops_what_scores_above_the_positive_less_it() -> None:
    assert dropped(absolute_margin=1.0) == dict.fromkeys(("d1", "d2", "d4"), "absolute-margin")


def test_the_highest_score_that_is_allowed_is_kept() -> None:
    assert dropped(max_score=9.4) == dict.fromkeys(("d1", "d4"), "max-score")


def test_top_p_drops_the_fewest_best_that_hold_the_share_of_the_softmax() -> None:
    # exp of the differences to 11: 1, .368 (p), .301, .202, .050: 1.92 in all, of which d4 holds .52, with p .71
    assert dropped(top_p=0.5) == {"d4": "top-p"}
    assert dropped(top_p=0.75) == dict.fromkeys(("d1", "d4"), "top-p")


def test_a_negative_score_of_a_positive_lowers_the_limit_and_never_raises_it() -> None:
    scores = {"p": -2.0, "d1": -2.05, "d2": -2.2, "d3": -5.0}
    assert dropped(scores, relative_margin=0.05) == {"d1": "relative-margin"}


def test_of_several_positives_the_lowest_counts_unless_the_recipe_says_the_highest() -> None:
    scores = {**SCORES, "p2": 8.5}
    assert set(dropped(scores, ("p", "p2"), relative_margin=0.0)) == {"d1", "d2", "d4"}
    assert set(dropped(scores, ("p", "p2"), relative_margin=0.0, positive="highest")) == {"d4"}


def test_candidates_without_a_score_are_kept_or_dropped_as_the_recipe_says() -> None:
    scores = {"p": 1.0, "d1": 0.5}
    assert dropped(scores, relative_margin=0.0) == {}
    assert set(dropped(scores, relative_margin=0.0, unscored="drop")) == {"d2", "d3", "d4", "d5"}
    of_positive = dropped({"d1": 0.5}, relative_margin=0.0, unscored="drop")
    assert of_positive["d1"] == "unscored-positive"


def test_texts_that_share_enough_words_with_a_positive_are_near_duplicates() -> None:
    texts = {"p": "The flow, of air.", "d1": "the Flow of AIR", "d2": "the flow of hot air", "d3": "heat", "d4": ""}
    assert dropped(texts=texts, near_duplicates=1.0) == {"d1": "near-duplicate"}
    assert set(dropped(texts=texts, near_duplicates=0.8)) == {"d1", "d2"}


def test_each_candidate_is_counted_for_the_first_filter_that_drops_it() -> None:
    found = filter_query(
        FalseNegativeFilters(relative_margin=0.05, max_score=9.0), "q", ["p"], CANDIDATES, scores=SCORES, texts={}
    )
    assert count_dropped(found) == {"relative-margin": 2, "max-score": 1}
    assert by_query(found) == {"q": frozenset({"d1", "d2", "d4"})}


def test_the_list_of_dropped_candidates_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        DroppedNegative("q", "d1", "first-stage", 3, "relative-margin", 0.1 + 0.2, 1e-9),
        DroppedNegative("q", "d2", "mined ./a b.run", 1, "near-duplicate", 1.0, None),
    ]
    path = tmp_path / "list.tsv.gz"
    path.write_bytes(list_bytes(rows))
    assert read_list(path) == rows
    assert list_bytes(rows) == list_bytes(rows)


def test_a_damaged_list_is_refused(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "list.tsv.gz"
    path.write_bytes(gzip.compress(b"query\nq\td1\n"))
    with pytest.raises(FormatError):
        read_list(path)


@pytest.mark.slow
def test_margins_and_the_highest_score_keep_the_negatives_that_sentence_transformers_keeps() -> None:
    """`mine_hard_negatives` over 12 texts whose similarities to 12 queries are given numbers."""
    pytest.importorskip("datasets")
    torch = pytest.importorskip("torch")
    hard_negatives = pytest.importorskip("sentence_transformers.util.hard_negatives")
    import datasets

    generator, count = random.Random(7), 12
    queries, texts = [f"query {n}" for n in range(count)], [f"text {n}" for n in range(count)]
    scores = {(q, d): generator.uniform(-1, 1) for q in queries for d in texts}

    class Model:
        """Gives the similarities of the table in place of those of vectors."""

        device = torch.device("cpu")

        def encode_query(self, given, **_):
            return torch.tensor([[float(queries.index(text))] for text in given]).numpy()

        def encode_document(self, given, **_):
            return torch.tensor([[float(texts.index(text))] for text in given]).numpy()

        def similarity(self, left, right):
            rows = [[scores[queries[int(q)], texts[int(d)]] for d in right[:, 0]] for q in left[:, 0]]
            return torch.tensor(rows, dtype=torch.float64)

        def similarity_pairwise(self, left, right):
            pairs = zip(left[:, 0], right[:, 0], strict=True)
            return torch.tensor([scores[queries[int(q)], texts[int(d)]] for q, d in pairs], dtype=torch.float64)

    # two positives for the first three queries, one for the others
    relevant = {query: [texts[at], *([texts[at + 5]] if at < 3 else [])] for at, query in enumerate(queries)}
    pairs = [(query, doc) for query, docs in relevant.items() for doc in docs]
    data = datasets.Dataset.from_dict({"query": [q for q, _ in pairs], "answer": [d for _, d in pairs]})
    differing = 0
    for settings in (
        {"relative_margin": 0.05},
        {"relative_margin": 0.5},
        {"absolute_margin": 0.3},
        {"max_score": 0.4},
        {"absolute_margin": 0.1, "relative_margin": 0.2, "max_score": 0.5},
    ):
        theirs = hard_negatives.mine_hard_negatives(
            data, Model(), corpus=texts, range_max=count, num_negatives=count, sampling_strategy="top",
            output_format="triplet", verbose=False, **settings,
        )  # fmt: skip
        kept = {(row["query"], row["negative"]) for row in theirs}
        ours = set()
        for query in queries:
            candidates = {doc: ("first-stage", 1) for doc in texts if doc not in relevant[query]}
            of_query = {doc: scores[query, doc] for doc in texts}
            found = filter_query(
                FalseNegativeFilters(**settings), query, relevant[query], candidates, scores=of_query, texts={}
            )
            gone = {entry.document for entry in found}
            ours |= {(query, doc) for doc in candidates if doc not in gone}
        assert ours == kept, settings
        differing += len(ours) < sum(count - len(docs) for docs in relevant.values())
    assert differing == 5  # each of the settings dropped something
