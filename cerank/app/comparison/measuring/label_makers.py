"""Who made the labels that systems are measured by, where a model did.

Invariant: labels of people give no note.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison.named_systems import Target, runs_of
from cerank.errors import CerankError
from cerank.files import json_records
from cerank.files.named_files import STDIN

if TYPE_CHECKING:
    from cerank.evaluation.systems import System


class LabelMaker(msgspec.Struct, frozen=True):
    """What is read here of the record that `cerank teach labels` writes beside its qrels."""

    model: str


def label_maker(qrels: str) -> LabelMaker | None:
    """Return who made the labels in a file, where a model did; None for labels of people."""
    path = Path(f"{qrels}.teacher.json").expanduser()
    if not qrels or qrels == STDIN or not path.is_file():
        return None
    try:
        return json_records.load(path, LabelMaker)
    except CerankError:
        return LabelMaker("")


def qrels_of_folder(dataset: str) -> str:
    """Return the qrels file of a dataset that is a folder; "" for any other."""
    from cerank.datasets.open_datasets import whole_and_part

    whole, _ = whole_and_part(dataset)
    return str(Path(whole) / "qrels") if whole.startswith(("./", "../", "~", "/")) else ""


def with_maker_notes(system: System, target: Target, makers: Sequence[LabelMaker]) -> System:
    """Return a system with a note on each model whose labels measure it, and on what it may have in common with it."""
    from cerank.teachers.judging.labels import family_warnings

    notes: list[str] = []
    named = [system.label, *(run.plan.recipe.base for run in runs_of(target)[:1])]
    for maker in dict.fromkeys(makers):
        what = "the verdict says how well systems please that model, not people"
        notes.append(f"the labels are {maker.model}'s: {what}" if maker.model else _UNKNOWN_MAKER)
        notes += family_warnings(maker.model, named)
    return msgspec.structs.replace(system, notes=(*system.notes, *notes)) if notes else system


_UNKNOWN_MAKER = "the record of who made the labels is unreadable"
