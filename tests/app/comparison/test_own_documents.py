"""A hint at queries that are documents comes only where ids that are equal mean the same text."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.comparison.comparisons import ComparisonRequest, measured_systems
from cerank.app.comparison.named_systems import target
from cerank.settings import Settings


def _notes(folder: Path, lists: dict[str, str], relevant: dict[str, str], texts: dict[str, str] | None = None) -> str:
    """The notes on a run, on a dataset with these query texts or, without texts, on a file of qrels.

    Args:
        folder: where the files are written.
        lists: query -> its documents, best first.
        relevant: query -> its relevant document.
        texts: query -> its text; each document `d` has the text "text of d".
    """
    rows = [
        f"{query} Q0 {doc} {rank} {-rank} t\n"
        for query, docs in lists.items()
        for rank, doc in enumerate(docs.split(), 1)
    ]
    (folder / "a.run").write_text("".join(rows))
    (folder / "data").mkdir()
    judged = folder / "data" / "qrels"
    judged.write_text("".join(f"{query} 0 {doc} 1\n" for query, doc in relevant.items()))
    request = ComparisonRequest(measures=("RR",), qrels=str(judged))
    if texts is not None:
        (folder / "data" / "queries.tsv").write_text("".join(f"{query}\t{text}\n" for query, text in texts.items()))
        documents = dict.fromkeys(doc for docs in lists.values() for doc in docs.split())
        (folder / "data" / "docs.tsv").write_text("".join(f"{doc}\ttext of {doc}\n" for doc in documents))
        (folder / "data" / "collection.toml").write_text("ignore_identical_ids = false\n")
        request = ComparisonRequest(measures=("RR",), dataset=str(folder / "data"))
    settings = Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")
    systems, _ = measured_systems(settings, [target(settings.lab, str(folder / "a.run"))], request)
    return " ".join(systems[0].notes)


COPIES = {"1": "1 7 8", "2": "2 7 8", "3": "9 7 8"}  # of three queries two rank the document with their id first
CHANCE = {"1": "7 1 8", "2": "9 7 2", "3": "9 7 8"}
ANSWERS = {"1": "8", "2": "8", "3": "7"}


@pytest.mark.parametrize(
    ("lists", "relevant", "hinted"),
    [
        (COPIES, ANSWERS, True),
        (CHANCE, ANSWERS, False),
        ({**CHANCE, "2": "2 7 9"}, ANSWERS, False),  # one of three queries
        (COPIES, {"1": "1", "2": "2", "3": "7"}, False),  # the documents of that id are the answers
        ({"a1": "x a1 y", "a2": "x y"}, {"a1": "x", "a2": "y"}, True),  # no numbers
    ],
)
def test_without_texts_equal_numbers_count_where_most_queries_rank_them_first(tmp_path, lists, relevant, hinted):
    assert ("ignore_identical_ids" in _notes(tmp_path, lists, relevant)) == hinted


@pytest.mark.parametrize("lists", [COPIES, CHANCE])
@pytest.mark.parametrize("is_text", [True, False])
def test_with_texts_equal_ids_count_where_the_texts_are_the_same(tmp_path, lists, is_text):
    texts = {query: f"text of {query}" if is_text else f"question {query}" for query in lists}
    notes = _notes(tmp_path, lists, ANSWERS, texts)
    assert ("ignore_identical_ids" in notes) == is_text
    assert ("2 of 3 queries" in notes) == is_text
