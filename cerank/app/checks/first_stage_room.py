"""Whether a re-ranker could gain anything over the first stages of a plan, as far as that is known before it runs.

Invariant: nothing large is read, built or fetched: only run files, and BM25 over small collections, are looked at.
"""

from __future__ import annotations

from pathlib import Path

from cerank.app.comparison.named_systems import short_name
from cerank.datasets.dataset import Dataset
from cerank.errors import CerankError
from cerank.recipes.plan import Plan

_SMALL = 5_000  # documents of a local collection that BM25 ranks in a moment
_FILE = 64 * 1024**2  # bytes of a run file that is read in a moment


def sentences(plan: Plan) -> tuple[str, ...]:
    """Return a sentence for each first stage of a test set over which no re-ranker can gain."""
    from cerank.datasets.open_datasets import open_dataset
    from cerank.evaluation.diagnostics import no_room_note
    from cerank.retrieval.first_stage import candidates

    out, cache = [], Path(plan.cache)
    for test in plan.recipe.data.test:
        for first in plan.recipe.data.first_stages:
            try:
                dataset = open_dataset(test, cache)
                if not _is_quick(dataset, first, test, cache):
                    continue
                note = no_room_note(candidates(dataset, first, plan.recipe.data.depth, cache), dataset.qrels)
            except CerankError:  # what is wrong with an input is said when it is planned or used
                continue
            if note:
                out.append(f"{short_name(first)} on {short_name(test)}: {note}")
    return tuple(out)


def _is_quick(dataset: Dataset, first: str, test: str, cache: Path) -> bool:
    from cerank.datasets.open_datasets import dataset_runs
    from cerank.retrieval.first_stage import is_built_in_bm25

    if is_built_in_bm25(dataset, first):
        return not dataset.reads_catalog and len(dataset.documents) <= _SMALL
    path = dataset_runs(test, cache).get(first, Path(first))
    return path.is_file() and path.stat().st_size <= _FILE
