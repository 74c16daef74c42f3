"""Runs that differ in seed or fold alone, or are of one sweep, as one row; settings that differ; bases x recipes.

Invariant: grouping changes no run; a row of several names every run that it stands for.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence

import msgspec

from cerank.app import fold_runs, plan_view
from cerank.app.comparison.named_systems import short_name
from cerank.app.run_views.display import GLYPHS, short
from cerank.app.run_views.run_monitor import RunEntry
from cerank.app.run_views.sweep_trials import SweepSummary, TrialState, summary_of
from cerank.datasets.folds import FOLD
from cerank.runs.user_labels import UserLabels
from cerank.text.safe_text import counted

_URGENT = ("running", "stopping", "queued", "failed", "damaged", "lost", "paused", "waiting", "finished")
_TOLD_ELSEWHERE = ("name", "base", "description")  # settings with a column of their own, or none


class RunSettings:
    """The settings of runs as texts by key path, read off each recipe once: a run's plan never changes."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self._known: dict[bytes, dict[str, str]] = {}
        self._differing: tuple[tuple[list[str], int], tuple[str, ...]] = (([], 0), ())  # the last answer

    def key(self, entry: RunEntry) -> bytes:
        """Return what is equal for runs that differ in nothing but seed and fold; b"" for an unreadable plan."""
        key = self._keys.get(entry.name)
        if key is None:
            if entry.plan is None:
                return b""
            but_for_seed = msgspec.structs.replace(entry.plan.recipe, seed=0)
            key = self._keys[entry.name] = fold_runs.family(but_for_seed) + entry.plan.device.encode()
        return key

    def of(self, entry: RunEntry) -> dict[str, str]:
        """Return the settings of a run's recipe, without its seed; empty for a sweep and an unreadable plan."""
        if entry.plan is None or entry.sweep is not None:
            return {}
        key = self.key(entry)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = plan_view.recipe_settings(entry.plan)
            known.pop("seed", None)
        return known

    def differing(self, entries: Sequence[RunEntry], most: int) -> tuple[str, ...]:
        """Return the settings, `most` at most, in which runs of a recipe, or trials of an arm, differ.

        Base and seed are left out, which have columns of their own.
        """
        request = ([entry.name for entry in entries], most)
        if request == self._differing[0]:
            return self._differing[1]
        firsts: dict[str, dict[str, str]] = {}  # of each recipe, the settings of its first run
        keys: dict[str, None] = {}
        for entry in entries:
            own = self.of(entry)
            of_sweep = f"{entry.trial.arm} of sweep {entry.trial.sweep}" if entry.trial else entry.recipe
            first = firsts.setdefault(of_sweep, own)
            if own is not first:
                keys |= dict.fromkeys(key for key in {**first, **own} if first.get(key) != own.get(key))
        self._differing = (request, tuple(key for key in keys if key not in _TOLD_ELSEWHERE)[:most])
        return self._differing[1]


class SeedGroups:
    """Folds runs that differ in seed or fold alone, and sweeps; a row that did not change is the same as before."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._rows: dict[tuple[int, ...], tuple[Sequence[RunEntry], RunEntry]] = {}

    def key(self, entry: RunEntry) -> str:
        """Return what runs have in common that are folded into one row."""
        of = entry.sweep.name if entry.sweep is not None else entry.trial.sweep if entry.trial is not None else ""
        if of:
            return f"sweep {of}"
        return self._settings.key(entry).decode() or entry.name

    def folded(
        self,
        entries: Iterable[RunEntry],
        unfolded: Collection[str] = (),
        *,
        are_seeds_folded: bool = True,
        lab: Sequence[RunEntry] | None = None,
    ) -> list[RunEntry]:
        """Return a row for each group of runs, at the place of its first; groups named in `unfolded` run by run.

        A group with two runs of one seed and fold is shown run by run, too: a row's mean counts each once, and which
        run of the two would stand for it nobody said. The trials of a sweep are one row, be it of one trial.

        Args:
            entries: runs of one lab.
            unfolded: keys of groups.
            are_seeds_folded: False folds sweeps alone.
            lab: all runs of the lab, where `entries` are some of them: what is said of a sweep is said of all its
                trials, while its row stands for those among `entries`. None: there are no others.
        """
        entries = list(entries)
        trials: dict[str, list[RunEntry]] = {}  # of each sweep
        for entry in entries if lab is None else lab:
            if entry.trial is not None:
                trials.setdefault(entry.trial.sweep, []).append(entry)
        groups: dict[str, list[RunEntry]] = {}
        for entry in entries:
            is_of_group = are_seeds_folded or entry.trial is not None
            groups.setdefault(self.key(entry) if is_of_group else entry.name, []).append(entry)
        rows: list[RunEntry] = []
        now: dict[tuple[int, ...], tuple[Sequence[RunEntry], RunEntry]] = {}
        for key, members in groups.items():
            has_twice = len({(member.seed, member.fold) for member in members}) < len(members)
            is_single = len(members) == 1 or has_twice
            if key in unfolded or (is_single and members[0].trial is None):
                rows += members
                continue
            of = members[0].trial
            every = members if of is None else trials[of.sweep]
            identity = (*map(id, members), 0, *map(id, every))
            # the runs are kept with their row, so that no other object can come by the identity of one of them
            now[identity] = self._rows.get(identity) or (
                [*members, *every],
                _row_of(members) if of is None else _row_of_sweep(members, every),
            )
            rows.append(now[identity][1])
        self._rows = now
        return rows


def _row_of(members: Sequence[RunEntry]) -> RunEntry:
    """Return one entry for several seeds or folds: the newest run's name, the state that matters most, the means."""
    newest = max(members, key=lambda entry: entry.name)
    urgent = min(members, key=lambda entry: _URGENT.index(entry.state))
    finished = [entry for entry in members if entry.finals]
    names = dict.fromkeys(name for entry in finished for name in entry.finals)
    finals = {
        name: statistics.fmean(entry.finals[name] for entry in finished)
        for name in names
        if all(name in entry.finals for entry in finished)
    }
    return msgspec.structs.replace(
        newest,
        status=urgent.status,
        finals=finals,
        place=urgent.place,
        waits_for=urgent.waits_for,
        validation=None,
        verdict=None,
        members=tuple(sorted(members, key=lambda entry: (entry.seed or 0, entry.fold, entry.name))),
    )


def _states(trials: Iterable[RunEntry]) -> list[TrialState]:
    return [
        TrialState(trial=entry.trial, state=entry.state, value=None if entry.trial.stopped else entry.kept)
        for entry in trials
        if entry.trial is not None
    ]


def _row_of_sweep(members: Sequence[RunEntry], every: Sequence[RunEntry]) -> RunEntry:
    """Return one entry for the trials of a sweep: its name, how far it is, and the best trial so far.

    Args:
        members: the trials that the row stands for.
        every: all trials that the lab has of it.
    """
    trials = _states(every)
    sweep = summary_of(trials)
    at_work = [entry for entry in every if not (entry.trial and entry.trial.stopped)] or every
    urgent = min(at_work, key=lambda entry: _URGENT.index(entry.state))
    state = urgent.state
    if sweep.over == len(trials):  # a few failed trials are no failed sweep, and one that has more to try is not over
        has_best = any(sweep.best(arm) for arm in sweep.arms)
        state = "waiting" if sweep.has_more else "finished" if has_best else "failed"
    newest = max(members, key=lambda entry: entry.name)
    return msgspec.structs.replace(
        newest,
        short_name=sweep.name,
        status=msgspec.structs.replace(urgent.status, state=state),
        notes=UserLabels(),
        note="",
        finals={},
        place=urgent.place,
        waits_for=urgent.waits_for,
        validation=None,
        verdict=None,
        trial=None,
        kept=None,
        members=tuple(sorted(members, key=lambda entry: entry.name)),
        sweep=sweep,
    )


# --- bases x recipes


class TestedOn(msgspec.Struct, frozen=True, order=True):
    """What a run's figure is of."""

    tests: tuple[str, ...] = ()  # without the numbers of folds
    first_stages: tuple[str, ...] = ()
    depth: int = 0
    measure: str = ""

    def words(self, others: Collection[TestedOn]) -> str:
        """Return that in which it differs from others, such as "adi" or "depth 100"; "" for nothing."""
        parts = {
            "tests": short_name(next(iter(self.tests), "")) + (f", 1 of {len(self.tests)}" if self.tests[1:] else ""),
            "first_stages": f"over {', '.join(map(short_name, self.first_stages))}",
            "depth": f"depth {self.depth}",
            "measure": self.measure,
        }
        differing = (key for key in parts if any(getattr(other, key) != getattr(self, key) for other in others))
        return ", ".join(parts[key] for key in differing)


def tested_on(entry: RunEntry) -> TestedOn:
    """Return what a run's figure is of; figures of runs in which this differs have no mean together."""
    if entry.plan is None:
        return TestedOn()
    data, measure = entry.plan.recipe.data, next(iter(entry.plan.recipe.evaluate.measures), "")
    tests = tuple(FOLD.sub(r"[fold/\g<of>]", test) for test in data.test)
    return TestedOn(tests, data.first_stages, data.depth, measure)


_MOST_MEANS = 2  # in a cell of the grid


class GridCell(msgspec.Struct, frozen=True):
    """The runs of one recipe on one base model, one for each seed, fold and test set: the newest."""

    runs: tuple[RunEntry, ...]
    earlier: tuple[RunEntry, ...] = ()  # of the same seeds and folds, which the cell does not count

    @property
    def finished(self) -> tuple[RunEntry, ...]:
        """The runs that are over and measured."""
        return tuple(entry for entry in self.runs if entry.state == "finished")

    @property
    def state(self) -> str:
        """The state that matters most among the runs."""
        return min((entry.state for entry in self.runs), key=_URGENT.index)

    @property
    def text(self) -> str:
        """How many runs are done, what the others are at, and the mean of the first measure: "2/3 1▶ .641 ± .004"."""
        others = [entry.state for entry in self.runs if entry.state != "finished"]
        signs = "".join(f" {others.count(state)}{GLYPHS[state]}" for state in _URGENT if state in others)
        signs = signs or f" {GLYPHS['finished']}"
        more = f"  +{len(self.earlier)}" if self.earlier else ""
        means = self.means
        texts = [f"{of} {mean}".strip() for of, mean, _ in means]
        mean = "; ".join(texts) if len(means) <= _MOST_MEANS else f"means of {len(means)} tests below"
        values = [entry.kept for entry in self.finished if entry.trial is not None and entry.kept is not None]
        mean = f"valid. {short(values[0])}" if len(values) == 1 and not any(mean for _, mean, _ in means) else mean
        return f"{len(self.finished)}/{len(self.runs)}{signs}  {mean}".rstrip() + more

    @property
    def means(self) -> tuple[tuple[str, str, int], ...]:
        """What each mean is of, the mean, and its number of runs.

        There is one, of "", where all finished runs were tested alike; else one for each test, named by what differs.
        """
        by_test: dict[TestedOn, list[RunEntry]] = {}
        for entry in self.finished:
            by_test.setdefault(tested_on(entry), []).append(entry)
        return tuple((test.words(by_test), mean_and_sd(runs), len(runs)) for test, runs in sorted(by_test.items()))


class ArmCell(GridCell, frozen=True, kw_only=True):
    """The trials of one arm of a sweep on one base model, with the one that its search would adopt."""

    sweep: SweepSummary
    arm: str

    @property
    def best(self) -> TrialState | None:
        """The finished trial with the best value on validation."""
        return self.sweep.best(self.arm)

    @property
    def state(self) -> str:
        """The state that matters most among the trials that have not had their chance; else how the search ended."""
        to_come = [each.state for each in self._trials if not each.is_over]
        if to_come:
            return min(to_come, key=_URGENT.index)
        return "finished" if self.best is not None else "failed"

    @property
    def text(self) -> str:
        """How many trials are over, what the others are at, the value of the best: "3/4 1▶  best 2: valid. .750"."""
        others = [each.state for each in self._trials if each.state != "finished" and not each.trial.stopped]
        signs = "".join(f" {others.count(state)}{GLYPHS[state]}" for state in _URGENT if state in others)
        best = self.best
        value = f"  best {best.trial.number}: valid. {short(best.value or 0.0)}" if best is not None else ""
        over = sum(each.is_over for each in self._trials)
        signs = signs or f" {GLYPHS['finished']}"
        return f"{over}/{len(self._trials)}{signs}{value}"

    @property
    def means(self) -> tuple[tuple[str, str, int], ...]:
        """None: a trial is measured on no test set."""
        return ()

    @property
    def _trials(self) -> list[TrialState]:
        return [each for each in self.sweep.trials if each.trial.arm == self.arm]


class RunGrid(msgspec.Struct, frozen=True):
    """Runs as bases x recipes."""

    bases: tuple[str, ...]
    recipes: tuple[str, ...]
    cells: dict[tuple[str, str], GridCell]  # (base, recipe)
    measure: str  # that the means are of; "" where the runs have none in common

    @property
    def summary(self) -> str:
        """The size of the grid, and how many of its runs are finished."""
        runs = [entry for cell in self.cells.values() for entry in cell.runs]
        done = sum(entry.state == "finished" for entry in runs)
        size = f"{counted(len(self.bases), 'base')} × {counted(len(self.recipes), 'recipe')}"
        earlier = sum(len(cell.earlier) for cell in self.cells.values())
        more = f" (+{counted(earlier, 'earlier one')} of the same seeds)" if earlier else ""
        return f"{size}, {done} of {counted(len(runs), 'run')} finished{more}"


def grid_of(entries: Iterable[RunEntry], opened: Collection[str] | None = None) -> RunGrid:
    """Return runs as a grid; of several runs of one recipe, base, seed, fold and test set the newest counts.

    Args:
        entries: runs of a lab.
        opened: sweeps whose trials are shown one by one, each as a recipe of its own; the trials of others are one cell
            for each arm. None: all of them are.
    """
    entries = list(entries)
    arms: dict[tuple[str, str, str], list[RunEntry]] = {}  # (sweep, arm, base) -> its trials
    for entry in entries if opened is not None else ():
        if entry.trial is not None and entry.trial.sweep not in opened and entry.plan is not None:
            arms.setdefault((entry.trial.sweep, entry.trial.arm, entry.base), []).append(entry)
    folded = {entry.name for trials in arms.values() for entry in trials}
    newest: dict[tuple[str, str], dict[tuple[int, int, TestedOn], RunEntry]] = {}
    earlier: dict[tuple[str, str], list[RunEntry]] = {}
    for entry in entries:
        if entry.plan is not None and entry.name not in folded:
            place, runs = (entry.base, entry.recipe), newest.setdefault((entry.base, entry.recipe), {})
            which = entry.seed or 0, entry.fold, tested_on(entry)
            if which in runs:
                earlier.setdefault(place, []).append(runs[which])
            runs[which] = entry  # the oldest come first
    cells = {
        place: GridCell(tuple(runs[which] for which in sorted(runs)), tuple(earlier.get(place, ())))
        for place, runs in newest.items()
    }
    for (sweep, arm, base), trials in arms.items():
        in_order = sorted(trials, key=lambda entry: entry.trial.number if entry.trial else 0)
        cells[base, f"{arm} (sweep {sweep})"] = ArmCell(tuple(in_order), sweep=summary_of(_states(in_order)), arm=arm)
    measures = {entry.final[0] for cell in cells.values() for entry in cell.runs if entry.final}
    return RunGrid(
        bases=tuple(sorted({base for base, _ in cells})),
        recipes=tuple(sorted({recipe for _, recipe in cells})),
        cells=cells,
        measure=next(iter(measures)) if len(measures) == 1 else "",
    )


def mean_and_sd(entries: Sequence[RunEntry]) -> str:
    """Return the mean of the runs' first final measure, with its standard deviation over runs: ".641 ± .004".

    Of several seeds of the same folds, each seed is one value: the mean over its folds.
    """
    measured = [entry for entry in entries if entry.final]
    seeds = dict.fromkeys(entry.seed for entry in measured)
    values = [entry.final[1] for entry in measured if entry.final]
    if len(seeds) > 1 and any(entry.fold for entry in measured):
        of_seed = [[entry.final[1] for entry in measured if entry.final and entry.seed == seed] for seed in seeds]
        values = [statistics.fmean(own) for own in of_seed]
    if not values:
        return ""
    mean = short(statistics.fmean(values))
    return f"{mean} ± {short(statistics.stdev(values))}" if len(values) > 1 else mean


def size_in_words(entries: Sequence[RunEntry]) -> str:
    """Return how many seeds and folds a row stands for: "3 seeds", "5 folds", "3 seeds × 5 folds"."""
    seeds, folds = ({getattr(entry, key) for entry in entries} for key in ("seed", "fold"))
    if folds == {0}:
        return counted(len(seeds), "seed")
    of_folds = counted(len(folds), "fold")
    return of_folds if len(seeds) == 1 else f"{counted(len(seeds), 'seed')} × {of_folds}"
