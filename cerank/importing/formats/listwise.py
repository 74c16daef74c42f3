"""Ranked lists with their texts: rank_llm's requests and results, and TIREx's (TIRA's) re-ranking files; both JSONL.

rank_llm, a query a line: {"query": {"text", "qid"}, "candidates": [{"docid", "score", "doc": {...}}]}; a passage's text
is the first of doc's keys text, segment, contents, content, body and passage, with its title before it. The list's
order is the ranking, and decides between equal scores.
TIREx, a pair a line, plain or packed: {"qid", "query", "docno", "text", "rank", "score"}, with `original_query` and
`original_document` left alone. Without score a document's is 1 / rank.
Gives: documents, queries, and one run, named by --name, else `rank-llm` or `tirex`; no judgments, for neither has any.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from cerank.files.record_reader import read_records
from cerank.importing.dataset_writer import DatasetWriter


class _Query(msgspec.Struct):
    qid: str | int
    text: str = ""


class _Doc(msgspec.Struct, frozen=True):
    title: str | None = None
    text: str | None = None
    segment: str | None = None
    contents: str | None = None
    content: str | None = None
    body: str | None = None
    passage: str | None = None


class _Candidate(msgspec.Struct):
    docid: str | int
    score: float
    doc: _Doc = _Doc()


class _Request(msgspec.Struct):
    query: _Query
    candidates: list[_Candidate]


class _Pair(msgspec.Struct):
    qid: str | int
    docno: str | int
    query: str = ""
    text: str = ""
    rank: int | None = None
    score: float | None = None


def _text(doc: _Doc) -> str:
    texts = (doc.text, doc.segment, doc.contents, doc.content, doc.body, doc.passage)
    text = next((text for text in texts if text is not None), "")
    return " ".join(filter(None, (doc.title, text)))


def read_rank_llm(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read rank_llm's JSONL into the run `name`."""
    for path in files:
        for where, row in read_records(path, _Request):
            query_id = str(row.query.qid)
            writer.records += 1
            if not writer.query(query_id, row.query.text, where):
                continue
            for rank, candidate in enumerate(row.candidates, 1):
                doc_id = str(candidate.docid)
                if writer.document(doc_id, _text(candidate.doc), where):
                    writer.scored(name, query_id, doc_id, candidate.score, where, rank=rank)


def read_tirex(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read TIREx's JSONL into the run `name`."""
    for path in files:
        for where, row in read_records(path, _Pair):
            query_id, doc_id = str(row.qid), str(row.docno)
            writer.records += 1
            if not (writer.query(query_id, row.query, where) and writer.document(doc_id, row.text, where)):
                continue
            rank = row.rank if row.rank is not None and 0 < row.rank < 10**9 else 0
            score = row.score
            if score is None:
                if not rank:
                    writer.count("pairs with neither score nor rank, dropped")
                    continue
                score = 1.0 / rank
            writer.scored(name, query_id, doc_id, score, where, rank=rank)
