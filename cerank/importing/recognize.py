"""Tell the format of training data by its first record; what could be two things is asked of the user.

Invariant: nothing is guessed from a name alone, and a file that fits several formats fits none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cerank.errors import UsageError
from cerank.files import tables
from cerank.files.line_reader import line_blocks
from cerank.files.record_reader import arrow_files
from cerank.text.safe_text import shown
from cerank.trec.layouts import layout_of

AUTO = "auto"
_BY_KEYS = (  # keys that a record has -> format; the first that fits
    ({"positive_document_ids"}, "tevatron-ids"),
    ({"positive_passages", "retrieved_passages"}, "rankgpt"),
    ({"retrieved_passages"}, "rankgpt"),
    ({"positive_passages"}, "tevatron"),
    ({"query", "pos"}, "flag-embedding"),
    ({"query", "doc_pos", "doc_neg"}, "openmatch-triples"),
    ({"qid", "pos", "neg"}, "sbert-hard-negatives"),
    ({"query", "candidates"}, "rank-llm"),
    ({"qid", "docno", "query"}, "tirex"),
)
_TEXT_COLUMNS = {"anchor", "positive", "answer", "passage", "sentence1", "sentence2", "label", "labels", "docs"}


def recognize(files: Sequence[Path]) -> str:
    """Return the name of the format of the files.

    Raises:
        UsageError: no format is known that looks so, or several are; the hint names them.
    """
    names = {_format_of(path) for path in files if path.suffix != ".json" or len(files) == 1}
    if len(names) != 1:
        what = f"the files look like {' and '.join(sorted(names)) or 'no format'}"
        raise UsageError(what, hint="name the format; `cerank data formats` describes each")
    return names.pop()


def _format_of(path: Path) -> str:
    if path.is_dir() and arrow_files(path):
        return _by_keys(next((set(row) for _, row in tables.arrow_rows(arrow_files(path)[0])), set()), path)
    if tables.is_parquet(path):
        names = set(tables.column_names(path))
        return "run" if _is_ranking(names) else _by_keys(names, path)
    first = next((line for _, lines in line_blocks(path) for line in lines if line.strip()), b"")
    if first.lstrip().startswith((b"{", b"[")):
        return _by_json(first, path)
    if layout_of(path, "run").has_header or len(first.split()) == 6:
        return "run"
    return _by_columns(first.decode().rstrip("\r").split("\t"), path)


def _is_ranking(names: set[str]) -> bool:
    return bool(names & {"score", "rank"}) and bool(names & {"doc_id", "docno"}) and "text" not in names


def _by_json(first: bytes, path: Path) -> str:
    try:
        value: Any = msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        return "colbert-triples"
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        raise _unknown(path, "no record stands on its first line")
    values = list(value.values())
    if values and all(isinstance(item, dict) for item in values) and "query" not in value:
        return "run"
    return _by_keys(set(value), path)


def _by_keys(keys: set[str], path: Path) -> str:
    for needed, name in _BY_KEYS:
        if needed <= keys:
            return name
    if keys & _TEXT_COLUMNS:
        return "sentence-transformers"
    raise _unknown(path, f"its keys: {shown(', '.join(sorted(keys)), 200)}")


def _by_columns(parts: Sequence[str], path: Path) -> str:
    def are_ids(columns: Sequence[str]) -> bool:
        return all(column.strip().isdecimal() for column in columns)

    if len(parts) == 3:
        if are_ids(parts):  # MS MARCO's runs and its triples look the same
            hint = "`run` for query, document, rank; `msmarco-id-triples` for query, positive, negative"
            raise UsageError(
                "three columns of numbers could be two formats", where=str(path), hint=hint, code="format-ambiguous"
            )
        return "msmarco-text-triples"
    if len(parts) == 5:
        return "ensemble-scores" if are_ids(parts[2:]) else "ensemble-scores-text"
    raise _unknown(path, f"its first line has {len(parts)} tab-separated columns")


def _unknown(path: Path, why: str) -> UsageError:
    return UsageError(
        f"no format looks like this; {why}",
        where=str(path),
        hint="`cerank data formats` lists them",
        code="format-not-recognized",
    )
