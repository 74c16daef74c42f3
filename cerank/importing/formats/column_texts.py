"""Training data as sentence-transformers' trainers take it, with texts in columns, as JSONL, parquet or a saved folder.

The columns tell the form: anchor (or query, question, sentence1), positive (answer, sentence2) and negative,
negative_1, negative_2 ... are n-tuples of texts; query, passage (document, text) and label or score are labeled pairs,
where a label of 0 is a negative, a greater whole number a grade, and a score a teacher's; a list of documents
(docs, documents, passages) with a list of labels or scores is a ranked list. Texts have no ids: theirs are hashes.
Gives: documents, queries, judgments, the run `negatives`, and the run `teacher` where there are scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from cerank.errors import FormatError
from cerank.files import tables
from cerank.files.line_reader import at, json_lines, keys_hint
from cerank.files.record_reader import arrow_files
from cerank.importing.dataset_writer import DatasetWriter, text_id

NEGATIVES, TEACHER = "negatives", "teacher"
_QUERIES = ("anchor", "query", "question", "sentence1", "sentence_A", "text1", "premise")
_POSITIVES = ("positive", "pos", "answer", "response", "chosen")
_PASSAGES = (
    "passage",
    "document",
    "doc",
    "text",
    "sentence2",
    "sentence_B",
    "text2",
    "hypothesis",
    "response",
    "answer",
)
_LISTS = ("docs", "documents", "passages", "texts", "responses")
_LABELS = ("label", "labels", "score", "scores", "similarity", "relevance", "similarity_score")
_NEGATIVE = re.compile(r"(?:negative|neg|hard_negative|rejected)(?:_?\d+)?")


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (file:row, column -> value)."""
    if path.is_dir():
        for shard in arrow_files(path):
            for number, row in tables.arrow_rows(shard):
                yield at(shard, number), row
    elif tables.is_parquet(path):
        columns = [name for name in tables.column_names(path) if _is_used(name)]
        for number, values in tables.rows(path, columns, has_texts=True):
            yield at(path, number), dict(zip(columns, values, strict=True))
    else:
        for number, value in json_lines(path, dict[str, Any]):
            yield at(path, number), value


def _is_used(name: str) -> bool:
    names = {*_QUERIES, *_POSITIVES, *_PASSAGES, *_LISTS, *_LABELS}
    return name in names or _NEGATIVE.fullmatch(name) is not None


def _texts(value: object, where: str) -> list[str]:
    """Return a text, or a list of texts, as a list; None is left out."""
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    for item in values:
        if not (item is None or isinstance(item, str)):
            raise FormatError("a column of texts holds something else", where=where)
    return [item for item in values if isinstance(item, str)]


def _column(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if row.get(name) is not None), "")


class _Row(msgspec.Struct):
    """A row that is being imported: its query, which is known, and its other columns."""

    writer: DatasetWriter
    query_id: str
    columns: dict[str, Any]
    where: str

    def ids(self, column: str) -> list[str]:
        """Return the ids of the texts in a column; adds the texts as documents."""
        texts = _texts(self.columns[column], self.where)
        return [text_id(text) for text in texts if self.writer.document(text_id(text), text, self.where)]


def read(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read training data in columns; `name` is the run of a teacher's scores."""
    for path in files:
        for where, values in _rows(path):
            writer.records += 1
            query = _column(values, _QUERIES)
            if not query or not isinstance(values[query], str):
                hint = f"{keys_hint(dict(values))}; accepted: {', '.join(_QUERIES)}"
                raise FormatError(
                    "a row without a column of queries", where=where, hint=hint, code="query-column-missing"
                )
            query_id = text_id(values[query])
            if not writer.query(query_id, values[query], where):
                continue
            row = _Row(writer, query_id, {key: value for key, value in values.items() if key != query}, where)
            positive, label = _column(row.columns, _POSITIVES), _column(row.columns, _LABELS)
            passages = _column(row.columns, _LISTS) or _column(row.columns, _PASSAGES)
            negatives = [key for key in row.columns if _NEGATIVE.fullmatch(key)]
            if positive and not (label and not negatives):
                _add_tuple(row, positive, negatives, label, name)
            elif label and (passages or positive):
                _add_labeled(row, passages or positive, label, name)
            else:
                hint = f"{keys_hint(dict(values))}; such as anchor, positive, negative, or query, passage, label"
                raise FormatError("a row without positives, or labels of passages", where=where, hint=hint)


def _add_tuple(row: _Row, positive: str, negatives: Sequence[str], label: str, name: str) -> None:
    """Add a query's positives and negatives; a score that comes along is the teacher's margin, or a score for each."""
    writer, query_id, where = row.writer, row.query_id, row.where
    positive_ids = row.ids(positive)
    negative_ids = [doc_id for key in negatives for doc_id in row.ids(key) if doc_id not in positive_ids]
    for doc_id in positive_ids:
        writer.judged(query_id, doc_id, 1, where)
    for doc_id in dict.fromkeys(negative_ids):
        writer.listed(NEGATIVES, query_id, doc_id, where)
    scores = row.columns.get(label) if label else None
    doc_ids = [*positive_ids, *negative_ids]
    if isinstance(scores, list) and len(scores) == len(doc_ids):
        for doc_id, score in zip(doc_ids, scores, strict=True):
            writer.scored(name, query_id, doc_id, _number(score, where), where)
    elif isinstance(scores, int | float) and len(doc_ids) == 2:  # MarginMSE's: positive minus negative
        writer.scored(name, query_id, doc_ids[0], float(scores), where)
        writer.scored(name, query_id, doc_ids[1], 0.0, where)
        writer.count("margins of a positive over its negative, kept as scores margin and 0")


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError("a label or score is no number", where=where)
    return float(value)


def _add_labeled(row: _Row, column: str, label: str, name: str) -> None:
    """Add passages with their labels; whole numbers of a column called label or relevance are grades."""
    writer, where = row.writer, row.where
    texts, labels = _texts(row.columns[column], where), row.columns[label]
    are_grades = label.startswith(("label", "relevance"))
    values = [_number(value, where) for value in (labels if isinstance(labels, list) else [labels])]
    if len(values) != len(texts):
        raise FormatError(f"{len(values)} labels for {len(texts)} passages", where=where)
    for text, value in zip(texts, values, strict=True):
        doc_id = text_id(text)
        if not writer.document(doc_id, text, where):
            continue
        if not (are_grades and value == int(value) and 0 <= value < 10):
            writer.scored(name, row.query_id, doc_id, value, where)
            continue
        writer.judged(row.query_id, doc_id, int(value), where)
        if value == 0:
            writer.listed(NEGATIVES, row.query_id, doc_id, where)
