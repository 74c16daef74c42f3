"""RankGPT's training data (Sun et al. 2023, arXiv 2304.09542): queries with BM25's top 20, and GPT-3.5's permutations.

The first file is JSONL, plain or packed: {"query_id", "query", "positive_passages": [{"docid", "text"}],
"retrieved_passages": [{"docid", "rank", "text"}]}; the second, which may be left out, a JSON array of texts such as
"[5] > [18] > [2]", one for each line of the first. Of 100,000 real permutations 9,301 are none (numbers missing,
repeated or too large); each is mended as RankGPT's own reader does, and counted by kind, where the code of the paper
drops the query.
Gives: documents, queries, judgements (grade 1 for positive passages), the run `bm25` in the order of the file, and the
run `rankgpt` with scores n..1 in the permutation's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from cerank.errors import FormatError, UsageError
from cerank.files.line_reader import at, io_mistake, json_lines
from cerank.importing.archives import open_archive
from cerank.importing.dataset_writer import DatasetWriter
from cerank.retrieval.teachers import Repairs, repair
from cerank.text.safe_text import counted, shown

_LARGEST_ANSWERS = 1 << 30  # bytes; 100,000 permutations of 20 are 10 MB


class _Passage(msgspec.Struct):
    docid: str | int
    text: str = ""
    title: str = ""


class _Row(msgspec.Struct):
    query_id: str | int
    query: str
    retrieved_passages: list[_Passage]
    positive_passages: list[_Passage] = []


def _answers(path: Path) -> list[str]:
    try:
        with open_archive(path) as file:
            data = file.read(_LARGEST_ANSWERS + 1)
    except OSError as error:
        raise io_mistake(path, error) from error
    if len(data) > _LARGEST_ANSWERS:
        raise FormatError("is too large for a list of permutations", where=str(path))
    try:
        return msgspec.json.decode(data, type=list[str])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        hint = 'permutations are a JSON array of texts such as "[2] > [1] > [3]"'
        raise FormatError(f"not a list of permutations: {shown(error, 200)}", where=str(path), hint=hint) from error


def _candidates(row: _Row, sink: DatasetWriter, where: str) -> list[str]:
    """The ids that the answer's numbers stand for, 1 for the first; texts and judgements go to the sink on the way."""
    ids = [str(passage.docid) for passage in row.retrieved_passages]
    if len(set(ids)) != len(ids):
        raise FormatError(f"a document stands twice for query '{shown(row.query_id, 80)}'", where=where)
    for passage in (*row.retrieved_passages, *row.positive_passages):
        text = " ".join(filter(None, (passage.title, passage.text)))
        if not sink.document(str(passage.docid), text, where):
            raise FormatError(f"passage '{shown(passage.docid, 80)}' has no text", where=where)
    for passage in row.positive_passages:
        sink.judged(str(row.query_id), str(passage.docid), 1, where)
    return ids


def _split(files: Sequence[Path]) -> tuple[Path, Path | None]:
    """(rows, permutations), told apart by their names' ends."""
    answers = [path for path in files if path.suffix == ".json" or path.name.endswith((".json.gz", ".json.zip"))]
    rows = [path for path in files if path not in answers]
    if len(rows) != 1 or len(answers) > 1:
        what = "needs the queries (.jsonl, plain or packed) and, where there are any, their permutations (.json)"
        raise UsageError(
            what, hint="cerank data import rankgpt marco-train-100k.jsonl.zip marco-train-100k-gpt3.5.json"
        )
    return rows[0], answers[0] if answers else None


def read(files: Sequence[Path], sink: DatasetWriter, name: str) -> None:
    """Reads one file of queries, and one of permutations or none; `name` is the run of these."""
    rows, path = _split(files)
    answers = _answers(path) if path else None
    repairs, seen = Repairs(), set[str]()
    for number, row in json_lines(rows, _Row, open_archive):
        where, query_id = at(rows, number), str(row.query_id)
        if answers is not None and sink.records >= len(answers):
            raise FormatError(f"has more queries than there are permutations, {len(answers)}", where=where)
        if query_id in seen:
            raise FormatError(f"query '{shown(query_id, 80)}' stands twice", where=where)
        seen.add(query_id)
        answer = answers[sink.records] if answers is not None else None
        sink.records += 1
        if not sink.query(query_id, row.query, where):
            continue
        ids = _candidates(row, sink, where)
        if not ids:
            sink.count("queries without candidates")
            continue
        for doc_id in ids:
            sink.listed("bm25", query_id, doc_id, where)
        if answer is not None:
            order, mended = repair(answer, len(ids))
            repairs = repairs.plus(mended)
            for place in order:
                sink.listed(name, query_id, ids[place], where)
    if answers is not None and path is not None and sink.records < len(answers):
        raise FormatError(
            f"has {counted(len(answers), 'permutation')} for {counted(sink.records, 'query')}", where=str(path)
        )
    sink.count("permutations mended", repairs.repaired)
    sink.count("numbers missing in permutations, appended in BM25's order", repairs.missing)
    sink.count("numbers repeated in permutations, dropped", repairs.repeated)
    sink.count("numbers out of range in permutations, dropped", repairs.out_of_range)
