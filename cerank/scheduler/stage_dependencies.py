"""Decides which queued runs wait for another run to train a stage that both share.

Invariant: a run waits only for runs that are running or come before it in the queue, so no two wait for each other; and
only as long as these runs may still finish the stage.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cerank.errors import CerankError
from cerank.runs import run_store
from cerank.runs.layout import RunFolder, runs_folder


class StageDependencies:
    """The stages that earlier runs are going to finish.

    Args:
        lab: folder of the lab's runs.
        under_way: names of the runs whose workers are alive.
    """

    def __init__(self, lab: Path, under_way: Iterable[str]) -> None:
        self._lab = lab
        self._coming: set[str] = set()
        for run in under_way:
            self.add(run)

    def can_start(self, run: str) -> bool:
        """Return whether no earlier run is going to train a stage that this run could reuse.

        A stage's key includes its predecessors, so checking the keys is enough.
        """
        lacking, shares = self._missing_stages(run)
        return not shares or self._coming.isdisjoint(lacking)

    def add(self, run: str) -> None:
        """Add a run that comes before those asked about from now on."""
        self._coming |= set(self._missing_stages(run)[0])

    def _missing_stages(self, run: str) -> tuple[list[str], bool]:
        """Return the keys of the stages that the run has not finished, and whether it may reuse stages."""
        from cerank.planning.stage_keys import (
            stage_keys,  # the command line imports this module and needs no datasets
        )

        folder = RunFolder(runs_folder(self._lab) / run)
        try:
            plan = run_store.load_plan(folder)
            keys = zip(stage_keys(plan), plan.recipe.chain, strict=True)
            missing = [key for at, (key, name) in enumerate(keys) if not folder.final(at, name).is_dir()]
            return missing, plan.shares
        except (CerankError, KeyError):
            return [], False  # the attempt to start the run will report the error
