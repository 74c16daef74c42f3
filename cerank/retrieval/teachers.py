"""Teachers from files: TREC runs, and RankGPT's permutations, which are often not permutations.

Invariant: every list that leaves here is a permutation of its query's candidates; what had to be mended is counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking
from cerank.datasets.aliases import missing_run
from cerank.datasets.dataset import Dataset
from cerank.errors import FormatError, MissingError, UsageError
from cerank.files.line_reader import at, checked_id, io_mistake, json_lines, local_path, sha256_of
from cerank.files.safe_open import read_file
from cerank.text.safe_text import counted, shown
from cerank.trec.open_run import open_run_file

_NUMBER = re.compile("[0-9]+")  # ASCII digits only: an answer may hold any others


class Repairs(msgspec.Struct, frozen=True):
    """What was wrong with permutations; counts of numbers, but for `mended`."""

    repaired: int = msgspec.field(default=0, name="mended")  # permutations with at least one fault
    missing: int = 0  # candidates that were not named, appended in their first-stage order
    repeated: int = 0  # numbers that came again, dropped
    out_of_range: int = 0  # numbers that name no candidate, dropped

    def plus(self, other: Repairs) -> Repairs:
        """Both counted together."""
        return Repairs(
            self.repaired + other.repaired,
            self.missing + other.missing,
            self.repeated + other.repeated,
            self.out_of_range + other.out_of_range,
        )


class Teacher(msgspec.Struct, frozen=True):
    """A teacher's ranking of each query's candidates, best first."""

    ranking: Ranking
    sha256: str  # over the bytes of its files
    repairs: Repairs = Repairs()


class _Passage(msgspec.Struct):
    docid: str = ""
    doc_id: str = ""


class _Row(msgspec.Struct):
    query_id: str
    retrieved_passages: list[_Passage]


def repair(text: str, size: int) -> tuple[tuple[int, ...], Repairs]:
    """The permutation of 0..size-1 that an answer such as "[5] > [18] > [2]" means, and what was mended in it.

    As RankGPT's own reader does (Sun et al. 2023, arXiv 2304.09542): digits only, the first mention counts, numbers out
    of 1..size are dropped, and candidates that were not named follow in their original order.
    """
    order: dict[int, None] = {}
    repeated = out_of_range = 0
    for digits in _NUMBER.findall(text):
        number = int(digits) if len(digits) < 10 else 0
        if not 1 <= number <= size:
            out_of_range += 1
        elif number - 1 in order:
            repeated += 1
        else:
            order[number - 1] = None
    missing = [place for place in range(size) if place not in order]
    is_mended = bool(missing or repeated or out_of_range)
    return (*order, *missing), Repairs(int(is_mended), len(missing), repeated, out_of_range)


def _answers(path: Path) -> list[str]:
    try:
        return msgspec.json.decode(read_file(path), type=list[str])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        hint = 'permutations are a JSON array of texts such as "[2] > [1] > [3]"'
        raise FormatError(f"not a list of permutations: {shown(error, 200)}", where=str(path), hint=hint) from error
    except OSError as error:
        raise io_mistake(path, error) from error


def _candidates(row: _Row, where: str) -> list[str]:
    """The document ids that the answer's numbers stand for: 1 is the first of them."""
    ids = [checked_id(passage.docid or passage.doc_id, "document", where) for passage in row.retrieved_passages]
    if not ids:
        raise FormatError(f"query '{shown(row.query_id, 80)}' has no retrieved passages", where=where)
    if len(set(ids)) != len(ids):
        raise FormatError(f"a document stands twice for query '{shown(row.query_id, 80)}'", where=where)
    return ids


def _rows_file(path: Path) -> Path:
    for beside in (path.with_suffix(".jsonl"), path.with_suffix(".jsonl.gz")):
        if beside.is_file():
            return beside
    hint = "each line: query_id, query, retrieved_passages with docid, in the order that the numbers mean"
    raise MissingError(f"no {path.stem}.jsonl beside the permutations", where=str(path), hint=hint)


def read_permutations(path: Path, rows: Path) -> Teacher:
    """RankGPT's permutations: a JSON array of texts in `path`, aligned with the lines of the JSONL file `rows`.

    A document's score is `size - rank + 1`, so the best of 20 has 20.

    Raises:
        FormatError: either file malformed, a query or document twice, or more lines in one than in the other.
        MissingError, UsageError: a file is not there, or cannot be read.
    """
    answers = _answers(path)
    documents: dict[str, Sequence[str]] = {}
    repairs, count = Repairs(), 0
    for number, row in json_lines(rows, _Row):
        where = at(rows, number)
        if count >= len(answers):
            raise FormatError(f"has more queries than {path.name} has permutations, {len(answers)}", where=where)
        if checked_id(row.query_id, "query", where) in documents:
            raise FormatError(f"query '{shown(row.query_id, 80)}' stands twice", where=where)
        ids = _candidates(row, where)
        order, mended = repair(answers[count], len(ids))
        documents[row.query_id] = [ids[place] for place in order]
        repairs = repairs.plus(mended)
        count += 1
    if count < len(answers):
        raise FormatError(
            f"has {counted(len(answers), 'permutation')} for the {counted(count, 'query')} of {rows.name}",
            where=str(path),
        )
    scores = {query: [float(len(ids) - rank) for rank in range(len(ids))] for query, ids in documents.items()}
    hashes = [sha256_of(path), sha256_of(rows)]
    return Teacher(Ranking(documents, scores), hashlib.sha256("\n".join(hashes).encode()).hexdigest(), repairs)


def read_teacher(spec: str, dataset: Dataset | None = None) -> Teacher:
    """The teacher that a recipe names.

    Args:
        spec: a TREC run file; RankGPT permutations (`NAME.json` beside `NAME.jsonl`); or, with a dataset, the name of a
            run that it brings, which goes before a file of that name.

    Raises:
        UsageError: it is none of these.
        FormatError, MissingError: a malformed or missing file.
    """
    if dataset is not None and spec in dataset.runs:
        run = dataset.run(spec)
        return Teacher(run.ranking, run.sha256 or dataset.identity)
    if not spec:
        raise UsageError("no teacher is named", hint="a TREC run, or permutations (.json)")
    path = local_path(spec)
    missing = missing_run(dataset.name, dataset.place, spec) if dataset is not None and not path.exists() else None
    if missing is not None:
        raise missing
    if path.suffix == ".json":
        return read_permutations(path, _rows_file(path))
    run = open_run_file(path, dataset.cache if dataset else None)
    return Teacher(run.ranking, run.sha256)
