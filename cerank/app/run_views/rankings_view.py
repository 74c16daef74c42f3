"""What re-ranking did to each query of a run: measures before and after, and where each document went.

Invariant: ranks and grades are those of the run's own files; texts come from the dataset, and may be absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cerank.app.comparison.named_systems import FIRST_STAGE
from cerank.core.rankings import Ranking
from cerank.datasets.dataset import Dataset
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError, MissingError
from cerank.recipes.plan import Plan
from cerank.runs import run_store, run_summaries
from cerank.runs.layout import RunFolder
from cerank.trec.text_io import read_qrels, read_run


class RankingChoice(NamedTuple):
    """A re-ranking of a run."""

    system: str  # a stage
    dataset: str
    first_stage: str


class QueryChange(NamedTuple):
    """A query with its measure before and after; None where it was not measured."""

    query_id: str
    text: str
    before: float | None
    after: float | None

    @property
    def change(self) -> float:
        """By how much it went up; 0 where it was not measured."""
        return self.after - self.before if self.after is not None and self.before is not None else 0.0


class Moved(NamedTuple):
    """A document of a query's list; ranks from 1, None where it was not in the list."""

    doc_id: str
    before: int | None
    after: int | None
    grade: int | None  # None: not judged
    text: str

    @property
    def rose(self) -> int | None:
        """By how many ranks it went up."""
        return None if self.before is None or self.after is None else self.before - self.after


def choices(folder: RunFolder, plan: Plan) -> list[RankingChoice]:
    """Return the finished re-rankings, the last stage first."""
    data = plan.recipe.data
    return [
        RankingChoice(system, test, first)
        for system in (*reversed(plan.recipe.chain), *plan.recipe.untrained_systems())
        for test in data.test
        for first in data.first_stages
        if folder.ranking(system, test, first).exists() and folder.ranking(FIRST_STAGE, test, first).exists()
    ]


class Rankings:
    """A re-ranking beside the candidates that it re-ranked.

    Attributes:
        measure: by which the queries are told apart.
        missing: why there are no texts; "" where there are.
    """

    def __init__(self, folder: RunFolder, plan: Plan, choice: RankingChoice) -> None:
        """Read the files; some 10 ms for a hundred queries, and as long as the dataset takes to open.

        Raises:
            MissingError: the rankings are not there.
        """
        if choice not in choices(folder, plan):
            raise MissingError("nothing has been re-ranked yet", where=run_store.title(folder))
        where = (choice.dataset, choice.first_stage)
        self.choice = choice
        self.measure = plan.recipe.evaluate.measures[0] if plan.recipe.evaluate.measures else ""
        self._before: Ranking = read_run(folder.ranking(FIRST_STAGE, *where)).ranking
        self._after: Ranking = read_run(folder.ranking(choice.system, *where)).ranking
        qrels = folder.qrels(choice.dataset)
        self._qrels: Mapping[str, Mapping[str, int]] = read_qrels(qrels) if qrels.exists() else {}
        self._values = tuple(
            run_summaries.load_measures(folder, system, *where) for system in (FIRST_STAGE, choice.system)
        )
        self.missing = ""
        self._dataset: Dataset | None = None
        try:
            self._dataset = open_dataset(choice.dataset, Path(plan.cache))
        except CerankError as error:
            self.missing = str(error)

    def questions(self) -> tuple[QueryChange, ...]:
        """Return the queries, the one that gained most first."""
        texts = self._dataset.queries if self._dataset else {}
        before, after = self._values
        queries = [
            QueryChange(
                query,
                texts.get(query, ""),
                before.get(query, {}).get(self.measure),
                after.get(query, {}).get(self.measure),
            )
            for query in self._after
        ]
        return tuple(sorted(queries, key=lambda question: -question.change))

    def moved(self, query_id: str, depth: int = 10) -> tuple[Moved, ...]:
        """Return the documents in the first `depth` before or after, in the order after.

        What fell out of it comes last.
        """
        old, new = self._before.get(query_id, ()), self._after.get(query_id, ())
        ranks_old = {doc: rank for rank, doc in enumerate(old, 1)}
        ranks_new = {doc: rank for rank, doc in enumerate(new, 1)}
        shown_docs = dict.fromkeys([*new[:depth], *old[:depth]])
        last = len(new) + len(old)
        order = sorted(shown_docs, key=lambda doc: (ranks_new.get(doc, last), ranks_old.get(doc, last)))
        grades, texts = self._qrels.get(query_id, {}), self._texts(order)
        return tuple(
            Moved(doc, ranks_old.get(doc), ranks_new.get(doc), grades.get(doc), text)
            for doc, text in zip(order, texts, strict=True)
        )

    def _texts(self, docs: Sequence[str]) -> list[str]:
        if self._dataset is None:
            return [""] * len(docs)
        documents = self._dataset.documents
        return [documents.text(doc) if doc in documents else "" for doc in docs]
