"""A list of runs: its order, its table for files, and the details of one run in short lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from cerank.app import fold_runs, plan_view
from cerank.app.comparison import named_systems
from cerank.app.run_views.display import clock, count, local_time, short
from cerank.app.run_views.run_monitor import RunEntry
from cerank.app.run_views.seed_groups import RunSettings, mean_and_sd
from cerank.app.run_views.sweep_trials import SweepSummary
from cerank.errors import UsageError
from cerank.registry import nearest
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

_Value = str | float | None
_MOST_FITTING = 5  # runs that a part of a name may stand for

_STATES = ("running", "stopping", "queued", "waiting", "paused", "lost", "failed", "damaged", "finished")

_KEYS: dict[str, Callable[[RunEntry], _Value]] = {
    "age": lambda entry: entry.name,  # begins with the time it was created
    "state": lambda entry: float(_STATES.index(entry.state)),
    "run": lambda entry: (entry.short_name or entry.name).lower(),
    "label": lambda entry: entry.label.lower() or None,
    "recipe": lambda entry: entry.recipe.lower() or None,
    "base": lambda entry: entry.base.lower() or None,
    "seed": lambda entry: entry.seed,
    "now": lambda entry: entry.at or None,
    "left": lambda entry: entry.seconds_left or None,
    "pairs/s": lambda entry: entry.pairs_per_second or None,
    "valid": lambda entry: entry.validated[1] if entry.validated else None,
    "test": lambda entry: entry.final[1] if entry.final else None,
    "on": lambda entry: named_test(entry).lower() or None,
    "verdict": lambda entry: entry.verdict.verdict if entry.verdict else None,
}

KEYS = tuple(_KEYS)
_IN_QUEUE_ORDER = ("age", "state", "now")  # by any other column the order is that column's alone


def _setting(settings: RunSettings, key: str, entry: RunEntry) -> str | None:
    """Return a setting of a run so that numbers sort as numbers; None where the run has none."""
    text = settings.of(entry).get(key)
    if text is None:
        return None
    try:
        return f"{float(text):030.12f}"
    except ValueError:
        return text.lower()


def ordered(
    entries: Iterable[RunEntry], key: str, *, is_falling: bool = False, settings: RunSettings | None = None
) -> list[RunEntry]:
    """Return the entries by one of `KEYS`, or by a setting of their recipes; equal ones stay in the order they came.

    By age, state or what they do now, queued runs come together in the order in which they start, at the place of the
    first of them.

    Raises:
        UsageError: nothing is sorted by that.
    """
    value_of = _KEYS.get(key)
    if value_of is None and settings is not None and "." in key:
        value_of = partial(_setting, settings, key)
    if value_of is None:
        raise UsageError(f"runs cannot be sorted by '{key}'", hint=nearest(key, KEYS), code="unknown-sort-key")
    with_value: list[tuple[str | float, RunEntry]] = []
    absent = []
    for entry in entries:
        value = value_of(entry)
        if value is None:
            absent.append(entry)
        else:
            with_value.append((value, entry))
    with_value.sort(key=lambda pair: pair[0], reverse=is_falling)
    rows = [entry for _, entry in with_value] + absent
    if key not in _IN_QUEUE_ORDER:
        return rows
    queued = sorted((entry for entry in rows if entry.place), key=lambda entry: entry.place)
    if len(queued) < 2:
        return rows
    first = next(at for at, entry in enumerate(rows) if entry.place)
    others = [entry for entry in rows if not entry.place]
    return [*others[:first], *queued, *others[first:]]


def table(entries: Iterable[RunEntry]) -> Table:
    """Return the runs with all that lists show, a column for each final measure."""
    rows = list(entries)
    names = list(dict.fromkeys(name for entry in rows for name in entry.finals))
    keys = ("run", "short_name", "label", "tags", "state", "why", "recipe", "base", "seed", "at")
    columns = (*(Column(key, key) for key in keys), *(Column(name, name, "number") for name in names))
    body = tuple(
        (
            *(entry.name, entry.short_name, entry.label, " ".join(entry.notes.tags), entry.state, entry.status.text),
            *(entry.recipe, entry.base, entry.plan.recipe.seed if entry.plan else None, entry.at),
            *(entry.finals.get(name) for name in names),
        )
        for entry in rows
    )
    return Table("runs", columns, body)


def details(entry: RunEntry) -> list[tuple[str, str]]:
    """Return the details of a run, each as a heading and its text; none is empty."""
    if entry.sweep is not None:
        return _facts_of_sweep(entry, entry.sweep)
    if entry.members:
        return _facts_of_seeds(entry)
    details = [("run", entry.short_name or entry.name), ("state", entry.state), ("why", entry.why)]
    if entry.trial is not None:
        details.append(("trial", f"{entry.trial.text()} (sweep {entry.trial.sweep})"))
    details.append(("waits for", entry.waits_for))
    if entry.state == "waiting":
        details.append(("next", "never started; r starts it"))
    if entry.state == "lost":
        details.append(("next", f"its worker died {entry.at}; r resumes it".replace("  ", " ")))
    if entry.plan is not None:
        recipe, plan = entry.plan.recipe, entry.plan
        data = recipe.data
        details.append(("note", entry.note))
        details += [("label", entry.label), ("tags", " ".join(f"#{tag}" for tag in entry.notes.tags))]
        details += [("recipe", f"{recipe.name}: {' > '.join(recipe.chain)}"), ("base", recipe.base)]
        details += [("trains on", _named(data.train)), ("tests on", ", ".join(map(_named, data.test)))]
        details += [("first stages", ", ".join(map(_named, data.first_stages)))]
        details += [
            ("seed", f"{recipe.seed}, on {plan.device}, {counted(plan.threads, 'thread')}"),
            ("created", local_time(plan.created)),
            ("id", entry.name),
        ]
    if entry.status.attempts > 1:
        details.append(("attempts", str(entry.status.attempts)))
    if entry.validation is not None:
        chain = entry.plan.recipe.chain if entry.plan else ()
        stage = chain[entry.validation.stage] if entry.validation.stage < len(chain) else ""
        figures = "  ".join(f"{name} {short(value)}" for name, value in entry.validation.measures.items())
        details.append(("validation", f"{figures}  ({stage} step {count(entry.validation.step)})"))
    if entry.finals:
        on = f"  (on {first_test(entry)})" if first_test(entry) != "test" else ""
        details.append(("test", "  ".join(f"{name} {short(value)}" for name, value in entry.finals.items()) + on))
    return [(word, text) for word, text in details if text]


def brief(entry: RunEntry) -> tuple[str, ...]:
    """Return what tells a run from others and how it stands, in a line or two, where there is no room for details."""
    if entry.sweep is not None:
        facts = _facts_of_sweep(entry, entry.sweep)
        return tuple(text for word, text in facts if word in {"sweep", "filter", "best"})
    name = entry.short_name or entry.name
    if entry.members:
        return tuple(text for word, text in _facts_of_seeds(entry) if word in {"recipe", "test"})
    parts = [f"{name}, {entry.state}"]
    if entry.plan is not None:
        parts.append(
            f"{entry.recipe} on {entry.base}, seed {entry.seed}" + (f" fold {entry.fold}" if entry.fold else "")
        )
    parts += [entry.trial.text() if entry.trial is not None else entry.label, *(f"#{tag}" for tag in entry.notes.tags)]
    first = "  ·  ".join(part for part in parts if part)
    left = f", {clock(entry.seconds_left)} left" if entry.seconds_left else ""
    second = entry.verdict.sentence if entry.verdict else entry.why or (entry.at + left if entry.at else "")
    return (first, second) if second else (first,)


def _facts_of_seeds(entry: RunEntry) -> list[tuple[str, str]]:
    """Return the details of a row that stands for runs of several seeds or folds: a line for each run."""
    details = [("recipe", f"{entry.recipe} on {entry.base}, {counted(len(entry.members), 'run')}")]
    over = "seeds" if len({member.seed for member in entry.members}) > 1 else "folds"
    if entry.final:
        details.append(("test", f"{entry.final[0]} {mean_and_sd(entry.members)} (mean ± sd over {over})"))
    for member in entry.members:
        at = mean_and_sd([member]) or member.at or member.why
        details.append((member.place_in_group, f"{member.short_name or member.name}  {member.state}  {at}".rstrip()))
    return [*details, ("keys", "right shows the runs, left folds them again, z folds and unfolds all")]


def _facts_of_sweep(entry: RunEntry, sweep: SweepSummary) -> list[tuple[str, str]]:
    """Return the details of a row that stands for a sweep: how far it is, and the best trial of each arm."""
    details = [("sweep", f"{sweep.name}, {sweep.progress}, by {sweep.measure} on validation"), ("base", entry.base)]
    if len(entry.members) < len(sweep.trials):
        matching = f"{len(entry.members)} of {counted(len(sweep.trials), 'trial')}"
        details.append(("filter", f"{matching} match; stop, resume and delete act on these alone"))
    if sweep.has_more and sweep.deleted:
        details.append(("next", "bring the deleted trials back first: the sweep does not go on without them"))
    elif entry.state == "waiting":
        details.append(("next", "the same `cerank sweep` command queues the trials that follow"))
    for arm in sweep.arms:
        best = sweep.best(arm)
        over = counted(sum(each.is_over for each in sweep.trials if each.trial.arm == arm), "trial")
        said = (
            f"{sweep.measure} {short(best.value or 0.0)} in trial {best.trial.text()}" if best else "none is finished"
        )
        details.append(("best", f"{said}  (of {over} of {arm} so far)"))
    return [*details, ("keys", "enter or right shows the trials, left folds them again")]


def distinctions(entries: Sequence[RunEntry]) -> dict[str, str]:
    """Return run id -> what tells it from the others: its label, else two settings that differ; "" for nothing."""
    tables = {entry.name: plan_view.recipe_settings(entry.plan) if entry.plan else {} for entry in entries}
    keys = dict.fromkeys(key for table in tables.values() for key in table)
    differing = [key for key in keys if len({table.get(key) for table in tables.values()}) > 1]
    texts = {}
    for entry in entries:
        table = tables[entry.name]
        named = [f"{key.rpartition('.')[2]} {table[key]}" for key in differing[:2] if table.get(key)]
        texts[entry.name] = entry.label or ", ".join(named)
    return texts


def seeds_folded(targets: Sequence[str], entries: Sequence[RunEntry]) -> tuple[str, ...]:
    """Return the targets of a comparison with runs that differ in their seed alone as one system, "NAME=A,B,C".

    Runs of several folds become "A@folds" first.

    Args:
        targets: runs by their short names, and other rankings, which stay as they are.
        entries: the runs of the lab.
    """
    known = {entry.short_name: entry for entry in entries if entry.plan is not None}
    groups: dict[str, list[str]] = {}
    sets: set[bytes] = set()  # of folds
    for target in targets:
        entry = known.get(target)
        if entry and entry.plan and entry.fold:
            family = fold_runs.family(entry.plan.recipe)
            if family not in sets:
                but_for_seed = msgspec.structs.replace(entry.plan.recipe, seed=0)
                groups.setdefault(fold_runs.family(but_for_seed).decode(), []).append(f"{target}@folds")
            sets.add(family)
            continue
        settings = plan_view.recipe_settings(entry.plan) if entry and entry.plan else {}
        key = repr(sorted((name, value) for name, value in settings.items() if name != "seed")) if settings else target
        groups.setdefault(key, []).append(target)
    folded = []
    for names in groups.values():
        entry = known.get(names[0].removesuffix("@folds"))
        is_alone = len(names) == 1 or entry is None
        folded.append(names[0] if is_alone or entry is None else f"{entry.recipe}-{entry.base}={','.join(names)}")
    heads = [text.partition("=")[0] for text in folded]
    if len(set(heads)) < len(heads):  # the same recipe and base with other settings: told apart by a number
        folded = [
            f"{head}-{at}={text.partition('=')[2]}" if "=" in text else text
            for at, (head, text) in enumerate(zip(heads, folded, strict=True), 1)
        ]
    return tuple(folded)


def folds_joined(entries: Sequence[RunEntry]) -> tuple[str, ...]:
    """Return what a comparison of runs names, in their order: runs by short name, folds of one set as "RUN@folds".

    A fold that is alone stays the run that it is.
    """
    sets: dict[bytes, list[RunEntry]] = {}
    for entry in entries:
        is_fold = entry.plan is not None and entry.fold
        key = fold_runs.family(entry.plan.recipe) if entry.plan is not None and is_fold else entry.name.encode()
        sets.setdefault(key, []).append(entry)
    names = [(of[0].short_name or of[0].name, len({entry.fold for entry in of})) for of in sets.values()]
    return tuple(f"{name}@folds" if count > 1 else name for name, count in names)


def entries_named(targets: Sequence[str], entries: Iterable[RunEntry]) -> list[RunEntry]:
    """Return the runs that the texts of a comparison name, those of all folds where they say so; files name none.

    Args:
        targets: as `named_systems.targets_of` reads them: a part of a name may stand for a run, too.
        entries: the runs of the lab.
    """
    known, fitting = list(entries), dict[str, RunEntry]()
    for name, has_folds in dict.fromkeys(pair for text in targets for pair in named_systems.names_in(text) if pair[0]):
        named = [entry for entry in known if name in {entry.name, entry.short_name, entry.label}]
        named = named or [entry for entry in known if name in entry.name or name in entry.short_name][:_MOST_FITTING]
        plans = [entry.plan for entry in named if entry.plan is not None] if has_folds else []
        named += [
            entry for entry in known if entry.plan and any(fold_runs.are_of_one_set(plan, entry.plan) for plan in plans)
        ]
        fitting |= {entry.name: entry for entry in named}
    return list(fitting.values())


def goes_with(entries: Sequence[RunEntry]) -> str:
    """Return what deleting runs takes with it: files, bytes, models."""
    size = files = 0
    models: list[str] = []
    for entry in entries:
        for path in entry.folder.path.rglob("*"):
            if path.is_file() and not path.is_symlink():
                files += 1
                size += path.stat().st_size
        chain = entry.plan.recipe.chain if entry.plan else ()
        models += [name for index, name in enumerate(chain) if entry.folder.final(index, name).is_dir()]
    models_text = f", the models of {' and '.join(models)}" if models and len(entries) == 1 else ""
    models_text = f", {counted(len(models), 'model')}" if models and len(entries) > 1 else models_text
    size_text = f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.0f} kB"
    return f"{counted(files, 'file')}, {size_text}{models_text}"


def first_test(entry: RunEntry) -> str:
    """Return what the figures of a run in lists are of: "test", or of several test sets the first: "adi, 1 of 2"."""
    tests = entry.plan.recipe.data.test if entry.plan is not None else ()
    return f"{_named(tests[0])}, 1 of {len(tests)}" if len(tests) > 1 else "test"


def named_test(entry: RunEntry) -> str:
    """Return which of several test sets a run's figure in lists is of: "adi, 1 of 2"; "" for one, or for no figure."""
    of = first_test(entry)
    return of if any(run.final for run in entry.runs) and of != "test" else ""


def _named(text: str) -> str:
    """Return a name, or the last part of a path."""
    path, mark, rest = text.partition("[")
    return Path(path).name + mark + rest if path.startswith("/") else text
