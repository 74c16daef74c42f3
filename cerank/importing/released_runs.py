"""Rankings that a paper released as one archive: a folder for each model, a TREC run for each first stage and dataset.

The layout is Rank-DistiLLM's (`experiments.tar.gz`, Zenodo 15150456), read as its notebook reads it:
`MODEL/FIRSTSTAGE_DATASET.run`, where DATASET is an ir_datasets id with dashes in place of slashes. A folder named after
a first stage (bm25, colbert, chatnoir) holds that first stage's own rankings as `DATASET.run`.

Invariant: of an archive only regular files that end in `.run` are unpacked, each by its own name in the folder of its
model, so that no name in it leaves the folder; the folder appears whole or not at all.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from cerank.errors import FormatError, MissingError, UsageError
from cerank.files import disk
from cerank.files.hashing import sha256_file
from cerank.files.packed_files import LARGEST_RATIO, UNCHECKED_BYTES, decompression_bomb
from cerank.text.safe_text import shown

FIRST_STAGE = "first_stage"  # what the layout calls a first stage's own ranking
_FIRST_STAGES = ("chatnoir", "colbert", "bm25")


class ReleasedRun(msgspec.Struct, frozen=True):
    """A released ranking: its model, the first stage that it re-ranks, and its dataset."""

    model: str  # name of its folder, or `FIRST_STAGE`
    first_stage: str  # "bm25" or "colbert"
    dataset: str  # ir_datasets id with dashes in place of slashes
    path: Path


def find_runs(folder: Path) -> tuple[ReleasedRun, ...]:
    """Return the rankings in a folder of that layout, or in one folder within it.

    Raises:
        MissingError: there is no such folder; FormatError: it holds no rankings in this layout.
    """
    if not folder.is_dir():
        raise MissingError("no such folder or archive", where=str(folder), code="folder-missing")
    paths = sorted([*folder.glob("*/*.run"), *folder.glob("*/*/*.run")])
    if not paths:
        hint = "the layout is MODEL/FIRSTSTAGE_DATASET.run"
        raise FormatError("the folder holds no released rankings", where=str(folder), hint=hint, code="no-records")
    return tuple(_run_of(path) for path in paths)


def _run_of(path: Path) -> ReleasedRun:
    model, name = path.parent.name, path.name.partition(".")[0]
    if "monoelectra" not in model and any(word in model for word in _FIRST_STAGES):
        return ReleasedRun(FIRST_STAGE, "colbert" if "colbert" in model else "bm25", name, path)
    first, mark, dataset = name.partition("_")
    if not mark or "tirex" in first:  # TIREx has one first stage, BM25
        return ReleasedRun(model, "bm25", dataset or first, path)
    return ReleasedRun(model, first, dataset, path)


def open_released(path: Path, cache: Path) -> Path:
    """Return the folder of released rankings: the one given, or an archive's content, unpacked once into the cache.

    Raises:
        MissingError: nothing is there; UsageError: a file that is no tar archive; FormatError: a damaged one.
    """
    if not path.is_file():
        return path
    into = cache / "released" / sha256_file(path)[:16]
    if not into.is_dir():
        with disk.new_folder(into) as folder:
            for model, name, data in _members(path):
                disk.make_folder(folder / model)
                disk.write(folder / model / name, data)
    return into


def _members(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (folder, file name, content) of each ranking in a tar archive."""
    size, largest = 0, max(path.stat().st_size * LARGEST_RATIO, UNCHECKED_BYTES)
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if not member.isfile() or not member.name.endswith(".run") or len(parts) < 2:
                    continue
                size += member.size
                if size > largest:
                    raise decompression_bomb(path)
                content = archive.extractfile(member)
                if content is not None and not {parts[-1], parts[-2]} & {"..", "."}:
                    yield parts[-2], parts[-1], content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, tarfile.ReadError) and not size:
            hint = "give the archive as it was published, or the folder that it unpacks to"
            raise UsageError("the file is no tar archive", where=str(path), hint=hint, code="no-archive") from error
        raise FormatError(
            f"the archive is damaged: {shown(error, 200)}", where=str(path), code="damaged-archive"
        ) from error
