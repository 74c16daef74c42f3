"""Reuses a stage that another run of the lab has trained: its model, metrics, events and rankings.

Invariant: the other run is never changed, every model is verified on both sides, and a reused stage is recorded in a
file and in an event. Without an undamaged stage from the same versions, the stage is trained here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.core.metrics import Event, Position
from cerank.errors import CerankError
from cerank.files import disk, journal, json_records, manifests
from cerank.files.hashing import sha256_file
from cerank.files.source_hash import COMPUTATION
from cerank.kernels.determinism import GPU_VERSIONS
from cerank.planning.stage_keys import stage_keys
from cerank.recipes.plan import Plan
from cerank.runs import checksums, run_store
from cerank.runs.layout import ReadingRow, RunFolder
from cerank.runs.records import Attempt, Precisions, ReusedStage
from cerank.worker.run_context import RunContext

# another version of these may give other bits
_COMPARED_VERSIONS = ("torch", "transformers", "tokenizers", "cerank", COMPUTATION, *GPU_VERSIONS)
_EVENTS_NOT_COPIED = {
    "started",
    "paused",
    "finished",
    "failed",
    "checkpoint saved",
    "validated",
    "measured",
    "rejected",
    "replay mismatch",
    "stage adopted",
}


class ReusableStage(msgspec.Struct, frozen=True):
    """A run that has finished the stage."""

    folder: RunFolder
    plan: Plan
    attempts: tuple[Attempt, ...]  # all of its own: any may have trained the stage, or re-ranked with it


def reuse_stage(context: RunContext, index: int, precisions: Mapping[str, str]) -> bool:
    """Return whether the stage at `index` was copied from another run; if not, it must be trained here.

    A stage that has checkpoints here is continued here.
    """
    folder, name = context.folder, context.plan.recipe.chain[index]
    if not context.plan.shares or folder.checkpoint_steps(index, name):
        return False
    for origin in _find_reusable(context.folder, context.plan, index):
        reason = _why_not_reusable(context, origin, index, precisions)
        if not reason:
            _copy_stage(context, origin, index)
            return True
        context.log.event("stage not adopted", f"{name}: from {origin.folder.name}: {reason}")
    return False


def reuse_leading_stages(context: RunContext, precisions: Mapping[str, str]) -> int:
    """Copy the stages that other runs have finished, from the first on, with their rankings.

    Returns:
        The index of the first stage that neither this run nor another has finished: so many stages need no training.
    """
    chain = context.plan.recipe.chain
    for index, name in enumerate(chain):
        if not context.folder.final(index, name).is_dir() and not reuse_stage(context, index, precisions):
            return index
        reuse_rankings(context, index)
    return len(chain)


def reuse_rankings(context: RunContext, index: int) -> None:
    """Link the rankings and measures of a reused stage, for each test dataset that both runs evaluate alike."""
    name, data = context.plan.recipe.chain[index], context.plan.recipe.data
    record = json_records.load_if_there(context.folder.reused_stage(index, name), ReusedStage)
    if record is None:
        return
    origin = RunFolder(context.folder.path.parent / record.run)
    try:
        plan = run_store.load_plan(origin)
    except CerankError:
        return  # it was removed meanwhile; missing rankings are computed here
    for test in data.test:
        if not _is_evaluated_alike(context.plan, plan, test):
            continue
        files = [
            pair for first in data.first_stages for pair in _result_files(context.folder, origin, (name, test, first))
        ]
        if origin.aggregation(name).is_file():
            files.append((origin.aggregation(name), context.folder.aggregation(name)))
        if all(_is_undamaged(origin, source) for source, _ in files):
            missing = [(source, target) for source, target in files if not target.exists()]
            for source, target in missing:  # rankings before their measures, as a run writes them
                disk.make_folder(target.parent)
                checksums.link(context.folder, source, target)
            if missing:
                context.log.event("rankings adopted", f"{name}: on {test} from {origin.name}")


def _find_reusable(folder: RunFolder, plan: Plan, index: int) -> Iterator[ReusableStage]:
    """Yield the runs of the lab that have finished exactly this stage, the oldest first."""
    key = stage_keys(plan)[index]
    for other in run_store.folders(folder.lab):
        if other.name == folder.name:
            continue
        try:
            their_plan = run_store.load_plan(other)
            chain = their_plan.recipe.chain
            if len(chain) <= index or not other.final(index, chain[index]).is_dir():
                continue
            if stage_keys(their_plan)[index] != key:
                continue
            numbers = other.attempt_numbers() or [1]
            attempts = tuple(json_records.load(other.attempt(number), Attempt) for number in numbers)
            yield ReusableStage(other, their_plan, attempts)
        except (CerankError, KeyError):
            continue  # a damaged run, or a plan of an older format


def _why_not_reusable(context: RunContext, origin: ReusableStage, index: int, precisions: Mapping[str, str]) -> str:
    """Return why the other run's stage cannot replace training it here; "" if it can."""
    own = json_records.load(context.folder.attempt(max(context.folder.attempt_numbers())), Attempt)
    is_lora = any(stage.adapter.is_lora for _, stage in context.plan.recipe.chained()[: index + 1])
    packages = (*_COMPARED_VERSIONS, *(("peft", "bitsandbytes") if is_lora else ()))
    pairs = []
    for attempt in origin.attempts:
        pairs += [(key, attempt.versions.get(key, "-"), own.versions.get(key, "-")) for key in packages]
        pairs.append(("processor", attempt.cpu, own.cpu))
    their_precisions = json_records.load_if_there(origin.folder.precisions, Precisions)
    for name, stage in context.plan.recipe.chained()[: index + 1]:
        if stage.precision == "auto":  # bf16 may be switched off on one machine
            theirs = their_precisions.chosen.get(name, "-") if their_precisions else "-"
            pairs.append((f"precision of {name}", theirs, precisions.get(name, "-")))
    changed = dict.fromkeys(f"{key} {theirs}, here {ours}" for key, theirs, ours in pairs if theirs != ours)
    if changed:
        return "; ".join(changed)
    chain = origin.plan.recipe.chain
    if index and _model_sha256(origin.folder, index - 1, chain) != _model_sha256(context.folder, index - 1, chain):
        return f"stage {chain[index - 1]} before it has other weights there, as after a change of versions"
    name = chain[index]
    measures = origin.plan.recipe.stages[name].keep_best
    models = [origin.folder.best_model(index, name, measure) for measure in measures]
    try:
        for model in (*models, origin.folder.final(index, name)):
            manifests.verify_folder(model)
    except CerankError as error:
        return str(error)
    return ""


def _model_sha256(folder: RunFolder, index: int, chain: Sequence[str]) -> str:
    """Return the hash of the manifest of a stage's model; "" where it is not there."""
    manifest = folder.final(index, chain[index]) / manifests.MANIFEST
    return sha256_file(manifest) if manifest.is_file() else ""


def _copy_stage(context: RunContext, origin: ReusableStage, index: int) -> None:
    """Copy metrics and events, then the record of origin, then the model, whose folder marks the stage as done."""
    name = context.plan.recipe.chain[index]
    rows: list[ReadingRow] = journal.read(origin.folder.readings, ReadingRow)
    for row in rows:
        if row.stage == index:
            context.log.write_metrics(row)
    context.log.sync()
    model = origin.folder.final(index, name)
    manifest_sha256 = sha256_file(model / manifests.MANIFEST)
    _copy_events(context, origin, index)
    identity = stage_keys(context.plan)[index]
    disk.make_folder(context.folder.stage(index, name))
    record = ReusedStage(
        run=origin.folder.name,
        plan=origin.plan.fingerprint,
        identity=identity,
        sha256=manifest_sha256,
        time=context.log.time(),
        attempt=context.log.attempt,
    )
    checksums.save(context.folder, context.folder.reused_stage(index, name), record)
    measures = context.plan.recipe.stages[name].keep_best
    for measure in measures:
        own = context.folder.best_model(index, name, measure)
        if not own.is_dir():
            _link_model(origin.folder.best_model(index, name, measure), own)
    _link_model(model, context.folder.final(index, name))
    reason = "the same start, settings, inputs and seed"
    what = f"{name}: trained by {origin.folder.name}, {reason}; manifest {manifest_sha256[:12]}"
    context.log.event("stage adopted", what, Position(index, 0))


def _link_model(model: Path, target: Path) -> None:
    """Link the files of a model of another run into a new folder, whole or not at all."""
    with disk.new_folder(target) as inside:
        for source in sorted(model.rglob("*")):
            linked = inside / source.relative_to(model)
            if source.is_dir():
                disk.make_folder(linked)
            else:
                disk.link(source, linked)
    manifests.verify_folder(target)


def _copy_events(context: RunContext, origin: ReusableStage, index: int) -> None:
    """Copy the other run's events about this stage, without duplicates."""
    name = context.plan.recipe.chain[index]
    own, _ = journal.read_valid_rows(context.folder.events, Event)
    logged = {(event.kind, event.text) for event in own}
    theirs, _ = journal.read_valid_rows(origin.folder.events, Event)
    for event in theirs:
        is_ours = event.text.startswith((f"{name}: ", f"validation of {name}: ")) or (
            event.position is not None and event.position.stage == index
        )
        if is_ours and event.kind not in _EVENTS_NOT_COPIED and (event.kind, event.text) not in logged:
            context.log.event(event.kind, event.text, event.position)


def _is_evaluated_alike(plan: Plan, other: Plan, test: str) -> bool:
    """Return whether both re-rank and measure the dataset in the same way.

    The same candidates at once, to the same depth.

    All first stages count, for candidates of all of them go through the model together.
    """
    data, theirs = plan.recipe.data, other.recipe.data
    if (data.depth, data.first_stages) != (theirs.depth, theirs.first_stages) or test not in theirs.test:
        return False
    if plan.measures_on(test) != other.measures_on(test):
        return False
    if plan.recipe.evaluate.score_precision != other.recipe.evaluate.score_precision:
        return False
    inputs = [("dataset", test), *(("first_stage", f"{first} on {test}") for first in data.first_stages)]
    return all(plan.input(*role_and_name).sha256 == other.input(*role_and_name).sha256 for role_and_name in inputs)


def _is_undamaged(origin: RunFolder, path: Path) -> bool:
    """Return whether the other run has the file as its checksum says."""
    try:
        run_store.check_undamaged(origin, path)
    except CerankError:
        return False
    return path.is_file()


def _result_files(own: RunFolder, other: RunFolder, key: tuple[str, str, str]) -> list[tuple[Path, Path]]:
    """Return (theirs, ours) of the files of one re-ranking."""
    return [
        (other.ranking(*key), own.ranking(*key)),
        (other.ranking_stats_file(*key), own.ranking_stats_file(*key)),
        (other.measures(*key), own.measures(*key)),
    ]
