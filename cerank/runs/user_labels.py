"""What the user adds to a run afterwards: a label and tags in a small file beside the plan, and a note in Markdown.

Invariant: the plan is never edited; a note decides no number, and a broken one hides no run.
"""

from __future__ import annotations

import msgspec

from cerank.files import disk, json_records
from cerank.files.safe_open import read_file
from cerank.runs.layout import RunFolder


class UserLabels(msgspec.Struct, frozen=True, kw_only=True):
    """The user's label and tags for a run."""

    label: str = ""  # in place of the plan's; "" leaves that one standing
    tags: tuple[str, ...] = ()


def load(folder: RunFolder) -> UserLabels:
    """Return the labels of a run; empty if there are none.

    Raises:
        DamagedError: the file is unreadable.
    """
    return json_records.load_if_there(folder.user_labels, UserLabels) or UserLabels()


def save(folder: RunFolder, notes: UserLabels) -> None:
    """Replace the labels of a run atomically, even while a worker carries it out.

    Raises:
        RunFailedError: the disk refuses.
    """
    json_records.save(folder.user_labels, notes)


_LONGEST_NOTE = 1 << 20  # bytes


def load_note(folder: RunFolder) -> str:
    """Return the user's note on a run, in Markdown; "" where there is none, or it cannot be read."""
    try:
        return read_file(folder.note, _LONGEST_NOTE).decode("utf-8", "replace")
    except OSError:
        return ""


def save_note(folder: RunFolder, text: str) -> None:
    """Replace the note on a run atomically; a blank one is removed.

    Raises:
        RunFailedError: the disk refuses.
    """
    if text.strip():
        disk.write(folder.note, text.encode())
    else:
        folder.note.unlink(missing_ok=True)
