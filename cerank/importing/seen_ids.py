"""The ids that an import has met, each with a number; of very many, most are on the disk.

Invariant: an id is known from when it was added, wherever it is kept.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from cerank.files import disk

MOST_IN_MEMORY = 1_000_000  # ids; some 150 bytes each
_CACHE = -32_768  # kB of the database that are kept in memory, with SQLite's sign for that


def _is_no_text(key: str) -> bool:
    """Return whether an id holds half a character; no file of a dataset can, so that its reader refuses it."""
    return not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key)


class SeenIds:
    """Ids with a number each: those of the newest million in memory, all others in a temporary database.

    Args:
        path: file of the database, made when it is needed; whoever made its folder removes it.
        most_in_memory: number of ids from which those in memory go to the database.
    """

    def __init__(self, path: Path, most_in_memory: int | None = None) -> None:
        self._path = path
        self._most = MOST_IN_MEMORY if most_in_memory is None else most_in_memory
        self._newest: dict[str, int] = {}
        self._stored = 0
        self._database: sqlite3.Connection | None = None

    def __len__(self) -> int:
        return self._stored + len(self._newest)

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> int | None:
        """Return the number of an id; None where it was not added."""
        number = self._newest.get(key)
        if number is not None or self._database is None or _is_no_text(key):
            return number
        row = self._database.execute("SELECT number FROM ids WHERE id = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def add(self, key: str, number: int) -> None:
        """Add an id that was not added before.

        Raises:
            RunFailedError: the disk is full, or cannot be written.
        """
        self._newest[key] = number
        if len(self._newest) >= self._most:
            self._store()

    def _store(self) -> None:
        try:
            if self._database is None:
                self._database = sqlite3.connect(self._path, isolation_level=None)
                # the file is of no use after a crash
                for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = {_CACHE}"):
                    self._database.execute(f"PRAGMA {pragma}")
                self._database.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO ids VALUES (?, ?)", sorted(self._newest.items()))
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise disk.NotWritableError(
                f"the ids that were read cannot be kept: {error}", where=str(self._path)
            ) from error
        self._stored += len(self._newest)
        self._newest = {}

    def close(self) -> None:
        """Close the database and remove its file."""
        if self._database is not None:
            self._database.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        self._database = None
