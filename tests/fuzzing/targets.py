"""Every reader of outside bytes, by name: gives it a file, and lets nothing but cerank's own errors pass.

What comes back is the CerankError, or None where the bytes were read. Used by the fuzzer and by the tests.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cerank.core.metrics import Event, Progress
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError
from cerank.files import journal, json_records
from cerank.importing.format_catalog import FORMATS
from cerank.importing.import_files import ImportOptions, import_files
from cerank.models.bases import locate
from cerank.recipes.loading import load, load_matrix
from cerank.recipes.matrix_schema import MatrixRecord
from cerank.retrieval.teachers import read_permutations
from cerank.runs import queue, run_store, run_summaries, user_labels
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.settings import Flags, resolve
from cerank.text.safe_text import shown
from cerank.trec.ingest import ingest_run
from cerank.trec.read_columns import read_columns
from cerank.trec.text_io import read_qrels, read_run, read_trec_run, write_qrels, write_run

Act = Callable[[Path], object]  # reads the file that holds the bytes
DOCUMENTS = b'{"doc_id":"d1","text":"one"}\n{"doc_id":"d2","text":"two"}\n'
QUERIES = b"q1\ta query\nq2\tanother\n"
QRELS = b"q1 0 d1 1\nq2 0 d2 1\n"


class Target:
    """A reader: the name of the file it reads, and how it is called."""

    def __init__(self, file: str, act: Act, *, needs_line: bool = True) -> None:
        self.file, self.act, self.needs_line = file, act, needs_line

    def refusal(self, folder: Path) -> CerankError | None:
        """The error for what lies in `folder` under the target's name; None where it is read."""
        found = None
        try:
            self.act(folder / self.file)
        except CerankError as error:
            found = error
        assert found is None or (found.what and shown(str(found), 1 << 30, lines=True)), "an error without words"
        return found


def _run(path: Path) -> None:
    ranking = read_run(path).ranking
    again = path.with_name("again.run.gz")
    again.write_bytes(write_run(ranking, "t"))
    assert dict(read_run(again).ranking) == dict(ranking), "a run that reads back otherwise"


def _columns(path: Path) -> None:
    """The two readers of runs must agree on what they take and what they refuse."""
    try:
        by_columns = read_columns(path)
    except CerankError:
        try:
            read_trec_run(path)
        except CerankError:
            raise
        raise AssertionError("refused by columns, taken by lines") from None
    by_lines = read_trec_run(path)
    assert {query: tuple(by_columns.ranking[query]) for query in by_columns.ranking} == dict(by_lines.ranking)
    assert by_columns.ties == by_lines.ties


def _ingested(path: Path) -> None:
    found = ingest_run(path, path.parent / "cache")
    assert all(len(found[query]) == len(found.scores(query)) for query in found)


def _qrels(path: Path) -> None:
    qrels = read_qrels(path)
    again = path.with_name("again")
    again.write_bytes(write_qrels(qrels))
    assert read_qrels(again) == qrels, "qrels that read back otherwise"


def _folder(path: Path) -> None:
    """A dataset whose other files are sound."""
    folder = path.parent
    others = {"docs.jsonl": DOCUMENTS, "queries.tsv": QUERIES, "qrels": QRELS}
    kind = next(part for part in ("docs", "queries", "qrels", "corpus", "collection") if path.name.startswith(part))
    for name, content in others.items():
        if not name.startswith("docs" if kind == "corpus" else kind) and not (folder / name).exists():
            (folder / name).write_bytes(content)
    dataset = open_dataset(str(folder), folder)
    assert all(isinstance(text, str) for _, text in dataset.documents)
    dataset.documents.texts([doc_id for doc_id, _ in dataset.documents])


def _permutations(path: Path) -> None:
    rows = path.with_suffix(".jsonl")
    if not rows.exists():
        rows.write_bytes(b'{"query_id":"q1","query":"x","retrieved_passages":[{"docid":"d1"},{"docid":"d2"}]}\n')
    read_permutations(path, rows)


def _permuted_rows(path: Path) -> None:
    path.with_suffix(".json").write_bytes(b'["[2] > [1]"]')
    read_permutations(path.with_suffix(".json"), path)


def _overrides(path: Path) -> None:
    words = [line for line in path.read_bytes().decode("utf-8", "surrogateescape").split("\n") if line]
    load("distill", overrides=words[:8])


def _imported(name: str) -> Act:
    def act(path: Path) -> None:
        into = path.parent / "out"
        collection = path.parent / "collection"
        if not collection.exists():
            collection.mkdir()
            numbers = b"".join(b'{"doc_id":"%d","text":"t"}\n' % number for number in range(5))
            (collection / "docs.jsonl").write_bytes(DOCUMENTS + numbers)
            (collection / "queries.tsv").write_bytes(QUERIES + b"1\tone\n")
            (collection / "qrels").write_bytes(QRELS + b"1 0 1 1\n")
        try:
            import_files(
                name, [path], into, ImportOptions(collection=str(collection) if FORMATS[name].collection else "")
            )
        except CerankError:
            assert not into.exists(), "a refused import left a folder"
            raise
        open_dataset(str(into), path.parent)

    return act


def _lab_file(relative: str, look: Callable[[Path, RunFolder], object]) -> Act:
    """A file of a run in a lab; the lab's list must always stand."""

    def act(path: Path) -> None:
        lab = path.parent / "lab"
        folder = RunFolder(lab / "runs" / "2026-01-01-000000-x-y-0000")
        target = (folder.path if not relative.startswith("/") else lab) / relative.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.path.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(path, target)
        run_store.list_runs(lab, records_now())
        look(lab, folder)

    return act


def records_now():  # type: ignore[no-untyped-def]  # a datetime, imported late for the fuzzer's sake
    """A fixed time."""
    from datetime import UTC, datetime

    return datetime(2026, 11, 23, tzinfo=UTC)


def _plan_inside(path: Path) -> None:
    """A plan whose hash is right, so that what is wrong stands behind it; no fuzzer finds a SHA-256."""
    inside = path.read_bytes()
    stored = b'{"fingerprint":"x","sha256":"%s","plan":%s}' % (hashlib.sha256(inside).hexdigest().encode(), inside)
    path.with_name("whole.json").write_bytes(stored)
    _lab_file("plan.json", lambda _, folder: run_store.load_plan(folder))(path.with_name("whole.json"))


def _tailed(folder: RunFolder) -> None:
    tail: journal.Tail[ReadingRow] = journal.Tail(folder.readings, ReadingRow)
    tail.new()
    journal.read_valid_rows(folder.readings, ReadingRow)
    run_summaries.LatestValidation(folder).refresh()
    journal.read(folder.readings, ReadingRow)


def _base(path: Path) -> None:
    """A model folder, up to the point where it would be handed to transformers."""
    folder = path.parent
    for name, content in (("config.json", b'{"model_type":"bert"}'), ("model.safetensors", b"\0" * 16)):
        if not (folder / name).exists():
            (folder / name).write_bytes(content)
    locate(str(folder), fetch=False)


TARGETS: dict[str, Target] = {
    "run": Target("a.run", _run),
    "run-columns": Target("a.run", _columns),
    "run-ingested": Target("a.run", _ingested),
    "qrels": Target("qrels", _qrels),
    "documents-jsonl": Target("docs.jsonl", _folder),
    "documents-tsv": Target("docs.tsv", _folder),
    "corpus-jsonl": Target("corpus.jsonl", _folder),
    "queries-tsv": Target("queries.tsv", _folder),
    "queries-jsonl": Target("queries.jsonl", _folder),
    "collection-toml": Target("collection.toml", _folder),
    "permutations": Target("a.json", _permutations),
    "permuted-rows": Target("a.jsonl", _permuted_rows),
    "recipe": Target("a.toml", lambda path: load(str(path))),
    "overrides": Target("words", _overrides, needs_line=False),
    "matrix": Target("a.toml", lambda path: load_matrix(str(path))),
    "settings": Target("cerank.toml", lambda path: resolve(Flags(), {}, path.parent)),
    "plan": Target(
        "plan.json", _lab_file("plan.json", lambda _, folder: run_store.load_plan(folder)), needs_line=False
    ),
    "plan-inside": Target("inside.json", _plan_inside, needs_line=False),
    "readings": Target("readings.jsonl", _lab_file("readings.jsonl", lambda _, folder: _tailed(folder))),
    "events": Target("events.jsonl", _lab_file("events.jsonl", lambda _, folder: journal.read(folder.events, Event))),
    "progress": Target(
        "progress.json",
        _lab_file("progress.json", lambda _, folder: json_records.load(folder.progress, Progress)),
        needs_line=False,
    ),
    "notes": Target(
        "notes.json", _lab_file("notes.json", lambda _, folder: user_labels.load(folder)), needs_line=False
    ),
    "queue": Target("queue.json", _lab_file("/queue/queue.json", lambda lab, _: queue.entries(lab)), needs_line=False),
    "matrix-record": Target("m.json", lambda path: json_records.load(path, MatrixRecord), needs_line=False),
    "base-config": Target("config.json", _base, needs_line=False),
    "base-mark": Target("cerank.json", _base, needs_line=False),
    **{f"import-{name}": Target("given", _imported(name)) for name in FORMATS},
}


def corpus(name: str) -> Iterator[tuple[str, bytes]]:
    """(file name, bytes) of the kept inputs of a target: seeds, and what once went wrong."""
    folder = Path(__file__).parent / "corpus" / name
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield path.name, path.read_bytes()
