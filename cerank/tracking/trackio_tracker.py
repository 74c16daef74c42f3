"""trackio, by its library: a database on this machine, or a Space where TRACKIO_SPACE_ID names one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cerank.text.table_data import Table
from cerank.tracking.tracker import Destination, MetricRow, Outcome, TrackedRun

_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_DATASET_ID", "TRACKIO_BUCKET_ID", "TRACKIO_WEBHOOK_URL")


class TrackioTracker:
    """One run there, by cerank's id of it."""

    def __init__(self, run: TrackedRun, to: Destination) -> None:
        if to.is_offline:
            for name in _REMOTE:
                os.environ.pop(name, None)
        import trackio

        self._library: Any = trackio
        self._run: Any = trackio.init(
            project=to.project,
            name=run.key,
            group=run.recipe,
            config={"title": run.title, **run.settings},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.tracker_id = run.key
        self.where = f'trackio show --project "{to.project}"'
        self._last = 0

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Hand values to the library, which writes them in a thread of its own."""
        for row in rows:
            self._run.log(row.values, step=row.step)
            self._last = row.step

    def result(self, values: dict[str, float], tables: Sequence[Table], text: str) -> None:
        """Write final values, tables, and the verdict."""
        self._run.log({**values, "verdict": self._library.Markdown(text)}, step=self._last)
        for table in tables:
            columns, rows = [column.heading for column in table.columns], [list(row) for row in table.rows]
            written = self._library.Table(columns=columns, data=rows, allow_mixed_types=True)
            self._run.log({table.name: written}, step=self._last)

    def close(self, outcome: Outcome) -> None:
        """Return once everything is written."""
        self._run.log({"outcome": outcome}, step=self._last)
        self._run.finish()
