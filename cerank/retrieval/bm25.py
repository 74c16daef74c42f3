"""BM25 over a dataset's documents, the index kept on disk.

Invariant: an index that is read back is, by its hashes, the one that was written; anything else is built anew.

Settings: Lucene's variant with k1 = 0.9 and b = 0.4, which Anserini found best for short passages and which Pyserini,
BEIR and the re-ranking literature use for their BM25 candidates. Words are lower-cased runs of letters and digits;
Lucene's English stop words are dropped; plurals are folded by the S stemmer (Harman 1991, "How effective is
suffixing?", table 1), which needs no dependency and takes most of what stemming gives (Vaswani, nDCG@10: none .381,
S .418, Porter .438).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import tempfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import msgspec

from cerank.core.rankings import Ranking, strictly_decreasing
from cerank.datasets.dataset import Documents
from cerank.errors import CerankError, UsageError, os_error
from cerank.files import json_records
from cerank.files.hashing import sha256_file, sha256_json
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    import numpy as np

K1 = 0.9
B = 0.4
_FORMAT = 1  # version of the files and the tokenizer; another one invalidates every older index
# What an index takes to build, measured on documents of 56 words: bm25s keeps all postings several times at once.
BYTES_EACH = 1_700
_SECONDS_EACH = 75e-6
LARGE = 2_000_000  # documents from which the cost is announced
_WORD = re.compile(r"[^\W_]+")
# Lucene's EnglishAnalyzer.ENGLISH_STOP_WORDS_SET, which Anserini uses
_STOP_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
        "this to was will with"
    )
)


class _IndexContents(msgspec.Struct, frozen=True):
    """The last file of an index to be written: SHA-256 of each other one."""

    files: dict[str, str]


def stemmed(word: str) -> str:
    """Return `word` without its English plural ending, by the S stemmer."""
    if len(word) < 4 or not word.endswith("s"):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return f"{word[:-3]}y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    return word if word.endswith(("us", "ss")) else word[:-1]


def words(text: str) -> list[str]:
    """Return the words of a document or query that BM25 counts, in order."""
    return [stemmed(word) for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


def index_key(documents: Documents) -> str:
    """Return the SHA-256 of the documents and every setting, which names the index in the cache."""
    settings = ("lucene", K1, B, _FORMAT, importlib.metadata.version("bm25s"), documents.fingerprint())
    return sha256_json(settings)


class BM25Index:
    """Postings by word: for word i, `documents[starts[i]:starts[i + 1]]` and the score that each adds, `gains`."""

    def __init__(
        self,
        doc_ids: list[str],
        vocabulary: list[str],
        starts: np.ndarray,
        documents: np.ndarray,
        gains: np.ndarray,
    ) -> None:
        self._doc_ids = doc_ids
        self._words = {word: place for place, word in enumerate(vocabulary)}
        self._starts, self._documents, self._gains = starts, documents, gains

    def _scores(self, text: str) -> np.ndarray:
        """Return the float32 score of every document; words are added in the query's order."""
        import numpy as np

        scores = np.zeros(len(self._doc_ids), dtype=np.float32)
        for word in words(text):
            place = self._words.get(word)
            if place is not None:
                span = slice(self._starts[place], self._starts[place + 1])
                scores[self._documents[span]] += self._gains[span]
        return scores

    def _top(self, text: str, depth: int) -> tuple[list[str], list[float]]:
        import numpy as np

        scores = self._scores(text)
        hits = np.flatnonzero(scores > 0)
        if len(hits) > depth:
            least = np.partition(scores[hits], len(hits) - depth)[len(hits) - depth]
            hits = hits[scores[hits] >= least]  # with all that tie for the last place
        pairs = sorted((-float(scores[hit]), self._doc_ids[hit]) for hit in hits)[:depth]
        return [doc_id for _, doc_id in pairs], strictly_decreasing([-score for score, _ in pairs])

    def ranking(self, queries: Mapping[str, str], depth: int) -> Ranking:
        """Return up to `depth` documents that share a word with each query; queries without any are absent."""
        hits_by_query = {query: self._top(text, depth) for query, text in queries.items()}
        hits_by_query = {query: top for query, top in hits_by_query.items() if top[0]}
        return Ranking(
            {q: ids for q, (ids, _) in hits_by_query.items()}, {q: scores for q, (_, scores) in hits_by_query.items()}
        )


class _WordNumbers(Sequence["array[int]"]):
    """The words of each document as numbers: 4 bytes a word, where lists of Python's take 8 and more."""

    def __init__(self) -> None:
        self._all, self._starts = array("I"), array("Q", [0])

    def append(self, numbers: Iterable[int]) -> None:
        """Add the words of the next document."""
        self._all.extend(numbers)
        self._starts.append(len(self._all))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> array[int]: ...

    @overload
    def __getitem__(self, place: slice) -> list[array[int]]: ...

    def __getitem__(self, place: int | slice) -> array[int] | list[array[int]]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._all[self._starts[place] : self._starts[place + 1]]


class _BM25SCorpus(msgspec.Struct, frozen=True):
    """Token ids of all documents in the form that bm25s takes."""

    ids: _WordNumbers
    vocab: dict[str, int]


def _numbered(documents: Iterable[tuple[str, str]]) -> tuple[list[str], list[str], _WordNumbers]:
    """Return the document ids, the vocabulary in order of appearance, and each document's words as numbers."""
    doc_ids: list[str] = []
    places: dict[str, int] = {}
    numbers = _WordNumbers()
    for doc_id, text in documents:
        doc_ids.append(doc_id)
        numbers.append(places.setdefault(word, len(places)) for word in words(text))
    return doc_ids, list(places), numbers


def build_index(documents: Documents, folder: Path) -> None:
    """Write the index of `documents` into the empty `folder`."""
    import bm25s
    import numpy as np

    doc_ids, vocabulary, numbers = _numbered(documents)
    if not vocabulary:
        raise UsageError("no document holds a word that BM25 could find", hint="give a TREC run as the first stage")
    retriever = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="numpy")
    vocabulary_places = {word: place for place, word in enumerate(vocabulary)}
    retriever.index(_BM25SCorpus(numbers, vocabulary_places), create_empty_token=False, show_progress=False)
    for name in ("indptr", "indices", "data"):
        np.save(folder / f"{name}.npy", retriever.scores[name], allow_pickle=False)
    (folder / "documents.json").write_bytes(msgspec.json.encode(doc_ids))
    (folder / "words.json").write_bytes(msgspec.json.encode(vocabulary))
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    (folder / "COMPLETE.json").write_bytes(msgspec.json.encode(_IndexContents(files)))


def _read(folder: Path) -> BM25Index | None:
    """Return the index in `folder`; None if it is missing or damaged."""
    import numpy as np

    try:
        contents = json_records.decode((folder / "COMPLETE.json").read_bytes(), _IndexContents)
        if any(sha256_file(folder / name) != sha256 for name, sha256 in contents.files.items()):
            return None
        names = ("indptr", "indices", "data")
        starts, documents, gains = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in names)
        doc_ids = json_records.decode((folder / "documents.json").read_bytes(), list[str])
        vocabulary = json_records.decode((folder / "words.json").read_bytes(), list[str])
    except (OSError, ValueError, CerankError):
        return None
    return BM25Index(doc_ids, vocabulary, starts, documents, gains)


def _move_in(fresh: Path, folder: Path, workspace: Path) -> None:
    """Rename `fresh` to its final name, replacing a damaged index; an index that another worker just built may stay."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(workspace / "before")
    with contextlib.suppress(FileExistsError):
        fresh.rename(folder)


def cost(documents: Documents, cache: Path) -> str:
    """Return what building the index will take, for a large collection without one in `cache`; else ""."""
    if len(documents) < LARGE or (cache / "bm25" / index_key(documents)).is_dir():
        return ""
    count = len(documents)
    needs = f"some {count * BYTES_EACH / 1e9:.0f} GB of memory and {count * _SECONDS_EACH / 60:.0f} minutes of one core"
    return f"BM25 over {counted(count, 'document')} takes {needs}, once"


def _check_memory(documents: Documents) -> None:
    """Raise an error now if memory will not suffice, instead of after an hour of building."""
    import psutil

    needed, available = len(documents) * BYTES_EACH, psutil.virtual_memory().available
    if needed > available:
        what = f"BM25 over {counted(len(documents), 'document')} needs some {needed / 1e9:.1f} GB of memory"
        hint = (
            "give a TREC run as the first stage, such as `python -m pyserini.search.lucene --bm25 --hits 1000` writes"
        )
        raise UsageError(f"{what}, and {available / 1e9:.1f} GB are free", hint=hint, code="not-enough-memory")


def open_index(documents: Documents, cache: Path) -> BM25Index:
    """Return the index of `documents`, from `cache` or built there.

    Built in a folder of its own and moved to its name when complete, so that a kill leaves no half an index and two
    workers may build at once: what they build is equal.

    Raises:
        UsageError: the documents hold no word, memory will not do, or the cache cannot be written.
    """
    folder = cache / "bm25" / index_key(documents)
    index = _read(folder)
    if index is not None:
        return index
    _check_memory(documents)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix="building-", ignore_cleanup_errors=True
        ) as workspace:
            fresh = Path(workspace) / "index"
            fresh.mkdir()
            build_index(documents, fresh)
            index = _read(fresh)
            _move_in(fresh, folder, Path(workspace))
    except OSError as error:
        raise os_error(error, cache, UsageError, doing="cannot write the BM25 index") from error
    if index is None:
        raise UsageError("checksum mismatch after writing the BM25 index", where=str(cache), hint="check the disk")
    return index
