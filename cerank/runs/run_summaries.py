"""Cheap summaries of many runs: what changed, the newest validation, the final means.

Invariant: nothing here reads a whole journal; a file that cannot be read counts as one that is not there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cerank.core.metrics import Validation
from cerank.files import json_records
from cerank.files.disk import DamagedError
from cerank.files.json_records import DECODE_ERRORS, crc_matches
from cerank.files.safe_open import open_file, read_file
from cerank.recipes.plan import Plan
from cerank.runs import checksums, overlapped_reads, run_store
from cerank.runs.layout import RunFolder, runs_folder
from cerank.runs.records import decode_measures

_BLOCK = 1 << 20  # bytes; found in about a millisecond
_OVERLAP = 1 << 14  # bytes; more than a row of a journal has
_VALIDATION_TAG = b'"type":"validation"'


def change_times(lab: Path) -> dict[str, int]:
    """Return run -> the time in ns at which an entry of its folder last changed; sorted by name.

    Every file that a worker replaces (progress.json every 2 seconds, and the outcome) changes this time.
    """
    where = runs_folder(lab)
    try:
        with os.scandir(where) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return {}
    names = sorted(name for name in names if not name.startswith("."))
    times = overlapped_reads.read_all(lambda name: _change_time(where / name), names)
    return {name: time for name, time in zip(names, times, strict=True) if time >= 0}


def _change_time(path: Path) -> int:
    """Return the time in ns at which a folder changed; -1 where it is gone."""
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return -1


def folders_of_files(folder: RunFolder) -> tuple[str, ...]:
    """Return the folders inside a run, relative to it, with checksummed files; () where the list is damaged."""
    try:
        paths = checksums.load_all(folder)
    except DamagedError:
        return ()
    return tuple(sorted({parent for path in paths if (parent := path.rpartition("/")[0])}))


def has_changed_inside(folder: RunFolder, inside: Iterable[str], mark: int) -> bool:
    """Return whether a file in the folders `inside` of a run came, went or was replaced after the time `mark` (ns).

    A file that was written to in place moves no time of a folder.
    """
    times = (_change_time(folder.path / name) for name in inside)
    return any(time < 0 or time > mark for time in times)


class LatestValidation:
    """The newest validation of a run; each refresh reads only what was added."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.readings
        self._searched = 0
        self._found: Validation | None = None

    def refresh(self) -> Validation | None:
        """Return the newest validation, or None before the first one."""
        try:
            with open_file(self._path) as file:
                size = file.seek(0, os.SEEK_END)
                if size < self._searched:  # the file was truncated or replaced
                    self._searched, self._found = 0, None
                end = size
                while end > self._searched:
                    start = max(self._searched, end - _BLOCK)
                    file.seek(max(0, start - _OVERLAP))
                    validation = _last_validation(file.read(end - file.tell()))
                    if validation is not None:
                        self._found = validation
                        break
                    end = start
        except OSError:
            return self._found
        self._searched = max(0, size - _OVERLAP)
        return self._found


def _last_validation(data: bytes) -> Validation | None:
    """Return the last complete validation row in a piece of a journal."""
    end = data.rfind(b"\n") + 1
    while (place := data.rfind(_VALIDATION_TAG, 0, end)) >= 0:
        start = data.rfind(b"\n", 0, place) + 1
        line = data[start : data.find(b"\n", place)]
        try:
            if crc_matches(line):
                return json_records.decode(line, Validation)
        except DECODE_ERRORS:
            pass  # the one before may be whole
        end = start
    return None


def final_means(folder: RunFolder, plan: Plan) -> dict[str, float]:
    """Return measure -> mean of the last stage on the first test dataset and first stage; empty before that."""
    data = plan.recipe.data
    if not (plan.recipe.chain and data.test and data.first_stages):
        return {}
    path = folder.measures(plan.recipe.chain[-1], data.test[0], data.first_stages[0])
    try:
        run_store.check_undamaged(folder, path)
        rows = decode_measures(read_file(path))
    except (OSError, DamagedError, *DECODE_ERRORS):
        return {}
    names = rows[0].measures if rows else {}
    return {name: sum(row.measures.get(name, 0.0) for row in rows) / len(rows) for name in names}


class LogTail:
    """Follows a text file from its last megabyte on; bytes that are not UTF-8 become replacement characters."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = -1
        self._rest = b""

    def new(self) -> list[str]:
        """Return the lines completed since the last call; an incomplete line of a megabyte counts as complete."""
        try:
            with open_file(self._path) as file:
                size = file.seek(0, os.SEEK_END)
                is_first = self._offset < 0
                if is_first or size < self._offset:
                    self._offset, self._rest = max(0, size - _BLOCK), b""
                file.seek(self._offset)
                data = self._rest + file.read(8 * _BLOCK)
                self._offset = file.tell()
        except OSError:
            return []
        complete, _, self._rest = data.rpartition(b"\n")
        if len(self._rest) >= _BLOCK:
            complete, self._rest = data, b""
        return [line.decode("utf-8", "replace") for line in complete.split(b"\n")] if complete else []


def load_measures(folder: RunFolder, system: str, dataset: str, first_stage: str) -> dict[str, dict[str, float]]:
    """Return query -> measure -> value of a ranking; empty if it was not measured yet."""
    path = folder.measures(system, dataset, first_stage)
    try:
        run_store.check_undamaged(folder, path)
        data = read_file(path)
        return {row.query_id: row.measures for row in decode_measures(data)}
    except (OSError, DamagedError, *DECODE_ERRORS):
        return {}
