"""The trackers that there are, each by its own library.

Invariant: no library of a tracker is imported before its tracker is opened, and never by a process that trains.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeAlias

from cerank.errors import UsageError
from cerank.registry import Registry
from cerank.tracking.tracker import Destination, TrackedRun, Tracker

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
