"""Teachers from files: TREC runs and RankGPT's permutations, which are often not permutations.

Invariant: every list that leaves here is a permutation of its query's candidates; all repairs are counted.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from cerank.core.rankings import LazyRanking, Ranking, float32_below
from cerank.datasets.aliases import missing_run
from cerank.datasets.dataset import Dataset
from cerank.errors import FormatError, MissingError, UsageError, os_error
from cerank.files import json_records
from cerank.files.hashing import input_sha256, sha256_text
from cerank.files.line_reader import at, checked_id, duplicate_error, json_lines, local_path
from cerank.files.safe_open import read_file
from cerank.text.safe_text import counted, shown
from cerank.trec.open_run import open_run_file

_FEW_TIES = 0.05  # share of tied neighbors up to which a teacher's ties are chance
_NUMBER = re.compile("[0-9]+")  # ASCII digits only: an answer may hold any others


class Repairs(msgspec.Struct, frozen=True):
    """What was wrong with a teacher's permutations, counted."""

    repaired: int = msgspec.field(default=0, name="mended")  # permutations with at least one fault
    missing: int = 0  # candidates that were not named, appended in their first-stage order
    repeated: int = 0  # numbers that appeared again, dropped
    out_of_range: int = 0  # numbers that name no candidate, dropped
    dropped: int = 0  # permutations with a fault that were left out instead

    def plus(self, other: Repairs) -> Repairs:
        """Return the sum of both."""
        return Repairs(
            self.repaired + other.repaired,
            self.missing + other.missing,
            self.repeated + other.repeated,
            self.out_of_range + other.out_of_range,
            self.dropped + other.dropped,
        )


class Teacher(msgspec.Struct, frozen=True):
    """A teacher's ranking of each query's candidates, best first."""

    ranking: Ranking
    sha256: str  # over the bytes of its files
    repairs: Repairs = Repairs()
    ties: str = ""  # how many of its scores tie, in words; "" for few


class Passage(msgspec.Struct):
    """A candidate of a query in RankGPT's JSONL; some files call its id doc_id."""

    docid: str | int = ""
    doc_id: str | int = ""
    text: str = ""
    title: str = ""

    @property
    def id(self) -> str:
        """The document's id."""
        return str(self.docid if self.docid != "" else self.doc_id)


class RankedQuery(msgspec.Struct):
    """A line of RankGPT's JSONL: a query and its candidates, in the order that the permutations number them."""

    query_id: str | int
    retrieved_passages: list[Passage]
    positive_passages: list[Passage] = []
    query: str | None = None


def repair(text: str, size: int) -> tuple[tuple[int, ...], Repairs]:
    """Return the permutation of 0..size-1 that an answer such as "[5] > [18] > [2]" means, and what was repaired.

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
    is_faulty = bool(missing or repeated or out_of_range)
    return (*order, *missing), Repairs(int(is_faulty), len(missing), repeated, out_of_range)


def decode_permutations(data: bytes, path: Path) -> list[str]:
    """Return the permutations in the JSON array `data`, one text such as "[2] > [1]" for each query.

    Raises:
        FormatError: the data is no JSON array of texts; `where` is `path`.
    """
    try:
        return json_records.decode(data, list[str])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        hint = 'permutations are a JSON array of texts such as "[2] > [1] > [3]"'
        raise FormatError(
            f"the file is not a list of permutations: {shown(error, 200)}",
            where=str(path),
            hint=hint,
            code="invalid-permutations",
        ) from error


def queries_with_permutations(
    rows: Path, permutations: Sequence[str] | None, path: Path | None = None
) -> Iterator[tuple[str, RankedQuery, str | None]]:
    """Yield (file:line, query, permutation) for each line of RankGPT's JSONL; None where there are no permutations.

    Args:
        rows: path of the JSONL file of queries with their candidates.
        permutations: one for each line of the file; None if the queries come alone.
        path: path of the file of permutations, for error messages.

    Raises:
        FormatError: a query appears twice, a document appears twice for a query, or the two files differ in length.
    """
    seen: set[str] = set()
    for number, row in json_lines(rows, RankedQuery):
        where, query_id = at(rows, number), str(row.query_id)
        if permutations is not None and len(seen) >= len(permutations):
            raise FormatError(
                f"the file has more queries than there are permutations, {len(permutations)}",
                where=where,
                code="permutation-count",
            )
        if checked_id(query_id, "query", where) in seen:
            raise duplicate_error("query", query_id, where)
        ids = Counter(checked_id(passage.id, "document", where) for passage in row.retrieved_passages)
        repeated = next((doc_id for doc_id, count in ids.items() if count > 1), "")
        if repeated:
            raise duplicate_error("document", repeated, where, query=query_id)
        yield where, row, None if permutations is None else permutations[len(seen)]
        seen.add(query_id)
    if permutations is not None and len(seen) < len(permutations):
        what = f"{counted(len(permutations), 'permutation')} for the {counted(len(seen), 'query')} of {rows.name}"
        raise FormatError(what, where=str(path), code="permutation-count")


def _rows_file(path: Path) -> Path:
    for beside in (path.with_suffix(".jsonl"), path.with_suffix(".jsonl.gz")):
        if beside.is_file():
            return beside
    hint = "each line: query_id, query, retrieved_passages with docid, in the order that the numbers mean"
    raise MissingError(
        f"no {path.stem}.jsonl beside the permutations", where=str(path), hint=hint, code="file-not-found"
    )


def read_permutations(path: Path, rows: Path, *, drops_malformed: bool = False) -> Teacher:
    """Return RankGPT's teacher: a JSON array of texts in `path`, one for each line of the JSONL file `rows`.

    A document's score is `size - rank + 1`, so the best of 20 has 20.

    Args:
        path: file of the permutations.
        rows: file of their queries, with the candidates that the numbers mean.
        drops_malformed: leave a query out whose permutation would have to be repaired.

    Raises:
        FormatError: either file malformed, a query or document twice, or more lines in one than in the other.
        MissingError, UsageError: a file is not there, or cannot be read.
    """
    try:
        permutations = decode_permutations(read_file(path), path)
    except OSError as error:
        raise os_error(error, path) from error
    documents: dict[str, Sequence[str]] = {}
    repairs = Repairs()
    for where, row, permutation in queries_with_permutations(rows, permutations, path):
        ids = [passage.id for passage in row.retrieved_passages]
        if not ids:
            raise FormatError(
                f"query '{shown(row.query_id, 80)}' has no retrieved passages", where=where, code="no-ranked-document"
            )
        order, repaired = repair(permutation or "", len(ids))
        if drops_malformed and repaired.repaired:
            repairs = repairs.plus(Repairs(dropped=1))
            continue
        documents[str(row.query_id)] = [ids[place] for place in order]
        repairs = repairs.plus(repaired)
    scores = {query: [float(len(ids) - rank) for rank in range(len(ids))] for query, ids in documents.items()}
    hashes = [input_sha256(path), input_sha256(rows)]
    return Teacher(Ranking(documents, scores), sha256_text("\n".join(hashes)), repairs)


def read_teacher(spec: str, dataset: Dataset | None = None, *, drops_malformed: bool = False) -> Teacher:
    """Return the teacher that a recipe names.

    Args:
        spec: a TREC run file; RankGPT permutations (`NAME.json` beside `NAME.jsonl`); or, with a dataset, the name of a
            run that it brings, which goes before a file of that name.
        dataset: brings runs by name.
        drops_malformed: see `read_permutations`.

    Raises:
        UsageError: it is none of these, or it prefers no document to another.
        FormatError, MissingError: a malformed or missing file.
    """
    if drops_malformed and not spec.endswith(".json"):
        what = "a ranking that is no list of RankGPT permutations has no malformed lists to drop"
        raise UsageError(what, where=spec, hint='leave malformed_lists = "drop" out', code="no-permutations")
    if dataset is not None and spec in dataset.runs:
        run = dataset.run(spec)
        return without_ties(Teacher(run.ranking, run.sha256 or dataset.identity))
    if not spec:
        raise UsageError("no teacher is named", hint="a TREC run, or permutations (.json)")
    path = local_path(spec)
    missing = missing_run(dataset.name, dataset.place, spec) if dataset is not None and not path.exists() else None
    if missing is not None:
        raise missing
    if path.suffix == ".json":
        return read_permutations(path, _rows_file(path), drops_malformed=drops_malformed)
    run = open_run_file(path, dataset.cache if dataset else None)
    return without_ties(Teacher(run.ranking, run.sha256))


def without_ties(teacher: Teacher) -> Teacher:
    """Return the teacher without the lists whose scores are all equal: their order is that of the ids, no preference.

    Equal scores were separated by the smallest step of float32 when they were read, by which they are told here.
    """
    ranking = teacher.ranking
    if isinstance(ranking, LazyRanking):  # it may have millions of rows, and is read query by query
        return teacher
    tied = neighbors = 0
    equal: set[str] = set()
    for query in ranking:
        scores = ranking.scores(query)
        steps = [low == float32_below(high) for high, low in itertools.pairwise(scores)]
        tied += sum(steps)
        neighbors += len(steps)
        if steps and all(steps):
            equal.add(query)
    if tied <= _FEW_TIES * neighbors:
        return teacher
    if len(equal) == len(ranking):
        hint = "equal scores are no preference; was the file written before the teacher had scored?"
        raise UsageError(
            "each list of the teacher has one score for all of its documents",
            where="teacher",
            hint=hint,
            code="teacher-scores-constant",
        )
    parts = [f"{100 * tied / neighbors:.0f} % of the neighboring scores of the teacher are equal"]
    if equal:
        of = counted(len(ranking), "list")
        parts.append(f"{len(equal)} of its {of} have one score for all documents and are left out")
    distinct = ranking.only([query for query in ranking if query not in equal]) if equal else ranking
    return Teacher(distinct, teacher.sha256, teacher.repairs, "; ".join(parts))
