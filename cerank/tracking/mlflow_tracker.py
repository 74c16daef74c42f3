"""MLflow, by its client: the server that MLFLOW_TRACKING_URI names, else a database in the lab."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import Any

from cerank.text.table_data import Table, written
from cerank.tracking.tracker import Destination, MetricRow, Outcome, TrackedRun

_BATCH = 1000  # metrics, which its servers take at once
_SETTINGS = 100  # of them
_STATUS = {"finished": "FINISHED", "paused": "SCHEDULED", "failed": "FAILED"}


class MlflowTracker:
    """One run there; MLflow gives it an id, by which it is continued."""

    def __init__(self, run: TrackedRun, to: Destination) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        database = f"sqlite:///{to.folder / 'mlflow.db'}"
        address = database if to.is_offline else os.environ.get("MLFLOW_TRACKING_URI") or database
        self._client: Any = MlflowClient(tracking_uri=address)
        self.tracker_id = to.tracker_id
        if not self.tracker_id:
            experiment = self._experiment(to, is_local=address == database)
            tags = {"cerank.run": run.key, "cerank.recipe": run.recipe}
            self.tracker_id = self._client.create_run(experiment, run_name=run.title, tags=tags).info.run_id
            settings = [Param(_allowed(key), str(value)) for key, value in run.settings.items()]
            for start in range(0, len(settings), _SETTINGS):
                self._client.log_batch(self.tracker_id, params=settings[start : start + _SETTINGS])
        else:
            self._client.update_run(self.tracker_id, status="RUNNING")
        self.where = f"{address}, run {self.tracker_id}"
        self._last = 0

    def _experiment(self, to: Destination, *, is_local: bool) -> str:
        known = self._client.get_experiment_by_name(to.project)
        if known is not None:
            return str(known.experiment_id)
        artifacts = (to.folder / "artifacts").absolute().as_uri() if is_local else None
        return str(self._client.create_experiment(to.project, artifact_location=artifacts))

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Send values, a thousand in a request."""
        from mlflow.entities import Metric

        metrics = [
            Metric(_allowed(name), value, int(1000 * row.seconds), row.step)
            for row in rows
            for name, value in row.values.items()
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self.tracker_id, metrics=metrics[start : start + _BATCH])
        self._last = rows[-1].step if rows else self._last

    def result(self, values: dict[str, float], tables: Sequence[Table], text: str) -> None:
        """Send final values, and tables and the verdict as files."""
        self.log([MetricRow(self._last, time.time(), values)])
        for table in tables:
            self._client.log_text(self.tracker_id, written([table], "csv"), f"{table.name}.csv")
        self._client.log_text(self.tracker_id, text, "verdict.md")

    def close(self, outcome: Outcome) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self.tracker_id, _STATUS[outcome])


def _allowed(name: str) -> str:
    """Return a name without the signs that MLflow refuses: nDCG@10 becomes nDCG_at_10."""
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "_at_"))
