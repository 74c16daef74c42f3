"""The arms of a sweep: each recipe with the keys that are searched in it, and the recipes of its trials.

Invariant: a trial differs from the recipe that wins in what it leaves out, the test side, and in nothing that is
trained; so the winner's stages are those of its trial.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Mapping, Sequence

import msgspec

from cerank import recipes
from cerank.app import plans
from cerank.app.matrix.fold_recipes import fold_recipes
from cerank.errors import CerankError, RecipeError, UsageError
from cerank.planning import stage_keys
from cerank.planning.inputs import validation_dataset
from cerank.recipes import search_space
from cerank.recipes.plan import without_defaults
from cerank.recipes.schema import VALIDATION_LOSS, Evaluate, Recipe
from cerank.recipes.search_space import SearchRange
from cerank.recipes.sections.tuning_specs import Tuning
from cerank.recipes.sweep_schema import MOST_TRIALS, LoadedSweep, Sweep
from cerank.registry import nearest
from cerank.runs.layout import plain_name
from cerank.text.safe_text import counted

Settings = dict[str, object]  # key path as the search names it -> value


class SweepArm(msgspec.Struct, frozen=True, kw_only=True):
    """One recipe of a sweep."""

    name: str  # that the recipe gives itself, with the fold behind it
    of: str  # that the recipe gives itself
    fold: int = 0  # of a recipe with `data.folds`, the one that is tested later, from 1; 0 without folds
    source: str  # shipped name or path
    recipe: Recipe  # as it is without a trial's settings
    search: dict[str, SearchRange]  # the keys that it has a place for
    fixed: dict[str, object]  # key path in the recipe -> value, of every trial
    trials: int  # how many it gets

    @property
    def validation(self) -> str:
        """Return the dataset on whose queries trials are measured: that of the last stage."""
        return validation_dataset(self.recipe, self.recipe.chained()[-1][1])

    def with_settings(self, settings: Mapping[str, object], given: str) -> Recipe:
        """Return the recipe with a trial's settings, complete, checked and with absolute paths; tests are as they were.

        Of a recipe with folds it is that of the arm's fold.

        Args:
            settings: key path as the search names it -> value.
            given: where they were given, for the error.

        Raises:
            CerankError: the recipe is wrong with them.
        """
        table = search_space.nested({**self.fixed, **search_space.spelled_out(settings, self.recipe.chain)})
        loaded = recipes.load(self.source, (), table, given=given)
        recipe = plans.absolute(plans.checked(loaded.recipe))
        if not self.fold:
            return recipe
        return msgspec.structs.replace(fold_recipes(recipe)[self.fold - 1].recipe, name=self.name)


class SweepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep with its arms loaded."""

    sweep: Sweep
    arms: tuple[SweepArm, ...]
    measure: str  # canonical, the same in all arms
    sha256: str  # over what is declared, with the recipes complete

    @property
    def trials(self) -> int:
        """Return the number of trials of all arms together."""
        return sum(arm.trials for arm in self.arms)

    @property
    def recipes(self) -> tuple[str, ...]:
        """Return the names that the recipes give themselves."""
        return tuple(dict.fromkeys(arm.of for arm in self.arms))

    def arm(self, name: str) -> SweepArm:
        """Return the arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def first_settings(self, arm: SweepArm) -> list[Settings]:
        """Return the settings of an arm's trials: all of them, or what an adaptive search would draw at random."""
        if self.sweep.method == "grid":
            return search_space.grid(arm.search)
        return list(itertools.islice(search_space.draws(arm.search, self.sweep.seed), arm.trials))


def load_arms(loaded: LoadedSweep) -> SweepPlan:
    """Return a sweep with its arms.

    Raises:
        CerankError: a recipe cannot be read, or is wrong with an end of a range or a choice; a key that no arm has;
            arms with different numbers of trials, or different measures; fewer settings than trials.
    """
    sweep = loaded.sweep
    where = f"sweep {sweep.name}"
    plain = [recipes.load(name).recipe for name in sweep.recipes]
    names = [recipe.name for recipe in plain]
    files = [tuned_file(name) for name in names]
    if twice := next((name for at, name in enumerate(names) if files[at] in files[:at]), ""):
        same = names[files.index(tuned_file(twice))]
        what = f"two recipes of the sweep are called '{twice}'"
        what = what if same == twice else f"the recipes '{same}' and '{twice}' would be written to one file"
        raise UsageError(what, where=where, hint="give one of them another name", code="name-twice")
    _check_stages(sweep, plain)
    each = zip(sweep.recipes, plain, strict=True)
    arms = [arm for source, recipe in each for arm in _arms(sweep, source, recipe)]
    for arm in arms:
        _check_arm(sweep, arm)
    _check_budgets(sweep, arms)
    return SweepPlan(sweep=sweep, arms=tuple(arms), measure=_measure(arms, where), sha256=_sha256(sweep, arms))


def tuned_file(name: str) -> str:
    """Return the name of the file that the best setting of a recipe is written to."""
    return f"{plain_name(f'{name}-tuned', 80)}.toml"


def as_trial(recipe: Recipe, sweep: str, number: int) -> Recipe:
    """Return a recipe as a trial, which trains and validates and reads no test set.

    Args:
        recipe: recipe with the trial's settings.
        sweep: name of the sweep.
        number: of the trial, from 1.
    """
    name = f"{recipe.name} {sweep}#{number:03}"
    evaluate = Evaluate(measures=recipe.evaluate.measures)
    return msgspec.structs.replace(
        recipe,
        name=name,
        baselines=(),
        data=msgspec.structs.replace(recipe.data, test=()),
        evaluate=evaluate,
        tuned=Tuning(),
    )


def _arms(sweep: Sweep, source: str, plain: Recipe) -> list[SweepArm]:
    """Return the arms of a recipe, with the keys that it has a place for: one, or one for each of its folds.

    In a fold's arm the other folds are trained on, and the next one chooses among trials; so each fold is tested later
    with settings that were chosen without its queries.
    """
    fixed = search_space.spelled_out(sweep.settings, plain.chain)
    if sweep.measure:
        fixed[f"stages.{plain.chain[-1]}.validation_measure"] = sweep.measure
    search = {path: entry for path, entry in sweep.search.items() if search_space.paths_in(path, plain.chain)}
    count = len(search_space.grid(search)) if sweep.method == "grid" and search else sweep.trials or 0
    arm = SweepArm(
        name=plain.name, of=plain.name, source=source, recipe=plain, search=search, fixed=fixed, trials=count
    )
    recipe = arm.with_settings({}, f"in sweep {sweep.name}")
    if not recipe.data.folds:
        return [msgspec.structs.replace(arm, recipe=recipe)]
    arms = []
    for each in fold_recipes(recipe):
        of_fold = msgspec.structs.replace(each.recipe, name=f"{plain.name} fold {each.number}")
        arms.append(msgspec.structs.replace(arm, name=of_fold.name, fold=each.number, recipe=of_fold))
    return arms


def _check_stages(sweep: Sweep, plain: Sequence[Recipe]) -> None:
    stages = dict.fromkeys(name for recipe in plain for name in recipe.chain)
    for table, paths in (("search", sweep.search), ("settings", sweep.settings)):
        for path in paths:
            keys = path.split(".")
            if keys[0] == "stages" and keys[1] not in {*stages, search_space.EVERY_STAGE}:
                raise RecipeError(
                    f"{table}.{path}: no recipe runs a stage '{keys[1]}'; the recipes have: {', '.join(stages)}",
                    where=f"sweep {sweep.name}",
                    hint=nearest(keys[1], stages),
                    code="unknown-stage",
                )


def _check_arm(sweep: Sweep, arm: SweepArm) -> None:
    """Reject an arm in which nothing is searched, whose validation is a test set, or that an end of a range breaks."""
    where = f"sweep {sweep.name}"
    if not arm.search:
        what = f"nothing is searched in the recipe '{arm.name}', so that its trials would all be the same"
        hint = "name keys of its stages, or stages.*.KEY for a key of every stage"
        raise UsageError(what, where=where, hint=hint, code="sweep-without-key")
    data = arm.recipe.data
    measured_on = {data.validation, *(validation_dataset(arm.recipe, stage) for _, stage in arm.recipe.chained())}
    if both := [name for name in data.test if name in measured_on]:
        what = f"{arm.name}: {both[0]} is validation and test, so that the sweep would tune on the test set"
        hint = "set data.validation to other queries, such as another part of the collection"
        raise UsageError(what, where=where, hint=hint, code="sweep-on-test")
    if arm.recipe.chained()[-1][1].validation_measure == VALIDATION_LOSS:
        what = f"{arm.name}: its last stage validates by a loss, which means something else under other settings"
        raise UsageError(what, where=where, hint='set measure = "nDCG@10" in the sweep', code="sweep-measure")
    name = arm.recipe.chain[-1]
    if sweep.method == "asha" and not _validates_in_training(arm):
        what = f"{arm.name}: asha compares validations during training, and {name} validates at its end only"
        hint = f"set stages.{name}.validate_every below its number of steps"
        raise UsageError(what, where=where, hint=hint, code="sweep-without-validations")
    size = 0 if sweep.method == "grid" else _different_settings(sweep, arm)
    if sweep.method != "grid" and size < arm.trials:
        what = f"{arm.name}: {counted(size, 'setting')} cannot give {arm.trials} different trials"
        raise UsageError(what, where=where, hint='take method = "grid", or fewer trials', code="sweep-too-small")
    if arm.fold <= 1:  # the other folds differ in their queries alone
        _check_ends(sweep, arm)


def _validates_in_training(arm: SweepArm) -> bool:
    """Return whether the last stage of any trial validates before its end; a stage of epochs is taken to do so."""
    name, stage = arm.recipe.chained()[-1]

    def tried(key: str, own: int) -> list[int]:
        path = f"stages.{name}.{key}"
        ends = [entry.ends() for each, entry in arm.search.items() if path in search_space.paths_in(each, (name,))]
        return [value for values in ends for value in values if isinstance(value, int)] or [own]

    pairs = itertools.product(tried("steps", stage.steps), tried("validate_every", stage.validate_every))
    return any(every and not 0 < steps <= every for steps, every in pairs)


def _check_ends(sweep: Sweep, arm: SweepArm) -> None:
    """Reject an arm that an end of a range breaks, or that an end or a choice leaves as it is."""
    middle = {path: entry.at(0.5) for path, entry in arm.search.items()}
    for path, entry in arm.search.items():
        trained: dict[tuple[str, ...], object] = {}  # what the stages are trained as -> the value that says so
        for value in entry.ends():
            recipe = _checked_end(sweep, arm, middle, path, value)
            same = trained.setdefault(_trained_as(recipe), value)
            if same is not value:
                _check_effect(sweep, arm, recipe, path, (same, value))


def _different_settings(sweep: Sweep, arm: SweepArm) -> int:
    """Return how many different settings can be drawn, no more than are needed: a narrow range gives few numbers."""
    drawn = search_space.draws(arm.search, sweep.seed)
    return sum(1 for _ in itertools.islice(drawn, arm.trials))


def _checked_end(sweep: Sweep, arm: SweepArm, middle: Settings, path: str, value: object) -> Recipe:
    """Return an arm's recipe with one end of one range; raises where no recipe can have it."""
    try:
        return arm.with_settings({**middle, path: value}, f"search.{path} of sweep {sweep.name}, tried as {value!r}")
    except CerankError:
        # perhaps only together with the middle of another range: trials are checked one by one, too
        return arm.with_settings({path: value}, f"search.{path} of sweep {sweep.name}, tried as {value!r}")


def _trained_as(recipe: Recipe) -> tuple[str, ...]:
    """Return what is equal for recipes whose stages come to the same weights."""
    return tuple(stage_keys.stage_key_by_names(recipe, index) for index in range(len(recipe.chain)))


def _check_effect(sweep: Sweep, arm: SweepArm, recipe: Recipe, path: str, values: tuple[object, object]) -> None:
    """Reject a key two of whose values come to the same, such as the training set of stages with sets of their own.

    Args:
        sweep: the sweep.
        arm: arm that searches the key.
        recipe: its recipe with one of the values, and the middle of the other ranges.
        path: the key.
        values: two of its values, with which the stages are trained alike.
    """
    keys = path.split(".")
    teachers = {view.asked_teacher for _, stage in recipe.chained() for view in stage.by_source()}
    if keys[0] == "teachers" and keys[1] in teachers:
        return  # what a stage is trained as names its teacher, and not how the teacher is made
    with contextlib.suppress(CerankError):  # perhaps the middle of another range takes the effect away
        first, second = (_trained_as(arm.with_settings({path: value}, "")) for value in values)
        if first != second:
            return
    what = (
        f"{arm.name}: search.{path} changes nothing that is trained: {values[0]!r} and {values[1]!r} come to the same"
    )
    hint = "search a key that the arm's stages read, and no value twice"
    raise UsageError(what, where=f"sweep {sweep.name}", hint=hint, code="sweep-without-effect")


def _check_budgets(sweep: Sweep, arms: Sequence[SweepArm]) -> None:
    """Reject arms that would be compared after different numbers of trials, and more trials than a sweep may have."""
    where = f"sweep {sweep.name}"
    total = sum(arm.trials for arm in arms)
    if total > MOST_TRIALS:
        raise UsageError(
            f"{total:,} trials; a sweep has {MOST_TRIALS} at most, all arms together",
            where=where,
            code="sweep-too-large",
        )
    compared = [arm for arm in arms if not sweep.primary or arm.source in sweep.primary]
    if len({arm.trials for arm in compared}) > 1:
        each = ", ".join(f"{arm.name} {arm.trials}" for arm in compared)
        hint = 'search stages.*.KEY, or take method = "random" with trials = N, or list the compared arms in `primary`'
        raise UsageError(
            f"the arms would get different numbers of trials: {each}", where=where, hint=hint, code="sweep-unequal"
        )
    for arm in arms if sweep.method == "grid" and sweep.trials else ():
        if arm.trials != sweep.trials:
            what = f"{arm.name}: the grid has {counted(arm.trials, 'combination')}, and trials = {sweep.trials}"
            hint = 'leave trials out, or take method = "random"'
            raise UsageError(what, where=where, hint=hint, code="sweep-trials")


def _measure(arms: Sequence[SweepArm], where: str) -> str:
    from cerank.evaluation.measures import canonical

    each = {arm.name: canonical(arm.recipe.chained()[-1][1].validation_measure, where) for arm in arms}
    if len(set(each.values())) > 1:
        named = ", ".join(f"{name} {measure}" for name, measure in each.items())
        what = f"the arms are validated by different measures: {named}"
        raise UsageError(what, where=where, hint="set measure in the sweep, for all of them", code="sweep-measure")
    return next(iter(each.values()))


def _sha256(sweep: Sweep, arms: Sequence[SweepArm]) -> str:
    """Return the hash of what decides the trials, but for how many they are: more may be added later."""
    declared = msgspec.structs.replace(sweep, name="-", description="", recipes=(), primary=(), trials=None)
    parts = ("sweep", without_defaults(declared), [without_defaults(as_trial(arm.recipe, "", 0)) for arm in arms])
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
