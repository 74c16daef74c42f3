"""Token ids from the store are those of tokenizing on the fly, however often its making was cut."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from cerank.datasets.open_datasets import open_dataset
from cerank.errors import UsageError
from cerank.files import disk
from cerank.models.cross_encoder import load_tokenizer
from cerank.tokenization import token_store, tokenize_collection, tokens
from cerank.tokenization.token_store import open_shard, open_token_store, tokenizer_sha256
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from tests.refusals import refused

TEXTS = ["alpha beta", "", "gamma " * 900, "東京 naïve alpha", "beta\tbeta", "kappa"] + [
    f"mu nu xi {i}" for i in range(40)
]


def dataset_of(folder: Path, cache: Path, ids=None):
    folder.mkdir()
    ids = ids or [str(place) for place in range(len(TEXTS))]
    texts = [text.replace("\t", " ") for text in TEXTS]
    (folder / "docs.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in zip(ids, texts, strict=True)))
    (folder / "queries.tsv").write_text("q1\talpha beta\nq2\tgamma\n")
    return open_dataset(str(folder), cache)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(tokenize_collection, "PIECE_TEXTS", 7)


def pairs_of(tokens: PairTokenizer, dataset, keys):
    tokens.add("query", list(dataset.queries), lambda ids: [dataset.queries[key] for key in ids])
    tokens.add("document", keys, dataset.documents.texts)
    return [tokens.pair(query, key) for query in dataset.queries for key in keys]


def fail_if_read(_ids):
    pytest.fail("a text that is in the store was tokenized again")


@pytest.mark.parametrize("named", ["{}", "doc-{}"])
@pytest.mark.parametrize("length", [16, 64, 600])
def test_pairs_from_the_store_equal_those_tokenized_on_the_fly(minilm, tmp_path, named, length):
    ids = [named.format(place) for place in range(len(TEXTS))]
    dataset = dataset_of(tmp_path / "set", tmp_path / "cache", ids)
    tokenizer = load_tokenizer(minilm.folder)
    plain = PairTokenizer(tokenizer, TokenLimits(length, 32))
    expected = pairs_of(plain, dataset, ids)
    for kind in ("document", "query"):
        shelf = tokenize_collection.build(tokenizer, kind, dataset, tmp_path / "cache")
        assert tokenize_collection.verify(shelf)
    store = open_token_store(tokenizer, dataset, tmp_path / "cache")
    read = PairTokenizer(tokenizer, TokenLimits(length, 32))
    read.use_token_store(store)
    if length <= token_store.MAX_STORED_TOKENS:
        read.add("query", list(dataset.queries), fail_if_read)
        read.add("document", ids, fail_if_read)
    assert pairs_of(read, dataset, ids) == expected
    shelf = store.shard("document")
    assert store.lengths("document", [*ids, "nowhere"]).tolist() == [
        *(len(shelf.ids(row)) for row in range(len(ids))),
        -1,
    ]
    assert shelf.tokens.dtype == np.uint16
    assert store.ids_of_many("document", ["nowhere", ids[0]], 8)[0] is None
    assert store.ids("document", ids[2], 9).tolist() == shelf.ids(2).tolist()[:9]


def test_a_text_longer_than_is_kept_is_tokenized_by_whoever_wants_more_of_it(tiny, tmp_path):
    dataset = dataset_of(tmp_path / "set", tmp_path / "cache")
    tokenizer = load_tokenizer(tiny.folder)
    tokenize_collection.build(tokenizer, "document", dataset, tmp_path / "cache")
    store = open_token_store(tokenizer, dataset, tmp_path / "cache")
    assert len(store.ids("document", "2", token_store.MAX_STORED_TOKENS)) == token_store.MAX_STORED_TOKENS
    assert store.ids("document", "2", token_store.MAX_STORED_TOKENS + 1) is None
    assert store.ids("document", "1", token_store.MAX_STORED_TOKENS + 1).tolist() == []
    assert store.ids("query", "q1", 9) is None  # queries were not asked for


def test_the_real_collection_is_kept_as_it_is_tokenized(minilm, shared, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenize_collection, "PIECE_TEXTS", 300)
    dataset = open_dataset(str(shared / "med"), tmp_path)
    tokenizer = load_tokenizer(minilm.folder)
    tokenize_collection.build(tokenizer, "document", dataset, tmp_path)
    tokenize_collection.build(tokenizer, "query", dataset, tmp_path)
    read, plain = PairTokenizer(tokenizer, TokenLimits(200, 32)), PairTokenizer(tokenizer, TokenLimits(200, 32))
    read.use_token_store(open_token_store(tokenizer, open_dataset(f"{shared / 'med'}[:50%]", tmp_path), tmp_path))
    keys = [key for key, _ in itertools.islice(dataset.documents, 200)]
    part = open_dataset(f"{shared / 'med'}[:50%]", tmp_path)
    read.add("query", list(part.queries), fail_if_read)
    read.add("document", keys, fail_if_read)
    plain.add("query", list(part.queries), lambda ids: [part.queries[key] for key in ids])
    plain.add("document", keys, dataset.documents.texts)
    assert all(read.pair(query, key) == plain.pair(query, key) for query in part.queries for key in keys)


def test_it_goes_on_after_a_crash_at_any_write_to_the_same_bytes(tiny, tmp_path):
    class Crash(BaseException):
        pass

    dataset = dataset_of(tmp_path / "set", tmp_path / "cache", [f"d{place}" for place in range(len(TEXTS))])
    tokenizer = load_tokenizer(tiny.folder)
    whole = tokenize_collection.build(tokenizer, "document", dataset, tmp_path / "whole")
    for last in itertools.count(1, 11):
        count = itertools.count(1)

        def watch(_name, _path, count=count, last=last):
            if next(count) >= last:
                raise Crash

        try:
            with disk.observe(watch):
                tokenize_collection.build(tokenizer, "document", dataset, tmp_path / str(last))
        except Crash:
            shelf = tokenize_collection.build(tokenizer, "document", dataset, tmp_path / str(last))
            assert shelf.contents == whole.contents
            assert tokenize_collection.verify(shelf)
            spare = {path.name for path in shelf.folder.iterdir()} - {path.name for path in whole.folder.iterdir()}
            assert spare <= {"lengths.bin", "progress.json"}  # of no use, and only where the very end was cut
            continue
        break
    assert last > 60


def test_what_was_done_before_a_kill_is_not_done_again(tiny, tmp_path):
    dataset = dataset_of(tmp_path / "set", tmp_path / "cache")
    tokenizer = load_tokenizer(tiny.folder)

    def stop(rows, _tokens):
        if rows == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize_collection.build(tokenizer, "document", dataset, tmp_path, stop)
    seen = []
    shelf = tokenize_collection.build(tokenizer, "document", dataset, tmp_path, lambda rows, _: seen.append(rows))
    assert seen == [28, 35, 42, 46]
    assert len(shelf) == 46


def test_a_store_is_found_by_what_a_tokenizer_does_and_by_the_collection(tiny, minilm, tmp_path):
    dataset = dataset_of(tmp_path / "set", tmp_path)
    tokenizer = load_tokenizer(tiny.folder)
    assert open_token_store(tokenizer, dataset, tmp_path) is None
    shelf = tokenize_collection.build(tokenizer, "document", dataset, tmp_path)
    tokenizer(["alpha beta"], truncation=True, max_length=8, padding=True)
    tokenizer.save_pretrained(tmp_path / "elsewhere")
    again = load_tokenizer(tmp_path / "elsewhere")
    assert tokenizer_sha256(again) == tokenizer_sha256(tokenizer)
    assert open_token_store(again, dataset, tmp_path) is not None
    assert open_token_store(load_tokenizer(minilm.folder), dataset, tmp_path) is None
    (tmp_path / "set" / "docs.tsv").write_text("1\tother\n")
    assert open_token_store(tokenizer, open_dataset(str(tmp_path / "set"), tmp_path), tmp_path) is None
    (shelf.folder / "ids.bin").write_bytes(b"")
    assert open_shard(shelf.folder) is None
    with refused(UsageError, "token-store-missing"):
        tokenize_collection.build(tokenizer, "query", open_dataset(f"{tmp_path / 'set'}[:1]", tmp_path), tmp_path)


def test_texts_beyond_what_is_remembered_are_dropped_and_read_again(tiny, monkeypatch):
    monkeypatch.setattr(tokens, "MAX_REMEMBERED_TEXTS", 5)
    made = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(16, 8))
    for step in range(6):
        made.add("query", [f"q{step}"], lambda ids: ["alpha"])
        made.add("document", [f"{step}-{i}" for i in range(4)], lambda ids: ["beta"] * len(ids))
        assert made.pair(f"q{step}", f"{step}-3").ids
        assert len(made) <= 10
