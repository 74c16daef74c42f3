"""Weights & Biases, by its library, which reads WANDB_API_KEY, WANDB_ENTITY and WANDB_MODE itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cerank.text.table_data import Table
from cerank.tracking.tracker import Destination, MetricRow, Outcome, TrackedRun

_EXIT = {"finished": 0, "paused": 0, "failed": 1}


class WandbTracker:
    """One run there, under cerank's id of it, so that tracking it again continues it."""

    def __init__(self, run: TrackedRun, to: Destination) -> None:
        import wandb

        self._library: Any = wandb
        settings = wandb.Settings(  # it tells of cerank's run, not of the process that reads the run's files
            console="off", silent=True, x_disable_stats=True, disable_git=True, disable_code=True
        )
        self._run: Any = wandb.init(
            project=to.project,
            id=to.tracker_id or run.key,
            name=run.title,
            group=run.recipe,
            config=dict(run.settings),
            dir=str(to.folder),
            mode="offline" if to.is_offline else None,
            resume="allow",
            settings=settings,
        )
        self.tracker_id = str(self._run.id)
        is_local = bool(self._run.settings._offline)
        folder = self._run.settings.sync_dir
        self.where = f"{folder}; wandb sync {folder} sends it" if is_local else str(self._run.url)

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Hand values to the library, which sends them in a process of its own."""
        for row in rows:
            self._run.log(row.values, step=row.step)

    def result(self, values: dict[str, float], tables: Sequence[Table], text: str) -> None:
        """Send final values and the verdict as the run's summary, and tables."""
        self._run.summary.update({**values, "verdict": text})
        for table in tables:
            columns, rows = [column.heading for column in table.columns], [list(row) for row in table.rows]
            self._run.log({table.name: self._library.Table(columns=columns, data=rows, allow_mixed_types=True)})

    def close(self, outcome: Outcome) -> None:
        """Return once everything is sent, or written where nothing may be sent."""
        self._run.summary["outcome"] = outcome
        self._run.finish(exit_code=_EXIT[outcome])
