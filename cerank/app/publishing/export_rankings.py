"""Write the test rankings of a run as TREC files for others, on request each with a header of ir_metadata.

Invariant: below the header a file has the rows of the run's own file, and the header tells of the machine that scored,
by what the run recorded there; what it did not record is left out.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from cerank.app import fold_runs
from cerank.core.metrics import Scoring
from cerank.errors import MissingError, UsageError
from cerank.exporting import run_metadata
from cerank.exporting.resource_meter import Resources
from cerank.exporting.run_metadata import MetadataRequest, RecordedMachine, RerankedRun
from cerank.files import disk, journal, json_records
from cerank.files.disk import DamagedError
from cerank.models.bases import fingerprint
from cerank.recipes.plan import Plan
from cerank.registry import nearest
from cerank.runs import checksums, run_store
from cerank.runs.layout import RunFolder, slug
from cerank.runs.records import Attempt, Precisions
from cerank.settings import Settings


class WrittenRankings(msgspec.Struct, frozen=True):
    """The folder that was written, its files, and what the user should know."""

    folder: Path
    files: tuple[tuple[str, int], ...]  # name and bytes
    notes: tuple[str, ...] = ()


def export_rankings(
    settings: Settings, run: str, to: Path, metadata: MetadataRequest | None, progress: Callable[[str], None]
) -> WrittenRankings:
    """Write the rankings of a run's stages and baselines into a new folder, whole or not at all.

    Args:
        settings: where the lab is.
        run: a run, or RUN:SYSTEM for those of one stage or baseline.
        to: folder to make.
        metadata: what the user gives for the headers; None writes none.
        progress: called with each file that is written.

    Raises:
        UsageError: the folder exists, or there is no such run or system.
        MissingError: nothing is ranked yet.
        DamagedError: a ranking is not as it was written.
    """
    if metadata is not None:
        run_metadata.check_request(metadata)
    target = to.expanduser().absolute()
    if target.exists():
        hint = "name a folder that does not exist"
        raise UsageError("the folder exists already", where=str(to), hint=hint, code="folder-exists")
    if not target.parent.is_dir():
        raise UsageError("the folder to write into does not exist", where=str(target.parent), code="folder-missing")
    name, _, system = run.partition(":")
    folder = fold_runs.find_one(settings.lab, name)
    plan = run_store.load_plan(folder)
    known = (*plan.recipe.chain, *plan.recipe.untrained_systems())
    if system and system not in known:
        what = f"run {run_store.title(folder)} has no stage or baseline '{system}'"
        raise UsageError(what, hint=nearest(system, known), code="unknown-stage")
    rankings = list(_rankings(folder, plan, (system,) if system else known))
    if not rankings:
        raise MissingError("no ranking is finished", where=run_store.title(folder), code="not-measured-yet")
    files = []
    with disk.new_folder(target) as inside:
        for ranking in rankings:
            if problem := checksums.find_change(folder, ranking.path):
                hint = f"cerank verify {run_store.short_name(folder)}"
                raise DamagedError(problem, where=str(ranking.path), hint=hint)
            rows = gzip.decompress(ranking.path.read_bytes())
            head = _header(folder, plan, ranking, rows, metadata) if metadata is not None else b""
            file = inside / f"{slug(ranking.dataset)}.{slug(ranking.first_stage)}.{slug(ranking.system)}.run.gz"
            disk.write(file, gzip.compress(head + rows, mtime=0))
            files.append((file.name, file.stat().st_size))
            progress(file.name)
    notes: tuple[str, ...] = ()
    if metadata is not None:
        notes = (
            "user time, memory and energy are not in the metadata: a run records the seconds of its scoring alone",
        )
        if len(plan.recipe.data.first_stages) > 1:
            notes = ("time is not in the metadata: the run scored the candidates of its first stages together",)
    return WrittenRankings(target, tuple(files), notes)


class _StoredRanking(msgspec.Struct, frozen=True):
    """A ranking that the run finished."""

    system: str
    dataset: str
    first_stage: str
    path: Path


def _rankings(folder: RunFolder, plan: Plan, systems: tuple[str, ...]) -> Iterator[_StoredRanking]:
    for system in systems:
        for dataset in plan.recipe.data.test:
            for first in plan.recipe.data.first_stages:
                path = folder.ranking(system, dataset, first)
                if folder.measures(system, dataset, first).exists() and path.exists():  # in this order they are written
                    yield _StoredRanking(system, dataset, first, path)


def _header(folder: RunFolder, plan: Plan, ranking: _StoredRanking, rows: bytes, metadata: MetadataRequest) -> bytes:
    """Return the header's lines as bytes."""
    recipe = plan.recipe
    scorings = [
        row
        for row in journal.read_valid_rows(folder.scorings, Scoring)[0]
        if (row.system, row.dataset) == (ranking.system, ranking.dataset)
    ]
    attempt = _attempt(folder, scorings)
    inputs = {(entry.role, entry.name): entry.sha256 for entry in plan.inputs}
    queries = {line.split(None, 1)[0] for line in rows.splitlines()}
    pairs = rows.count(b"\n")
    model, sha256, training = _model(folder, plan, ranking.system)
    source = RerankedRun(
        tag=folder.name if ranking.system in recipe.chain else ranking.system,
        model=model,
        model_sha256=sha256,
        precision=_precision(folder, plan, ranking.system),
        device=plan.device,
        threads=plan.threads,
        first_stage=ranking.first_stage,
        first_stage_sha256=inputs.get(("first_stage", ranking.first_stage), ""),
        depth=recipe.data.depth,
        dataset=ranking.dataset,
        ir_datasets="",
        documents_sha256="",
        queries=len(queries),
        pairs=pairs,
        pairs_scored=min(pairs, sum(row.pairs for row in scorings)),
        dataset_sha256=inputs.get(("dataset", ranking.dataset), ""),
        machine=RecordedMachine(cpu=attempt.cpu, versions=attempt.versions) if attempt is not None else None,
        training=training,
    )
    is_of_one = len(recipe.data.first_stages) == 1  # the candidates of several are scored together
    resources = Resources(seconds=sum(row.seconds for row in scorings)) if scorings and is_of_one else None
    lines = run_metadata.header(metadata, source, resources)
    return "".join(f"{line}\n" for line in lines).encode()


def _attempt(folder: RunFolder, scorings: list[Scoring]) -> Attempt | None:
    """Return the record of the attempt that scored last; None where it cannot be read."""
    numbers = [row.attempt for row in scorings if row.attempt] or folder.attempt_numbers()
    try:
        return json_records.load_if_there(folder.attempt(max(numbers, default=0)), Attempt)
    except DamagedError:
        return None


def _precision(folder: RunFolder, plan: Plan, system: str) -> str:
    """Return the precision that a stage was re-ranked in; "" for a baseline, of which none is recorded."""
    stage = plan.recipe.stages.get(system)
    if stage is None:
        return ""
    recorded = json_records.load_if_there(folder.precisions, Precisions) or Precisions(chosen={})
    return recorded.reranking.get(system) or recorded.chosen.get(system, stage.precision or "fp32")


def _model(folder: RunFolder, plan: Plan, system: str) -> tuple[str, str, dict[str, object]]:
    """Return name and hash of what re-ranked, and how it was trained."""
    recipe = plan.recipe
    if system not in recipe.chain:
        name = recipe.baseline_models().get(system, system)
        sha256 = next((entry.sha256 for entry in plan.inputs if (entry.role, entry.name) == ("baseline", name)), "")
        return name, sha256, {}
    index = recipe.chain.index(system)
    final = folder.final(index, system)
    base = next((entry for entry in plan.inputs if entry.role == "base"), None)
    training = {
        "recipe": recipe.name,
        "stages": list(recipe.chain[: index + 1]),
        "seed": recipe.seed,
        "base": recipe.base,
        "base sha256": base.sha256 if base is not None else "",
        "plan sha256": plan.fingerprint,
    }
    return f"{folder.name}:{system}", fingerprint(final) if final.is_dir() else "", training
