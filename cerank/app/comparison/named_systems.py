"""What the user names, as systems: runs of the lab, stages of them, seeds of one recipe, and TREC run files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cerank.app import fold_runs
from cerank.app.comparison import margins as margins_of
from cerank.app.test_collections.collection_groups import group_of, is_group
from cerank.datasets import folds
from cerank.datasets.folds import whole_of_fold
from cerank.datasets.open_datasets import dataset_runs
from cerank.errors import CerankError, MissingError, UsageError
from cerank.files.named_files import STDIN, input_file, looks_like_a_path, near_files
from cerank.recipes.plan import Plan
from cerank.recipes.schema import BEST_OF
from cerank.registry import nearest
from cerank.retrieval.first_stage import BM25
from cerank.retrieval.reference_orders import REFERENCE_ORDERS
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.text.safe_text import shown

FIRST_STAGE = "first-stage"
PER_DATASET = "{dataset}"  # in the name of a run file: one file for each of several test collections


def systems_of(plan: Plan) -> list[str]:
    """Return what a run measures, in the order of its table: its first stage, its stages, and systems not trained."""
    return [FIRST_STAGE, *plan.recipe.chain, *plan.recipe.untrained_systems()]


class RunTarget(msgspec.Struct, frozen=True):
    """A run's rankings after one of its stages."""

    label: str
    folder: RunFolder
    plan: Plan
    system: str  # a stage's name, "first-stage", that of a baseline or teacher, or one of `REFERENCE_ORDERS`


class FileTarget(msgspec.Struct, frozen=True):
    """A TREC run file."""

    label: str
    path: Path


def _of_folds(whole: str, count: int, of: int) -> str:
    return f"{whole}, {count} folds" if count == of else f"{whole}, {count} of {of} folds"


def tested_folds(whole: str, of: str) -> str:
    """Return how tables name a dataset that was tested fold by fold; `of` is as in the recipe's `data.folds`."""
    count = folds.count_of(of, validates=False)
    return _of_folds(whole, count, count)


class FoldsTarget(msgspec.Struct, frozen=True):
    """The runs of all folds of a dataset's queries, as one system: each query was ranked by the one of its fold."""

    label: str
    members: tuple[RunTarget, ...]  # in the order of the folds

    @property
    def plan(self) -> Plan:
        """The plan of the first fold's run."""
        return self.members[0].plan

    @property
    def folder(self) -> RunFolder:
        """The folder of the first fold's run."""
        return self.members[0].folder

    @property
    def system(self) -> str:
        """What each of the runs is measured after; see `RunTarget`."""
        return self.members[0].system

    @property
    def test(self) -> str:
        """The dataset that the folds are of, as tables name what all of them were tested on."""
        own, count = fold_runs.fold_of(self.plan.recipe), len(self.members)
        try:
            of = folds.count_of(own[1], validates=False) if own else count
        except CerankError:  # a file of folds that is gone or changed: the runs are as they were
            of = count
        return _of_folds(whole_of_fold(self.plan.recipe.data.test[0]), count, max(of, count))


class SeedsTarget(msgspec.Struct, frozen=True):
    """Runs that differ in nothing but their seed, as one system."""

    label: str
    members: tuple[RunTarget | FoldsTarget, ...]


Target = RunTarget | FileTarget | SeedsTarget | FoldsTarget


def runs_of(target: Target) -> tuple[RunTarget, ...]:
    """Return the runs behind a system, those of folds and seeds; none behind a file."""
    if isinstance(target, RunTarget):
        return (target,)
    if isinstance(target, FoldsTarget):
        return target.members
    return () if isinstance(target, FileTarget) else tuple(run for member in target.members for run in runs_of(member))


def joined_folds(runs: Sequence[RunTarget]) -> tuple[RunTarget | FoldsTarget, ...]:
    """Return runs with those of the folds of one cross-validation as one system, a seed each; others as they are.

    A set may lack folds; its name of what it was tested on, `FoldsTarget.test`, then says how many it has.
    """
    sets: dict[object, dict[int, RunTarget]] = {}
    for at, run in enumerate(runs):
        fold = fold_runs.fold_of(run.plan.recipe)
        key: object = at if fold is None else (run.system, fold_runs.family(run.plan.recipe))
        sets.setdefault(key, {})[fold[0] if fold else 0] = run
    return tuple(
        FoldsTarget(next(iter(of.values())).label, tuple(of[number] for number in sorted(of))) if 0 not in of else of[0]
        for of in sets.values()
    )


def of_system(target: RunTarget | FoldsTarget, system: str, label: str) -> RunTarget | FoldsTarget:
    """Return another system of the same run, or of the same runs of folds."""
    if isinstance(target, RunTarget):
        return msgspec.structs.replace(target, label=label, system=system)
    members = tuple(msgspec.structs.replace(member, label=label, system=system) for member in target.members)
    return FoldsTarget(label, members)


def folds_target(lab: Path, run: RunTarget) -> FoldsTarget:
    """Return the runs of all folds, of which `run` is one, after the same stage.

    Raises:
        UsageError: the run is not of a fold.
        MissingError: a fold has no finished run.
    """
    runs = fold_runs.in_order(lab, run.folder)
    return FoldsTarget(run.label, tuple(RunTarget(run.label, folder, plan, run.system) for folder, plan in runs))


def notes_on_folds(lab: Path, texts: Sequence[str]) -> tuple[str, ...]:
    """Return how to see all folds together, where a comparison names the run of a single one; for the first such run.

    Raises:
        CerankError: as `targets_of`.
    """
    runs = [each for each in targets_of(lab, texts) if isinstance(each, RunTarget)]
    sentences = [fold_runs.in_words(run.folder, run.plan) for run in runs]
    return tuple(sentence for sentence in sentences if sentence)[:1]


def target(lab: Path, text: str) -> RunTarget | FileTarget:
    """Return what `text` names: a TREC run file that exists, or a run of the lab, or `RUN:STAGE` for what a stage left.

    A run alone means its last stage; `RUN:first-stage` is what it re-ranked, `RUN:oracle` and `RUN:random-order` are
    that in the best possible and in a random order.

    Raises:
        UsageError: no such file, run or stage.
    """
    if PER_DATASET in text:
        label, _, pattern = text.rpartition("=")
        return FileTarget(label.strip() or _label_of_pattern(pattern), Path(pattern))
    path = input_file(text)
    if path is not None:
        return FileTarget(text if text == STDIN else short_name(str(path.resolve())), path)
    return _run_target(lab, text)


def _run_target(lab: Path, text: str) -> RunTarget:
    name, colon, system = text.partition(":")
    try:
        folder = fold_runs.find_one(lab, name)
    except UsageError as error:
        if looks_like_a_path(text) and error.code != "folds-together":
            raise _no_such_file(text) from None
        raise
    plan = run_store.load_plan(folder)
    known = [*systems_of(plan), *REFERENCE_ORDERS]
    if BEST_OF in system and system.partition(BEST_OF)[0] in plan.recipe.chain:
        hint = f"`cerank rerank {shown(text, 120)} --dataset ...` ranks by them; then name the run file"
        what = "the run has no rankings by these weights, only by those that the stage handed on"
        raise UsageError(what, where=shown(text, 200), hint=hint, code="best-not-ranked")
    if colon and system not in known:
        raise UsageError(f"run {run_store.title(folder)} has no stage '{system}'", hint=nearest(system, known))
    label = (run_store.label_of(folder, plan) or run_store.short_name(folder)) + (f":{system}" if colon else "")
    return RunTarget(label, folder, plan, system or plan.recipe.chain[-1])


def _label_of_pattern(text: str) -> str:
    """Return what the files of a pattern have in common: its name without the collection, or its folder.

    >>> [_label_of_pattern(text) for text in ("out/{dataset}.run", "out/tuned-{dataset}.run.gz", "{dataset}:bm25")]
    ['out', 'tuned', 'bm25']
    """
    path = Path(text)
    name = path.name.removesuffix(".gz").removesuffix(".run").replace(PER_DATASET, "").strip("-_.: ")
    parents = [part for part in path.parent.parts if PER_DATASET not in part]
    return name or (parents[-1] if parents else text)


def of_dataset(pattern: Path, dataset: str, cache: Path) -> Path:
    """Return the run file that a pattern means on one of several test collections.

    Args:
        pattern: a path with `{dataset}`, or `{dataset}:NAME` for a run that each dataset brings.
        dataset: the collection; in a path its name with `-` for `/`, as `cerank rerank` writes it.
        cache: folder of caches.

    Raises:
        MissingError: there is no such file, or the dataset brings no such run.
    """
    text = str(pattern)
    if text.startswith(f"{PER_DATASET}:"):
        brought, name = dataset_runs(dataset, cache), text.partition(":")[2]
        if name not in brought:
            known = ", ".join(brought) or "none"
            what = f"the dataset brings no run '{shown(name, 80)}'"
            raise MissingError(what, where=shown(dataset, 200), hint=f"it has: {known}", code="file-not-found")
        return brought[name]
    path = input_file(text.replace(PER_DATASET, file_name_of(dataset)))
    if path is None:
        missing = text.replace(PER_DATASET, file_name_of(dataset))
        hint = f"`cerank rerank MODEL --dataset ... -o {text}` writes one for each collection"
        raise MissingError("no such file", where=shown(missing, 200), hint=hint, code="file-not-found")
    return path


def file_name_of(dataset: str) -> str:
    """Return a dataset's name as a part of a file's name.

    >>> [file_name_of(name) for name in ("beir/scifact/test", "/data/cranfield", "./sets/med[:50%]", "./med[fold=1/5]")]
    ['beir-scifact-test', 'cranfield', 'med[:50%]', 'med[fold=1-5]']
    """
    name, mark, rest = dataset.partition("[")
    if name.startswith(("/", "./", "../", "~")):
        name = Path(name).name
    return f"{name}{mark}{rest}".replace("/", "-")


def _no_such_file(text: str) -> CerankError:
    if Path(text).expanduser().is_dir():
        return UsageError(
            "is a folder, not a run", where=shown(text, 200), hint="name a TREC run file in it", code="folder-not-run"
        )
    near = near_files(text)
    hint = f"did you mean {' or '.join(near)}?" if near else "`cerank ps` lists the runs of the lab"
    return MissingError(
        "no such file, and no run of the lab is called so", where=shown(text, 200), hint=hint, code="file-not-found"
    )


def targets_of(lab: Path, texts: Sequence[str]) -> list[Target]:
    """Return what `texts` name: each as `target` reads it, `LABEL=RUN`, or `LABEL=RUN,RUN,...` for seeds of one recipe.

    `RUN@folds` and `RUN@folds:STAGE` stand for the runs of all folds, of which RUN is one. A file or run that is itself
    called by the whole text wins.

    Raises:
        UsageError: no such thing; seeds that differ in more than their seed, or not even in that.
    """
    return [_target(lab, text) for text in texts]


def _target(lab: Path, text: str) -> Target:
    label, equals, rest = text.partition("=")
    try:
        return one_target(lab, text)
    except (UsageError, MissingError):
        if not (equals and label.strip() and rest.strip()):
            raise
    members = [one_target(lab, part.strip()) for part in rest.split(",")]
    if len(members) == 1:
        return msgspec.structs.replace(members[0], label=label.strip())
    return _seeds(label.strip(), members)


_FOLDS = re.compile(r"(?P<run>[^=:]+)@folds(?P<stage>:.*)?")
_FOLD_LABEL = re.compile(r" fold [0-9]+ of [0-9]+\Z")


def names_in(text: str) -> tuple[tuple[str, bool], ...]:
    """Return each name that may be a run's in what `targets_of` reads, and whether all folds are meant, not it alone.

    >>> names_in("tuned=swift-otter:distill,calm-heron@folds")[1:]
    (('swift-otter', False), ('calm-heron', True))
    """
    _, equals, rest = text.partition("=")
    names = []
    for part in (text, *(rest.split(",") if equals else ())):  # a run or file may be called by the whole text
        match = _FOLDS.fullmatch(part.strip())
        names.append((match["run"] if match else part.strip().partition(":")[0], match is not None))
    return tuple(names)


def one_target(lab: Path, text: str) -> RunTarget | FileTarget | FoldsTarget:
    """Return what a text without a label names: as `target`, or the runs of all folds where it says `RUN@folds`."""
    match = _FOLDS.fullmatch(text)
    if match is None or input_file(text) is not None:
        return target(lab, text)
    stage = match["stage"] or ""
    of_run = folds_target(lab, _run_target(lab, f"{match['run']}{stage}"))
    labels = {_FOLD_LABEL.sub("", run_store.label_of(run.folder, run.plan)) for run in of_run.members}
    shared = labels.pop() if len(labels) == 1 else ""
    return msgspec.structs.replace(of_run, label=f"{shared or match['run'] + '@folds'}{stage}")


def _seeds(label: str, members: Sequence[RunTarget | FileTarget | FoldsTarget]) -> SeedsTarget:
    """Return the members as one system, if they are one recipe under several seeds."""
    runs: list[RunTarget | FoldsTarget] = []
    for member in members:
        if isinstance(member, FileTarget):
            hint = "name runs of the lab; a mean of seeds needs their plans"
            raise UsageError(
                f"'{label}': {member.path.name} is a run file, which has no recorded seed",
                hint=hint,
                code="seed-unknown",
            )
        if member.system not in member.plan.recipe.chain:
            what = "a first stage" if member.system == FIRST_STAGE else "a system that no stage trained"
            raise UsageError(f"'{label}': {what} has no seed", hint=f"name one: {label}={member.label}")
        runs.append(member)
    first, seeds = runs[0], set[int]()
    for member in runs:
        seed = member.plan.recipe.seed
        if but_for_seed(member) != but_for_seed(first):
            raise _no_seeds(label, first, member)
        if seed in seeds:
            raise UsageError(f"'{label}': seed {seed} is given twice", hint="name each run only once")
        seeds.add(seed)
    return SeedsTarget(label, tuple(runs))


def _no_seeds(label: str, first: RunTarget | FoldsTarget, other: RunTarget | FoldsTarget) -> UsageError:
    """Return the error for two runs that are not seeds of one recipe: what they differ in."""
    from cerank.app import plan_view

    odd = [
        difference
        for difference in plan_view.differences(first.plan, other.plan)
        if not _NOT_IDENTITY.match(difference.key)
    ]
    shown = [
        f"{difference.key}: {difference.one or 'nothing'} against {difference.other or 'nothing'}" for difference in odd
    ]
    if other.system != first.system:
        shown.insert(0, f"stage: {first.system} against {other.system}")
    what = (
        f"'{label}': {run_store.title(first.folder)} and {run_store.title(other.folder)} differ in more than the seed"
    )
    more = [f"and {len(shown) - 8} more"] if len(shown) > 8 else []
    return UsageError("\n".join([what, *shown[:8], *more]), hint="compare them as two systems")


_NOT_IDENTITY = re.compile(
    r"(seed|name|description|python|cerank)\Z|evaluate\.(?!measures)"
)  # two seeds may differ here


def but_for_seed(target: RunTarget | FoldsTarget) -> tuple[str, str]:
    """Return what two seeds of one recipe share: the stage, and the plan's identity without seed and margins.

    Of folds the first one's plan tells: the others' differ from it in their queries alone.
    """
    recipe = target.plan.recipe
    alone = margins_of.measuring_alone(recipe.evaluate)
    same = msgspec.structs.replace(recipe, seed=0, baselines=(), evaluate=alone)
    inputs = tuple(entry for entry in target.plan.inputs if entry.role not in {"baseline", "tested_teacher"})
    return target.system, msgspec.structs.replace(target.plan, recipe=same, inputs=inputs).fingerprint


def sources(target: Target) -> tuple[margins_of.Source, ...]:
    """Return the runs behind a system; none behind a file."""
    return margins_of.sources([(run.folder, run.plan) for run in runs_of(target)])


def have_paired_seeds(targets: Sequence[Target]) -> bool:
    """Return whether the plans of all runs declare that their seeds count as pairs, which is the default."""
    runs = [run for target in targets for run in runs_of(target)]
    return all(run.plan.recipe.evaluate.seeds_as == "pairs" for run in runs)


def short_name(name: str) -> str:
    """Return a dataset's or first stage's name as tables show it: the last part of a path, anything else whole."""
    if not name.startswith("/"):
        return name
    path, mark, rest = name.partition("[")
    return Path(path).name.removesuffix(".gz").removesuffix(".run") + mark + rest


def last_part(name: str) -> str:
    """Return the last part of a dataset's name, from the catalog or a path, with the part that it is of a whole.

    >>> [last_part(name) for name in ("pydocs/test", "./sets/med[fold=1/5]", "/sets/med[fold=1/sets/folds.tsv]")]
    ['test', 'med[fold=1/5]', 'med[fold=1/sets/folds.tsv]']
    """
    path, mark, rest = name.partition("[")
    return path.rstrip("/").rpartition("/")[2] + mark + rest


def with_dataset_runs(lab: Path, texts: Sequence[str], dataset: str, cache: Path) -> tuple[str, ...]:
    """Return what a comparison names, with the names of a dataset's own runs replaced by their files.

    `compare bm25 tasb --dataset ./trec-dl-2020` means the folder's runs/bm25.run and runs/tasb.run. A file or a run of
    the lab that is called so wins, and a label may stand before the name: `first=bm25`.
    """
    if dataset and is_group(dataset):
        return _with_runs_of_each(lab, texts, dataset, cache)
    files = dataset_runs(dataset, cache) if dataset else {}
    named = []
    for text in texts:
        label, equals, name = text.rpartition("=")
        is_known = name in files and input_file(text) is None and input_file(name) is None
        if dataset and not is_known:
            _check_not_computed(lab, text, name, dataset, dataset)
        named.append(f"{label}{equals}{files[name]}" if is_known and not _is_run(lab, name) else text)
    return tuple(named)


def _with_runs_of_each(lab: Path, texts: Sequence[str], dataset: str, cache: Path) -> tuple[str, ...]:
    """Return the same for several collections: a run that any of them brings is looked for in each."""
    here = group_of(dataset, cache).here
    brought = {name for member in here for name in dataset_runs(member, cache)}
    named = []
    for text in texts:
        label, _, name = text.rpartition("=")
        is_known = name in brought and input_file(text) is None and not _is_run(lab, name)
        if not is_known:
            _check_not_computed(lab, text, name, dataset, here[0])
        named.append(f"{label or name}={PER_DATASET}:{name}" if is_known else text)
    return tuple(named)


def _check_not_computed(lab: Path, text: str, name: str, datasets: str, example: str) -> None:
    """Return if a text does not name BM25 alone, which a comparison reads from a run file and does not compute.

    Args:
        lab: a run of it that is called so wins, as does a file.
        text: as it was given.
        name: the same without its label.
        datasets: as they were given.
        example: one of them, for the hint.

    Raises:
        MissingError: it does.
    """
    if name != BM25 or input_file(text) or input_file(name) or _is_run(lab, name):
        return
    is_folder = Path(example).expanduser().is_dir()
    if is_folder:
        folder = f"{example}/runs"
        hint = f"mkdir -p {folder} && cerank data mine {example} --by {name} --into {folder}/{name}.run writes it"
    else:
        hint = f"cerank data mine {example} --by {name} --into {name}.run writes it; then name the file"
    what = f"{shown(datasets, 200)} brings no run '{name}', and no run or file is called so"
    raise MissingError(what, where=shown(text, 200), hint=hint, code="file-not-found")


def _is_run(lab: Path, name: str) -> bool:
    try:
        run_store.find(lab, name)
    except CerankError:
        return False
    return True
