"""What an experiment tracker must do, and the trackers that there are, each by its own library.

Invariant: nothing here, and no library of a tracker, is imported by a process that trains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import msgspec

from cerank.errors import UsageError
from cerank.registry import Registry
from cerank.text.table_data import Table

Setting: TypeAlias = str | int | float | bool | None
Outcome = Literal["finished", "failed", "paused"]

PROJECT = "cerank"  # under which trackers file runs, unless the user names another project
LONGEST_SETTING = 500  # characters; MLflow refuses more than 6000, and no table shows more than these


class TrackedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as a tracker lists it."""

    key: str  # the run's id in its lab; a tracker that takes ids of others knows the run by it
    title: str
    recipe: str
    settings: dict[str, Setting]  # flat: keys such as "stages.distill.learning_rate"


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tracker keeps what it is sent."""

    project: str
    folder: Path  # of the lab, for trackers that write files; it exists
    is_offline: bool = False  # nothing may be sent anywhere, whatever the library is set up for
    tracker_id: str = ""  # that the tracker gave this run when it was first tracked


class MetricRow(msgspec.Struct, frozen=True):
    """Values of one step; their names have a stage first, such as "distill/loss"."""

    step: int  # over all stages of the run
    seconds: float  # when, since 1970
    values: dict[str, float]  # finite


class Tracker(Protocol):
    """One run in one tracker. Any call may raise whatever its library raises, and may block."""

    tracker_id: str  # under which the run is found there again
    where: str  # what the user is told: an address or a folder

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Send values; steps never fall."""

    def result(self, values: dict[str, float], tables: Sequence[Table], text: str) -> None:
        """Send final values, tables, and the verdict in Markdown."""

    def close(self, outcome: Outcome) -> None:
        """Return once everything is sent or written."""


OpenTracker: TypeAlias = Callable[[TrackedRun, Destination], Tracker]
TRACKERS: Registry[OpenTracker] = Registry("tracker")
LIBRARIES = {"wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow", "tensorboard": "tensorboard"}


@TRACKERS.add("wandb")
def _open_wandb(run: TrackedRun, to: Destination) -> Tracker:
    from cerank.tracking.wandb_tracker import WandbTracker

    return WandbTracker(run, to)


@TRACKERS.add("trackio")
def _open_trackio(run: TrackedRun, to: Destination) -> Tracker:
    from cerank.tracking.trackio_tracker import TrackioTracker

    return TrackioTracker(run, to)


@TRACKERS.add("mlflow")
def _open_mlflow(run: TrackedRun, to: Destination) -> Tracker:
    from cerank.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(run, to)


@TRACKERS.add("tensorboard")
def _open_tensorboard(run: TrackedRun, to: Destination) -> Tracker:
    from cerank.tracking.tensorboard_tracker import TensorboardTracker

    return TensorboardTracker(run, to)


def check_tracker(kind: str, where: str) -> None:
    """Check that a tracker is known and its library installed, without importing it.

    Raises:
        UsageError: one of both is not so.
    """
    TRACKERS.find(kind, where)
    library = LIBRARIES.get(kind, "")  # a tracker of an extension brings its own
    if library and find_spec(library) is None:
        hint = f"pip install 'cerank[{kind}]'"
        raise UsageError(f"{library} is not installed", where=where, hint=hint, code="library-missing")


def check_project(name: str, where: str) -> None:
    """Check that every tracker takes the name of a project.

    Raises:
        UsageError: it is empty, too long, or has a sign that one of them refuses or reads as a folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        what = f"'{name[:100]}' is no name of a project: letters, digits, '.', '_' and '-', at most 100"
        raise UsageError(what, where=where, code="project-name")
