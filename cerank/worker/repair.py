"""Finds the damaged files of a run, and renames those that the worker can regenerate.

Invariant: nothing is deleted: a damaged file keeps its content under a name with `.bad`. Models and checkpoints are
renamed by the code that loads them, which knows which one comes before.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import msgspec

from cerank.core.metrics import Event, StepMetrics, Validation
from cerank.errors import CerankError
from cerank.files import disk, journal, json_records, manifests
from cerank.files.disk import DamagedError
from cerank.recipes.plan import Plan
from cerank.runs import checksums, run_store
from cerank.runs.checksums import FileChecksum
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.records import Attempt, Done, Failure, ReusedStage, RunPlace
from cerank.runs.user_labels import UserLabels


class Problem(msgspec.Struct, frozen=True):
    """A file of a run that is not as it was written."""

    path: Path
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


_JOURNALS: dict[str, type[Any] | UnionType] = {
    "readings.jsonl": ReadingRow,
    "events.jsonl": Event,
    "seals.jsonl": FileChecksum,
}


_WITHOUT_CHECKSUM = "the file has no checksum, so it cannot be verified"


def find_problems(folder: RunFolder, *, expects_checksums: bool = False) -> list[Problem]:
    """Return everything that is damaged, checking every byte that has a checksum; the most important file first.

    Args:
        folder: folder of the run to check.
        expects_checksums: whether an unfinished run without a list of checksums counts as damaged; if not, it is taken
            for a run of an older release.
    """
    problems = [
        *_plan(folder),
        *_journals(folder),
        *_records(folder),
        *_files(folder, expects_checksums),
        *_folders(folder),
    ]
    return list({problem.path: problem for problem in reversed(problems)}.values())[::-1]


def _plan(folder: RunFolder) -> Iterator[Problem]:
    try:
        run_store.load_plan(folder)
    except DamagedError as error:
        yield Problem(folder.plan, error.what)


def _journals(folder: RunFolder) -> Iterator[Problem]:
    for name, kind in _JOURNALS.items():
        path = folder.path / name
        try:
            journal.read(path, kind)
        except DamagedError as error:
            line = error.where.removeprefix(str(path))
            yield Problem(path, f"line {line[1:]}: {error.what}" if line else error.what)


def _records(folder: RunFolder) -> Iterator[Problem]:
    kinds: list[tuple[Path, type[msgspec.Struct]]] = [
        (path, Attempt) for path in sorted(folder.attempts.glob("*.json"))
    ]
    kinds += [(path, ReusedStage) for path in sorted(folder.path.glob("stages/*/adopted.json"))]
    kinds += [
        (folder.user_labels, UserLabels),
        (folder.place, RunPlace),
        (folder.done, Done),
        (folder.failure, Failure),
        (folder.damage, checksums.DamageReport),
    ]
    for path, kind in kinds:
        try:
            json_records.load_if_there(path, kind)
        except DamagedError as error:
            yield Problem(path, error.what)


def _files(folder: RunFolder, expects_checksums: bool) -> Iterator[Problem]:
    """Yield files that differ from their checksums, and files without one in a run that has checksums."""
    try:
        listed, done = checksums.load_all(folder), json_records.load_if_there(folder.done, Done)
    except DamagedError:
        return  # reported above; without the list nothing more can be checked
    if done and done.seals:
        wrong = checksums.find_problem(folder, FileChecksum(folder.checksums.name, _size(folder.checksums), done.seals))
        if wrong:
            yield Problem(folder.checksums, wrong)
    for entry in listed.values():
        path = folder.path / entry.path
        # a checksum is written before its file, so an unfinished run may lack the file, unless later files exist
        is_begun = done is None and not path.exists() and not _would_not_be_rewritten(folder, path)
        is_growing = done is None and (entry.path in _JOURNALS or path.name == manifests.MANIFEST)
        wrong = "" if is_begun or is_growing else checksums.find_problem(folder, entry)
        if wrong:
            yield Problem(path, wrong)
    # a run of an older release has none, and the recipe's alone is left of a list that was cut
    if len(listed) > 1 or (expects_checksums and done is None):
        files = (path for name in checksums.CHECKSUMMED_FOLDERS for path in sorted((folder.path / name).rglob("*")))
        for path in files:
            is_ours = path.is_file() and not path.name.startswith(".") and ".bad" not in path.name
            if is_ours and path.relative_to(folder.path).as_posix() not in listed:
                yield Problem(path, _WITHOUT_CHECKSUM)


def _would_not_be_rewritten(folder: RunFolder, path: Path) -> bool:
    """Return whether a later file of the same write exists, so that the worker would not write this one again."""
    is_early = path.parent.parent.name == "rankings" or path.name.endswith(".repairs.json")
    return is_early and _files_written_together(folder, path)[-1].exists()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _folders(folder: RunFolder) -> Iterator[Problem]:
    """Yield checksummed folders whose content changed; temporary and quarantined folders have other names."""
    patterns = ("stages/*/final", "stages/*/best-*", "stages/*/checkpoints/step-*", "scores/*/*/part-*")
    for path in sorted(path for pattern in patterns for path in folder.path.glob(pattern)):
        if path.is_dir() and ".bad" not in path.name:
            try:
                manifests.verify_folder(path)
            except DamagedError as error:
                yield Problem(Path(error.where), error.what)


def repair_run(folder: RunFolder) -> list[str]:
    """Rename damaged files that can be regenerated to *.bad; return one sentence per problem. Needs the lease.

    A journal keeps its readable rows. A finished run is no longer finished until a worker has carried it out again.

    Raises:
        DamagedError: the plan is damaged.
        RunFailedError: the disk refuses.
    """
    messages: dict[str, None] = {}
    for _ in range(3):  # the second round finds files whose checksum was lost with a row of the list
        messages |= dict.fromkeys(_repair_once(folder))
    return list(messages)


def _repair_once(folder: RunFolder) -> list[str]:
    # from here on the run has all checksums, whatever release made it
    problems = find_problems(folder, expects_checksums=True)
    for problem in problems:
        if problem.path == folder.plan:  # the one file that cannot be regenerated
            run_store.load_plan(folder)
    for problem in problems:
        if problem.path.name in _JOURNALS and problem.path.parent == folder.path:
            _rewrite_journal(problem.path)
        elif _is_record(folder, problem.path):
            _quarantine(problem.path)
        elif problem.what == _WITHOUT_CHECKSUM and _has_valid_own_checksum(problem.path):
            checksums.record(folder, [problem.path])
        elif checkpoint := next((path for path in problem.path.parents if path.parent.name == "checkpoints"), None):
            _quarantine(checkpoint)
        else:
            for path in _files_written_together(folder, problem.path):
                _quarantine(path)
    if problems:
        _quarantine(folder.done)
        disk.remove(folder.damage)
    return [str(problem) for problem in problems]


def _has_valid_own_checksum(path: Path) -> bool:
    """Return whether the file has a checksum of its own, gzip's or a record's, that matches."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
            return True
        return path.suffix == ".json" and json_records.crc_matches(path.read_bytes().rstrip(), without=False)
    except (OSError, EOFError, zlib.error):
        return False


def remove_leftovers(folder: RunFolder, plan: Plan) -> None:
    """Remove temporary files that a killed worker or a power cut left. Needs the lease.

    Raises:
        RunFailedError: the disk refuses.
    """
    for path in sorted(folder.path.rglob(".*")):
        if path.name.endswith((".tmp", disk.DISCARDED)) and path.exists():
            disk.remove_tree(path)
    for index, name in enumerate(plan.recipe.chain):
        if folder.final(index, name).is_dir():  # the stage is over; its last checkpoint keeps the optimizer
            for step in folder.checkpoint_steps(index, name)[:-1]:
                disk.discard(folder.checkpoint(index, name, step))


def _is_record(folder: RunFolder, path: Path) -> bool:
    """Return whether the worker can write the file again; it could not write the user's recipe."""
    is_top = path.parent in {folder.path, folder.attempts} and path != folder.recipe
    return is_top or path.name == "adopted.json"


def _quarantine(path: Path) -> None:
    if path.exists() or path.is_symlink():
        disk.quarantine(path)


def _rewrite_journal(path: Path) -> None:
    """Rename the damaged journal and write a new one with its readable rows."""
    good = (
        [line + b"\n" for line in path.read_bytes().split(b"\n")[:-1] if _is_readable(line, path)]
        if path.exists()
        else []
    )
    _quarantine(path)
    disk.write(path, b"".join(good))


def _is_readable(line: bytes, path: Path) -> bool:
    try:
        json_records.decoder_of(_JOURNALS[path.name]).decode(line)
    except json_records.DECODE_ERRORS:
        return False
    return json_records.crc_matches(line)


def _files_written_together(folder: RunFolder, path: Path) -> list[Path]:
    """Return the file and those that are written in one go with it.

    A ranking is made again only where its measures are gone, too.
    """
    relative = path.relative_to(folder.path)
    if path.name.endswith(".repairs.json"):
        return [path, path.with_name(path.name.replace(".run.repairs.json", ".run.gz"))]
    if relative.parts[0] == "negatives":  # a list of dropped candidates and its counts
        stage = path.name.removesuffix(".json").removesuffix(".dropped.tsv.gz")
        return [path.with_name(f"{stage}.json"), path.with_name(f"{stage}.dropped.tsv.gz")]
    if relative.parts[0] not in {"rankings", "measures"}:
        return [path] if relative.parts[0] in checksums.CHECKSUMMED_FOLDERS else []
    stem = path.name.removesuffix(".run.gz").removesuffix(".facts.json").removesuffix(".jsonl")
    system = relative.parts[1]
    ranked = folder.path / "rankings" / system
    return [
        ranked / f"{stem}.run.gz",
        ranked / f"{stem}.facts.json",
        folder.path / "measures" / system / f"{stem}.jsonl",
    ]


def find_missing_metrics(folder: RunFolder, plan: Plan) -> list[str]:
    """Return one sentence for each finished stage that lacks metrics of steps or validations.

    Steps whose update was left out have none, and an event each instead.
    """
    from cerank.training import stage_summary

    rows: list[ReadingRow] = journal.read_valid_rows(folder.readings, ReadingRow)[0]
    events, _ = journal.read_valid_rows(folder.events, Event)
    left_out = sum(event.kind == "rejected" and event.text.startswith("update left out") for event in events)
    sentences = []
    for index, (name, stage) in enumerate(plan.recipe.chained()):
        try:
            summary = stage_summary.read(folder.final(index, name))
        except CerankError:
            continue
        if summary is None:
            continue
        steps = {row.step for row in rows if isinstance(row, StepMetrics) and row.stage == index}
        checks = {row.step for row in rows if isinstance(row, Validation) and row.stage == index}
        expected = {
            step for step in range(1, summary.steps + 1) if stage.validate_every and step % stage.validate_every == 0
        } | ({0} if summary.start is not None else set())
        lost = len({*range(1, summary.steps + 1)} - steps)
        if lost > left_out:
            sentences.append(f"{folder.readings}: {lost} of {summary.steps} steps of {name} have no reading")
        elif expected - checks:
            sentences.append(f"{folder.readings}: {len(expected - checks)} validations of {name} have no reading")
    return sentences
