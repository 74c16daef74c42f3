"""What `[tuned]` of a recipe says: which sweep chose settings of it, by how many trials, on which queries."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cerank.core.decode import help_text

SweepMethod = Literal["grid", "random", "tpe", "asha"]


class FoldTuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sweep chose for one fold, on the queries that this fold validates on."""

    trial: Annotated[int, msgspec.Meta(ge=1, le=10**6), help_text("number of the fold's best trial, from 1")]
    value: Annotated[float | None, help_text("of the measure in that trial")] = None
    validation: Annotated[str, help_text("validation dataset of the stage that it was measured in")] = ""
    pairs: Annotated[int, msgspec.Meta(ge=0, le=10**15), help_text("pairs that the fold's trials were trained on")] = 0
    settings: Annotated[dict[str, object], help_text("key path -> value that the trial had")]


class Tuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where settings of a recipe come from; `cerank sweep --write` writes it, and every later verdict tells it."""

    sweep: Annotated[str, help_text('name of the sweep; "" for a recipe that no sweep tuned')] = ""
    sha256: Annotated[str, help_text("hash of what the sweep declared, 64 hex digits")] = ""
    method: Annotated[Literal["", "grid", "random", "tpe", "asha"], help_text("how it searched")] = ""
    trials: Annotated[int, msgspec.Meta(ge=0, le=10**6), help_text("trials that this recipe got")] = 0
    pairs: Annotated[
        int, msgspec.Meta(ge=0, le=10**15), help_text("pairs that these trials were trained on, all together")
    ] = 0
    measure: Annotated[str, help_text("measure on validation that chose")] = ""
    validation: Annotated[str, help_text("validation dataset of the stage that it was measured in")] = ""
    value: Annotated[float | None, help_text("of the measure in the trial that was chosen")] = None
    trial: Annotated[int, msgspec.Meta(ge=0, le=10**6), help_text("number of that trial, from 1")] = 0
    settings: Annotated[
        dict[str, object], help_text("key path -> value that the trial had; with folds, the value before the search")
    ] = {}
    by_fold: Annotated[
        bool, help_text("each fold has settings of its own, chosen by `trials` trials on the fold's own validation")
    ] = False
    folds: Annotated[
        tuple[FoldTuning, ...], help_text("of a recipe with data.folds: what was chosen for each fold, in order")
    ] = ()

    @property
    def is_tuned(self) -> bool:
        """Return whether a sweep chose settings of the recipe."""
        return bool(self.sweep)


def tuning_mistakes(tuned: Tuning, folds: str) -> list[str]:
    """Return what contradicts itself in a recipe's `[tuned]`, as `key.path: what`.

    Args:
        tuned: the table.
        folds: the recipe's `data.folds`.
    """
    each = [*tuned.settings.items(), *(entry for fold in tuned.folds for entry in fold.settings.items())]
    dated = [path for path, value in each if not _is_plain(value)]
    if dated:
        return [f"tuned.settings.{dated[0]}: holds a date or a time, which no setting is"]
    if tuned.is_tuned and not tuned.trials:
        return ["tuned.trials: 0, but a sweep is named; `cerank sweep FILE --write FOLDER` writes this table"]
    if tuned.folds and not folds:
        return ["tuned.folds: each fold has settings of its own, but data.folds is missing"]
    if tuned.folds and not tuned.by_fold:
        return ["tuned.by_fold: false, but there are tuned.folds; `cerank sweep FILE --write FOLDER` writes this table"]
    if not tuned.is_tuned and tuned != Tuning():
        return ["tuned.sweep: missing; `cerank sweep FILE --write FOLDER` writes this table"]
    return []


def _is_plain(value: object) -> bool:
    """Return whether a value is text, a number, true, false, or a list or table of such; TOML has dates, too."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float | bool)
