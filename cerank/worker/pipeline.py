"""What a run does, in order: check the inputs, measure the first stages, then train, re-rank and measure each stage.

Invariant: every part leaves a file that says it is done, so going on means starting again from the top.
"""

from __future__ import annotations

from cerank.datasets import query_overlaps
from cerank.inference.rerank import Scorer
from cerank.planning import inputs
from cerank.recipes.plan import Plan
from cerank.runs import checksums
from cerank.runs.layout import RunFolder
from cerank.training.trainer import PausedError
from cerank.worker import estimate_duration, precisions, stage_reuse
from cerank.worker.heartbeat import Heartbeat
from cerank.worker.run_inputs import RunInputs
from cerank.worker.run_log import RunLog
from cerank.worker.stage_evaluation import StageEvaluation
from cerank.worker.stop_request import StopFlag
from cerank.worker.train_stage import RunContext, StageWork


def carry_out(plan: Plan, folder: RunFolder, *, notes: RunLog, beat: Heartbeat, stop: StopFlag) -> None:
    """Does all of the run that is not done yet; the caller holds the lease.

    Raises:
        PausedError: somebody asked to stop; what was done is saved.
        CerankError: it cannot go on.
    """

    def pause() -> None:
        if stop.reason:
            raise PausedError(0)

    beat.enter("inputs", "", total=len(plan.inputs))
    sources = RunInputs(plan, folder, notes, beat)
    if not folder.overlaps.exists():
        shared = query_overlaps.SharedQueries(query_overlaps.overlaps(plan.recipe, sources.datasets))
        for overlap in shared.overlaps:
            notes.event("queries shared", str(overlap))
        checksums.save(folder, folder.overlaps, shared)
    for use in inputs.first_stage_uses(plan.recipe):
        pause()
        beat.enter("candidates", f"{use.first_stage} on {use.dataset}", total=1)
        sources.candidates(use.dataset, use.first_stage)
    chosen = precisions.choose_precisions(plan, folder, notes)
    pause()
    beat.enter("estimate", "", total=1)
    estimate_duration.announce_estimate(plan, folder, sources.datasets, notes=notes, beat=beat)
    evaluation = StageEvaluation(plan, folder, sources, notes, beat)
    evaluation.prepare()
    context = RunContext(plan, folder, sources, notes, beat, stop, chosen)
    for index, name in enumerate(plan.recipe.chain):
        work = StageWork(context, index)
        if not work.is_finished() and not stage_reuse.reuse_stage(context, index):
            work.train()
        stage_reuse.reuse_rankings(context, index)

        def scorer(final: object = work.final, kind: str = chosen[name]) -> Scorer:
            return Scorer.load(str(final), plan.device, kind)

        evaluation.rerank(name, scorer, pause)
    beat.complete()
