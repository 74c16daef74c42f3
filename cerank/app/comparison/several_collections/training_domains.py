"""Which collections are in-domain: those whose documents a system was trained on (BEIR, NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.named_systems import RunTarget, SeedsTarget, last_part, short_name, targets_of
from cerank.datasets.aliases import id_of
from cerank.datasets.open_datasets import whole_and_part
from cerank.errors import UsageError
from cerank.recipes.plan import Plan
from cerank.recipes.sections.set_mixtures import WeightedSet, is_mixture, sets_of
from cerank.registry import nearest
from cerank.settings import Settings
from cerank.text.safe_text import shown

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison


_SAME = {  # collections that are the same passages or documents, or a sample of them
    "beir/msmarco": "msmarco-passage",
    "nano-beir/msmarco": "msmarco-passage",
    "nano-beir/webis-touche2020": "beir/webis-touche2020",
}
_TWO_PARTS = ("beir", "nano-beir", "lotte", "clueweb22")  # the first part of these ids names no collection


def collection_of(name: str) -> str:
    """Return what is common to the names of all datasets over one collection.

    >>> [collection_of(name) for name in ("dl19", "beir/msmarco/dev", "nano-beir/scifact", "/data/med[:60%]")]
    ['msmarco-passage', 'msmarco-passage', 'beir/scifact', '/data/med']
    """
    whole = whole_and_part(name)[0]
    if whole.startswith(("/", "./", "../", "~")):
        return whole.partition("#")[0]
    parts = id_of(whole).split("/")
    collection = "/".join(parts[:2] if parts[0] in _TWO_PARTS else parts[:1])
    collection = _SAME.get(collection, collection)
    return collection.replace("nano-beir/", "beir/")


def trained_on(plan: Plan, system: str) -> frozenset[str]:
    """Return the collections that a system of a run learned from: those of its stages, up to its own."""
    recipe = plan.recipe
    if system not in recipe.chain:
        return frozenset()
    used = [recipe.stages[name].dataset or recipe.data.train for name in recipe.chain[: recipe.chain.index(system) + 1]]
    names = [part.name for name in used for part in (sets_of(name) if is_mixture(name) else (WeightedSet(name),))]
    return frozenset(map(collection_of, names))


def in_domain_for(
    settings: Settings, request: ComparisonRequest, comparison: Comparison, in_domain: Sequence[str] = ()
) -> frozenset[str]:
    """Return which of a comparison's collections are in-domain, as a user says, or else by the runs' training data.

    Raises:
        UsageError: one that the user names was not compared on.
    """
    collections = {row.condition.dataset for row in comparison.rows}
    if in_domain:
        return named_in_domain(in_domain, collections)
    return in_domain_of(settings, request.targets, collections) if len(collections) > 1 else frozenset()


def in_domain_of(settings: Settings, texts: Sequence[str], tests: Collection[str]) -> frozenset[str]:
    """Return those test sets, by their short names, whose collection any of the named runs was trained on."""
    members = [
        member
        for target in targets_of(settings.lab, texts)
        for member in (target.members if isinstance(target, SeedsTarget) else (target,))
    ]
    return in_domain_of_runs([member for member in members if isinstance(member, RunTarget)], tests)


def in_domain_of_runs(runs: Sequence[RunTarget], tests: Collection[str]) -> frozenset[str]:
    """Return those test sets, by their short names, whose collection any of some systems of runs was trained on."""
    ours: set[str] = set()
    for run in runs:
        learned = trained_on(run.plan, run.system)
        ours |= {short_name(test) for test in run.plan.recipe.data.test if collection_of(test) in learned}
    return frozenset(ours & set(tests))


def named_in_domain(names: Sequence[str], tests: Collection[str]) -> frozenset[str]:
    """Return the test sets that a user calls in-domain, by their short names.

    Raises:
        UsageError: one of them is not among those compared on.
    """
    out = set()
    for name in names:
        fits = [test for test in tests if test in {name, short_name(name)} or id_of(test) == id_of(name)]
        fits = fits or [test for test in tests if test == last_part(name)]
        if not fits:
            what = f"'{shown(name, 120)}' is none of the test sets: {', '.join(sorted(tests))}"
            raise UsageError(what, where="--in-domain", hint=nearest(name, sorted(tests)), code="not-tested")
        out |= set(fits)
    return frozenset(out)
