"""Datasets in local folders: cerank's own layout and BEIR's, every file plain or gzip.

Own layout: docs.jsonl (doc_id, optional title, text) or docs.tsv, queries.tsv or queries.jsonl (query_id, text),
qrels (TREC) and runs/*.run. BEIR's: corpus.jsonl (_id, title, text), queries.jsonl (_id, text), qrels/test.tsv.
A folder with collection.toml takes from another dataset (an ir_datasets id or a folder) what it does not hold itself:
documents, queries, qrels; query-ids.txt, an id a line, says which of the other's queries are its own.
Invariant: all files are checked completely when the folder is opened, so that errors appear before any work; a
large file that was read before and has not changed since is not read again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.core import decode
from cerank.datasets.dataset import Dataset, Documents, judged_only, no_document
from cerank.errors import CerankError, FormatError, MissingError, UsageError, os_error
from cerank.files.hashing import sha256_file, sha256_text
from cerank.files.line_reader import (
    Opener,
    at,
    checked_id,
    duplicate_error,
    json_lines,
    line_blocks,
    local_path,
    tab_lines,
)
from cerank.files.safe_open import read_file
from cerank.registry import nearest
from cerank.text.safe_text import counted, shown
from cerank.trec.open_run import is_large, open_run_file
from cerank.trec.rows import RunFile
from cerank.trec.text_io import read_qrels

COLLECTION, QUERY_IDS = "collection.toml", "query-ids.txt"
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


class _Collection(msgspec.Struct, frozen=True):
    """Exactly one of the two is given."""

    ir_datasets: str = ""  # an id
    folder: str = ""  # a path, relative ones from the folder that names it; FOLDER#SPLIT takes other qrels


class FolderDocuments:
    """Documents read from one file, texts in memory."""

    def __init__(self, texts: Mapping[str, str], sha256: str, dataset: str) -> None:
        self._texts = texts
        self._sha256 = sha256
        self._dataset = dataset

    def text(self, doc_id: str) -> str:
        """Return the text of one document; MissingError where there is none."""
        try:
            return self._texts[doc_id]
        except KeyError:
            raise no_document(doc_id, self._dataset) from None

    def texts(self, doc_ids: Sequence[str]) -> list[str]:
        """Return the texts of `doc_ids`, in their order."""
        return [self.text(doc_id) for doc_id in doc_ids]

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self._texts

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._texts.items())

    def fingerprint(self) -> str:
        """Return the SHA-256 of the documents' file."""
        return self._sha256


def _existing(folder: Path, names: Sequence[str]) -> list[Path]:
    return [path for name in names for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def _find_one(folder: Path, names: Sequence[str], what: str) -> Path:
    """Return the only file with one of these names, plain or gzip; none or several are errors."""
    paths = _existing(folder, names)
    if not paths:
        raise MissingError(f"no {what} ({', '.join(names)}; plain or .gz)", where=str(folder), hint=_LAYOUT)
    if len(paths) > 1:
        both = " and ".join(path.name for path in paths)
        raise UsageError(f"both {both} are here", where=str(folder), hint="remove one of them")
    return paths[0]


def _document_rows(path: Path, opener: Opener | None = None) -> Iterator[tuple[int, str, str]]:
    """Yield (line, id, text) with title and text joined by one space."""
    if ".tsv" in path.suffixes:
        for number, parts in tab_lines(path, (2, 3), opener):
            yield number, parts[0], " ".join(filter(None, parts[1:]))
        return
    for number, row in json_lines(path, _DocumentRow, opener):
        if row.text is None and row.title is None:
            raise FormatError("a document without text", where=at(path, number), hint="keys: doc_id, title, text")
        yield number, row.doc_id or row.beir_id, " ".join(filter(None, (row.title, row.text)))


@functools.lru_cache(maxsize=2)
def _documents(path: Path, stamp: tuple[int, int]) -> tuple[dict[str, str], str]:  # noqa: ARG001  the stamp is a cache key
    """Return the texts by id and the file's SHA-256; cached, because train and test often share a folder."""
    texts: dict[str, str] = {}
    for number, doc_id, text in _document_rows(path):
        where = at(path, number)
        if checked_id(doc_id, "document", where) in texts:
            raise duplicate_error("document", doc_id, where)
        texts[doc_id] = text
    if not texts:
        raise FormatError("the file holds no document", where=str(path))
    return texts, sha256_file(path)


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
            raise duplicate_error("query", query_id, where)
        if not text.strip():
            raise FormatError(f"query '{shown(query_id, 80)}' has no text", where=where)
        texts[query_id] = text
    if not texts:
        raise FormatError("the file holds no query", where=str(path))
    return texts


def _stem(path: Path) -> str:
    """Return `dev` for qrels/dev.tsv.gz, `bm25` for bm25.run."""
    name = path.name.removesuffix(".gz")
    for suffix in (".tsv", ".run", ".qrels", ".txt"):
        name = name.removesuffix(suffix)
    return name


def _qrels_files(folder: Path) -> dict[str, Path]:
    """Return the qrels file of each split; "" stands for the file `qrels` itself."""
    plain = _existing(folder, ("qrels", "qrels.tsv"))
    if len(plain) > 1:
        both = " and ".join(path.name for path in plain)
        raise UsageError(f"both {both} are here", where=str(folder), hint="remove one of them")
    files = {"": plain[0]} if plain else {}
    for path in sorted(folder.glob("qrels.*")):
        split = path.name.removesuffix(".gz").removeprefix("qrels").removeprefix(".")
        if path.is_file() and split not in {"", "tsv"}:
            files[split] = path
    if (folder / "qrels").is_dir():
        files |= {_stem(path): path for path in sorted((folder / "qrels").iterdir()) if path.is_file()}
    return files


def _qrels_file(folder: Path, split: str) -> Path | None:
    """Return the qrels file of a split; without a split, that of "test" or the only one; None if there is none.

    Raises:
        UsageError: the folder has no such split, or several and none called test.
    """
    files = _qrels_files(folder)
    if split in files:
        return files[split]
    if not split and ("test" in files or len(files) < 2):
        return files.get("test") or next(iter(files.values()), None)
    names = [name for name in files if name]
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


def collection_toml(name: str) -> bytes:
    """Return the collection.toml of a folder that takes its texts from `name`, an ir_datasets id or a folder.

    Raises:
        UsageError: a folder that is none.
    """
    key, value = "ir_datasets", name
    if name.startswith(("./", "../", "~", "/")) or Path(name).is_absolute():
        path, _, split = name.partition("#")
        if not local_path(path).is_dir():
            raise UsageError(
                "there is no such folder", where=shown(name, 200), hint="an ir_datasets id is written without ./"
            )
        key, value = "folder", f"{local_path(path).resolve()}{'#' + split if split else ''}"
    text = msgspec.json.encode(value).decode()  # a JSON string is a TOML string
    return f"# Texts (and qrels) that this folder does not have come from this dataset.\n{key} = {text}\n".encode()


def _open_collection(folder: Path, cache: Path | None) -> Dataset | None:
    """Return the dataset that the folder's collection.toml names; None for a folder without that file."""
    path = folder / COLLECTION
    if not path.is_file():
        return None
    try:
        values = decode.toml_table(read_file(path, decode.LARGEST_TOML + 1), str(path))
    except OSError as error:
        raise os_error(error, path) from error
    mistakes: list[str] = []
    named = decode.decode_table(_Collection, values, "", mistakes)
    if named is None or bool(named.ir_datasets) == bool(named.folder):
        what = "\n".join(mistakes) or "names not exactly one of ir_datasets and folder"
        raise FormatError(what, where=str(path), hint='such as ir_datasets = "msmarco-passage/train/judged"')
    if named.ir_datasets:
        from cerank.datasets.irds import open_catalog_dataset

        try:
            return open_catalog_dataset(named.ir_datasets, cache)
        except CerankError as error:
            raise type(error)(error.what, where=error.where or str(path), hint=error.hint) from error
    other, _, split = named.folder.partition("#")
    there = folder / local_path(other)
    if (there / COLLECTION).exists():
        raise FormatError("names a folder that itself refers to another", where=str(path), hint="name that one")
    return open_folder(there, split, named.folder, cache=cache)


def _queries_of_collection(folder: Path, shared: Dataset) -> tuple[dict[str, str], str]:
    """Return the queries of `shared` that query-ids.txt lists, or all, and the SHA-256 of that file."""
    path = folder / QUERY_IDS
    if not path.is_file():
        return dict(shared.queries), ""
    ids = [line.strip().decode() for _, lines in line_blocks(path, columns=True) for line in lines if line.strip()]
    absent = [query for query in ids if query not in shared.queries]
    if absent:
        what = f"{len(absent)} of {counted(len(ids), 'query')} are none of {shared.name}'s judged ones, such as"
        raise FormatError(f"{what} '{shown(absent[0], 80)}'", where=str(path), hint=f"fix {COLLECTION}")
    return {query: shared.queries[query] for query in ids}, sha256_file(path)


def _open_documents(folder: Path, shared: Dataset | None, name: str, cache: Path | None) -> tuple[Documents, str]:
    """Return the documents and their hash; those of a large file stay on disk."""
    if shared is not None and not _existing(folder, _DOCUMENTS):
        return shared.documents, shared.identity
    path = _find_one(folder, _DOCUMENTS, "documents")
    if cache is not None and is_large(path):
        from cerank.datasets import mapped_documents

        documents = mapped_documents.open_mapped_documents(path, cache, name, _document_rows)
        return documents, documents.fingerprint()
    texts, sha256 = _documents(path, _stamp(path))
    return FolderDocuments(texts, sha256, name), sha256


def _open_queries(folder: Path, shared: Dataset | None) -> tuple[dict[str, str], str, Path]:
    """Return the queries, their hash, and the file that errors about them should name."""
    if shared is not None and not _existing(folder, _QUERIES):
        return *_queries_of_collection(folder, shared), folder / COLLECTION
    path = _find_one(folder, _QUERIES, "queries")
    return _queries(path), sha256_file(path), path


def open_folder(folder: Path, split: str, name: str, description: str = "", *, cache: Path | None = None) -> Dataset:
    """Return the dataset in `folder`.

    Args:
        folder: cerank's layout or BEIR's.
        split: picks qrels/SPLIT.tsv or qrels.SPLIT; "" takes `qrels`, or else the split called test.
        name: as the person wrote it.
        description: a line about it; "" makes one.
        cache: folder where large documents and runs become maps; None reads all of them into memory.

    Raises:
        MissingError: the folder or one of its files is not there.
        FormatError: a malformed file, with file:line.
        UsageError: two files for one thing, or no such split.
    """
    if not folder.is_dir():
        raise MissingError("no such folder", where=str(folder))
    shared = _open_collection(folder, cache)
    documents, documents_hash = _open_documents(folder, shared, name, cache)
    queries, queries_hash, named_in = _open_queries(folder, shared)
    qrels_file = _qrels_file(folder, split)
    qrels = read_qrels(qrels_file) if qrels_file else {}
    if shared is not None and not qrels_file:
        qrels = {query: row for query, row in shared.qrels.items() if query in queries}
    for query in qrels:
        if query not in queries:
            raise FormatError(f"judged query '{shown(query, 80)}' has no text", where=str(named_in))
    own = _runs(folder)
    hashes = [documents_hash, queries_hash, sha256_file(qrels_file) if qrels_file else ""]

    def read(run: str) -> RunFile:
        return shared.run(run) if shared is not None and run not in own else open_run_file(own[run], cache)

    return Dataset(
        name=name,
        location=str(folder.resolve()),
        description=description or "a local folder",
        queries=judged_only(queries, qrels),
        qrels=qrels,
        documents=documents,
        runs=tuple(dict.fromkeys((*own, *(shared.runs if shared is not None else ())))),
        identity=sha256_text("\n".join(hashes)),
        reader=read,
    )
