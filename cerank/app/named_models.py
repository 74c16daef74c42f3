"""Find the re-ranker that the user names: a run or one of its stages, a folder, a hub id, or a declaration file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.app.comparison.named_systems import RunTarget, target
from cerank.app.rerank_dataset import checkpoint_folder
from cerank.errors import UsageError
from cerank.models import bases
from cerank.models.prompt_templates import Declaration
from cerank.recipes.schema import BEST_OF


class NamedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A finished re-ranker on this machine."""

    folder: Path
    hub_id: str = ""
    declared: Declaration | None = None
    run: RunTarget | None = None  # the run and stage that trained it; None for a model from elsewhere
    # measure by which these weights were kept beside those that the stage handed on; "" for the latter
    best_by: str = ""


def find_model(lab: Path, name: str) -> NamedModel:
    """Return the model that `name` means.

    Raises:
        MissingError: there is no such model on this machine, and none on the hub.
        UsageError: no such run or stage.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return NamedModel(folder=path)
    if name.endswith(".toml") or name in bases.BASES or (name.count("/") == 1 and not name.startswith((".", "~", "/"))):
        files = bases.locate(name)
        return NamedModel(folder=files.source, hub_id=name, declared=files.declaration)
    return trained_model(lab, name)


def trained_model(lab: Path, name: str) -> NamedModel:
    """Return the model of a run's last stage, of RUN:STAGE, or of RUN:STAGE@best-MEASURE.

    Raises:
        UsageError: no such run or stage; MissingError: it has not come that far.
    """
    folder = checkpoint_folder(lab, name)
    stage_name, _, best_by = name.partition(BEST_OF)
    run = target(lab, stage_name)
    if not isinstance(run, RunTarget):
        raise UsageError(
            "no run of the lab has this name", where=name, hint="`cerank ps` lists them", code="run-not-found"
        )
    return NamedModel(folder=folder, run=run, best_by=best_by)


def check_measured(model: NamedModel, name: str) -> None:
    """Check that the run's rankings are of these weights, for a command that holds them against each other.

    Raises:
        UsageError: they are of the weights that the stage handed on.
    """
    if model.best_by:
        raise UsageError(
            "the run has no rankings by these weights, only by those that the stage handed on",
            where=name,
            hint="`cerank rerank` ranks by them, and `cerank serve` and `cerank.load` take them, too",
            code="best-not-ranked",
        )
