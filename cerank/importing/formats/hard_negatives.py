"""Positives with negatives: FlagEmbedding's, Tevatron's and sentence-transformers' training files, all JSONL.

FlagEmbedding: {"query", "pos": [text], "neg": [text], "pos_scores": [..], "neg_scores": [..]}, scores where a teacher
gave some; `prompt` and `type` are left alone. Texts have no ids: theirs are hashes, so equal texts are one document.
Tevatron: {"query_id", "query", "positive_passages": [{"docid", "title", "text"}], "negative_passages": [...]}; the
title "-" means no title.
sentence-transformers' msmarco-hard-negatives, ids of MS MARCO passages only: {"qid", "pos": [pid], "neg": {system:
[pid]}} as on the hub, or with {"pid", "ce-score"} in place of each pid, as on sbert.net.
Gives: judgments (grade 1 for positives); the run `negatives` in the file's order, or one for each system; and, where
there are scores, the run `teacher` (or `cross-encoder`) of positives and negatives together. The first two give
documents and queries, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from cerank.errors import FormatError
from cerank.files.record_reader import read_records
from cerank.importing.dataset_writer import DatasetWriter, text_id
from cerank.text.safe_text import counted

NEGATIVES, TEACHER, CROSS_ENCODER = "negatives", "teacher", "cross-encoder"
_BOTH = "negatives that are positives of the same query, dropped"
_AGAIN = "texts that come again in their list, dropped"
_TWICE = "negatives that come again in their list, dropped"


class _Flag(msgspec.Struct):
    query: str
    pos: list[str]
    neg: list[str] = []
    pos_scores: list[float] | None = None
    neg_scores: list[float] | None = None


class _Passage(msgspec.Struct):
    docid: str | int
    text: str = ""
    title: str | None = None


class _Tevatron(msgspec.Struct):
    query_id: str | int
    query: str
    positive_passages: list[_Passage]
    negative_passages: list[_Passage] = []


class _TevatronIds(msgspec.Struct):
    """A row of Tevatron 2 and 3, whose documents are named and stand in a corpus of their own."""

    query_id: str | int
    query_text: str | None = None
    query: str | None = None
    positive_document_ids: list[str | int] = []
    negative_document_ids: list[str | int] = []


class _Scored(msgspec.Struct, rename={"score": "ce-score"}):
    pid: int | str
    score: float | None = None


class _Mined(msgspec.Struct):
    qid: int | str
    pos: list[int | str | _Scored]
    neg: dict[str, list[int | str | _Scored]] = {}


def _candidates(
    writer: DatasetWriter, run: str, query_id: str, ids: Sequence[str], positives: set[str], *, where: str
) -> None:
    """Add the negatives of a query as a run, in their order."""
    negatives: dict[str, None] = {}
    for doc_id in ids:
        if doc_id in positives:
            writer.count(_BOTH)
        elif doc_id in negatives:
            writer.count(_TWICE)
        else:
            negatives[doc_id] = None
    for doc_id in negatives:
        writer.listed(run, query_id, doc_id, where)


def _with_text(
    writer: DatasetWriter, texts: Sequence[str], scores: Sequence[float | None], where: str
) -> dict[str, float | None]:
    """Return id -> score for the texts that are not empty, each once."""
    scores_by_id: dict[str, float | None] = {}
    for text, score in zip(texts, scores, strict=True):
        doc_id = text_id(text)
        if doc_id in scores_by_id:
            writer.count(_AGAIN)
        elif writer.document(doc_id, text, where):
            scores_by_id[doc_id] = score
    return scores_by_id


def _scores(texts: Sequence[str], scores: Sequence[float] | None, key: str, where: str) -> Sequence[float | None]:
    if not scores:
        return [None] * len(texts)
    if len(scores) != len(texts):
        raise FormatError(
            f"{len(scores)} {key}_scores for {counted(len(texts), 'text')} in {key}", where=where, code="score-count"
        )
    return scores


def read_flag(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read FlagEmbedding's JSONL; `name` is the run of its scores."""
    for path in files:
        for where, row in read_records(path, _Flag):
            query_id = text_id(row.query)
            writer.records += 1
            if not writer.query(query_id, row.query, where):
                continue
            positives = _with_text(writer, row.pos, _scores(row.pos, row.pos_scores, "pos", where), where)
            negatives = _with_text(writer, row.neg, _scores(row.neg, row.neg_scores, "neg", where), where)
            for doc_id in positives:
                writer.judged(query_id, doc_id, 1, where)
            _candidates(writer, NEGATIVES, query_id, list(negatives), set(positives), where=where)
            for doc_id, score in (*positives.items(), *negatives.items()):
                if score is not None:
                    writer.scored(name, query_id, doc_id, score, where)


def _title(passage: _Passage) -> str:
    return "" if passage.title in {None, "-"} else str(passage.title)


def read_tevatron(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read Tevatron's JSONL; `name` is the run of negatives."""
    for path in files:
        for where, row in read_records(path, _Tevatron):
            query_id = str(row.query_id)
            writer.records += 1
            if not writer.query(query_id, row.query, where):
                continue
            both_ids: list[list[str]] = [[], []]
            for ids, passages in zip(both_ids, (row.positive_passages, row.negative_passages), strict=True):
                for passage in passages:
                    text = " ".join(filter(None, (_title(passage), passage.text)))
                    if writer.document(str(passage.docid), text, where):
                        ids.append(str(passage.docid))
            for doc_id in both_ids[0]:
                writer.judged(query_id, doc_id, 1, where)
            _candidates(writer, name, query_id, both_ids[1], set(both_ids[0]), where=where)


def read_tevatron_ids(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read Tevatron 2's training rows, whose documents are ids; `name` is the run of negatives."""
    for path in files:
        for where, row in read_records(path, _TevatronIds):
            query_id = str(row.query_id)
            writer.records += 1
            positives = list(dict.fromkeys(map(str, row.positive_document_ids)))
            for doc_id in positives:
                writer.judged(query_id, doc_id, 1, where)
            _candidates(writer, name, query_id, list(map(str, row.negative_document_ids)), set(positives), where=where)


def _ids_and_scores(items: Sequence[int | str | _Scored]) -> dict[str, float | None]:
    """Return id -> score of the items, each id once."""
    scores_by_id: dict[str, float | None] = {}
    for item in items:
        pid, score = (item.pid, item.score) if isinstance(item, _Scored) else (item, None)
        scores_by_id.setdefault(str(pid), score)
    return scores_by_id


def read_mined(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read msmarco-hard-negatives, a run a system; `name` is the run of cross-encoder scores."""
    for path in files:
        for where, row in read_records(path, _Mined):
            query_id = str(row.qid)
            writer.records += 1
            writer.query(query_id, "", where)
            positives = _ids_and_scores(row.pos)
            scores = dict(positives)
            for doc_id in positives:
                writer.judged(query_id, doc_id, 1, where)
            for system, items in row.neg.items():
                negatives = _ids_and_scores(items)
                writer.count(_TWICE, len(items) - len(negatives))
                _candidates(writer, system, query_id, list(negatives), set(positives), where=where)
                if writer.wants(system):
                    scores |= {doc_id: score for doc_id, score in negatives.items() if doc_id not in scores}
            for doc_id, score in scores.items():
                if score is not None:
                    writer.scored(name, query_id, doc_id, score, where)
