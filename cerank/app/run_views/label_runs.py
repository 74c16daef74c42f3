"""The user's label and tags on runs."""

from __future__ import annotations

import re

from cerank.errors import UsageError
from cerank.runs import user_labels
from cerank.runs.layout import RunFolder
from cerank.runs.user_labels import UserLabels
from cerank.text.safe_text import shown

LONGEST = 120  # characters of a label; a tag has a third


def tags_in(text: str) -> tuple[str, ...]:
    """Return the tags that the user typed, separated by spaces or commas, each once, without a leading #."""
    parts = (part.removeprefix("#") for part in re.split(r"[\s,]+", text))
    return tuple(dict.fromkeys(tag for tag in parts if tag))


def labels_in(label: str, tags: str) -> UserLabels:
    """Return the label ("" keeps the label of the plan) and the tags that the user typed.

    Raises:
        UsageError: one of them is too long.
    """
    labels = UserLabels(label=shown(label.strip(), 10 * LONGEST), tags=tags_in(shown(tags, 10 * LONGEST)))
    if len(labels.label) > LONGEST:
        raise UsageError(f"a label has {LONGEST} characters at most", where="label", code="label-too-long")
    for tag in labels.tags:
        if len(tag) > LONGEST // 3:
            raise UsageError(f"a tag has {LONGEST // 3} characters at most", where="tags")
    return labels


def note(folder: RunFolder, label: str, tags: str) -> UserLabels:
    """Save a label and tags beside a run; return what was saved.

    Raises:
        UsageError: one of them is too long.
        RunFailedError: the disk refuses.
    """
    labels = labels_in(label, tags)
    user_labels.save(folder, labels)
    return labels
