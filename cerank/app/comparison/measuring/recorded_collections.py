"""Whether a run file was made on the collection that it is measured on, where some record says what it was made on.

Ids that look alike do not tell one collection from another: `1` is a query and `d1` a document of many. Three records
do: the header of ir_metadata in the file, the plan of the run of the lab that the file lies in, and the folder of the
dataset that brings it.

Invariant: a doubt is told and never refused, for a ranking may be measured by new judgments of its collection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison.named_systems import FileTarget, Target, systems_of
from cerank.datasets.dataset import Dataset
from cerank.datasets.open_datasets import open_dataset, whole_and_part
from cerank.errors import CerankError
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.text.safe_text import shown
from cerank.trec import layouts

if TYPE_CHECKING:
    from cerank.evaluation.systems import System


class CollectionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a file's record says of the collection that it was made on; "" is not known."""

    source: str  # which record, in words
    name: str  # of the dataset, as it was named there
    documents_sha256: str = ""  # `Documents.fingerprint`
    dataset_sha256: str = ""  # `Dataset.fingerprint`, of the part that was ranked

    def differs_from(self, dataset: Dataset, name: str) -> bool:
        """Return whether the record is of other documents; of another dataset, where it knows no documents.

        Parts of one dataset, by the names, are the same collection.
        """
        if self.documents_sha256:
            return self.documents_sha256 != dataset.documents.fingerprint()
        is_same_name = _place(self.name) == _place(name)
        return bool(self.dataset_sha256) and self.dataset_sha256 != dataset.fingerprint() and not is_same_name


def _place(name: str) -> str:
    """Return the dataset that a name or a part of it is of: of a folder the path, which may be written from home."""
    whole = whole_and_part(name)[0]
    return str(Path(whole).expanduser().absolute()) if whole.startswith((".", "~", "/")) else whole


def with_doubts(system: System, target: Target, datasets: Sequence[str], cache: Path) -> System:
    """Return a system with a note where its file's record is of another collection than all that it is measured on.

    Args:
        system: the target, measured.
        target: a TREC run file; any other has its collection in its plan.
        datasets: as they were named.
        cache: folder of caches.
    """
    names = [name for name in datasets if name]
    if not names or not isinstance(target, FileTarget):
        return system
    homes = {Path(whole_and_part(name)[0].partition("#")[0]).expanduser().resolve() for name in names}
    if target.path.resolve().parent.parent in homes:  # a run that the dataset brings
        return system
    for record_of in (_of_header, _of_run, _of_folder):
        record = record_of(target.path, cache)
        if record is None:
            continue
        with contextlib.suppress(CerankError):  # a dataset that cannot be opened is told of elsewhere
            if all(record.differs_from(open_dataset(name, cache), name) for name in names):
                here = " and ".join(shown(name, 80) for name in names)
                others = "whose documents are not those of" if record.documents_sha256 else "and not"
                note = (
                    f"according to {record.source}, this ranks {shown(record.name, 80)}, {others} {here}: if equal "
                    "ids are not the same documents, its measures mean nothing"
                )
                return msgspec.structs.replace(system, notes=(*system.notes, note))
        break
    return system


def _of_header(path: Path, _cache: Path) -> CollectionRecord | None:
    """Return what the test collection in a file's header of ir_metadata is."""
    entries, outside = dict[str, str](), -1  # how far the line above the test collection's is indented
    for line in layouts.comment_lines(path):
        key, _, value = line.lstrip("# ").partition(":")
        indent = len(line) - len(line.removeprefix("#").lstrip())
        if key == "test collection":
            outside = indent
        elif 0 <= outside < indent:
            entries[key] = value.strip().strip("'\"")
        else:
            outside = -1
    if not entries.get("name"):
        return None
    return CollectionRecord(
        source="its header",
        name=entries["name"],
        documents_sha256=entries.get("documents sha256", ""),
        dataset_sha256=entries.get("sha256", ""),
    )


def _of_run(path: Path, cache: Path) -> CollectionRecord | None:
    """Return what the run of a lab that the file lies in was tested on."""
    parents = path.resolve().parents
    folder = RunFolder(parents[2]) if len(parents) > 2 else None
    if folder is None or not folder.plan.is_file():
        return None
    with contextlib.suppress(CerankError):
        plan = run_store.load_plan(folder)
        hashes = {entry.name: entry.sha256 for entry in plan.inputs if entry.role == "dataset"}
        for test in plan.recipe.data.test:
            names = {
                folder.ranking(system, test, first).name
                for system in systems_of(plan)
                for first in plan.recipe.data.first_stages
            }
            if path.resolve().name in names:
                return CollectionRecord(
                    source=f"the plan of run {run_store.short_name(folder)}",
                    name=test,
                    documents_sha256=_documents_of(test, cache, hashes.get(test, "")),
                    dataset_sha256=hashes.get(test, ""),
                )
    return None


def _of_folder(path: Path, cache: Path) -> CollectionRecord | None:
    """Return what the dataset is whose folder brings the file."""
    home = path.resolve().parent.parent
    if path.resolve().parent.name != "runs" or not any(home.glob("qrels*")):
        return None
    documents = _documents_of(str(home), cache)
    return CollectionRecord(source="its folder", name=str(home), documents_sha256=documents) if documents else None


def _documents_of(name: str, cache: Path, sha256: str = "") -> str:
    """Return the fingerprint of a dataset's documents; "" where it is not here, or not the one with that hash."""
    with contextlib.suppress(CerankError):
        dataset = open_dataset(name, cache)
        if not sha256 or dataset.fingerprint() == sha256:
            return dataset.documents.fingerprint()
    return ""
