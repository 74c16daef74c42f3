"""Datasets in local folders: cerank's own layout and BEIR's, every file plain or gzip.

Own layout: docs.jsonl (doc_id, optional title, text) or docs.tsv, queries.tsv or queries.jsonl (query_id, text),
qrels (TREC) and runs/*.run. BEIR's: corpus.jsonl (_id, title, text), queries.jsonl (_id, text), qrels/test.tsv.
Invariant: files are read strictly and whole when the folder is opened, so that a mistake shows before any work.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.data.dataset import Dataset, judged_only, no_document
from cerank.data.files import at, checked_id, json_lines, sha256_of, tab_lines
from cerank.data.trec import RunFile, read_qrels, read_run
from cerank.errors import FormatError, MissingError, UsageError
from cerank.registry import nearest
from cerank.text import shown

_DOCUMENTS = ("docs.jsonl", "docs.tsv", "corpus.jsonl")
_QUERIES = ("queries.tsv", "queries.jsonl")
_LAYOUT = "a dataset folder holds docs.jsonl, queries.tsv and qrels, or BEIR's corpus.jsonl, queries.jsonl and qrels/"


class _DocumentRow(msgspec.Struct):
    doc_id: str = ""
    beir_id: str = msgspec.field(name="_id", default="")
    title: str | None = None
    text: str | None = None


class _QueryRow(msgspec.Struct):
    query_id: str = ""
    beir_id: str = msgspec.field(name="_id", default="")
    text: str = ""


class FolderDocuments:
    """Documents read from one file, texts in memory."""

    def __init__(self, texts: Mapping[str, str], sha256: str, dataset: str) -> None:
        self._texts = texts
        self._sha256 = sha256
        self._dataset = dataset

    def text(self, doc_id: str) -> str:
        """The text of one document; MissingError where there is none."""
        try:
            return self._texts[doc_id]
        except KeyError:
            raise no_document(doc_id, self._dataset) from None

    def texts(self, doc_ids: Sequence[str]) -> list[str]:
        """The texts of `doc_ids`, in their order."""
        return [self.text(doc_id) for doc_id in doc_ids]

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self._texts

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._texts.items())

    def fingerprint(self) -> str:
        """SHA-256 of the documents' file."""
        return self._sha256


def _existing(folder: Path, names: Sequence[str]) -> list[Path]:
    return [path for name in names for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def _the_one(folder: Path, names: Sequence[str], what: str) -> Path:
    """The only file of these names, plain or gzip; none and several are both refused."""
    found = _existing(folder, names)
    if not found:
        raise MissingError(f"no {what} ({', '.join(names)}; plain or .gz)", where=str(folder), hint=_LAYOUT)
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise UsageError(f"both {both} are here", where=str(folder), hint="leave one of them")
    return found[0]


def _document_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, id, text) with title and text joined by one space."""
    if ".tsv" in path.suffixes:
        for number, parts in tab_lines(path, (2, 3)):
            yield number, parts[0], " ".join(filter(None, parts[1:]))
        return
    for number, row in json_lines(path, _DocumentRow):
        if row.text is None and row.title is None:
            raise FormatError("a document without text", where=at(path, number), hint="keys: doc_id, title, text")
        yield number, row.doc_id or row.beir_id, " ".join(filter(None, (row.title, row.text)))


@functools.lru_cache(maxsize=2)
def _documents(path: Path, stamp: tuple[int, int]) -> tuple[dict[str, str], str]:  # noqa: ARG001  the stamp is a cache key
    """Texts by id and the file's SHA-256; kept, for train, validation and test are often parts of one folder."""
    texts: dict[str, str] = {}
    for number, doc_id, text in _document_rows(path):
        where = at(path, number)
        if checked_id(doc_id, "document", where) in texts:
            raise FormatError(f"document '{shown(doc_id, 80)}' stands twice", where=where)
        texts[doc_id] = text
    if not texts:
        raise FormatError("holds no document", where=str(path))
    return texts, sha256_of(path)


def _query_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    if ".tsv" in path.suffixes:
        for number, (query_id, text) in tab_lines(path, (2,)):
            yield number, query_id, text
        return
    for number, row in json_lines(path, _QueryRow):
        yield number, row.query_id or row.beir_id, row.text


def _queries(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, query_id, text in _query_rows(path):
        where = at(path, number)
        if checked_id(query_id, "query", where) in texts:
            raise FormatError(f"query '{shown(query_id, 80)}' stands twice", where=where)
        if not text.strip():
            raise FormatError(f"query '{shown(query_id, 80)}' has no text", where=where)
        texts[query_id] = text
    if not texts:
        raise FormatError("holds no query", where=str(path))
    return texts


def _stem(path: Path) -> str:
    """`dev` for qrels/dev.tsv.gz, `bm25` for bm25.run."""
    name = path.name.removesuffix(".gz")
    for suffix in (".tsv", ".run", ".qrels", ".txt"):
        name = name.removesuffix(suffix)
    return name


def _qrels_files(folder: Path) -> dict[str, Path]:
    """Name of a split -> its qrels; "" is the file `qrels` itself."""
    plain = _existing(folder, ("qrels", "qrels.tsv"))
    if len(plain) > 1:
        both = " and ".join(path.name for path in plain)
        raise UsageError(f"both {both} are here", where=str(folder), hint="leave one of them")
    found = {"": plain[0]} if plain else {}
    for path in sorted(folder.glob("qrels.*")):
        split = path.name.removesuffix(".gz").removeprefix("qrels").removeprefix(".")
        if path.is_file() and split not in {"", "tsv"}:
            found[split] = path
    if (folder / "qrels").is_dir():
        found |= {_stem(path): path for path in sorted((folder / "qrels").iterdir()) if path.is_file()}
    return found


def _qrels_file(folder: Path, split: str) -> Path | None:
    """The qrels of a split: of "test" or the only ones where none is asked for; None for a folder without any.

    Raises:
        UsageError: the folder has no such split, or several and none called test.
    """
    found = _qrels_files(folder)
    if split in found:
        return found[split]
    if not split and ("test" in found or len(found) < 2):
        return found.get("test") or next(iter(found.values()), None)
    names = [name for name in found if name]
    if split:
        hint = nearest(split, names) if names else "it has none"
        raise UsageError(f"no qrels for '{shown(split, 80)}'", where=str(folder), hint=hint)
    raise UsageError("several qrels, none called test", where=str(folder), hint=f"add one: #{' #'.join(names)}")


def _runs(folder: Path) -> dict[str, Path]:
    paths = sorted((folder / "runs").glob("*.run")) + sorted((folder / "runs").glob("*.run.gz"))
    return {_stem(path): path for path in paths if path.is_file()}


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def open_folder(folder: Path, split: str, name: str, description: str = "") -> Dataset:
    """The dataset in `folder`.

    Args:
        folder: cerank's layout or BEIR's.
        split: picks qrels/SPLIT.tsv or qrels.SPLIT; "" takes `qrels`, or else the split called test.
        name: as the person wrote it.
        description: a line about it; "" makes one.

    Raises:
        MissingError: the folder or one of its files is not there.
        FormatError: a malformed file, with file:line.
        UsageError: two files for one thing, or no such split.
    """
    if not folder.is_dir():
        raise MissingError("no such folder", where=str(folder))
    documents_file = _the_one(folder, _DOCUMENTS, "documents")
    queries_file = _the_one(folder, _QUERIES, "queries")
    qrels_file = _qrels_file(folder, split)
    queries = _queries(queries_file)
    qrels = read_qrels(qrels_file) if qrels_file else {}
    for query in qrels:
        if query not in queries:
            raise FormatError(f"judged query '{shown(query, 80)}' has no text", where=str(queries_file))
    runs = _runs(folder)
    texts, sha256 = _documents(documents_file, _stamp(documents_file))
    hashes = [sha256, sha256_of(queries_file), sha256_of(qrels_file) if qrels_file else ""]

    def read(run: str) -> RunFile:
        return read_run(runs[run])

    return Dataset(
        name=name,
        location=str(folder.resolve()),
        description=description or "a local folder",
        queries=judged_only(queries, qrels),
        qrels=qrels,
        documents=FolderDocuments(texts, sha256, name),
        runs=tuple(runs),
        identity=hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        reader=read,
    )
