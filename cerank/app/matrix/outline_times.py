"""Times of the work of many recipes before they are planned, by a measurement of each kind of stage among them.

Invariant: nothing is fetched for a measurement; a time is given only where something like it was measured, or where
the user says how fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from cerank.app import estimates, plans
from cerank.app.missing_inputs import check_inputs
from cerank.errors import CerankError
from cerank.machine import devices
from cerank.machine.measured_speed import MeasuredSpeed
from cerank.planning import inputs, workload
from cerank.planning.shared_speed import Rate
from cerank.planning.workload import WorkItem
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe, Stage
from cerank.settings import Settings
from cerank.text.safe_text import counted

MOST_MEASURED = 8  # kinds of stages for which one dry run measures this machine, some seconds each
_IN_LAB = "by earlier runs of this lab"
_NEVER_RAN = "nothing like it ran in this lab"


class _MeasuredKind(msgspec.Struct, frozen=True):
    """A kind of stage, as this machine was timed with it."""

    plan: Plan
    stage: Stage  # as the plan has it, with what a GPU decides filled in
    speed: MeasuredSpeed


class OutlineTimes:
    """Gives the work of recipes its time; what is not known yet is measured when it is first asked for.

    Stages are of one kind if they differ in nothing that decides how many pairs a second they do: rates, losses, steps
    and the size of a group do not matter.

    Args:
        settings: settings to plan with, as `Lab.plan_settings` returns them.
        pairs_per_second: training speed, where the user knows it; 0 for none.
        now: time at which a run is planned for a measurement; None measures nothing, because the runs are for another
            machine.
        tell: called with what is being measured.
    """

    def __init__(
        self,
        settings: Settings,
        pairs_per_second: float = 0.0,
        now: datetime | None = None,
        tell: Callable[[str], object] = str,
    ) -> None:
        self._settings, self._told, self._now, self._tell = settings, pairs_per_second, now, tell
        self._device = devices.resolve_device(settings.device)
        self._threads = settings.threads or devices.physical_cores()
        self._kinds: dict[str, _MeasuredKind | None] = {}  # None where it could not be measured
        self._baselines: dict[str, MeasuredSpeed | None] = {}
        self._in_lab: dict[str, dict[str, Rate]] = {}
        self._texts: dict[str, dict[str, int]] = {}
        self._measured = 0
        self._sources: dict[str, None] = {}
        self._used: list[MeasuredSpeed] = []
        self._why_unknown = _NEVER_RAN

    @property
    def source(self) -> str:
        """Return where the times are from; why there are none where one is unknown."""
        words = list(self._sources)
        words += [estimates.source_of(self._used, is_new=self._measured > 0)] if self._used else []
        return "; ".join(words)

    @property
    def why_unknown(self) -> str:
        """Return why a time is not known."""
        return self._why_unknown

    def timed(self, recipe: Recipe, work: Sequence[WorkItem]) -> tuple[WorkItem, ...]:
        """Return the work of a recipe with the minutes of each part; None where nothing like it was timed."""
        if self._told:
            self._sources["by --pairs-per-second"] = None
            return estimates.timed(work, estimates.told(recipe, self._told))
        if speeds := self._speeds(recipe):
            self._used += [speed for speed in speeds.values() if speed not in self._used]
            return workload.estimate_minutes(work, speeds, self._texts_of(recipe))
        known = self._rates(recipe)
        if known:
            self._sources[_IN_LAB] = None
        return estimates.timed(work, known)

    def together(self, recipe: Recipe, count: int) -> dict[str, Rate]:
        """Return stage -> speed of several devices together; empty where not every stage was timed so.

        Args:
            recipe: the recipe, to which `timed` was given before.
            count: devices that share a run.
        """
        if count < 2 or self._told:
            return {}
        kinds = [self._kinds.get(_kind(recipe, stage)) for _, stage in recipe.chained()]
        known = [kind for kind in kinds if kind is not None]
        if len(known) == len(kinds):
            stages = dict(recipe.stages)
            for (name, stage), kind in zip(recipe.chained(), known, strict=True):
                filled = {"precision": kind.stage.precision, "microbatch": kind.stage.microbatch}
                stages[name] = msgspec.structs.replace(stage, **filled)
            plan = msgspec.structs.replace(known[0].plan, recipe=msgspec.structs.replace(recipe, stages=stages))
            if len(plan.devices) == count:
                return estimates.of_devices(plan, self._settings.lab)[0]
        rates = self._rates(recipe, count)
        return rates if len(rates) == len(recipe.chain) else {}

    def _rates(self, recipe: Recipe, count: int = 1) -> dict[str, Rate]:
        """Return what earlier runs of the lab tell; they are read once for recipes whose stages are alike."""
        size = [(stage.groups_per_step, stage.group_size) for _, stage in recipe.chained()] if count > 1 else []
        alike = repr((count, size, [(name, _kind(recipe, stage)) for name, stage in recipe.chained()]))
        if alike not in self._in_lab:
            lab = self._settings.lab
            self._in_lab[alike] = estimates.rates(lab, recipe, self._device, self._threads, count)
        return self._in_lab[alike]

    def _speeds(self, recipe: Recipe) -> dict[str, MeasuredSpeed]:
        """Return stage or baseline -> its speed; empty where one is not known."""
        if self._now is None:
            return {}
        kinds = {name: _kind(recipe, stage) for name, stage in recipe.chained()}
        baselines = {name: _kind_of_baseline(recipe, model) for name, model in recipe.baseline_models().items()}
        if not (self._kinds.keys() >= set(kinds.values()) and self._baselines.keys() >= set(baselines.values())):
            self._measure(recipe, kinds, baselines)
        speeds = {name: kind.speed for name, key in kinds.items() if (kind := self._kinds[key]) is not None}
        speeds |= {name: speed for name, key in baselines.items() if (speed := self._baselines[key]) is not None}
        return speeds if len(speeds) == len(kinds) + len(baselines) else {}

    def _measure(self, recipe: Recipe, kinds: Mapping[str, str], baselines: Mapping[str, str]) -> None:
        speeds: Mapping[str, MeasuredSpeed] = {}
        plan = self._plan(recipe)
        if plan is not None:
            speeds, _ = estimates.measured(plan, anew=False)
            is_known = bool(speeds) and all(speed.is_quiet for speed in speeds.values())
            if not is_known and self._measured < MOST_MEASURED:
                self._tell(f"measuring the speed of this machine with {recipe.name} on {recipe.base}")
                speeds, why = estimates.measured(plan)
                self._measured += 1
                self._why_unknown = self._why_unknown if speeds else why
            elif not speeds:
                self._why_unknown = f"only {counted(MOST_MEASURED, 'kind')} of stages were measured, and there are more"
        for name, key in kinds.items():
            known = _MeasuredKind(plan, plan.recipe.stages[name], speeds[name]) if plan and name in speeds else None
            self._kinds[key] = self._kinds.get(key) or known  # one speed for all, however busy the machine is meanwhile
        for name, key in baselines.items():
            self._baselines[key] = self._baselines.get(key) or speeds.get(name)

    def _plan(self, recipe: Recipe) -> Plan | None:
        """Return the plan of a recipe; None where an input is not here, which a measurement must not fetch."""
        if self._now is None:
            return None
        if check_inputs([recipe], self._settings.cache).needs:
            self._why_unknown = "inputs are missing, without which this machine cannot be measured"
            return None
        try:
            return plans.plan_of(recipe, self._settings, now=self._now)
        except CerankError as error:  # what it is about is said when the runs are queued
            self._why_unknown = f"a run cannot be planned: {error.what.partition(chr(10))[0]}"
            return None

    def _texts_of(self, recipe: Recipe) -> dict[str, int]:
        """Return stage -> texts that its embedding teacher encodes, counted once for stages that ask it the same."""
        views = [(name, view) for name, stage in recipe.chained() for view in stage.by_source()]
        taught = [
            (name, view.dataset, view.first_stage, view.steps, view.epochs, view.groups_per_step, view.window)
            for name, view in views
            if view.source == "teacher" and view.teacher == inputs.EMBEDDING
        ]
        key = repr((recipe.data.train, recipe.data.first_stages, taught))
        if taught and key not in self._texts:
            cache = Path(self._settings.cache)
            self._texts[key] = inputs.texts_to_embed(recipe, inputs.open_datasets(recipe, cache), cache)
        return self._texts.get(key, {})


def _kind(recipe: Recipe, stage: Stage) -> str:
    """Return what decides how many pairs a second a stage does on one machine, but for the size of its steps."""
    lengths = (stage.max_length, stage.max_query_length, stage.max_document_length, stage.truncation)
    memory = (stage.precision, stage.microbatch, stage.gradient_checkpointing)
    trained = (stage.freeze, stage.freeze_layers, stage.adapter, recipe.compute.shard_parameters)
    is_taught = any(part.teacher == inputs.EMBEDDING for part in stage.parts)
    return repr((recipe.base, recipe.pooling, lengths, memory, trained, is_taught))


def _kind_of_baseline(recipe: Recipe, model: str) -> str:
    return repr((model, recipe.stages[recipe.chain[-1]].precision))
