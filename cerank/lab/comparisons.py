"""From what a person names (runs, stages of runs, TREC run files) to systems that can be compared.

Invariant: everything is measured again from the rankings and qrels themselves, so that a number on screen has files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.domain.plan import Plan
from cerank.errors import MissingError, UsageError
from cerank.registry import nearest
from cerank.settings import Settings
from cerank.store import runs
from cerank.store.layout import RunFolder

if TYPE_CHECKING:
    from cerank.evaluate.compare import Comparison, Terms
    from cerank.evaluate.systems import Condition, Measured, System

FIRST_STAGE = "first-stage"

Qrels = dict[str, dict[str, int]]


class RunTarget(msgspec.Struct, frozen=True):
    """A run's rankings after one of its stages."""

    label: str
    folder: RunFolder
    plan: Plan
    system: str  # a stage's name, or "first-stage"


class FileTarget(msgspec.Struct, frozen=True):
    """A TREC run file."""

    label: str
    path: Path


def target(lab: Path, text: str) -> RunTarget | FileTarget:
    """What `text` names: a TREC run file that exists, or a run of the lab, or `RUN:STAGE` for what a stage left.

    A run alone means its last stage; `RUN:first-stage` is what it re-ranked.

    Raises:
        UsageError: no such file, run or stage.
    """
    path = Path(text).expanduser() if "\0" not in text else Path()
    if path.is_file():
        return FileTarget(short_name(str(path.resolve())), path)
    name, colon, system = text.partition(":")
    folder = runs.find(lab, name)
    plan = runs.load_plan(folder)
    known = [FIRST_STAGE, *plan.recipe.chain]
    if colon and system not in known:
        raise UsageError(f"run {folder.name} has no stage '{system}'", hint=nearest(system, known))
    label = (plan.label or folder.name) + (f":{system}" if colon else "")
    return RunTarget(label, folder, plan, system or plan.recipe.chain[-1])


def compare(
    settings: Settings,
    texts: Sequence[str],
    *,
    measures: Sequence[str] = (),
    dataset: str = "",
    qrels: str = "",
    terms: Terms | None = None,
) -> Comparison:
    """Compares what `texts` name; the first is the baseline.

    Args:
        settings: where the lab and caches are.
        texts: at least two; see `target`.
        measures: names; empty takes those of the first run's plan, or nDCG@10 and RR@10 for files alone.
        dataset: whose qrels TREC run files are measured on; for runs, the one test dataset to look at.
        qrels: a qrels file, in place of a dataset.
        terms: how; see `evaluate.compare.Terms`.

    Raises:
        UsageError: they cannot be compared; MissingError: a run has no rankings yet.
    """
    from cerank.evaluate.compare import Terms, compare

    targets = [target(settings.lab, text) for text in texts]
    systems, names = measured_systems(settings, targets, measures=measures, dataset=dataset, qrels=qrels)
    return compare(systems, names, terms=terms or Terms())


def of_run(folder: RunFolder) -> Comparison:
    """A run's own table: each stage that has been measured against the first stage.

    Raises:
        MissingError: no stage of it has been measured yet.
    """
    from cerank.evaluate.compare import compare

    plan = runs.load_plan(folder)
    done = [name for name in (FIRST_STAGE, *plan.recipe.chain) if _is_measured(folder, plan, name)]
    if len(done) < 2:
        raise MissingError("nothing of it has been re-ranked and measured yet", where=folder.name)
    names = plan.recipe.evaluate.measures
    systems = [_of_run(RunTarget(name, folder, plan, name), names) for name in done]
    return compare(systems, plan.recipe.evaluate.measures)


def measured_systems(
    settings: Settings,
    targets: Sequence[RunTarget | FileTarget],
    *,
    measures: Sequence[str] = (),
    dataset: str = "",
    qrels: str = "",
) -> tuple[list[System], tuple[str, ...]]:
    """Every target measured by the same measures in the same conditions, and the measures' canonical names."""
    from cerank.evaluate.measures import check
    from cerank.evaluate.systems import Condition

    found = [one for one in targets if isinstance(one, RunTarget)]
    judged: dict[Condition, Qrels] = {}
    for test, first in _conditions(found, dataset):
        judged[Condition(short_name(test), short_name(first))] = _run_qrels(found[0].folder, test)
    if len(found) < len(targets) and not (found and not qrels):
        name, given = judgements(settings, dataset, qrels)
        judged = dict.fromkeys(judged, given) or {Condition(short_name(name)): given}
    names = tuple(measures) or (found[0].plan.recipe.evaluate.measures if found else ("nDCG@10", "RR@10"))
    for each in judged.values():
        names = check(names, each, "--measure")
    systems = [
        _of_run(one, names, dataset) if isinstance(one, RunTarget) else _of_file(one, names, judged) for one in targets
    ]
    return systems, names


def _conditions(found: Sequence[RunTarget], only: str) -> list[tuple[str, str]]:
    """The first run's test datasets (all, or the one asked for) with each of its first stages."""
    if not found:
        return []
    data = found[0].plan.recipe.data
    tests = [test for test in data.test if not only or only in {test, short_name(test)}]
    if not tests:
        raise UsageError(f"run {found[0].folder.name} was not tested on '{only}'", hint=nearest(only, data.test))
    return [(test, first) for test in tests for first in data.first_stages]


def judgements(settings: Settings, dataset: str, qrels: str) -> tuple[str, Qrels]:
    """What they are called, and the judgements that a person names."""
    from cerank.data.datasets import open_dataset
    from cerank.data.trec import read_qrels

    if dataset and qrels:
        raise UsageError("give --dataset or --qrels, not both")
    if not (dataset or qrels):
        raise UsageError("TREC run files need to be told what is relevant", hint="give --dataset NAME or --qrels FILE")
    if qrels:
        return Path(qrels).name, read_qrels(Path(qrels).expanduser())
    found = open_dataset(dataset, settings.cache)
    if not found.qrels:
        raise UsageError("it has no qrels, so nothing can be measured", where=dataset)
    return found.name, found.qrels


def identity(qrels: Qrels) -> str:
    """SHA-256 over judgements, whatever file they came from and in whatever order."""
    rows = sorted((query, doc, grade) for query, row in qrels.items() for doc, grade in row.items())
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()


def _run_qrels(folder: RunFolder, test: str) -> Qrels:
    from cerank.data.trec import read_qrels

    path = folder.qrels(test)
    if not path.exists():
        raise MissingError("it has not come to measuring yet", where=folder.name, hint=f"cerank show {folder.name}")
    return read_qrels(path)


def _is_measured(folder: RunFolder, plan: Plan, system: str) -> bool:
    data = plan.recipe.data
    return all(folder.measures(system, test, first).exists() for test in data.test for first in data.first_stages)


def _of_run(found: RunTarget, names: Sequence[str], only: str = "") -> System:
    from cerank.data.trec import read_run
    from cerank.evaluate.systems import Condition, System, measured

    rows: list[Measured] = []
    for test, first in _conditions([found], only):
        path = found.folder.ranking(found.system, test, first)
        if not path.exists():
            hint = f"cerank show {found.folder.name} says how far it is"
            raise MissingError(f"it has no ranking by {found.system} yet", where=found.folder.name, hint=hint)
        qrels = _run_qrels(found.folder, test)
        condition = Condition(short_name(test), short_name(first))
        rows.append(measured(names, condition, qrels, identity(qrels), read_run(path).ranking))
    return System(label=found.label, measured=tuple(rows), is_fixed=found.system == FIRST_STAGE)


def _of_file(found: FileTarget, names: Sequence[str], judged: Mapping[Condition, Qrels]) -> System:
    from cerank.data.trec import read_run
    from cerank.evaluate.systems import System, measured

    ranking = read_run(found.path).ranking
    rows = [measured(names, condition, qrels, identity(qrels), ranking) for condition, qrels in judged.items()]
    return System(label=found.label, measured=tuple(rows), is_fixed=True)


def short_name(name: str) -> str:
    """A dataset's or first stage's name as tables show it: the last part of a path, anything else whole."""
    if not name.startswith("/"):
        return name
    path, mark, rest = name.partition("[")
    return Path(path).name.removesuffix(".gz").removesuffix(".run") + mark + rest
