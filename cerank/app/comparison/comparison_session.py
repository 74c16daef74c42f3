"""Rankings that the user named, measured once: compared again with another baseline or other terms, and query by query.

Invariant: a comparison made here is the one that `comparisons.compare` makes of the same names in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons
from cerank.app.comparison import margins as margins_of
from cerank.app.comparison.comparisons import (
    ComparisonRequest,
    FileTarget,
    Qrels,
    RunTarget,
    SeedsTarget,
    Target,
    short_name,
)
from cerank.core.rankings import Ranking
from cerank.errors import CerankError, MissingError, UsageError
from cerank.runs import run_store
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.evaluation.compare import Comparison, Row, Terms
    from cerank.evaluation.systems import Condition, System

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
    """One query of a row."""

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


class View(msgspec.Struct, frozen=True):
    """One query in two rankings."""

    query: str
    text: str  # of the query
    left: tuple[Placed, ...]
    right: tuple[Placed, ...]
    note: str = ""  # why there are no texts


class ComparisonSession:
    """Systems measured once. Making one reads every ranking and measures it: a thread's work."""

    def __init__(self, settings: Settings, request: ComparisonRequest) -> None:
        """Measure what the request names.

        Raises:
            CerankError: something is not there, or cannot be measured together.
        """
        if len(request.targets) < 2:
            raise UsageError(
                f"a comparison needs at least 2 rankings, not {len(request.targets)}", code="too-few-systems"
            )
        self.settings = settings
        self.request = request
        self._targets = comparisons.targets_of(settings.lab, request.targets)
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
        typed = {name: margin.value for name, margin in terms.margins.items()}
        margins = {
            name: msgspec.structs.replace(margin, source=margin.source.replace("command line", SOURCE))
            for name, margin in margins_of.chosen(typed, declared, now=now).items()
        }
        chosen = msgspec.structs.replace(self.request, terms=msgspec.structs.replace(terms, margins=margins), now=now)
        return comparisons.compare_measured(targets, [self.systems[place] for place in order], self.measures, chosen)

    def pair(self, left: str, right: str, condition: Condition) -> RankingPair:
        """Return two systems by label in one condition, to look at query by query; reads their rankings again."""
        target_of = dict(zip(self.labels, self._targets, strict=True))
        rankings = self._ranking(target_of[left], condition), self._ranking(target_of[right], condition)
        dataset, note = self._dataset(condition)
        of_seeds = [label for label in (left, right) if isinstance(target_of[label], SeedsTarget)]
        note = "; ".join([*(f"{label}: its first seed's ranking" for label in of_seeds), *([note] if note else [])])
        return RankingPair(rankings, self._qrels(condition), dataset, note)

    def _ranking(self, target: Target, condition: Condition) -> Ranking:
        """Return the ranking of a system; of several seeds the first one's, for their mean has none."""
        from cerank.trec.text_io import read_run

        if isinstance(target, SeedsTarget):
            target = target.members[0]
        if isinstance(target, FileTarget):
            return read_run(target.path).ranking
        test, first = _names(target, condition)
        return read_run(target.folder.ranking(target.system, test, first)).ranking

    def _run(self, condition: Condition) -> tuple[RunTarget, str] | None:
        """Return a run among the targets, and the dataset it was tested on in this condition."""
        for target in self._targets:
            member = target.members[0] if isinstance(target, SeedsTarget) else target
            if isinstance(member, RunTarget):
                return member, _names(member, condition)[0]
        return None

    def _qrels(self, condition: Condition) -> Qrels:
        from cerank.trec.text_io import read_qrels

        run = self._run(condition)
        if run:
            return read_qrels(run[0].folder.qrels(run[1]))
        return comparisons.judgments(self.settings, self.request.dataset, self.request.qrels)[1]

    def _dataset(self, condition: Condition) -> tuple[Dataset | None, str]:
        """Return where the texts are, and why there are none."""
        from cerank.datasets.open_datasets import open_dataset

        run = self._run(condition)
        name = run[1] if run else self.request.dataset
        if not name:
            return None, "no texts: name the dataset (d) in place of a qrels file"
        try:
            return open_dataset(name, self.settings.cache), ""
        except CerankError as error:
            return None, f"no texts: {error}"


class RankingPair:
    """Two rankings of the same queries, with judgments and texts where there are some."""

    def __init__(self, rankings: tuple[Ranking, Ranking], qrels: Qrels, dataset: Dataset | None, note: str) -> None:
        self._left, self._right = rankings
        self._qrels = qrels
        self._dataset = dataset
        self._note = note

    def view(self, query: str, depth: int = 20) -> View:
        """Return the first `depth` documents of each ranking for one query."""
        left, right = self._left.get(query, ())[:depth], self._right.get(query, ())[:depth]
        ranks = [{doc: at for at, doc in enumerate(of.get(query, ()), 1)} for of in (self._left, self._right)]
        texts, note = self._texts([*left, *right])
        grades = self._qrels.get(query, {})

        def placed(docs: Sequence[str], others: Mapping[str, int]) -> tuple[Placed, ...]:
            return tuple(
                Placed(doc, at, grades.get(doc), others.get(doc), texts.get(doc, "")) for at, doc in enumerate(docs, 1)
            )

        query_text = self._dataset.queries.get(query, "") if self._dataset else ""
        return View(query, query_text, placed(left, ranks[1]), placed(right, ranks[0]), note)

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


def _names(target: RunTarget, condition: Condition) -> tuple[str, str]:
    """Return the test dataset and first stage of a run, as its plan calls those of the condition."""
    data = target.plan.recipe.data
    for test in data.test:
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
        comparisons.targets_of(lab, [text])
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
    from cerank.evaluation.compare import Margin, Terms

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
