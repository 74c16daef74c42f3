"""Teachers that a recipe declares: what a stage lacks of their rankings is made before it trains, and kept in the run.

Invariant: answers are kept in the lab, so that a run that is killed, or another one, asks nothing again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking
from cerank.datasets.dataset import Dataset
from cerank.errors import HeldError, RunFailedError
from cerank.files import disk, json_records
from cerank.planning import inputs
from cerank.runs import checksums
from cerank.teachers.engines.engine import StopTeachingError
from cerank.teachers.make import MadeTeacher, make
from cerank.teachers.ranking_files import Provenance
from cerank.teachers.requests import Hooks, TeachRequest
from cerank.teachers.work import TeachingProgress
from cerank.trec.open_run import open_run_file
from cerank.trec.text_io import write_run
from cerank.worker.run_context import RunContext

_POLL_SECONDS = 2.0  # between tries while another process asks the same model


class MadeRanking(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage asked of its teacher; beside the ranking in the run's folder."""

    asked: tuple[str, ...]  # queries, those that failed among them
    provenance: Provenance


def rank_for_stage(
    context: RunContext, datasets: Mapping[str, Dataset], name: str, queries: Sequence[str], *, in_validation: bool
) -> Ranking:
    """Return a declared teacher's rankings for a stage, made where they are missing; failed queries are absent.

    Args:
        context: state of this attempt: the plan, the run's folder, the log, and the request to stop.
        datasets: name -> dataset, for all datasets of the run.
        name: name of the stage that learns from the teacher.
        queries: ids of the queries whose candidates the teacher ranks.
        in_validation: whether these are queries of the validation dataset.

    Raises:
        PausedError: somebody asked to stop, or a cap was reached; what was answered is kept.
        CerankError: the teacher cannot be made.
    """
    path = context.folder.teacher(f"{name} in validation" if in_validation else name)
    beside = path.with_name(path.name.removesuffix(".run.gz") + ".made.json")
    before = json_records.load_if_there(beside, MadeRanking)
    asked_before = before.asked if before is not None and path.exists() else ()
    if not path.exists() or not set(queries) <= set(asked_before):
        every = tuple(dict.fromkeys((*asked_before, *queries)))
        made = _made(context, _request(context, datasets, name, every, in_validation=in_validation), name)
        if not made.ranking:
            raise RunFailedError("the teacher ranked no query", where=f"stages.{name}.teacher")
        disk.make_folder(path.parent)
        checksums.save(context.folder, beside, MadeRanking(asked=every, provenance=made.provenance))
        checksums.save(context.folder, path.with_suffix(".repairs.json"), made.provenance.repairs)
        checksums.write(context.folder, path, write_run(made.ranking, "teacher"))
    return open_run_file(path, Path(context.plan.cache)).ranking


def _request(
    context: RunContext, datasets: Mapping[str, Dataset], name: str, queries: tuple[str, ...], *, in_validation: bool
) -> TeachRequest:
    plan = context.plan
    recipe, stage = plan.recipe, plan.recipe.stages[name]
    dataset, first = inputs.training_dataset(recipe, stage), inputs.training_first_stage(recipe, stage)
    if in_validation:
        dataset, first = recipe.data.validation, inputs.validation_first_stage(recipe)
    return TeachRequest(
        lab=context.folder.lab,
        cache=Path(plan.cache),
        name=stage.teacher,
        teachers=recipe.teachers,
        dataset=datasets[dataset],
        first_stage=first,
        queries=queries,
        device=plan.device,
        threads=plan.threads,
        fetch=False,
    )


def _made(context: RunContext, request: TeachRequest, name: str) -> MadeTeacher:
    """Make the rankings, with progress on the heartbeat; waits while another process asks the same model."""
    context.heartbeat.enter("teacher", name, total=len(request.queries))
    done = 0

    def advance(progress: TeachingProgress) -> None:
        nonlocal done
        context.heartbeat.advance(progress.queries - done)
        done = progress.queries

    hooks = Hooks(progress=advance, should_stop=lambda: context.stop.reason)
    is_told = False
    while True:
        try:
            made = make(request, hooks)
            break
        except HeldError as error:
            if not is_told:
                context.log.event("waits for a teacher", f"{request.name}: {error.what}")
            is_told = True
            context.raise_if_stopped()
            time.sleep(_POLL_SECONDS)
        except StopTeachingError as error:
            context.stop.request(str(error))
            context.raise_if_stopped()
    if made.stopped:
        if not context.stop.reason:
            context.stop.request(made.stopped)
        context.raise_if_stopped()
    provenance = made.provenance
    failed = sum(provenance.failed.values())
    context.log.event(
        "teacher made",
        f"{request.name}: {len(made.ranking)} queries ranked, {failed} failed; {made.asked} calls made, "
        f"{made.reused} answers reused; passages went to {provenance.place}",
    )
    return made
