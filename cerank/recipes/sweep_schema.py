"""A sweep: recipes as arms, keys with the values to try, how they are searched; what was declared, and its trials.

Invariant: every arm of a comparison gets the same number of trials, and no trial reads a test set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from cerank.core import decode
from cerank.core.decode import LARGEST_TOML, help_text, toml_table
from cerank.errors import RecipeError, UsageError, os_reason
from cerank.files.safe_open import read_file
from cerank.recipes.paths import resolve_beside, with_absolute_setting
from cerank.recipes.schema import VALIDATION_LOSS, Seed
from cerank.recipes.search_space import SearchRange, range_mistakes, refused_key, refused_setting
from cerank.recipes.sections.tuning_specs import SweepMethod

SWEEP_FORMAT = 1
MOST_TRIALS = 500  # of all arms together, as many as a matrix has runs
ADAPTIVE: tuple[SweepMethod, ...] = (
    "tpe",
    "asha",
)  # methods that look at trials before they decide about the next ones

# Keys that only some methods read -> these methods, and why the key does nothing in a sweep by another.
_READ_BY: dict[str, tuple[tuple[SweepMethod, ...], str]] = {
    "seed": (("random", "tpe", "asha"), "nothing is drawn"),
    "primary": (("grid",), "every arm gets as many trials as `trials` says"),
    "parallel": (ADAPTIVE, "all trials are queued at once"),
    "startup": (("tpe",), "no trial is chosen by those before"),
    "reduction": (("asha",), "no trial is stopped early"),
}


class Sweep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user declares of a sweep."""

    name: Annotated[str, help_text("name of the sweep in the lab, in the names of its trials and in verdicts")]
    description: Annotated[str, help_text("one sentence, which a dry run shows")] = ""
    recipes: Annotated[tuple[str, ...], help_text("the arms: shipped names, or .toml files from this file's folder")]
    method: Annotated[
        SweepMethod,
        help_text("every combination, drawn at random, by Optuna's TPE, or drawn with poor trials stopped early"),
    ] = "random"
    trials: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=MOST_TRIALS)] | None,
        help_text("of each arm; a grid may leave it out, and has as many as it has combinations"),
    ] = None
    seed: Annotated[Seed, help_text("decides what is drawn; the seed of training is each recipe's")] = 1
    measure: Annotated[
        str, help_text("measure on validation that chooses; it replaces the last stages' validation_measure")
    ] = ""
    primary: Annotated[
        tuple[str, ...],
        help_text("on a grid: arms that must have equal numbers of trials, for they will be compared; () means all"),
    ] = ()
    parallel: Annotated[
        int, msgspec.Meta(ge=1, le=MOST_TRIALS), help_text("trials of an arm that tpe and asha decide about at once")
    ] = 1
    startup: Annotated[
        int, msgspec.Meta(ge=1, le=MOST_TRIALS), help_text("tpe: trials drawn at random before it learns from them")
    ] = 10
    reduction: Annotated[int, msgspec.Meta(ge=2, le=100), help_text("asha: one of so many trials passes each rung")] = 3
    search: Annotated[
        dict[str, SearchRange],
        help_text("key path -> values to try; stages.*.KEY gives all stages of an arm the same value"),
    ]
    settings: Annotated[
        dict[str, object], help_text("key path -> value, laid over each recipe that has the place")
    ] = {}

    @property
    def is_adaptive(self) -> bool:
        """Return whether what is tried next depends on the trials before."""
        return self.method in ADAPTIVE


class LoadedSweep(msgspec.Struct, frozen=True):
    """A sweep and where it was found."""

    sweep: Sweep
    source: str  # path, as given


class TrialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One trial of a sweep: what it tries, and the run that does so."""

    arm: str  # `Recipe.name` of the arm's recipe
    number: int  # from 1, in each arm
    settings: dict[str, object]  # key path as the search names it -> value
    run: str  # its name in the lab
    stopped: int = 0  # validation of the last stage after which it was stopped early; 0 where it was not
    fold: int = 0  # whose validation queries it is measured on, from 1; 0 without folds


class SweepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the lab keeps of a sweep: what was declared, and its trials so far."""

    format: int = SWEEP_FORMAT
    name: str
    sha256: str  # over what was declared, with the arms' recipes complete; 64 hex digits
    created: str  # UTC, ISO 8601
    changed: str
    method: SweepMethod
    measure: str  # canonical
    arms: tuple[str, ...]
    planned: dict[str, int] = {}  # arm -> how many trials it gets, of which some may follow; {} of earlier releases
    trials: tuple[TrialRecord, ...] = ()

    @property
    def declaration(self) -> tuple[object, ...]:
        """Return what stays the same while trials are added."""
        return (self.sha256,)

    @property
    def members(self) -> dict[tuple[object, ...], str]:
        """Return (arm, number) of each trial -> its run."""
        return {(trial.arm, trial.number): trial.run for trial in self.trials}


def load_sweep(path: str, changes: Mapping[str, object] | None = None) -> LoadedSweep:
    """Return the sweep in a `.toml` file.

    Args:
        path: the file; paths in it are from its folder.
        changes: keys that replace the file's, for options.

    Raises:
        UsageError: an unreadable file.
        FormatError: a file that is not TOML.
        RecipeError: wrong keys or values, all of them.
    """
    try:
        source = read_file(Path(path), LARGEST_TOML + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        hint = "a sweep is a .toml file; `cerank guide sweeps` shows one"
        raise UsageError(f"cannot read the sweep '{path}': {reason}", hint=hint, code="sweep-unreadable") from None
    table = _with_absolute_paths(toml_table(source, path), Path(path).parent)
    return LoadedSweep(sweep_from({**table, **(changes or {})}, path), path)


def sweep_from(values: Mapping[str, object], where: str) -> Sweep:
    """Return the sweep in a table, as TOML gives it.

    Raises:
        RecipeError: with all mistakes at once, each with its key path.
    """
    mistakes: list[str] = []
    values = {**values, "search": _with_lists_as_choices(values.get("search", {}))}
    sweep = decode.decode_table(Sweep, values, "", mistakes)
    if sweep is not None:
        mistakes += _mistakes(sweep, values)
    if sweep is None or mistakes:
        raise RecipeError("\n".join(mistakes), where=where, hint="`cerank guide sweeps` shows one")
    return sweep


def _with_lists_as_choices(search: object) -> object:
    if not isinstance(search, Mapping):
        return search
    return {path: {"choices": entry} if isinstance(entry, list) else entry for path, entry in search.items()}


def _with_absolute_paths(table: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return the table with the paths of recipes, settings and choices made absolute."""
    changed = dict(table)
    for key in ("recipes", "primary"):
        if isinstance(entries := table.get(key), list):
            changed[key] = [resolve_beside(entry, folder) if isinstance(entry, str) else entry for entry in entries]
    if isinstance(settings := table.get("settings"), Mapping):
        changed["settings"] = {path: with_absolute_setting(path, value, folder) for path, value in settings.items()}
    if isinstance(search := table.get("search"), Mapping):
        changed["search"] = {path: _absolute_choices(path, entry, folder) for path, entry in search.items()}
    return changed


def _absolute_choices(path: str, entry: object, folder: Path) -> object:
    if isinstance(entry, list):
        return [with_absolute_setting(path, value, folder) for value in entry]
    if isinstance(entry, Mapping) and isinstance(entry.get("choices"), list):
        return {**entry, "choices": [with_absolute_setting(path, value, folder) for value in entry["choices"]]}
    return entry


def _mistakes(sweep: Sweep, given: Mapping[str, object]) -> list[str]:
    mistakes = [] if sweep.name.strip() else ["name: empty; the lab keeps the sweep under it"]
    if not sweep.recipes:
        mistakes.append("recipes: empty; name at least one")
    mistakes += [f"recipes: '{name}' appears twice" for name, count in Counter(sweep.recipes).items() if count > 1]
    mistakes += [f"primary: '{name}' is not one of the recipes" for name in sweep.primary if name not in sweep.recipes]
    if not sweep.search:
        mistakes.append("search: empty; name at least one key with the values to try")
    mistakes += _method_mistakes(sweep, given)
    if sweep.measure == VALIDATION_LOSS:
        mistakes.append("measure: a loss means something else under other settings; name a measure such as nDCG@10")
    for path, entry in sweep.search.items():
        mistakes += range_mistakes(path, entry, is_grid=sweep.method == "grid")
    mistakes += [f"search.{path}: {why}" for path in sweep.search if (why := refused_key(path))]
    mistakes += [f"settings.{path}: {why}" for path in sweep.settings if (why := refused_setting(path))]
    if sweep.measure:
        mistakes += [
            f"settings.{path}: `measure` sets it, too; leave out one"
            for path in sweep.settings
            if path.startswith("stages.") and path.endswith(".validation_measure")
        ]
    return mistakes + _same_key_mistakes(sweep)


def _method_mistakes(sweep: Sweep, given: Mapping[str, object]) -> list[str]:
    """Return the keys that do nothing in a sweep by this method, and a method that could decide about no trial."""
    method = sweep.method
    mistakes = [
        f"{key}: does nothing in a sweep by {method}, where {why}; leave it out"
        for key, (methods, why) in _READ_BY.items()
        if key in given and method not in methods
    ]
    if sweep.trials is None:
        needs = f"trials: missing; {method} needs a number of trials for each arm"
        return mistakes if method == "grid" else [*mistakes, needs]
    if method == "tpe" and sweep.trials <= sweep.startup:
        what = f"startup: tpe decides after {sweep.startup} trials drawn at random, and there are only {sweep.trials}"
        mistakes.append(f'{what}; lower it, add trials, or take method = "random"')
    if sweep.is_adaptive and 1 < sweep.parallel >= sweep.trials:
        what = f"parallel: {method} decides about {sweep.parallel} trials at once, and there are only {sweep.trials}"
        mistakes.append(f'{what}, so that it has seen none before; lower it, or take method = "random"')
    return mistakes


def _same_key_mistakes(sweep: Sweep) -> list[str]:
    """Return the keys that are searched and set, or searched twice: by their own stage and by all stages."""
    mistakes = [f"settings.{path}: searched, too; leave out one" for path in sweep.settings if path in sweep.search]
    every = {path.split(".", 2)[2] for path in sweep.search if path.startswith("stages.*.")}
    for path in (*sweep.search, *sweep.settings):
        keys = path.split(".", 2)
        if keys[0] == "stages" and len(keys) == 3 and keys[1] != "*" and keys[2] in every:
            mistakes.append(f"search.stages.*.{keys[2]}: sets {path}, too; leave out one")
    return mistakes
