"""Passages of documents: as transformers' tokenizers cut them; counts of what is cut off."""

from __future__ import annotations

import random
import re

import pytest

from cerank.datasets.local_folders import FolderDocuments
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import UsageError
from cerank.models.cross_encoder import load_tokenizer
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.tokenization import truncation
from cerank.tokenization.passage_windows import PassageWindows, WindowsInUse, best_passage
from cerank.tokenization.token_store import open_token_store
from cerank.tokenization.tokenize_collection import build
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.tokenization.truncation import Truncation, candidate_truncation, collection_truncation
from tests.model_fixtures import WORDS
from tests.refusals import refused

DRAW = random.Random(4)
DOCUMENTS = {
    f"d{i}": " ".join(DRAW.choices(WORDS, k=size)) for i, size in enumerate([0, 1, 9, 10, 11, 14, 30, 80, 200])
}
QUERY = "alpha beta gamma"


def tokens_of(files, windows, titles=None):
    tokens = PairTokenizer(load_tokenizer(files.folder), TokenLimits(40, 8))
    tokens.use_windows(WindowsInUse(windows, titles))
    tokens.add("query", ["q"], lambda _: [QUERY])
    tokens.add("document", list(DOCUMENTS), lambda ids: [DOCUMENTS[key] for key in ids])
    return tokens


def test_passages_are_those_of_transformers_with_overflowing_tokens(tiny):
    tokenizer = load_tokenizer(tiny.folder)
    tokens = tokens_of(tiny, PassageWindows(max_passages=100, length=10, stride=4))
    for doc, text in list(DOCUMENTS.items())[1:]:  # an empty one has no overflow of its own there
        theirs = tokenizer(
            QUERY, text, truncation="only_second", max_length=3 + 3 + 10, stride=10 - 4, return_overflowing_tokens=True
        )["input_ids"]
        assert [list(pair.ids) for pair in tokens.passages("q", doc)] == theirs


def test_no_more_passages_than_asked_for_and_the_title_before_all_but_the_first(tiny):
    windows = PassageWindows(max_passages=3, length=10, stride=10, title=2)
    tokens = tokens_of(tiny, windows, lambda ids: ["mu nu xi" for _ in ids])
    ids = tokens.tokenizer(DOCUMENTS["d8"], add_special_tokens=False)["input_ids"]
    title = tokens.tokenizer("mu nu", add_special_tokens=False)["input_ids"]
    passages = [list(pair.ids[pair.split : -1]) for pair in tokens.passages("q", "d8")]
    assert passages == [ids[:10], title + ids[10:20], title + ids[20:30]]


def test_a_token_store_gives_the_same_passages(tiny, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    texts = {f"d{i}": " ".join(random.Random(i).choices(WORDS, k=size)) for i, size in enumerate([3, 40, 700])}
    (folder / "docs.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in texts.items()))
    (folder / "queries.tsv").write_text(f"q\t{QUERY}\n")
    dataset = open_dataset(str(folder), tmp_path / "cache")
    tokenizer = load_tokenizer(tiny.folder)
    build(tokenizer, "document", dataset, tmp_path / "cache")
    store = open_token_store(tokenizer, dataset, tmp_path / "cache")
    pairs, counts = [], []
    for used in (None, store):
        tokens = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(40, 8))
        tokens.use_token_store(used)
        counts.append(collection_truncation(tokens, dataset.documents, [QUERY], used))
        tokens.use_windows(WindowsInUse(PassageWindows(max_passages=60, length=20, stride=10)))
        tokens.add("query", ["q"], lambda _: [QUERY])
        tokens.add("document", list(texts), dataset.documents.texts)
        pairs.append([tokens.passages("q", doc) for doc in texts])
    assert pairs[0] == pairs[1]
    assert counts[0] == counts[1]
    assert counts[0].cut == 2


@pytest.mark.parametrize(("length", "fits"), [(29, True), (30, False)])
def test_a_passage_that_leaves_no_room_for_the_query_is_refused(tiny, length, fits):
    tokens = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(40, 8))
    in_use = WindowsInUse(PassageWindows(max_passages=2, length=length, stride=5))
    if fits:
        tokens.use_windows(in_use)
        return
    with refused(UsageError, "passage-too-long", 30, 40, 8):
        tokens.use_windows(in_use)


def test_the_best_passage_has_what_tells_passages_apart_and_the_first_of_equal_ones_wins():
    common, rare, other = 1, 2, 3
    passages = [[common, other, other], [common, rare, other], [common, other, rare], [common, common, common]]
    assert best_passage([common, rare], passages) == 1
    assert best_passage([9], passages) == 0
    assert best_passage([rare], [[rare]]) == 0


def test_windows_come_from_the_table_of_a_recipe():
    assert PassageWindows.of_spec(PassageSpec()) is None
    spec = PassageSpec(aggregation="choose", max_passages=4, length=20, stride=15, title=3)
    windows = PassageWindows.of_spec(spec)
    assert (windows.reach, windows.longest) == (65, 23)


def test_cut_documents_are_counted_beside_their_own_query(tiny, monkeypatch):
    tokens = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(20, 10))
    queries = {"short": "alpha", "long": " ".join(WORDS[:10])}  # 20 - 3 special tokens leave 16 and 7 for a document
    candidates = {"short": ["d2", "d3", "d5", "d6"], "long": ["d4", "d5", "d7", "d1"]}
    texts = (lambda ids: [queries[i] for i in ids]), (lambda ids: [DOCUMENTS[i] for i in ids])
    counted = candidate_truncation(tokens, candidates, *texts)
    assert (counted.documents, counted.cut, counted.is_sample) == (7, 3, False)  # d6, d4, d7
    tokens.use_windows(WindowsInUse(PassageWindows(max_passages=6, length=7, stride=5)))  # 32 tokens
    assert candidate_truncation(tokens, candidates, *texts).cut == 1  # d7
    monkeypatch.setattr(truncation, "SAMPLE", 4)
    sampled = candidate_truncation(tokens, candidates, *texts)
    assert (sampled.documents, sampled.is_sample) == (4, True)
    assert sampled == candidate_truncation(tokens, candidates, *texts)


def test_of_a_large_collection_documents_from_all_over_its_beginning_are_counted(tiny, monkeypatch):
    monkeypatch.setattr(truncation, "SAMPLE", 10)
    tokens = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(20, 10))
    texts = {f"d{number}": " ".join(WORDS if number < 15 else WORDS[:2]) for number in range(30)}
    documents = FolderDocuments(texts, "ab" * 32, "data")
    counted = collection_truncation(tokens, documents, ["alpha"])
    assert (counted.documents, counted.cut, counted.is_sample) == (10, 5, True)
    assert re.findall(r"\d+ %|\d+", str(counted)) == ["50 %", "5", "10"]
    assert "sample" in str(counted)


@pytest.mark.parametrize(("cut", "percent"), [(0, "0 %"), (1, "1 %"), (500, "50 %"), (999, "99 %"), (1000, "100 %")])
def test_a_share_is_0_or_100_percent_only_where_it_is(cut, percent):
    told = str(Truncation(1000, cut, is_sample=False)).partition(" of ")[0]
    assert told.endswith(percent)
    assert (told == percent) == (cut in {0, 500, 1000})


def test_a_long_text_of_few_tokens_is_tokenized_as_a_whole(tiny):
    tokens = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(20, 10))
    spaced = {"few": (" " * 5000).join(WORDS[:3]), "many": (" " * 5000).join(WORDS[:19])}
    texts = (lambda _: ["alpha"]), (lambda ids: [spaced[i] for i in ids])
    assert candidate_truncation(tokens, {"q": list(spaced)}, *texts).cut == 1
