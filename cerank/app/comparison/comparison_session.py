"""Rankings that the user named, measured once: compared again with another baseline or other terms, and query by query.

Invariant: a comparison made here is the one that `comparisons.compare` makes of the same names in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, named_systems, recorded_looks
from cerank.app.comparison import margins as margins_of
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.measuring import named_judgments, run_systems
from cerank.app.comparison.measuring.named_judgments import Qrels
from cerank.app.comparison.named_systems import (
    FIRST_STAGE,
    FileTarget,
    FoldsTarget,
    RunTarget,
    SeedsTarget,
    Target,
    short_name,
)
from cerank.app.test_collections.collection_groups import group_of, is_group
from cerank.core.rankings import Ranking
from cerank.datasets.folds import whole_of_fold
from cerank.errors import CerankError, MissingError, UsageError
from cerank.runs import run_store
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.evaluation.compare import Comparison, Row
    from cerank.evaluation.sensitivity.document_shares import DocumentShare
    from cerank.evaluation.systems import Condition, System
    from cerank.evaluation.verdicts.terms import Terms

CORRECTIONS = (
    "auto",
    "holm",
    "bh",
    "bonferroni",
    "max-t",
    "none",
)  # as evaluate.families has them, without its imports
PAIRS = ("baseline", "all")
CLAIMS = ("checkpoints", "recipes")
SOURCE = "dashboard"  # where a margin was chosen


class QueryDifference(msgspec.Struct, frozen=True):
    """The values of both systems of a row on one query, and their difference."""

    query: str
    left: float
    right: float
    difference: float  # right - left, rounding noise as exact 0


class Placed(msgspec.Struct, frozen=True):
    """A document in one of two rankings."""

    document: str
    rank: int  # from 1
    grade: int | None  # None: not judged
    other: int | None  # its rank in the other ranking; None: it is not there
    text: str  # "" where texts are not to be had
    part: float | None = None  # of the measure's value here; None where the measure is no sum over documents


class View(msgspec.Struct, frozen=True):
    """One query in two rankings."""

    query: str
    text: str  # of the query
    left: tuple[Placed, ...]
    right: tuple[Placed, ...]
    note: str = ""  # why there are no texts


class ComparisonSession:
    """Systems measured once. Making one reads every ranking and measures it: a thread's work."""

    def __init__(self, settings: Settings, request: ComparisonRequest, *, by: str = SOURCE) -> None:
        """Measure what the request names; `by` stands in the record of looks.

        Raises:
            CerankError: something is not there, or cannot be measured together.
        """
        if len(request.targets) < 2:
            raise UsageError(
                f"a comparison needs at least 2 rankings, not {len(request.targets)}", code="too-few-systems"
            )
        self.settings = settings
        self.request = request
        self._by = by
        self._targets = named_systems.targets_of(settings.lab, request.targets)
        self.systems: list[System]
        self.systems, self.measures = comparisons.measured_systems(settings, self._targets, request)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the systems by label, in the order they were named."""
        return tuple(system.label for system in self.systems)

    def compare(self, baseline: str, terms: Terms, *, now: str = "") -> Comparison:
        """Compare every system with the one labeled `baseline`; another label takes the first.

        Margins in `terms` count as chosen at `now` (UTC, ISO 8601); those that the runs' plans declare judge the rest.
        """
        first = baseline if baseline in self.labels else self.labels[0]
        order = sorted(range(len(self.systems)), key=lambda place: self.systems[place].label != first)
        targets = [self._targets[place] for place in order]
        declared = comparisons.declared_margins(targets, self.measures, all_pairs=terms.pairs == "all")
        margins = {
            name: msgspec.structs.replace(margin, source=margin.source.replace("command line", SOURCE))
            for name, margin in margins_of.chosen(terms.margins, declared, now=now).items()
        }
        chosen = msgspec.structs.replace(self.request, terms=msgspec.structs.replace(terms, margins=margins), now=now)
        systems = [self.systems[place] for place in order]
        comparison = comparisons.compare_measured(targets, systems, self.measures, chosen)
        seen = datetime.now(UTC).isoformat(timespec="milliseconds")
        recorded_looks.record(
            self.settings,
            recorded_looks.keys_of(comparison),
            by=self._by,
            now=seen,
            only_new=True,
            descriptive=recorded_looks.descriptive_keys_of(comparison),
        )
        return comparison

    def pair(self, left: str, right: str, condition: Condition) -> RankingPair:
        """Return two systems by label in one condition, to look at query by query; reads their rankings again."""
        target_of = dict(zip(self.labels, self._targets, strict=True))
        first, second = (
            ranking_of(self.settings, self.request, target_of[label], condition) for label in (left, right)
        )
        dataset, note = self._dataset(condition)
        of_seeds = [label for label in (left, right) if isinstance(target_of[label], SeedsTarget)]
        note = "; ".join([*(f"{label}: its first seed's ranking" for label in of_seeds), *([note] if note else [])])
        qrels = qrels_in(self.settings, self.request, self._targets, condition)
        return RankingPair((first, second), qrels, dataset, note)

    def first_stage_values(self, left: str, condition: Condition, measure: str) -> dict[str, float]:
        """Return the first stage's value of a measure by query; empty where there is none but the baseline itself.

        The baseline's own values say nothing of a difference that they are part of.
        """
        from cerank.evaluation.systems import measured_in

        run = _run_among(self._targets, condition)
        if run is None or run[0].system == FIRST_STAGE:
            return {}
        baseline = dict(zip(self.labels, self._targets, strict=True))[left]
        if isinstance(baseline, RunTarget | FoldsTarget) and baseline.system == FIRST_STAGE:
            return {}
        first = named_systems.of_system(run[0], FIRST_STAGE, FIRST_STAGE)
        alone = msgspec.structs.replace(self.request, measures=(measure,), judged_only=False)
        systems, names = comparisons.measured_systems(self.settings, [first], alone)
        return measured_in(systems[0], condition).values[names[0]]

    def missing_features(self, left: str, condition: Condition) -> tuple[str, ...]:
        """Return why a feature of the queries is not known, a sentence each."""
        out = []
        if not self.first_stage_values(left, condition, self.measures[0]):
            out.append("the first stage's measure: there is none beside the two rankings, or the baseline is it")
        if self._dataset(condition)[0] is None:
            out.append("words of the query: there are no texts; name the dataset")
        return tuple(out)

    def _dataset(self, condition: Condition) -> tuple[Dataset | None, str]:
        """Return where the texts are, and why there are none."""
        from cerank.datasets.open_datasets import open_dataset

        run = _run_among(self._targets, condition)
        name = run[1] if run else _at(self.settings, self.request, condition).dataset
        if run and isinstance(run[0], FoldsTarget):
            name = whole_of_fold(run[0].plan.recipe.data.test[0])
        if not name:
            return None, "no texts: name the dataset (d) in place of a qrels file"
        try:
            return open_dataset(name, self.settings.cache), ""
        except CerankError as error:
            return None, f"no texts: {error}"


def ranking_of(settings: Settings, request: ComparisonRequest, target: Target, condition: Condition) -> Ranking:
    """Return the ranking of a system as it was measured; of several seeds the first one's, for their mean has none."""
    from cerank.datasets.dataset import without_identical_ids
    from cerank.trec.text_io import read_run

    target = target.members[0] if isinstance(target, SeedsTarget) else target
    if isinstance(target, FileTarget):
        request = _at(settings, request, condition)
        is_pattern = named_systems.PER_DATASET in str(target.path)
        path = named_systems.of_dataset(target.path, request.dataset, settings.cache) if is_pattern else target.path
        ranking: Ranking = read_run(path).ranking
        return without_identical_ids(ranking) if comparisons.leaves_identical_ids_out(settings, request) else ranking
    test, first = _names(target, condition)
    return run_systems.ranking_of(target, test, first)


def qrels_in(settings: Settings, request: ComparisonRequest, targets: Sequence[Target], condition: Condition) -> Qrels:
    """Return what the targets were measured on in a condition."""
    run = _run_among(targets, condition)
    if run:
        return run_systems.qrels_of(*run)
    return named_judgments.judgments(settings, _at(settings, request, condition).dataset, request.qrels)[1]


def _at(settings: Settings, request: ComparisonRequest, condition: Condition) -> ComparisonRequest:
    """Return the request for the one of several test collections that a condition is of."""
    if not is_group(request.dataset):
        return request
    here = group_of(request.dataset, settings.cache).here
    member = next((name for name in here if short_name(name) == condition.dataset), "")
    return msgspec.structs.replace(request, dataset=member) if member else request


def _run_among(targets: Sequence[Target], condition: Condition) -> tuple[RunTarget | FoldsTarget, str] | None:
    """Return a run among the targets, or the runs of folds, and the dataset it was tested on in this condition."""
    for target in targets:
        member = target.members[0] if isinstance(target, SeedsTarget) else target
        if not isinstance(member, FileTarget):
            return member, _names(member, condition)[0]
    return None


class RankingPair:
    """Two rankings of the same queries, with judgments and texts where there are some."""

    def __init__(self, rankings: tuple[Ranking, Ranking], qrels: Qrels, dataset: Dataset | None, note: str) -> None:
        self._left, self._right = rankings
        self._qrels = qrels
        self._dataset = dataset
        self._note = note

    def query_texts(self) -> Mapping[str, str]:
        """Return the queries' texts; empty where there are none."""
        return {} if self._dataset is None else self._dataset.queries

    def parts(self, measure: str, query: str) -> tuple[DocumentShare, ...]:
        """Return the documents that make a query's difference by a measure; see `document_shares`.

        Raises:
            UsageError: the measure is no sum over documents.
        """
        from cerank.evaluation.sensitivity.document_shares import decomposed

        return decomposed(measure, self._qrels.get(query, {}), self._left.get(query, ()), self._right.get(query, ()))

    def features(self, measure: str) -> dict[str, dict[str, float]]:
        """Return feature -> query -> value of the queries; see `query_features`."""
        from cerank.evaluation.measures import shape

        look = shape(measure)
        depth = look.cutoff or 10
        out: dict[str, dict[str, float]] = {"relevant": {}, "judged": {}}
        for query, grades in self._qrels.items():
            out["relevant"][query] = float(sum(grade >= look.rel for grade in grades.values()))
            both = [*self._left.get(query, ())[:depth], *self._right.get(query, ())[:depth]]
            if both:
                out["judged"][query] = sum(doc in grades for doc in both) / len(both)
        texts = self.query_texts()
        if texts:
            out["words"] = {query: float(len(text.split())) for query, text in texts.items()}
        return out

    def view(self, query: str, depth: int = 20, *, measure: str = "") -> View:
        """Return the first `depth` documents of each ranking for one query, with their parts of a measure's value."""
        left, right = self._left.get(query, ())[:depth], self._right.get(query, ())[:depth]
        ranks = [{doc: at for at, doc in enumerate(of.get(query, ()), 1)} for of in (self._left, self._right)]
        texts, note = self._texts([*left, *right])
        grades = self._qrels.get(query, {})
        parts = self._parts_of_sides(query, measure)

        def placed(
            docs: Sequence[str], others: Mapping[str, int], of: Mapping[str, float] | None
        ) -> tuple[Placed, ...]:
            return tuple(
                Placed(
                    document=doc,
                    rank=at,
                    grade=grades.get(doc),
                    other=others.get(doc),
                    text=texts.get(doc, ""),
                    part=None if of is None else of.get(doc, 0.0),
                )
                for at, doc in enumerate(docs, 1)
            )

        query_text = self._dataset.queries.get(query, "") if self._dataset else ""
        return View(query, query_text, placed(left, ranks[1], parts[0]), placed(right, ranks[0], parts[1]), note)

    def _parts_of_sides(
        self, query: str, measure: str
    ) -> tuple[Mapping[str, float] | None, Mapping[str, float] | None]:
        """Return what each document gives to a measure's value on either side; None where it is no sum over them."""
        from cerank.evaluation.sensitivity.document_shares import shape_of, shares

        if not measure:
            return None, None
        try:
            summed = shape_of(measure)
        except UsageError:
            return None, None
        grades = self._qrels.get(query, {})
        return shares(summed, grades, self._left.get(query, ())), shares(summed, grades, self._right.get(query, ()))

    def _texts(self, docs: Sequence[str]) -> tuple[dict[str, str], str]:
        if self._dataset is None:
            return {}, self._note
        known = [doc for doc in dict.fromkeys(docs) if doc in self._dataset.documents]
        try:
            text_of = dict(zip(known, self._dataset.documents.texts(known), strict=True))
        except MissingError as error:
            return {}, f"no texts: {error}"
        lacking = len(set(docs)) - len(known)
        notes = [*([self._note] if self._note else []), *([f"{lacking} without text"] if lacking else [])]
        return text_of, "; ".join(notes)


def _names(target: RunTarget | FoldsTarget, condition: Condition) -> tuple[str, str]:
    """Return the test dataset and first stage of a run, as its plan calls those of the condition."""
    data = target.plan.recipe.data
    for test in run_systems.tests_of(target):
        for first in data.first_stages:
            if (short_name(test), short_name(first)) == (condition.dataset, condition.first_stage):
                return test, first
    raise UsageError(f"run {run_store.title(target.folder)} was not tested on {condition}")


def target_error(lab: Path, text: str, others: Sequence[str]) -> str:
    """Return what keeps `text` from being compared beside `others`, as far as its name tells; "" for nothing."""
    if not text:
        return "name a TREC run file, a run, or RUN:STAGE"
    if text in others:
        return "is compared already"
    try:
        named_systems.targets_of(lab, [text])
    except CerankError as error:
        return f"{error.what}; {error.hint}" if error.hint else error.what
    return ""


def differences(comparison: Comparison, row: Row) -> tuple[QueryDifference, ...]:
    """Return the queries of a row, the largest gain first; ties by query id."""
    from cerank.evaluation.significance import NOISE

    systems = {system.label: system for system in comparison.systems}

    def values(label: str) -> Mapping[str, float]:
        at = next(entry for entry in systems[label].measured if entry.condition == row.condition)
        return at.values[row.measure]

    left, right = values(row.left), values(row.right)
    out = []
    for query, value in left.items():
        difference = right[query] - value
        out.append(QueryDifference(query, value, right[query], difference if abs(difference) >= NOISE else 0.0))
    return tuple(sorted(out, key=lambda entry: (-entry.difference, entry.query)))


def terms_of(texts: Mapping[str, str], measures: Sequence[str]) -> tuple[Terms, dict[str, str]]:
    """Return the terms that were typed, and what is wrong with them by field (such as "margin").

    `margin` is one number for every measure, or `nDCG@10=0.01, RR@10=0.02`; empty declares none.
    """
    from cerank.evaluation.verdicts.terms import Margin, Terms

    wrong: dict[str, str] = {}
    confidence = _share(texts.get("confidence", "") or "0.95")
    if confidence is None:
        wrong["confidence"] = "must be a number between 0 and 1, such as 0.95"
    values, mistake = _margins(texts.get("margin", ""), measures)
    if mistake:
        wrong["margin"] = mistake
    for key, known in (("correction", CORRECTIONS), ("pairs", PAIRS), ("claim", CLAIMS)):
        if texts.get(key, known[0]) not in known:
            wrong[key] = f"must be one of {', '.join(known)}"
    if wrong:
        return Terms(), wrong
    margins = {name: Margin(value=value, source=SOURCE) for name, value in values.items()}
    choices = {"correction": texts.get("correction", "auto"), "pairs": texts.get("pairs", "baseline")}
    choices["claim"] = texts.get("claim", "checkpoints")
    return msgspec.structs.replace(Terms(), confidence=confidence, margins=margins, **choices), {}


def _share(text: str) -> float | None:
    number = _number(text)
    return number if number is not None and 0 < number < 1 else None


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,2})?\s*", text) else None


def _margins(text: str, measures: Sequence[str]) -> tuple[dict[str, float], str]:
    out: dict[str, float] = {}
    for part in (part.strip() for part in text.split(",") if part.strip()):
        name, equals, raw = part.rpartition("=")
        value = _number(raw)
        if value is None or value <= 0:
            return {}, f"'{raw}' is no margin; give a number above 0, or MEASURE=NUMBER"
        if equals and name.strip() not in measures:
            return {}, f"{name.strip()} is not compared; compared: {', '.join(measures)}"
        out |= {name.strip(): value} if equals else dict.fromkeys(measures, value)
    return out, ""
