"""What a person notes about a run: a label and tags, in a small file beside the plan.

Invariant: the plan is never edited; a note decides no number, and a broken one hides no run.
"""

from __future__ import annotations

import msgspec

from cerank.files import json_records
from cerank.runs.layout import RunFolder


class UserLabels(msgspec.Struct, frozen=True, kw_only=True):
    """A person's words for a run; text, never a path."""

    label: str = ""  # in place of the plan's; "" leaves that one standing
    tags: tuple[str, ...] = ()


def load(folder: RunFolder) -> UserLabels:
    """The notes on a run; empty where there are none.

    Raises:
        DamagedError: the file is unreadable.
    """
    return json_records.load_if_there(folder.user_labels, UserLabels) or UserLabels()


def save(folder: RunFolder, notes: UserLabels) -> None:
    """Replaces the notes on a run, atomically; a worker may be at it.

    Raises:
        RunFailedError: the disk refuses.
    """
    json_records.save(folder.user_labels, notes)
