"""What TPE tries next, and which trials ASHA stops early, by Optuna's own code.

Invariant: pure functions of the declaration and of what earlier trials gave, so that a sweep which was killed continues
as it would have, and the same sweep gives the same trials.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

from cerank.core.seeds import derive
from cerank.errors import MissingError
from cerank.recipes.search_space import SearchRange

_LARGEST_SEED = 2**32


def check_library(method: str) -> None:
    """Check that Optuna is installed.

    Raises:
        MissingError: it is not.
    """
    if importlib.util.find_spec("optuna") is None:
        what = f"Optuna is not installed, which a sweep by {method} asks what to try"
        hint = "pip install 'cerank[sweep]'; grid and random need nothing"
        raise MissingError(what, where="method", hint=hint, code="optuna-missing")


def suggest(
    search: dict[str, SearchRange], earlier: Sequence[tuple[dict[str, object], float | None]], seed: int, number: int
) -> dict[str, object]:
    """Return the settings that TPE would try next.

    Args:
        search: key path -> its values.
        earlier: settings and value of each earlier trial, larger is better; None for one without a value.
        seed: seed of the sweep.
        number: of the trial that is asked for, from 1.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=derive(seed, "tpe", number) % _LARGEST_SEED, n_startup_trials=1)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    spaces = {path: _distribution(entry) for path, entry in search.items()}
    for settings, value in earlier:
        if value is None or not math.isfinite(value):
            continue  # of a failed trial TPE learns nothing
        params = {path: _to_optuna(search[path], settings[path]) for path in search}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=value))
    params = study.ask(spaces).params
    return {path: _from_optuna(entry, params[path]) for path, entry in search.items()}


def stopped_after(earlier: Sequence[Sequence[float]], values: Sequence[float], reduction: int) -> int:
    """Return after which of its validations ASHA stops a trial, from 1; 0 where it continues.

    Args:
        earlier: validations of each earlier trial, up to where it was stopped; larger is better.
        values: validations of the trial.
        reduction: one of so many trials passes each rung; rungs are validations 1, `reduction`, its square, ...
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=reduction)
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
    for validations in earlier:
        _report(study, validations)
    return _report(study, values)


def _report(study: Any, values: Sequence[float]) -> int:
    """Enter a trial's validations one by one; return after which of them it is to be stopped, 0 for none."""
    import optuna

    trial = study.ask()
    for number, value in enumerate(values, 1):
        trial.report(value, number)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return number
    study.tell(trial, values[-1] if values else None, None if values else optuna.trial.TrialState.FAIL)
    return 0


def _distribution(entry: SearchRange) -> Any:
    from optuna import distributions

    if entry.bounds is None:
        return distributions.CategoricalDistribution(list(range(len(entry.choices))))  # a choice may be a list
    low, high = entry.bounds
    if entry.is_whole:
        return distributions.IntDistribution(round(low), round(high), log=entry.is_log)
    return distributions.FloatDistribution(low, high, log=entry.is_log)


def _to_optuna(entry: SearchRange, value: object) -> object:
    return entry.choices.index(value) if entry.bounds is None else value


def _from_optuna(entry: SearchRange, value: Any) -> object:
    return entry.choices[value] if entry.bounds is None else entry.rounded(value)
