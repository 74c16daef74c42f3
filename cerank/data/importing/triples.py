"""Triples of query, positive and negative: MS MARCO's by id and by text, OpenMatch's, Hofstätter's with scores.

MS MARCO's by id (qidpidtriples.train.full.2.tsv.gz): qid TAB positive pid TAB negative pid. By text
(triples.train.small.tar.gz): query TAB positive TAB negative. OpenMatch's are the same texts as JSONL: {"query",
"doc_pos", "doc_neg"}. Hofstätter's ensemble scores (Hofstätter et al. 2020, arXiv 2010.02666) by id: positive score TAB
negative score TAB qid TAB positive pid TAB negative pid; with texts in place of the ids, as the `teacher_id_to_text`
script of their repository writes them, another format reads them.
Gives: judgements (grade 1 for positives); the run `negatives` in the order of the file, or, with scores, the run
`ensemble` of positives and negatives together. Texts have no ids: theirs are hashes, so equal texts are one document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from cerank.data.files import at, json_lines, tab_lines
from cerank.data.importing.archives import opened
from cerank.data.importing.runs import number_of
from cerank.data.importing.sink import Sink, text_id

_SAME = "triples whose negative is their positive, dropped"


class _Texts(msgspec.Struct):
    query: str
    doc_pos: str
    doc_neg: str


class Triple(msgspec.Struct, frozen=True):
    """A row: query, positive and negative, as ids or as texts, and their scores where there are some."""

    query: str
    positive: str
    negative: str
    scores: tuple[float, float] | None = None


Rows = Iterator[tuple[str, Triple]]  # with file:line


def _plain(path: Path) -> Rows:
    for number, (query, positive, negative) in tab_lines(path, (3,), opened):
        yield at(path, number), Triple(query, positive, negative)


def _json(path: Path) -> Rows:
    for number, row in json_lines(path, _Texts, opened):
        yield at(path, number), Triple(row.query, row.doc_pos, row.doc_neg)


def _scored(path: Path) -> Rows:
    for number, (left, right, query, positive, negative) in tab_lines(path, (5,), opened):
        where = at(path, number)
        scores = (number_of(left.encode(), where), number_of(right.encode(), where))
        yield where, Triple(query, positive, negative, scores)


def _by_text(triple: Triple, sink: Sink, where: str) -> Triple | None:
    """The triple with ids for its texts, which go to the sink; None where one of them is empty."""
    found = Triple(text_id(triple.query), text_id(triple.positive), text_id(triple.negative), triple.scores)
    has_all = (
        sink.query(found.query, triple.query, where)
        and sink.document(found.positive, triple.positive, where)
        and sink.document(found.negative, triple.negative, where)
    )
    return found if has_all else None


def _by_id(triple: Triple, sink: Sink, where: str) -> Triple:
    sink.query(triple.query, "", where)
    return triple


Told = Callable[[Triple, Sink, str], Triple | None]


def _read(rows: Callable[[Path], Rows], told: Told, files: Sequence[Path], sink: Sink, name: str) -> None:
    for path in files:
        for where, given in rows(path):
            sink.records += 1
            triple = told(given, sink, where)
            if triple is None:
                continue
            if triple.positive == triple.negative:
                sink.count(_SAME)
                continue
            sink.judged(triple.query, triple.positive, 1, where)
            if triple.scores is None:
                sink.listed(name, triple.query, triple.negative, where)
            else:
                sink.scored(name, triple.query, triple.positive, triple.scores[0], where)
                sink.scored(name, triple.query, triple.negative, triple.scores[1], where)


def read_ids(files: Sequence[Path], sink: Sink, name: str) -> None:
    """Reads MS MARCO's id triples into the run `name`."""
    _read(_plain, _by_id, files, sink, name)


def read_texts(files: Sequence[Path], sink: Sink, name: str) -> None:
    """Reads MS MARCO's text triples into the run `name`."""
    _read(_plain, _by_text, files, sink, name)


def read_openmatch(files: Sequence[Path], sink: Sink, name: str) -> None:
    """Reads OpenMatch's JSONL triples into the run `name`."""
    _read(_json, _by_text, files, sink, name)


def read_scores(files: Sequence[Path], sink: Sink, name: str) -> None:
    """Reads Hofstätter's scores by id into the run `name`."""
    _read(_scored, _by_id, files, sink, name)


def read_scored_texts(files: Sequence[Path], sink: Sink, name: str) -> None:
    """Reads Hofstätter's scores by text into the run `name`."""
    _read(_scored, _by_text, files, sink, name)
