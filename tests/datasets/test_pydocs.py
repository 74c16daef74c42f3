"""The embedded dataset: deterministic, honest about near-duplicates, large enough."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from cerank.datasets import pydocs
from cerank.datasets.open_datasets import describe, open_dataset
from cerank.datasets.pydocs.clusters import near_pairs
from cerank.datasets.pydocs.docstrings import parse_docstring, split_sentences, words
from cerank.errors import MissingError
from tests.refusals import refused


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    pydocs.materialize(folder)
    return folder


@pytest.fixture(scope="module")
def splits(cache):
    return {name: open_dataset(f"pydocs/{name}", cache) for name in pydocs.SPLITS}


def plain(text):
    return " ".join(words(text))


@pytest.mark.thorough
def test_there_are_at_least_300_test_queries_and_ten_times_as_many_to_train_on(splits):
    assert len(splits["test"].queries) >= 300
    assert len(splits["validation"].queries) >= 200
    assert len(splits["train"].queries) >= 3000


def test_every_judged_document_is_there_and_no_query_stands_in_its_own_document(splits):
    for data in splits.values():
        assert data.judged_without_text() == 0
        for query, text in data.queries.items():
            for doc in data.qrels[query]:
                assert f" {plain(text)} " not in f" {plain(data.documents.text(doc))} ", query


def test_near_equal_queries_never_stand_in_two_splits(splits):
    texts = [(name, text) for name, data in splits.items() for text in data.queries.values()]
    pairs = list(near_pairs([frozenset(words(text)) for _, text in texts], 0.75))
    crossing = [pair for pair in pairs if len({texts[place][0] for place in pair}) > 1]
    assert not [pair for pair in crossing if "train" not in {texts[place][0] for place in pair}]
    # a held-out sentence of a training docstring may resemble a summary of another split, but hardly ever does
    assert len(crossing) < 0.01 * len(splits["test"].queries)


def test_documents_of_test_queries_are_not_in_the_training_collection(splits):
    asked = {doc for row in splits["test"].qrels.values() for doc in row}
    assert not [doc for doc in asked if doc in splits["train"].documents]


@pytest.mark.slow
def test_it_is_the_same_whatever_the_program_has_loaded_and_however_python_hashes(cache, tmp_path):
    code = "import sys, torch, rich.traceback; rich.traceback.install(); sys.excepthook = print\n"
    code += "from pathlib import Path; from cerank.datasets.open_datasets import describe\n"
    code += "print(describe('pydocs/test', Path(sys.argv[1])).fingerprint)"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "COLUMNS": "33", "LC_ALL": "C"}
    command = [sys.executable, "-c", code, str(tmp_path / "other")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert out.strip() == describe("pydocs/test", cache).fingerprint


def test_its_description_says_what_it_is_not(cache):
    text = describe("pydocs/test", cache).description
    assert "known-item" in text
    assert "not a test collection" in text


def test_a_python_without_docstrings_is_refused_with_the_reason(tmp_path, monkeypatch):
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'ValueError: 3 test queries are too few' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with refused(MissingError, "pydocs-unavailable"):
        pydocs.materialize(tmp_path / "cache")
    assert not list((tmp_path / "cache" / "pydocs").glob("v*"))


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ("Return the sum.\n\nMore.", "Return the sum."),
        ("f(a, b) -> int\n\nReturn the sum of both.", "Return the sum of both."),
        ("f(a[, b])\n--\n\nReturn it. And more.", "Return it."),
        ("Two lines\nof one sentence. Next.", "Two lines of one sentence."),
    ],
)
def test_a_summary_is_the_first_sentence_without_any_signature(docstring, summary):
    assert parse_docstring("mod.f", "(a, b)", docstring).summary == summary


def test_abbreviations_followed_by_lower_case_do_not_end_a_sentence():
    assert split_sentences("Use e.g. this one. Then that.") == ["Use e.g. this one.", "Then that."]


def test_near_pairs_are_those_of_brute_force():
    texts = ["a b c d", "a b c", "x y z", "a b c d e", "x y", "q"]
    sets = [frozenset(re.findall(r"\w", text)) for text in texts]
    brute = {
        (i, j)
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if len(sets[i] & sets[j]) >= 0.6 * len(sets[i] | sets[j])
    }
    assert {tuple(sorted(pair)) for pair in near_pairs(sets, 0.6)} == brute
