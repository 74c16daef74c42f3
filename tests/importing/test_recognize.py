from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from cerank.errors import UsageError
from cerank.importing.import_files import recognize
from tests.refusals import refused

TEXTS = {
    "flag-embedding": '{"query":"cat","pos":["a cat"],"neg":[]}\n',
    "sentence-transformers": '{"anchor":"cat","positive":"a cat","negative":"a dog"}\n',
    "tevatron": '{"query_id":"1","query":"cat","positive_passages":[],"negative_passages":[]}\n',
    "tevatron-ids": '{"query_id":"1","query_text":"cat","positive_document_ids":["7"]}\n',
    "openmatch-triples": '{"query":"cat","doc_pos":"a cat","doc_neg":"a dog"}\n',
    "rank-llm": '{"query":{"text":"cat","qid":1},"candidates":[]}\n',
    "tirex": '{"qid":"1","query":"cat","docno":"d","text":"a cat","rank":1}\n',
    "sbert-hard-negatives": '{"qid":1,"pos":[7],"neg":{"bm25":[8]}}\n',
    "colbert-triples": "[0, 12692, 48199]\n",
    "run": "1 Q0 a 1 3 r\n",
    "msmarco-text-triples": "cat\ta cat\ta dog\n",
    "ensemble-scores": "1.5\t0.5\t1\t2\t3\n",
    "ensemble-scores-text": "1.5\t0.5\tcat\ta cat\ta dog\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_format_is_told_by_its_first_record(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(TEXTS[name])
    assert recognize([tmp_path / "file"]) == name


def test_parquet_is_told_by_its_columns(tmp_path: Path) -> None:
    pl.DataFrame({"qid": ["1"], "docno": ["d"], "score": [1.0]}).write_parquet(tmp_path / "run")
    pl.DataFrame({"query": ["x"], "positive": ["y"], "negative": ["z"]}).write_parquet(tmp_path / "texts")
    assert recognize([tmp_path / "run"]) == "run"
    assert recognize([tmp_path / "texts"]) == "sentence-transformers"


def test_what_could_be_two_things_is_asked(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("1\t7\t1\n")
    with refused(UsageError, "format-ambiguous") as caught:
        recognize([tmp_path / "ids"])
    assert "msmarco-id-triples" in caught.value.hint


def test_what_is_no_training_data_is_called_so(tmp_path: Path) -> None:
    for content in ('{"a": 1}\n', "one column\n", "{\n"):
        (tmp_path / "x").write_text(content)
        with refused(UsageError, "format-not-recognized"):
            recognize([tmp_path / "x"])
