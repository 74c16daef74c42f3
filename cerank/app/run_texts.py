"""The texts that a run re-ranked: some of its test queries with their candidates."""

from __future__ import annotations

import msgspec

from cerank.core.rankings import Ranking
from cerank.errors import MissingError
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from cerank.trec.text_io import read_run


class QueryTexts(msgspec.Struct, frozen=True, kw_only=True):
    """A test query with the texts of its candidates, best of the first stage first."""

    query_id: str
    query: str
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return (query, document) of each candidate."""
        return [(self.query, document) for document in self.documents]


class RunCondition(msgspec.Struct, frozen=True):
    """The test dataset and first stage that texts are taken from: the first of the run."""

    dataset: str
    first_stage: str


def condition_of(plan: Plan) -> RunCondition:
    """Return the run's first test dataset with its first first stage.

    Raises:
        MissingError: it is a trial of a sweep, which tests nothing.
    """
    data = plan.recipe.data
    if not data.test:
        hint = "it is a trial of a sweep; run the recipe that `cerank sweep FILE --write` gives"
        raise MissingError("the run has no test set", where=plan.recipe.name, hint=hint, code="run-untested")
    return RunCondition(data.test[0], data.first_stages[0])


def candidates_of(folder: RunFolder, plan: Plan) -> Ranking:
    """Return what the run re-ranked in `condition_of`.

    Raises:
        MissingError: it has not re-ranked anything yet.
    """
    condition = condition_of(plan)
    path = folder.candidates(condition.dataset, condition.first_stage)
    if not path.is_file():
        raise MissingError("nothing of it has been re-ranked yet", where=run_store.title(folder))
    return read_run(path).ranking.top(plan.recipe.data.depth)


def some_texts(settings: Settings, folder: RunFolder, plan: Plan, queries: int, depth: int = 0) -> list[QueryTexts]:
    """Return texts of test queries that lie evenly among all of them, always the same ones.

    Args:
        settings: where caches are.
        folder: the run.
        plan: its plan.
        queries: how many at most.
        depth: candidates of each; 0 takes all that the run re-ranked.

    Raises:
        MissingError: the dataset is not on this machine, or the run has not re-ranked anything.
    """
    from cerank.planning.inputs import open_as_base_reads

    ranking = candidates_of(folder, plan)
    dataset = open_as_base_reads(condition_of(plan).dataset, plan.recipe, settings.cache)
    known = sorted(query for query in ranking if ranking[query] and query in dataset.queries)
    chosen = [known[place * len(known) // queries] for place in range(queries)] if len(known) > queries else known
    out = []
    for query in chosen:
        ids = ranking[query][: depth or None]
        out.append(
            QueryTexts(
                query_id=query,
                query=dataset.queries[query],
                document_ids=tuple(ids),
                documents=tuple(dataset.documents.texts(ids)),
            )
        )
    return out
