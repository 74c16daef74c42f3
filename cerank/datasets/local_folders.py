"""Datasets in local folders: cerank's own layout and BEIR's, every file plain or packed.

Own layout: docs.jsonl (doc_id, optional title, text) or docs.tsv, queries.tsv or queries.jsonl (query_id, text),
qrels (TREC) and runs/*.run. BEIR's: corpus.jsonl (_id, title, text), queries.jsonl (_id, text), qrels/test.tsv; as
parquet, too, also in the folders corpus/, queries/ and qrels/ of hub mirrors. `text_files` knows the other formats.
A folder with collection.toml takes from another dataset (an ir_datasets id or a folder) what it does not hold itself:
documents, queries, qrels; query-ids.txt, an id a line, says which of the other's queries are its own. The file may also
say what to do with queries without text, which part of TREC topics is the query, how a document's text is written from
its fields, and whether a query's own document is left out of its results.
Invariant: all files are checked completely when the folder is opened, so that errors appear before any work; a
large file that was read before and has not changed since is not read again.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from cerank.core import decode
from cerank.datasets.dataset import (
    IGNORES_IDENTICAL_IDS,
    Dataset,
    Documents,
    FieldReader,
    StoredQrels,
    StoredQueries,
    judged_only,
    no_document,
)
from cerank.datasets.document_fields import OtherFingerprint, with_template
from cerank.datasets.document_templates import DocumentTemplate
from cerank.datasets.query_text import normalized
from cerank.datasets.text_files import (
    TextRow,
    TopicField,
    are_topics,
    document_rows,
    field_rows,
    query_rows,
    read_query_fields,
)
from cerank.errors import CerankError, FormatError, MissingError, UsageError, os_error
from cerank.files.hashing import combined_sha256, input_sha256, sha256_text
from cerank.files.line_reader import Opener, at, checked_id, duplicate_error, line_blocks, local_path
from cerank.files.named_files import near_folders
from cerank.files.packed_files import PACKED_ENDINGS
from cerank.files.safe_open import read_file
from cerank.registry import nearest
from cerank.text.safe_text import counted, shown
from cerank.trec import open_run
from cerank.trec.open_run import is_large, open_run_file
from cerank.trec.rows import RunFile
from cerank.trec.text_io import read_qrels

COLLECTION, QUERY_IDS = "collection.toml", "query-ids.txt"
_DOCUMENTS = (
    *("docs.jsonl", "docs.tsv", "docs.csv", "docs.parquet", "docs.trec", "docs.sgml", "docs.xml"),
    *("corpus.jsonl", "corpus.tsv", "corpus.csv", "corpus.parquet", "collection.tsv"),
)
_QUERIES = (
    *("queries.tsv", "queries.jsonl", "queries.csv", "queries.parquet", "queries.xml"),
    *("topics", "topics.txt", "topics.trec", "topics.xml", "topics.tsv"),
)
_SHARDS = {"documents": "corpus", "queries": "queries"}  # folders of parquet files in mirrors of BEIR
_SHARD_NAME = re.compile(r"-\d{5}-of-\d{5}$")
MAKER_ENDING = ".teacher.json"  # of the record beside qrels that a model made
_LAYOUT = "a dataset folder holds docs.jsonl, queries.tsv and qrels, or BEIR's corpus.jsonl, queries.jsonl and qrels/"
_SAMPLED_DOCUMENTS = 1000  # at the beginning of a file, whose fields are looked at
LARGE_QUERIES = 32 << 20  # bytes of queries or qrels from which they stay on disk: some 500,000 queries
LARGE_QUERIES_PACKED = 8 << 20  # likewise, where the file is packed
_SAMPLE = 200  # queries that are looked up to see whether they are documents of the collection themselves


class _Collection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """collection.toml: at most one of `ir_datasets` and `folder` is given."""

    ir_datasets: str = ""  # an id
    folder: str = ""  # a path, relative ones from the folder that names it; FOLDER#SPLIT takes other qrels
    without_text: Literal["refuse", "skip"] = "refuse"  # what to do with queries that have no text
    topic: tuple[TopicField, ...] = ("title",)  # parts of TREC topics that make the query
    document_template: str = ""  # the text of a document from its fields; "" joins title and text by a space
    ignore_identical_ids: bool | None = None  # whether a query's own document is left out of its results; None: told


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


class FolderFields:
    """The fields of the documents in a folder's files."""

    def __init__(self, paths: Sequence[Path], dataset: str, cache: Path | None) -> None:
        self._paths, self._dataset, self._cache = tuple(paths), dataset, cache

    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields that hold text in one of the first documents."""
        first = itertools.islice(itertools.chain.from_iterable(map(field_rows, self._paths)), _SAMPLED_DOCUMENTS)
        return tuple(dict.fromkeys(name for _, _, values in first for name in values))

    def documents(self, template: DocumentTemplate) -> Documents:
        """Return the documents with the texts that the template makes, read from the files once more."""

        def rows(path: Path, opener: Opener | None = None) -> Iterator[TextRow]:
            for number, doc_id, values in field_rows(path, opener):
                yield number, doc_id, template.fill(values)

        if self._cache is not None and _are_large(self._paths):
            from cerank.datasets import mapped_documents

            own = self._cache / "templates" / sha256_text(template.text)[:16]
            mapped = mapped_documents.open_mapped_documents(self._paths, own, self._dataset, rows)
            return OtherFingerprint(mapped, sha256_text(f"{mapped.fingerprint()}\n{template.text}"))
        texts = _read_documents(self._paths, rows)
        return FolderDocuments(texts, sha256_text(f"{_sha256(self._paths)}\n{template.text}"), self._dataset)


def _existing(folder: Path, names: Sequence[str]) -> list[Path]:
    endings = ("", *sorted(PACKED_ENDINGS))
    return [path for name in names for ending in endings if (path := folder / f"{name}{ending}").is_file()]


def _shards(folder: Path, what: str) -> list[Path]:
    """Return the parquet files of a hub mirror, in their order."""
    return sorted((folder / _SHARDS[what]).glob("*.parquet"))


def _find_files(folder: Path, names: Sequence[str], what: str) -> list[Path]:
    """Return the only file with one of these names, or the parquet files of a hub mirror."""
    paths = _existing(folder, names)
    if len(paths) > 1:
        both = " and ".join(path.name for path in paths)
        raise UsageError(f"both {both} are here", where=str(folder), hint="remove one of them", code="file-ambiguous")
    if not paths:
        paths = _shards(folder, what)
    if not paths:
        raise MissingError(
            f"no {what} ({', '.join(names)}; plain or packed)",
            where=str(folder),
            hint=_LAYOUT,
            code="documents-missing",
        )
    return paths


@functools.lru_cache(maxsize=2)
def _documents(paths: tuple[Path, ...], stamps: tuple[tuple[int, int], ...]) -> tuple[dict[str, str], str]:  # noqa: ARG001  a cache key
    """Return the texts by id and the files' SHA-256; cached, because train and test often share a folder."""
    return _read_documents(paths, document_rows), _sha256(paths)


def _read_documents(paths: Sequence[Path], rows: Callable[[Path], Iterator[TextRow]]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in paths:
        for number, doc_id, text in rows(path):
            where = at(path, number)
            if checked_id(doc_id, "document", where) in texts:
                raise duplicate_error("document", doc_id, where)
            texts[doc_id] = text
    if not texts:
        raise FormatError("the file holds no document", where=str(paths[0]), hint=_EMPTY_HINT, code="no-documents")
    return texts


def _sha256(paths: Sequence[Path]) -> str:
    return combined_sha256([input_sha256(path) for path in paths])


def _queries(paths: Sequence[Path], options: _Collection) -> tuple[dict[str, str], list[str]]:
    """Return the queries by id, and the ids of those without text that are skipped."""
    texts: dict[str, str] = {}
    skipped: dict[str, None] = {}
    for path in paths:
        for number, query_id, text in query_rows(path, options.topic):
            where = at(path, number)
            if checked_id(query_id, "query", where) in texts or query_id in skipped:
                raise duplicate_error("query", query_id, where)
            if text.strip():
                texts[query_id] = text
            elif options.without_text == "skip":
                skipped[query_id] = None
            else:
                raise FormatError(
                    f"query '{shown(query_id, 80)}' has no text", where=where, hint=_SKIP_HINT, code="text-missing"
                )
    if not texts:
        raise FormatError("the file holds no query", where=str(paths[0]), hint=_EMPTY_HINT, code="no-queries")
    return texts, list(skipped)


_EMPTY_HINT = "did what wrote it fail?"
_SKIP_HINT = f'add the text, or write without_text = "skip" in {COLLECTION} to leave such queries out, counted'


def _stem(path: Path) -> str:
    """Return `dev` for qrels/dev.tsv.gz and qrels/dev-00000-of-00001.parquet, `bm25` for bm25.run."""
    name = path.stem if path.suffix in PACKED_ENDINGS else path.name
    for suffix in (".tsv", ".run", ".qrels", ".txt", ".parquet", ".json", ".csv"):
        name = name.removesuffix(suffix)
    return _SHARD_NAME.sub("", name)


def _qrels_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the qrels file of each split, or its parts in parquet; "" stands for the file `qrels` itself."""
    plain = _existing(folder, ("qrels", "qrels.tsv", "qrels.parquet", "qrels.json", "qrels.csv"))
    if len(plain) > 1:
        both = " and ".join(path.name for path in plain)
        raise UsageError(f"both {both} are here", where=str(folder), hint="remove one of them")
    files: dict[str, tuple[Path, ...]] = {"": (plain[0],)} if plain else {}
    for path in sorted(folder.glob("qrels.*")):
        split = (path.stem if path.suffix in PACKED_ENDINGS else path.name).removeprefix("qrels").removeprefix(".")
        if (
            path.is_file()
            and not path.name.endswith(MAKER_ENDING)
            and split not in {"", "tsv", "parquet", "json", "csv"}
        ):
            files[split] = (path,)
    if (folder / "qrels").is_dir():
        inside = [path for path in sorted((folder / "qrels").iterdir()) if not path.name.endswith(MAKER_ENDING)]
        for path in filter(Path.is_file, inside):
            before = files.get(_stem(path), ())
            are_parts = path.suffix == ".parquet" and all(other.suffix == ".parquet" for other in before)
            files[_stem(path)] = (*before, path) if are_parts else (path,)
    return files


def _qrels_file(folder: Path, split: str) -> Path | None:
    """Return the qrels file of a split; without a split, that of "test" or the only one; None if there is none.

    Raises:
        UsageError: the folder has no such split, or several and none called test, or it in several files.
    """
    files = _qrels_files(folder)
    if split in files:
        return _only(files[split])
    if not split and ("test" in files or len(files) < 2):
        return _only(files.get("test") or next(iter(files.values()), ()))
    names = [name for name in files if name]
    if split:
        hint = nearest(split, names) if names else "it has none"
        raise UsageError(f"no qrels for '{shown(split, 80)}'", where=str(folder), hint=hint, code="qrels-not-found")
    raise UsageError("several qrels, none called test", where=str(folder), hint=f"add one: #{' #'.join(names)}")


def _only(parts: Sequence[Path]) -> Path | None:
    """Return the file of a split; None where there is none.

    Raises:
        UsageError: there are several, all but one of which would count for nothing.
    """
    if len(parts) > 1:
        what = f"{parts[0].name} and {parts[1].name} are parts of one split"
        hint = "join them into one parquet file"
        raise UsageError(what, where=str(parts[0].parent), hint=hint, code="file-ambiguous")
    return parts[0] if parts else None


def files_with_rows(folder: Path, split: str = "") -> list[tuple[str, Path]]:
    """Return (kind, file) of a folder's own documents, queries and qrels; kinds are document, query and judgment."""
    qrels_file = _qrels_file(folder, split)
    files = [("document", path) for path in _existing(folder, _DOCUMENTS)]
    files += [("query", path) for path in _existing(folder, _QUERIES)]
    return files + ([("judgment", qrels_file)] if qrels_file else [])


def runs_of_folder(folder: Path) -> dict[str, Path]:
    """Return the TREC runs in a dataset's folder, by their names."""
    paths = [
        path for ending in ("", *sorted(PACKED_ENDINGS)) for path in sorted((folder / "runs").glob(f"*.run{ending}"))
    ]
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
                "there is no such folder",
                where=shown(name, 200),
                hint="an ir_datasets id is written without ./",
                code="folder-missing",
            )
        key, value = "folder", f"{local_path(path).resolve()}{'#' + split if split else ''}"
    text = msgspec.json.encode(value).decode()  # a JSON string is a TOML string
    return f"# Texts (and qrels) that this folder does not have come from this dataset.\n{key} = {text}\n".encode()


def _read_collection(folder: Path) -> _Collection:
    """Return what the folder's collection.toml says; the defaults for a folder without that file."""
    path = folder / COLLECTION
    if not path.is_file():
        return _Collection()
    try:
        values = decode.toml_table(read_file(path, decode.LARGEST_TOML + 1), str(path))
    except OSError as error:
        raise os_error(error, path) from error
    mistakes: list[str] = []
    options = decode.decode_table(_Collection, values, "", mistakes)
    if options is None or not values or (options.ir_datasets and options.folder):
        what = "\n".join(mistakes) or "names not exactly one of ir_datasets and folder"
        raise FormatError(
            what,
            where=str(path),
            hint='such as ir_datasets = "msmarco-passage/train/judged"',
            code="dataset-declaration",
        )
    return options


def _open_collection(folder: Path, options: _Collection, cache: Path | None) -> Dataset | None:
    """Return the dataset that the folder's collection.toml names; None where it names none."""
    path = folder / COLLECTION
    if options.ir_datasets:
        from cerank.datasets.irds import open_catalog_dataset

        try:
            return open_catalog_dataset(options.ir_datasets, cache)
        except CerankError as error:
            raise type(error)(error.what, where=error.where or str(path), hint=error.hint) from error
    if not options.folder:
        return None
    other, _, split = options.folder.partition("#")
    there = folder / local_path(other)
    nested = _read_collection(there) if there.is_dir() else _Collection()
    if nested.ir_datasets or nested.folder:
        raise FormatError(
            "the file names a folder that itself refers to another",
            where=str(path),
            hint="name that one",
            code="dataset-reference-nested",
        )
    return open_folder(there, split, options.folder, cache=cache, needs_queries=False)


def _queries_of_collection(folder: Path, shared: Dataset) -> tuple[Mapping[str, str], str]:
    """Return the queries of `shared` that query-ids.txt lists, or all, and the SHA-256 of that file."""
    path = folder / QUERY_IDS
    if not path.is_file():
        return shared.queries, ""
    ids = [line.strip().decode() for _, lines in line_blocks(path, columns=True) for line in lines if line.strip()]
    absent = [query for query in ids if query not in shared.queries]
    if absent:
        what = f"{len(absent)} of {counted(len(ids), 'query')} are none of {shared.name}'s judged ones, such as"
        raise FormatError(
            f"{what} '{shown(absent[0], 80)}'", where=str(path), hint=f"fix {COLLECTION}", code="queries-do-not-match"
        )
    return {query: shared.queries[query] for query in ids}, input_sha256(path)


def _open_documents(
    folder: Path, shared: Dataset | None, name: str, cache: Path | None
) -> tuple[Documents, str, FieldReader | None]:
    """Return the documents, their hash, and what reads their fields; those of a large file stay on disk."""
    if shared is not None and not _existing(folder, _DOCUMENTS):
        return shared.documents, shared.identity, shared.field_reader
    paths = _find_files(folder, _DOCUMENTS, "documents")
    reader = FolderFields(paths, name, cache)
    if cache is not None and _are_large(paths):
        from cerank.datasets import mapped_documents

        documents = mapped_documents.open_mapped_documents(paths, cache, name, document_rows)
        return documents, documents.fingerprint(), reader
    texts, sha256 = _documents(tuple(paths), tuple(_stamp(path) for path in paths))
    return FolderDocuments(texts, sha256, name), sha256, reader


class _OpenedQueries(msgspec.Struct, frozen=True):
    texts: Mapping[str, str]
    sha256: str
    path: Path  # the file that errors about them should name
    skipped: list[str]  # ids of queries without text
    files: tuple[Path, ...] = ()  # their own, with what else they say of queries


class _Judged(msgspec.Struct, frozen=True):
    """Queries and judgments of a folder whose files of them are large."""

    queries: StoredQueries
    qrels: Mapping[str, Mapping[str, int]]
    every: StoredQueries  # of the folder that have a text, judged or not
    paths: tuple[Path, ...]  # the files of queries
    left_out: int  # queries without text, in either file, that are left out


def _have_many_queries(paths: Sequence[Path]) -> bool:
    """Return whether files of queries or of judgments, together, are to stay on disk; no files are not."""
    limit = LARGE_QUERIES_PACKED if _are_packed(paths) else LARGE_QUERIES
    return bool(paths) and sum(path.stat().st_size for path in paths) >= limit


def _are_large(paths: Sequence[Path]) -> bool:
    """Return whether files of documents, together, are to stay on disk."""
    limit = open_run.LARGE_PACKED if _are_packed(paths) else open_run.LARGE
    return is_large(*paths) or sum(path.stat().st_size for path in paths) >= limit


def _are_packed(paths: Sequence[Path]) -> bool:
    """Return whether the content of files is several times as large as they are, as that of parquet is."""
    return bool(paths) and paths[0].suffix in {*PACKED_ENDINGS, ".parquet"}


def _open_mapped(
    folder: Path, qrels_file: Path | None, options: _Collection, shared: Dataset | None, *, name: str, cache: Path
) -> _Judged | None:
    """Return queries and judgments that stay on disk; None where both files are small, or the queries are not a file.

    Raises:
        FormatError: a malformed file, a query without text, or judgments of a query that is not there.
    """
    files = _existing(folder, _QUERIES)
    paths = tuple(files if files or shared is not None else _shards(folder, "queries"))
    are_many = _have_many_queries(paths) or _have_many_queries([qrels_file] if qrels_file else [])
    if not paths or len(files) > 1 or not are_many:  # several files are refused
        return None
    from cerank.datasets.mapped import mapped_queries

    path = paths[0]
    reading = mapped_queries.QueryReading(options.topic, _SKIP_HINT, keeps_empty=options.without_text == "skip")
    queries = mapped_queries.open_mapped_queries(paths, cache, name, reading)
    records = reading.copies(path, cache)  # which queries have a text depends on how they are read, too
    with_text, without_text = (
        mapped_queries.with_text(queries, records, str(path)) if reading.keeps_empty else (queries, 0)
    )
    if qrels_file is None:
        of_shared = shared.qrels if shared is not None else {}
        if not of_shared or shared is None:
            return _Judged(with_text, {}, with_text, paths, without_text)
        judged = mapped_queries.queries_in(with_text, of_shared, records, shared.identity)
        if isinstance(of_shared, StoredQrels):
            return _Judged(judged, of_shared.within(judged), with_text, paths, without_text)
        grades = {query: row for query, row in of_shared.items() if query in judged}
        return _Judged(judged, grades, with_text, paths, without_text)
    qrels = mapped_queries.open_mapped_qrels(qrels_file, cache, name)
    chosen = mapped_queries.judged_queries(queries, with_text, qrels, records)
    if chosen.absent and options.without_text == "refuse":
        raise _judged_without_text(chosen.absent, path)
    if not chosen.queries:  # as where there are no judgments at all
        return _Judged(with_text, {}, with_text, paths, without_text + chosen.unknown)
    own = qrels if not chosen.absent and len(chosen.queries) == len(qrels) else qrels.within(chosen.queries)
    return _Judged(chosen.queries, own, with_text, paths, without_text + chosen.unknown)


def _judged_without_text(query: str, path: Path) -> FormatError:
    what = f"judged query '{shown(query, 80)}' has no text"
    return FormatError(what, where=str(path), hint=_SKIP_HINT, code="text-missing")


def _open_queries(folder: Path, shared: Dataset | None, options: _Collection, *, needs_queries: bool) -> _OpenedQueries:
    if not needs_queries and shared is None and not _existing(folder, _QUERIES) and not _shards(folder, "queries"):
        return _OpenedQueries({}, "", folder, [])
    if shared is not None and not _existing(folder, _QUERIES):
        return _OpenedQueries(*_queries_of_collection(folder, shared), folder / COLLECTION, [])
    paths = _find_files(folder, _QUERIES, "queries")
    texts, skipped = _queries(paths, options)
    return _OpenedQueries(texts, _sha256(paths), paths[0], skipped, tuple(paths))


def _are_documents(queries: Mapping[str, str], documents: Documents) -> bool:
    """Return whether most queries are documents of the collection, by id and text, as in ArguAna and Quora."""
    sample = list(itertools.islice(queries, _SAMPLE))
    own = [query for query in sample if query in documents]
    if 2 * len(own) <= len(sample):
        return False
    texts = documents.texts(own)
    same = sum(normalized(queries[query]) in normalized(text) for query, text in zip(own, texts, strict=True))
    return 2 * same > len(sample)


def _ignores_identical_ids(
    options: _Collection, shared: Dataset | None, queries: Mapping[str, str], documents: Documents
) -> bool:
    """Return whether a query's own document is no result of it: as declared, or as the queries show."""
    if options.ignore_identical_ids is not None:
        return options.ignore_identical_ids
    return shared.ignores_identical_ids if shared is not None else _are_documents(queries, documents)


def _judged_in_memory(
    queries: _OpenedQueries, qrels_file: Path | None, shared: Dataset | None, options: _Collection
) -> tuple[Mapping[str, str], Mapping[str, Mapping[str, int]], int]:
    """Return the queries with judgments, or all where there are none, the judgments, and how many have no text.

    What another dataset lends as a whole is taken as it is, for it may be on disk.

    Raises:
        FormatError: a query with judgments has no text, and such queries are not left out.
    """
    qrels: Mapping[str, Mapping[str, int]] = read_qrels(qrels_file) if qrels_file else {}
    if shared is not None and not qrels_file:
        if queries.texts is shared.queries and isinstance(shared.queries, StoredQueries):
            return shared.queries, shared.qrels, 0
        qrels = {query: row for query, row in shared.qrels.items() if query in queries.texts}
    absent = [query for query in qrels if query not in queries.texts]
    if absent and options.without_text == "refuse":
        raise _judged_without_text(absent[0], queries.path)
    judged = {query: row for query, row in qrels.items() if query in queries.texts}
    return judged_only(queries.texts, judged), judged, len({*absent, *queries.skipped})


def open_folder(
    folder: Path,
    split: str,
    name: str,
    description: str = "",
    *,
    cache: Path | None = None,
    needs_queries: bool = True,
) -> Dataset:
    """Return the dataset in `folder`.

    Args:
        folder: dataset folder, in the layout of cerank or of BEIR.
        split: picks qrels/SPLIT.tsv or qrels.SPLIT; "" takes `qrels`, or else the split called test.
        name: name of the dataset as the user wrote it, for messages.
        description: one line about the dataset; "" describes it by its folder.
        cache: folder for memory-mapped copies of large documents and runs; None reads all of them into memory.
        needs_queries: whether a folder without queries is refused; documents alone are enough to be referred to.

    Raises:
        MissingError: the folder or one of its files is not there.
        FormatError: a malformed file, with file:line.
        UsageError: two files for one thing, or no such split.
    """
    if not folder.is_dir():
        raise MissingError("no such folder", where=str(folder), hint=near_folders(str(folder)))
    options = _read_collection(folder)
    shared = _open_collection(folder, options, cache)
    documents, documents_hash, field_reader = _open_documents(folder, shared, name, cache)
    qrels_file = _qrels_file(folder, split)
    mapped = _open_mapped(folder, qrels_file, options, shared, name=name, cache=cache) if cache is not None else None
    texts: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    if mapped is not None:
        queries = _OpenedQueries(mapped.every, _sha256(mapped.paths), mapped.paths[0], [], mapped.paths)
        texts, qrels, without_text = mapped.queries, mapped.qrels, mapped.left_out
    else:
        queries = _open_queries(folder, shared, options, needs_queries=needs_queries)
        texts, qrels, without_text = _judged_in_memory(queries, qrels_file, shared, options)
    notes = [f"{counted(without_text, 'query')} without text left out"] if without_text else []
    own = runs_of_folder(folder)
    hashes = [documents_hash, queries.sha256, input_sha256(qrels_file) if qrels_file else ""]
    if without_text:
        hashes.append("queries without text left out")
    if options.topic != _Collection().topic and any(map(are_topics, queries.files)):
        hashes.append(f"topics read by {' '.join(options.topic)}")
    if shared is not None and documents is not shared.documents and (not queries.files or not qrels_file):
        hashes.append(f"queries or judgments of {shared.identity}")
    ignores = _ignores_identical_ids(options, shared, queries.texts, documents)
    if ignores:
        hashes.append(IGNORES_IDENTICAL_IDS)

    def read(run: str) -> RunFile:
        return shared.run(run) if shared is not None and run not in own else open_run_file(own[run], cache)

    def query_fields() -> Mapping[str, Mapping[str, str]]:
        if shared is not None and not queries.files:
            return shared.query_fields() if shared.query_fields is not None else {}
        return {query: fields for file in queries.files for query, fields in read_query_fields(file)}

    dataset = Dataset(
        name=name,
        location=str(folder.resolve()),
        description=description or "a local folder",
        queries=texts,
        qrels=qrels,
        documents=documents,
        runs=tuple(dict.fromkeys((*own, *(shared.runs if shared is not None else ())))),
        identity=sha256_text("\n".join(hashes)),
        reader=read,
        notes=tuple(notes),
        field_reader=field_reader,
        query_fields=query_fields,
        ignores_identical_ids=ignores,
    )
    return with_template(dataset, options.document_template, f"{folder / COLLECTION}: document_template")
