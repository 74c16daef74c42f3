"""What the user adds to a run afterwards: a label and tags, in a small file beside the plan.

Invariant: the plan is never edited; a note decides no number, and a broken one hides no run.
"""

from __future__ import annotations

import msgspec

from cerank.files import json_records
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
