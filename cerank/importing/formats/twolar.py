"""TWOLAR's training data (Baldelli et al. 2024, arXiv 2403.17759): queries with passages in the order of GPT-3.5.

A row, in parquet or JSONL, has query_id, query, and retrieved_passages, a list of {docid, text, rank}, best first by
the language model: TWOLAR's own training code takes the order of the list as its target, and so does this reader. Ranks
that say otherwise are counted.
Gives: documents, queries, and the run `twolar` with scores n..1; no judgments, for it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from cerank.errors import FormatError
from cerank.files.record_reader import read_records
from cerank.importing.dataset_writer import DatasetWriter
from cerank.text.safe_text import shown

RUN = "twolar"


class _RankedPassage(msgspec.Struct):
    docid: str | int
    text: str | None = None
    rank: int | None = None


class _RankedList(msgspec.Struct):
    query_id: str | int
    query: str
    retrieved_passages: list[_RankedPassage]


def read(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read files into the run `name`."""
    for path in files:
        for where, row in read_records(path, _RankedList):
            query_id = str(row.query_id)
            writer.records += 1
            if not writer.query(query_id, row.query, where):
                continue
            if not row.retrieved_passages:
                writer.count("queries without passages")
            ranks = [passage.rank for passage in row.retrieved_passages if passage.rank is not None]
            if any(rank >= after for rank, after in pairwise(ranks)):
                writer.count("queries whose ranks contradict the order of their list: the order was taken")
            for passage in row.retrieved_passages:
                doc_id = str(passage.docid)
                if not writer.document(doc_id, passage.text or "", where):
                    what = f"passage '{shown(doc_id, 80)}' has no text"
                    raise FormatError(what, where=where, code="text-missing")
                writer.listed(name, query_id, doc_id, where)
