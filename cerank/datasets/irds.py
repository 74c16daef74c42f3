"""Datasets of the ir_datasets catalog: texts come from its own docstores, and its errors become cerank's.

Invariant: ir_datasets is imported only when it is asked for, and then writes nothing to the terminal and reads
nothing from it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec

from cerank.datasets.aliases import queries_are_documents
from cerank.datasets.dataset import CATALOG, IGNORES_IDENTICAL_IDS, Dataset, judged_only, no_document
from cerank.datasets.document_templates import DocumentTemplate
from cerank.errors import MissingError, UsageError
from cerank.files.hashing import sha256_json
from cerank.files.line_reader import checked_id, local_path
from cerank.registry import nearest
from cerank.text.safe_text import shown
from cerank.trec.rows import RunFile
from cerank.trec.text_io import run_of

# What its downloads, archives and parsers raise, collected from its code: OSError is also requests' and its checksums'.
_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    ImportError,
    EOFError,
    AssertionError,
    pickle.UnpicklingError,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)


LARGE_RUN = 1_000_000  # rows from which a run that a dataset brings is read from disk
_is_offline: ContextVar[bool] = ContextVar("cerank_ir_datasets_offline", default=False)


class CatalogMetadata(msgspec.Struct, frozen=True):
    """What the catalog says about a dataset without any file of it."""

    queries: int  # with a judged subset, the judged ones
    documents: int
    largest_grade: int
    judgments: int


class _BlockedRequest(msgspec.Struct, frozen=True):
    """Takes the place of a request that was not made; errors of `requests` carry theirs."""

    url: str


class _OfflineError(ConnectionError):
    """A download that `offline` kept from starting."""

    def __init__(self, url: str) -> None:
        super().__init__("downloads are switched off")
        self.request = _BlockedRequest(url)


def _guard_downloads(download: Any) -> None:
    """Make every download of the package check `offline` before it starts."""
    for kind, method in ((download.RequestsDownload, "__iter__"), (download.GoogleDriveDownload, "stream")):
        begin = getattr(kind, method)

        def guarded(self: Any, begin: Any = begin) -> Any:
            if _is_offline.get():
                raise _OfflineError(str(getattr(self, "url", "")))
            return begin(self)

        setattr(kind, method, guarded)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Download nothing during the `with` block: a file that is not here raises a MissingError that names its source."""
    token = _is_offline.set(True)
    try:
        yield
    finally:
        _is_offline.reset(token)


def _no_password_prompt(prompt: str = "") -> str:
    raise RuntimeError(f"needs a user name and password: {prompt}")


@functools.cache
def _package() -> Any:
    """Import ir_datasets and silence its logger, its progress bars and its question for a password."""
    import ir_datasets
    from ir_datasets.indices import lz4_pickle
    from ir_datasets.util import download

    log = ir_datasets.log.Logger
    ir_datasets.log.easy().logger()  # sets its own level when first made, so it has to be made before
    logging.getLogger("ir_datasets").setLevel(logging.CRITICAL + 1)
    bar, raw = log.pbar, log.pbar_raw
    log.pbar = lambda self, it, *args, **kwargs: bar(self, it, *args, **{**kwargs, "disable": True, "quiet": True})
    log.pbar_raw = lambda self, *args, **kwargs: raw(self, *args, **{**kwargs, "disable": True, "quiet": True})
    download.input = _no_password_prompt  # a worker has no terminal; a prompt would hang it
    _guard_downloads(download)
    # In 0.6.3 it asks for a length, which imports numpy: at interpreter exit that prints a traceback. The files that it
    # would close are closed by their own finalizers.
    lz4_pickle.Lz4PickleLookup.__del__ = lambda _: None
    return ir_datasets


def _where_to_put(name: str, error: BaseException) -> str:
    address = next((url for item in _chained(error) if (url := getattr(getattr(item, "request", None), "url", ""))), "")
    source = f"it comes from {address}; " if address else ""
    folder = _package().util.home_path() / name.partition("/")[0]
    return f"{source}load it once where there is a network and copy {folder}, or set IR_DATASETS_HOME"


def _chained(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its causes, and the errors in its arguments, where the package wraps those of downloads."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, BaseException) and item not in seen:
            seen.append(item)
            waiting += [*item.args, item.__cause__, item.__context__]
    yield from seen


@contextlib.contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Turn errors of ir_datasets into MissingError: its data is not here and could not be fetched or read."""
    try:
        yield
    except _ERRORS as error:
        reason = shown(f"{type(error).__name__}: {error}", 200)
        what = "not here" if _is_offline.get() else f"not here, and could not be fetched: {reason}"
        raise MissingError(what, where=name, hint=_where_to_put(name, error)) from error


def _text(record: Any) -> str:
    """Return ir_datasets' default text of a record, or all its text fields except the id, joined by one space."""
    if hasattr(record, "default_text"):
        return str(record.default_text())
    return " ".join(value for value in record[1:] if isinstance(value, str) and value)


class CatalogDocuments:
    """Documents in ir_datasets' docstore on disk; the package builds it at first use."""

    def __init__(self, source: Any, name: str, identity: str, template: DocumentTemplate | None = None) -> None:
        self._source = source
        self._name = name
        self._identity = identity
        self._template = template
        self._store: Any = None

    def _records_of(self, doc_ids: Sequence[str]) -> Mapping[str, Any]:
        with _translate_errors(self._name):
            if self._store is None:
                self._store = self._source.docs_store()
            records: Mapping[str, Any] = self._store.get_many(doc_ids)
        return records

    def text(self, doc_id: str) -> str:
        """Return the text of one document; MissingError where there is none."""
        return self.texts([doc_id])[0]

    def texts(self, doc_ids: Sequence[str]) -> list[str]:
        """Return the texts of `doc_ids`, in their order."""
        records = self._records_of(doc_ids)
        for doc_id in doc_ids:
            if doc_id not in records:
                raise no_document(doc_id, self._name)
        return [self._text(records[doc_id]) for doc_id in doc_ids]

    def _text(self, record: Any) -> str:
        return _text(record) if self._template is None else self._template.fill(record._asdict())

    def is_indexed(self) -> bool:
        """Return whether the package has built its docstore, so that looking up a document fetches nothing."""
        with offline(), contextlib.suppress(*_ERRORS, AttributeError):
            return bool(self._source.docs_store().built())
        return False

    def __contains__(self, doc_id: object) -> bool:
        return isinstance(doc_id, str) and doc_id in self._records_of([doc_id])

    def __len__(self) -> int:
        with _translate_errors(self._name):
            count = self._source.metadata().get("docs", {}).get("count") or self._source.docs_count()
            return int(count if count is not None else sum(1 for _ in self._source.docs_iter()))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        with _translate_errors(self._name):
            for record in self._source.docs_iter():
                yield checked_id(record.doc_id, "document", self._name), self._text(record)

    def fingerprint(self) -> str:
        """Return the SHA-256 over the id of the collection, the package's record of it, and its number of documents."""
        return self._identity


class CatalogFields:
    """The fields of a catalog dataset's documents, as their class declares them."""

    def __init__(self, source: Any, name: str, identity: str) -> None:
        self._source, self._name, self._identity = source, name, identity

    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields that hold text: not those of lists, numbers or bytes."""
        with _translate_errors(self._name):
            types: dict[str, Any] = self._source.docs_cls().__annotations__
        return tuple(name for name, kind in types.items() if name != "doc_id" and kind in {str, "str"})

    def documents(self, template: DocumentTemplate) -> CatalogDocuments:
        """Return the documents with the texts that the template makes."""
        return CatalogDocuments(self._source, self._name, sha256_json((self._identity, template.text)), template)


def _loaded(name: str) -> Any:
    package = _package()
    with _translate_errors(name):
        try:
            return package.load(name)
        except KeyError:
            pass
    close = nearest(name, package.registry)
    with contextlib.suppress(UsageError):  # no path could be called so
        if local_path(name).is_dir():
            close = f"did you mean the folder ./{name}?"
    hint = (
        close if close.startswith("did") else "`cerank datasets --search TEXT` finds ids; a folder is written ./folder"
    )
    raise UsageError(f"no dataset is called '{shown(name, 120)}'", hint=hint)


def _qrels(source: Any, name: str) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    if source.has_qrels():
        with _translate_errors(name):
            for row in source.qrels_iter():
                document = checked_id(row.doc_id, "document", name)
                qrels.setdefault(checked_id(row.query_id, "query", name), {})[document] = int(row.relevance)
    return qrels


def catalog_qrels(name: str) -> dict[str, dict[str, int]]:
    """Return the judgments of an ir_datasets id alone: neither its queries nor its documents have to be here.

    Raises:
        UsageError: there is no such id; MissingError: its qrels are not here and could not be fetched.
    """
    return _qrels(_loaded(name), name)


def _scored(source: Any, name: str) -> Iterator[tuple[str, str, float]]:
    with _translate_errors(name):
        for row in source.scoreddocs_iter():
            yield row.query_id, row.doc_id, float(row.score)


def open_catalog_dataset(name: str, cache: Path | None = None) -> Dataset:
    """Return the dataset of an ir_datasets id, its queries and qrels in memory and its documents on disk.

    Judged queries without a text in the catalog are dropped with their qrels.

    Args:
        name: id of the dataset in ir_datasets, such as "vaswani".
        cache: folder for a memory-mapped copy of a run of a million rows or more; None reads it into memory.

    Raises:
        UsageError: no such id, or one without documents and queries.
        MissingError: its files are not here and could not be fetched.
    """
    source = _loaded(name)
    if not (source.has_docs() and source.has_queries()):
        raise UsageError(
            f"dataset {name} has no documents and queries to rank",
            hint="a subset of it may",
            code="collection-incomplete",
        )
    with _translate_errors(name):
        queries = {checked_id(row.query_id, "query", name): _text(row) for row in source.queries_iter()}
        record = source.metadata()
        collection = _package().docs_parent_id(name)
    qrels = {query: row for query, row in _qrels(source, name).items() if query in queries}
    queries = judged_only(queries, qrels)
    documents_identity = sha256_json(("ir_datasets", collection, record.get("docs")))
    documents = CatalogDocuments(source, name, documents_identity)

    ignores = queries_are_documents(name)
    parts = ("ir_datasets", name, record, queries, qrels, *([IGNORES_IDENTICAL_IDS] if ignores else []))
    identity = sha256_json(parts)

    def read(_run: str) -> RunFile:
        rows, where = _scored(source, name), f"{name} scoreddocs"
        if cache is None or int(record.get("scoreddocs", {}).get("count") or 0) < LARGE_RUN:
            return run_of(rows, "scoreddocs", where)
        from cerank.trec.generated_runs import ranking_of_rows

        made_of = sha256_json(("scoreddocs", identity))
        ranking = ranking_of_rows(rows, "scoreddocs", where, identity=made_of, cache=cache)
        return RunFile(ranking=ranking, tag="scoreddocs", ties=ranking.store.contents.ties)

    return Dataset(
        name=name,
        location=CATALOG,
        description="from the ir_datasets catalog",
        queries=queries,
        qrels=qrels,
        documents=documents,
        runs=("scoreddocs",) if source.has_scoreddocs() else (),
        identity=identity,
        reader=read,
        field_reader=CatalogFields(source, name, documents_identity),
        query_fields=lambda: _query_fields(source, name),
        ignores_identical_ids=ignores,
    )


def _query_fields(source: Any, name: str) -> dict[str, dict[str, str]]:
    """Return query -> what the catalog has of it but its id and plain values alone."""
    with _translate_errors(name):
        return {
            row.query_id: {
                key: str(value)
                for key, value in row._asdict().items()
                if key != "query_id" and isinstance(value, str | int | float)
            }
            for row in source.queries_iter()
        }


def catalog_metadata(name: str) -> CatalogMetadata:
    """Return what the catalog itself says about a dataset; needs no file of the dataset.

    Raises:
        UsageError: no such id.
    """
    record = _loaded(name).metadata()
    grades = record.get("qrels", {}).get("fields", {}).get("relevance", {}).get("counts_by_value", {})
    return CatalogMetadata(
        queries=int(record.get("queries", {}).get("count") or 0),
        documents=int(record.get("docs", {}).get("count") or 0),
        largest_grade=max((int(grade) for grade in grades), default=0),
        judgments=sum(int(count) for count in grades.values()),
    )


def check_documents_are_local(name: str) -> None:
    """Check that the dataset's documents are on this disk, without building or fetching anything.

    Raises:
        MissingError: they are not.
    """
    source = _loaded(name)
    with offline(), _translate_errors(name):
        path = Path(source.docs_path(force=False)) if hasattr(source, "docs_path") else None
        if path is not None and (path.exists() or path.with_name("docs.pklz4").exists()):
            return
        next(iter(source.docs_iter()), None)


def search_catalog(text: str) -> list[tuple[str, str]]:
    """Return (id, contents) of each dataset whose id contains every word of `text` and that can be ranked."""
    registry = _package().registry
    words = text.lower().split()
    matches = []
    for name in registry:
        if all(word in name.lower() for word in words):
            source = registry[name]
            if source.has_docs() and source.has_queries():
                kinds = [kind for kind in ("docs", "queries", "qrels", "scoreddocs") if source.has(kind)]
                matches.append((str(name), ", ".join(kinds)))
    return sorted(matches)
