"""A lab: a folder of runs, and what may be done with them."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime

from cerank.domain.plan import Plan
from cerank.errors import UsageError
from cerank.launch import local
from cerank.settings import Settings
from cerank.store import runs
from cerank.store.layout import RunFolder
from cerank.store.runs import Row, Status

Worker = subprocess.Popen[bytes]


class Lab:
    """The runs of the folder that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.lab

    def start(self, plan: Plan, recipe_toml: bytes) -> tuple[RunFolder, Worker]:
        """Makes a run of the plan and starts its worker; the worker outlives this process.

        Raises:
            RunFailedError: the lab cannot be written to.
        """
        folder = runs.create(self.folder, plan, recipe_toml, datetime.now(UTC))
        return folder, local.start(plan, folder)

    def resume(self, folder: RunFolder) -> Worker:
        """Starts a worker on a run that is not finished; it goes on where the last one was.

        Raises:
            UsageError: it is finished, or running.
            DamagedError: its plan cannot be read.
        """
        state = self.status(folder).state
        if state in {"running", "stopping"}:
            raise UsageError(f"it is {state}", where=folder.name, hint=f"cerank stop {folder.name}")
        if state == "finished":
            raise UsageError("it is finished; there is nothing to go on with", where=folder.name)
        return local.start(runs.load_plan(folder), folder)

    def listed(self) -> list[Row]:
        """A row for each run of the lab, the oldest first; a broken one says why."""
        return runs.listed(self.folder, datetime.now(UTC))

    def find(self, text: str) -> RunFolder:
        """The run a person means by its name, its label, or a part of its name that fits no other.

        Raises:
            UsageError: none, or several.
        """
        return runs.find(self.folder, text)

    def status(self, folder: RunFolder) -> Status:
        """How a run stands, computed from its files."""
        return runs.status(folder, datetime.now(UTC))

    def stop(self, folder: RunFolder) -> bool:
        """Asks a run's worker to stop at its next step; whether a signal woke it, too.

        Raises:
            UsageError: nothing is running there.
        """
        state = self.status(folder).state
        if state not in {"running", "stopping"}:
            raise UsageError(f"it is {state}, so there is nothing to stop", where=folder.name)
        return runs.request_stop(folder)

    def remove(self, folder: RunFolder) -> None:
        """Deletes a run's directory; refused while a worker holds it."""
        runs.remove(folder)
