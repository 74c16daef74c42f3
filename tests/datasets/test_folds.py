"""Folds of queries: disjoint, even, stratified, near-duplicates together; and those that others published."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from cerank.datasets import folds
from cerank.datasets.open_datasets import open_dataset, whole_and_part
from cerank.datasets.query_text import NEAR
from cerank.errors import FormatError, UsageError
from tests.refusals import refused

DRAW = random.Random(2)
WORDS = [f"w{number}" for number in range(400)]
QUERIES = {f"q{at}": " ".join(DRAW.sample(WORDS, 6)) for at in range(53)}
QRELS = {query: {f"d{rank}": 1 for rank in range(1 + at % 20)} for at, query in enumerate(QUERIES)}


def write_dataset(folder: Path, queries: dict[str, str] = QUERIES, qrels: dict[str, dict[str, int]] = QRELS) -> str:
    folder.mkdir(parents=True)
    (folder / "queries.tsv").write_text("".join(f"{query}\t{text}\n" for query, text in queries.items()))
    (folder / "docs.tsv").write_text("".join(f"d{number}\ta text\n" for number in range(20)))
    rows = [f"{query} 0 {doc} {grade}\n" for query, row in qrels.items() for doc, grade in row.items()]
    (folder / "qrels").write_text("".join(rows))
    return str(folder)


def test_each_query_is_tested_once_and_never_in_the_training_of_that_round(tmp_path):
    name = write_dataset(tmp_path / "data")
    tested: list[str] = []
    for number in range(1, 6):
        parts = [open_dataset(part, tmp_path / "cache") for part in folds.fold_names(name, number, 5, "5")]
        train, validation, test = (set(part.queries) for part in parts)
        assert len(train) + len(validation) + len(test) == 53
        assert train | validation | test == set(QUERIES)
        tested += test
    assert sorted(tested) == sorted(QUERIES)


def test_folds_are_even_and_have_as_many_queries_with_few_relevant_documents():
    fold_of = folds.assign_folds(QUERIES, QRELS, 5, "data")
    members = {number: [query for query in QUERIES if fold_of[query] == number] for number in range(1, 6)}
    assert sorted(len(each) for each in members.values()) == [10, 10, 11, 11, 11]
    means = [sum(len(QRELS[query]) for query in each) / len(each) for each in members.values()]
    assert max(means) - min(means) < 1.5
    assert fold_of == folds.assign_folds(dict(reversed(QUERIES.items())), QRELS, 5, "data")


def test_queries_of_nearly_one_text_are_in_one_fold():
    alike = {
        "a1": "How do I sort a list of numbers in python",
        "a2": "how do I sort the list of numbers in Python?",
        "b1": QUERIES["q1"],
        "b2": " ".join(reversed(QUERIES["q1"].split())),
    }
    fold_of = folds.assign_folds(QUERIES | alike, QRELS, 5, "data")
    assert fold_of["a1"] == fold_of["a2"]
    assert fold_of["b1"] == fold_of["b2"] == fold_of["q1"]


def test_near_duplicates_are_those_that_comparing_every_pair_finds():
    draw = random.Random(5)
    texts = {f"q{at}": " ".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for at in range(80)}
    words = {query: set(text.split()) for query, text in texts.items()}
    group_of = {query: at for at, group in enumerate(folds.near_duplicates(texts)) for query in group}
    links = [
        (left, right)
        for left in texts
        for right in texts
        if left < right and len(words[left] & words[right]) >= NEAR * len(words[left] | words[right])
    ]
    assert all(group_of[left] == group_of[right] for left, right in links)
    reached = {query: query for query in texts}
    for _ in texts:
        for left, right in links:
            reached[left] = reached[right] = min(reached[left], reached[right])
    assert len(set(group_of.values())) == len(set(reached.values()))


@pytest.mark.parametrize(
    "content",
    [
        [["q1", "q2"], ["q3"], ["q4", "q5"]],
        {"f1": ["q1", "q2"], "f2": ["q3"], "f3": ["q4", "q5"]},
        {
            f"s{number}": {"train_qids": ["x"], "predict": {"dev": {"y": []}, "test": test}}
            for number, test in enumerate([["q1", "q2"], ["q3"], ["q4", "q5"]], 1)
        },
    ],
    ids=["lists", "lists by name", "Capreolus"],
)
def test_published_folds_are_read(content, tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps(content))
    assert folds.read_folds(str(path)) == [["q1", "q2"], ["q3"], ["q4", "q5"]]


def test_numbers_as_ids_are_taken_as_text(tmp_path):
    path = tmp_path / "folds.json"
    path.write_text("[[301, 302], [303], [304]]")
    assert folds.read_folds(str(path))[0] == ["301", "302"]


@pytest.mark.parametrize("content", ["{", "[]", "[[]]", '{"a": {"predict": 3}}', '"q1"', '[["q1"], ["q1"]]', "[1, 2]"])
def test_a_file_that_holds_no_folds_is_refused(content, tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(content)
    with refused(FormatError, "folds-format", str(path)):
        folds.read_folds(str(path))


def test_a_dataset_is_cut_by_a_file_and_has_the_identity_of_its_queries(tmp_path):
    queries = list(QUERIES)
    name = write_dataset(tmp_path / "data")
    for file in ("one.json", "two.json"):
        (tmp_path / file).write_text(json.dumps([queries[:20], queries[20:40], queries[40:]]))
    part = open_dataset(f"{name}[fold=2/{tmp_path / 'one.json'}]", tmp_path / "cache")
    assert list(part.queries) == queries[20:40]
    moved = open_dataset(f"{name}[fold=2/{tmp_path / 'two.json'}]", tmp_path / "cache")
    assert part.fingerprint() == moved.fingerprint()
    other = open_dataset(f"{name}[fold=1/{tmp_path / 'one.json'}]", tmp_path / "cache")
    assert part.fingerprint() != other.fingerprint()


def test_a_file_that_splits_nearly_equal_queries_is_told_of(tmp_path):
    queries = QUERIES | {"q0b": QUERIES["q0"]}
    name = write_dataset(tmp_path / "data", queries)
    (tmp_path / "f.json").write_text(json.dumps([["q0"], ["q0b"], [query for query in QUERIES if query != "q0"]]))
    qrels = QRELS | {"q0b": {"d1": 1}}
    name = write_dataset(tmp_path / "judged", queries, qrels)
    part = open_dataset(f"{name}[fold=1/{tmp_path / 'f.json'}]", tmp_path / "cache")
    assert any("q0b" in note for note in part.notes)


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("[fold=6/5]", "fold-not-found"),
        ("[fold=0/5]", "fold-not-found"),
        ("[fold=x/5]", "fold-not-found"),
        ("[fold=1/1]", "folds-too-few"),
        ("[fold=1/54]", "folds-too-many"),
    ],
)
def test_parts_that_are_no_folds_are_refused(part, code, tmp_path):
    name = write_dataset(tmp_path / "data")
    with refused(UsageError, code):
        open_dataset(name + part, tmp_path / "cache")


def test_queries_that_a_file_leaves_out_are_refused(tmp_path):
    name = write_dataset(tmp_path / "data")
    (tmp_path / "f.json").write_text(json.dumps([["q0"], ["q1"], ["q2"]]))
    with refused(UsageError, "folds-incomplete", "50"):
        open_dataset(f"{name}[fold=1/{tmp_path / 'f.json'}]", tmp_path / "cache")


def test_a_fold_is_a_part_of_a_name_and_its_size_is_known_about():
    assert whole_and_part("/a/b[fold!=2,3/5]") == ("/a/b", "[fold!=2,3/5]")
    assert folds.size_of(folds.parse_fold("[fold!=2,3/5]"), 100) == 60
    assert folds.size_of(folds.parse_fold("[fold=2/5]"), 100) == 20
