"""What a run does, in order: check the inputs, measure the first stages, then train, re-rank and measure each stage.

Invariant: every part leaves a file that says it is done, so going on means starting again from the top.
"""

from __future__ import annotations

from cerank.data import inputs, overlaps
from cerank.domain.plan import Plan
from cerank.learn.rerank import Scorer
from cerank.learn.trainer import PausedError
from cerank.store import seals
from cerank.store.layout import RunFolder
from cerank.worker import estimating, precision, sharing
from cerank.worker.beat import Beat
from cerank.worker.evaluation import Evaluation
from cerank.worker.notes import Notes
from cerank.worker.sources import Sources
from cerank.worker.stage import Desk, StageWork
from cerank.worker.stop import StopFlag


def carry_out(plan: Plan, folder: RunFolder, *, notes: Notes, beat: Beat, stop: StopFlag) -> None:
    """Does all of the run that is not done yet; the caller holds the lease.

    Raises:
        PausedError: somebody asked to stop; what was done is saved.
        CerankError: it cannot go on.
    """

    def pause() -> None:
        if stop.reason:
            raise PausedError(0)

    beat.enter("inputs", "", total=len(plan.inputs))
    sources = Sources(plan, folder, notes, beat)
    if not folder.overlaps.exists():
        shared = overlaps.Shared(overlaps.overlaps(plan.recipe, sources.datasets))
        for overlap in shared.overlaps:
            notes.event("queries shared", str(overlap))
        seals.save(folder, folder.overlaps, shared)
    for use in inputs.uses(plan.recipe):
        pause()
        beat.enter("candidates", f"{use.first_stage} on {use.dataset}", total=1)
        sources.candidates(use.dataset, use.first_stage)
    chosen = precision.chosen(plan, folder, notes)
    pause()
    beat.enter("estimate", "", total=1)
    estimating.announce(plan, folder, sources.datasets, notes=notes, beat=beat)
    evaluation = Evaluation(plan, folder, sources, notes, beat)
    evaluation.prepare()
    desk = Desk(plan, folder, sources, notes, beat, stop, chosen)
    for index, name in enumerate(plan.recipe.chain):
        work = StageWork(desk, index)
        if not work.is_finished() and not sharing.adopted(desk, index):
            work.train()
        sharing.adopt_rankings(desk, index)

        def scorer(final: object = work.final, kind: str = chosen[name]) -> Scorer:
            return Scorer.load(str(final), plan.device, kind)

        evaluation.rerank(name, scorer, pause)
    beat.complete()
