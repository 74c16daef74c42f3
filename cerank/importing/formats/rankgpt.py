"""RankGPT's training data (Sun et al. 2023, arXiv 2304.09542): queries with BM25's top 20, and GPT-3.5's permutations.

The first file is JSONL, plain or packed: {"query_id", "query", "positive_passages": [{"docid", "text"}],
"retrieved_passages": [{"docid", "rank", "text"}]}; the second, which may be left out, a JSON array of texts such as
"[5] > [18] > [2]", one for each line of the first. Of 100,000 real permutations 9,301 are none (numbers missing,
repeated or too large); each is repaired as RankGPT's own reader does, and counted by kind, where the code of the paper
drops the query.
Gives: documents, queries, judgments (grade 1 for positive passages), the run `bm25` in the order of the file, and the
run `rankgpt` with scores n..1 in the permutation's order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from cerank.errors import FormatError, UsageError
from cerank.files.line_reader import translate_read_errors
from cerank.files.packed_files import open_stream
from cerank.importing.dataset_writer import DatasetWriter
from cerank.retrieval.teachers import RankedQuery, Repairs, decode_permutations, queries_with_permutations, repair
from cerank.text.safe_text import shown

_LARGEST_ANSWERS = 1 << 30  # bytes; 100,000 permutations of 20 are 10 MB


def _answers(path: Path) -> list[str]:
    parts, size = [], 0
    with translate_read_errors(path), contextlib.closing(open_stream(path)) as file:
        while data := file.read(1 << 20):
            parts.append(data)
            size += len(data)
            if size > _LARGEST_ANSWERS:
                raise FormatError("the file is too large for a list of permutations", where=str(path))
    return decode_permutations(b"".join(parts), path)


def _candidates(row: RankedQuery, writer: DatasetWriter, where: str) -> list[str]:
    """Return the ids that the permutation numbers, 1 for the first; add texts and judgments to the writer."""
    for passage in (*row.retrieved_passages, *row.positive_passages):
        text = " ".join(filter(None, (passage.title, passage.text)))
        if not writer.document(passage.id, text, where):
            raise FormatError(f"passage '{shown(passage.id, 80)}' has no text", where=where, code="text-missing")
    for passage in row.positive_passages:
        writer.judged(str(row.query_id), passage.id, 1, where)
    return [passage.id for passage in row.retrieved_passages]


def _split(files: Sequence[Path]) -> tuple[Path, Path | None]:
    """Return (rows, permutations), told apart by the ends of their names."""
    answers = [path for path in files if path.suffix == ".json" or path.name.endswith((".json.gz", ".json.zip"))]
    rows = [path for path in files if path not in answers]
    if len(rows) != 1 or len(answers) > 1:
        what = "needs the queries (.jsonl, plain or packed) and, where there are any, their permutations (.json)"
        raise UsageError(
            what,
            hint="cerank data import rankgpt marco-train-100k.jsonl.zip marco-train-100k-gpt3.5.json",
            code="queries-missing",
        )
    return rows[0], answers[0] if answers else None


def read(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read one file of queries and at most one of permutations; `name` is the run of the permutations."""
    rows, path = _split(files)
    answers = _answers(path) if path else None
    repairs = Repairs()
    for where, row, answer in queries_with_permutations(rows, answers, path):
        query_id = str(row.query_id)
        if row.query is None:
            raise FormatError("the line has no query", where=where)
        writer.records += 1
        if not writer.query(query_id, row.query, where):
            continue
        ids = _candidates(row, writer, where)
        if not ids:
            writer.count("queries without candidates")
            continue
        for doc_id in ids:
            writer.listed("bm25", query_id, doc_id, where)
        if answer is not None:
            order, repaired = repair(answer, len(ids))
            repairs = repairs.plus(repaired)
            for place in order:
                writer.listed(name, query_id, ids[place], where)
    writer.count("permutations repaired", repairs.repaired)
    writer.count("numbers missing in permutations, appended in BM25's order", repairs.missing)
    writer.count("numbers repeated in permutations, dropped", repairs.repeated)
    writer.count("numbers out of range in permutations, dropped", repairs.out_of_range)
