"""Taking over a stage that another run of the lab has trained: its model, its curve, its events, its rankings.

Invariant: nothing of the other run is changed, every model is checked against its hashes on both sides, and what was
taken over says so in a file and in an event. Without a sound donor of the same versions the stage is trained here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from cerank.core.metrics import Event, Position
from cerank.errors import CerankError
from cerank.files import disk, journal, json_records, manifests
from cerank.files.source_hash import COMPUTATION
from cerank.planning.stage_keys import identities
from cerank.recipes.plan import Plan
from cerank.runs import checksums, run_store
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.records import Adopted, Attempt, Precisions
from cerank.worker.train_stage import Desk

_DECIDING = (
    "torch",
    "transformers",
    "tokenizers",
    "cerank",
    COMPUTATION,
)  # another version of these may give other bits
_OWN = {"started", "paused", "finished", "failed", "checkpoint saved", "rejected", "replay mismatch", "stage adopted"}


class Donor(msgspec.Struct, frozen=True):
    """A run that has finished the stage."""

    folder: RunFolder
    plan: Plan
    attempt: Attempt  # its last


def adopted(desk: Desk, index: int) -> bool:
    """Whether the stage at `index` was taken over from another run; False where it has to be trained.

    A stage that was begun here goes on here.
    """
    folder, name = desk.folder, desk.plan.recipe.chain[index]
    if not desk.plan.shares or folder.checkpoint_steps(index, name):
        return False
    for donor in _donors(desk.folder, desk.plan, index):
        refusal = _refusal(desk, donor, index)
        if not refusal:
            _take(desk, donor, index)
            return True
        desk.notes.event("stage not adopted", f"{name}: from {donor.folder.name}: {refusal}")
    return False


def adopt_rankings(desk: Desk, index: int) -> None:
    """Takes over the rankings and measures by an adopted stage, of each test dataset that was tested alike."""
    name, data = desk.plan.recipe.chain[index], desk.plan.recipe.data
    adoption = json_records.load_if_there(desk.folder.adopted(index, name), Adopted)
    if adoption is None:
        return
    donor = RunFolder(desk.folder.path.parent / adoption.run)
    try:
        plan = run_store.load_plan(donor)
    except CerankError:
        return  # it was removed meanwhile; what is missing is computed
    for test in data.test:
        if not _is_tested_alike(desk.plan, plan, test):
            continue
        files = [pair for first in data.first_stages for pair in _results(desk.folder, donor, (name, test, first))]
        if all(_is_sound(donor, source) for source, _ in files):
            for source, target in files:  # rankings before their measures, as a run writes them
                if not target.exists():
                    disk.make_folder(target.parent)
                    checksums.link(desk.folder, source, target)
            desk.notes.event("rankings adopted", f"{name}: on {test} from {donor.name}")


def _donors(folder: RunFolder, plan: Plan, index: int) -> Iterator[Donor]:
    """The runs of the lab that have finished the very stage, the oldest first."""
    wanted = identities(plan)[index]
    for other in run_store.folders(folder.lab):
        if other.name == folder.name:
            continue
        try:
            found = run_store.load_plan(other)
            chain = found.recipe.chain
            if len(chain) <= index or not other.final(index, chain[index]).is_dir():
                continue
            if identities(found)[index] != wanted:
                continue
            numbers = other.attempt_numbers()
            yield Donor(other, found, json_records.load(other.attempt(numbers[-1] if numbers else 1), Attempt))
        except (CerankError, KeyError):
            continue  # a damaged run, or a plan of an older form, has nothing to give


def _refusal(desk: Desk, donor: Donor, index: int) -> str:
    """Why the donor's stage cannot stand for training it here; "" where it can."""
    own = json_records.load(desk.folder.attempt(max(desk.folder.attempt_numbers())), Attempt)
    pairs = [(key, donor.attempt.versions.get(key, "-"), own.versions.get(key, "-")) for key in _DECIDING]
    pairs.append(("processor", donor.attempt.cpu, own.cpu))
    kept = json_records.load_if_there(donor.folder.precisions, Precisions)
    for name, stage in desk.plan.recipe.chained()[: index + 1]:
        if stage.precision == "auto":  # one processor may be told to do without its bf16
            theirs = kept.chosen.get(name, "-") if kept else "-"
            pairs.append((f"precision of {name}", theirs, desk.precisions.get(name, "-")))
    changed = [f"{key} {theirs}, here {ours}" for key, theirs, ours in pairs if theirs != ours]
    if changed:
        return "; ".join(changed)
    try:
        manifests.verify_sealed(donor.folder.final(index, donor.plan.recipe.chain[index]))
    except CerankError as error:
        return str(error)
    return ""


def _take(desk: Desk, donor: Donor, index: int) -> None:
    """Curve and events first, then the provenance, then the model, whose folder says that the stage is done."""
    name = desk.plan.recipe.chain[index]
    found: list[ReadingRow] = journal.read(donor.folder.readings, ReadingRow)
    for row in found:
        if row.stage == index:
            desk.notes.reading(row)
    desk.notes.sync()
    model = donor.folder.final(index, name)
    seal = disk.sha256_file(model / manifests.MANIFEST)
    _repeat_events(desk, donor, index)
    identity = identities(desk.plan)[index]
    disk.make_folder(desk.folder.stage(index, name))
    adoption = Adopted(
        run=donor.folder.name,
        plan=donor.plan.fingerprint,
        identity=identity,
        sha256=seal,
        time=desk.notes.time(),
        attempt=desk.notes.attempt,
    )
    checksums.save(desk.folder, desk.folder.adopted(index, name), adoption)
    final = desk.folder.final(index, name)
    with disk.new_folder(final) as inside:
        for source in sorted(model.rglob("*")):
            target = inside / source.relative_to(model)
            if source.is_dir():
                disk.make_folder(target)
            else:
                disk.link(source, target)
    manifests.verify_sealed(final)
    what = f"{name}: trained by {donor.folder.name}, the same start, settings, inputs and seed; seal {seal[:12]}"
    desk.notes.event("stage adopted", what, Position(index, 0))


def _repeat_events(desk: Desk, donor: Donor, index: int) -> None:
    """What the donor said of the stage (groups counted, lists repaired, weights moved) is said here, too, once."""
    name = desk.plan.recipe.chain[index]
    own, _ = journal.rows(desk.folder.events, Event)
    said = {(event.kind, event.text) for event in own}
    theirs, _ = journal.rows(donor.folder.events, Event)
    for event in theirs:
        is_ours = event.text.startswith((f"{name}: ", f"validation of {name}: ")) or (
            event.position is not None and event.position.stage == index
        )
        if is_ours and event.kind not in _OWN and (event.kind, event.text) not in said:
            desk.notes.event(event.kind, event.text, event.position)


def _is_tested_alike(plan: Plan, other: Plan, test: str) -> bool:
    """Whether both re-rank and measure the dataset in the same way: the same candidates at once, to the same depth.

    All first stages count, for candidates of all of them go through the model together.
    """
    data, theirs = plan.recipe.data, other.recipe.data
    if (data.depth, data.first_stages) != (theirs.depth, theirs.first_stages) or test not in theirs.test:
        return False
    if plan.measures_on(test) != other.measures_on(test):
        return False
    inputs = [("dataset", test), *(("first_stage", f"{first} on {test}") for first in data.first_stages)]
    return all(plan.input(*one).sha256 == other.input(*one).sha256 for one in inputs)


def _is_sound(donor: RunFolder, path: Path) -> bool:
    """Whether the donor has the file, as it was sealed."""
    try:
        run_store.refuse_damaged(donor, path)
    except CerankError:
        return False
    return path.is_file()


def _results(own: RunFolder, other: RunFolder, key: tuple[str, str, str]) -> list[tuple[Path, Path]]:
    """(theirs, ours) of the files of one re-ranking."""
    return [
        (other.ranking(*key), own.ranking(*key)),
        (other.ranking_facts(*key), own.ranking_facts(*key)),
        (other.measures(*key), own.measures(*key)),
    ]
