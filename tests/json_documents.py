"""What holds for the JSON of every command that gives verdicts."""

from __future__ import annotations

import json
from typing import Any

import cerank

_SHARED = {"format": int, "cerank": str, "command": str}  # keys of every meta
_TESTS = {"p", "p_corrected"}


def document_of(text: str, *tables: str) -> dict[str, Any]:
    """Return a command's JSON, once it is known to be a document: a head, lists of flat rows by name, and notes.

    Args:
        text: what it printed.
        tables: names that are there at least.
    """
    document: dict[str, Any] = json.loads(text)
    meta, notes = document["meta"], document["notes"]
    assert {key: type(meta[key]) for key in _SHARED} == _SHARED
    assert meta["cerank"] == cerank.__version__
    assert all(isinstance(note, str) for note in notes)
    rows_of = {name: rows for name, rows in document.items() if name not in {"meta", "notes"}}
    assert set(tables) <= rows_of.keys()
    for name, rows in rows_of.items():
        assert isinstance(rows, list), name
        assert len({tuple(row) for row in rows}) <= 1, name  # the same keys in each row
        for row in rows:
            assert not any(isinstance(value, list | dict) for value in row.values()), name
            for key in row:  # an adjusted p never stands alone, and is never less than the one that it is made from
                if key.startswith("p_") and key.endswith("_corrected") and row[key] is not None:
                    raw = key.removesuffix("_corrected") if key != "p_corrected" else "p"
                    assert row.get(raw) is None or row[raw] <= row[key], (name, key)
            if "p_corrected" in row:
                assert row.keys() >= _TESTS, name
    return document
