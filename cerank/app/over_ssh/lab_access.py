"""What a dashboard does with a lab: list its runs, act on them, plan and launch new ones.

`LabAccess` does it to a folder of this machine; `remote_access.RemoteAccess` asks the machine where the lab is. Both
give the screens folders to read: the lab's own, or a copy of what a screen shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.lab import Lab
from cerank.app.run_views import label_runs, run_list, verdict_summaries
from cerank.app.run_views.run_monitor import LabMonitor, RunEntry
from cerank.machine import system_usage
from cerank.machine.system_usage import UsageSample
from cerank.runs import run_store, user_labels
from cerank.runs.layout import RunFolder, runs_folder

if TYPE_CHECKING:
    from cerank.app.matrix.drafts import DraftRun
    from cerank.app.matrix.matrix_planning import PlannedMatrix
    from cerank.app.over_ssh.lab_files import FileSet


class LookedAt(msgspec.Struct, frozen=True):
    """The runs of a lab at one moment."""

    entries: tuple[RunEntry, ...]
    devices: str = ""  # GPUs of the lab's machine, in a few characters each
    dropped: str = ""  # why the lab's machine is not reached, and from when the entries are; "" where it is


class LabAccess:
    """A lab in a folder of this machine.

    Args:
        lab: the lab.
    """

    is_remote = False

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._monitor = LabMonitor(lab.folder, lab.queue_state, lab.settings.cache, lab.refresh_jobs)
        self._machine = system_usage.Machine(lab.folder)
        self._sampled = system_usage.Machine(lab.folder)  # apart: shares of time count from the sample before

    @property
    def title(self) -> str:
        """Return what the first line of a screen calls the lab."""
        try:
            return f"~/{self.lab.folder.relative_to(Path.home())}"
        except (ValueError, RuntimeError):
            return str(self.lab.folder)

    @property
    def folder_there(self) -> str:
        """Return the lab's folder on its own machine."""
        return str(self.lab.folder)

    def refusal(self, what: str) -> str:  # noqa: ARG002 - of a lab on another machine
        """Return why a part of the dashboard cannot be used with this lab, in a sentence; "" where it can."""
        return ""

    def close(self) -> None:
        """End what was opened."""

    # looking

    def poll(self, again: Collection[str] = (), followed: Collection[str] = ()) -> LookedAt:  # noqa: ARG002
        """Return the runs as they are now.

        Args:
            again: names of runs to look at again, whatever their marks say.
            followed: names of runs whose files a screen shows.
        """
        return LookedAt(self._monitor.poll(again), system_usage.briefly(self._machine.gpus()))

    def sample(self, folder: RunFolder, *, is_live: bool) -> UsageSample:
        """Return what the lab's machine does now, with the worker of a run if it is live; an empty sample if unknown.

        Used by one thread at a time.
        """
        return self._sampled.sample(folder.lease if is_live else None)

    def bring(self, names: Collection[str], file_set: FileSet) -> None:
        """Make sure that the files of runs can be read here.

        Raises:
            CerankError: they are not to be had.
        """

    def bring_targets(self, targets: Sequence[str]) -> None:
        """Make sure that what a comparison names can be read here.

        Raises:
            CerankError: it is not to be had.
        """

    def compute_verdicts(self, folders: Sequence[RunFolder], is_canceled: Callable[[], bool]) -> None:
        """Have the verdicts of finished runs computed."""
        verdict_summaries.compute_in_process(self.lab.settings.cache, folders, is_canceled)

    def bases_at_hand(self) -> tuple[dict[str, bool], bool]:
        """Return which base models are on the lab's machine, and whether it can download none."""
        return bases_at_hand()

    def sizes(self, entries: Sequence[RunEntry]) -> str:
        """Return what deleting runs takes with it, in words."""
        return run_list.goes_with(entries)

    # acting; each raises a CerankError where the lab refuses

    def stop(self, folder: RunFolder) -> None:
        """Ask a run's worker to stop, or take the run out of the queue."""
        self.lab.stop(folder)

    def resume(self, folder: RunFolder) -> None:
        """Put a run in the queue, or submit it again; trackers that it had follow it from its next step on."""
        resume(self.lab, folder)

    def trash(self, folder: RunFolder) -> None:
        """Move a run to the trash."""
        self.lab.trash(folder)

    def restore(self, name: str) -> None:
        """Bring a run back from the trash."""
        self.lab.restore(name)

    def move(self, folder: RunFolder, place: int) -> None:
        """Give a queued run another place."""
        self.lab.move(folder, place)

    def save_label(self, folder: RunFolder, label: str, tags: str) -> None:
        """Save a label and tags."""
        label_runs.note(folder, label, tags)

    def save_note(self, folder: RunFolder, text: str) -> None:
        """Save the note on a run."""
        user_labels.save_note(folder, text)

    def plan(self, cells: Sequence[DraftRun], device: str) -> PlannedMatrix:
        """Plan the runs of a draft."""
        from cerank.app.matrix import matrix_planning

        return matrix_planning.plan_runs(cells, self.lab.plan_settings(device), datetime.now(UTC), lambda _: None)

    def launch(self, matrix: PlannedMatrix) -> list[str]:
        """Put planned runs in the queue and return their ids."""
        from cerank.app.matrix import matrix_planning

        return [folder.name for folder in matrix_planning.launch(self.lab, matrix)]

    def shown_name(self, run: str) -> str:
        """Return what a message calls a run that was just launched."""
        return run_store.title(RunFolder(runs_folder(self.lab.folder) / run))


def resume(lab: Lab, folder: RunFolder) -> None:
    """Put a run in the queue, or submit it again; trackers that it had follow it from its next step on."""
    from cerank.app.tracking import waiting_trackers

    before = {folder.path: waiting_trackers.attempts_of(folder)}
    lab.resume_queued(folder)
    waiting_trackers.start_when_they_begin(before)


def bases_at_hand() -> tuple[dict[str, bool], bool]:
    """Return which base models are on this machine's disk, and whether none can be downloaded."""
    from cerank.models import bases

    return {name: bases.is_on_this_machine(base) for name, base in bases.BASES.items()}, bases.is_offline()
