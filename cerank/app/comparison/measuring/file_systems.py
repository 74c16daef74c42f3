"""From TREC run files, and the judgments that the user names, to measured systems.

Invariant: a file that shares no query or no document with its judgments is refused, for every measure would be 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cerank.app.comparison.measuring.named_judgments import Qrels, identity
from cerank.app.comparison.measuring.own_documents import note_on_own_documents
from cerank.app.comparison.named_systems import FileTarget
from cerank.errors import UsageError
from cerank.retrieval.rank_fusion import INTERPOLATED
from cerank.text.safe_text import counted, shown

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.evaluation.systems import Condition, System


def of_file(
    target: FileTarget, names: Sequence[str], judged: Mapping[Condition, Qrels], dataset: Dataset | None
) -> System:
    """Return a TREC run file as a system, measured in each condition.

    Args:
        target: the file.
        names: canonical names of measures.
        judged: the judgments of each condition.
        dataset: dataset that the judgments are of, which may leave a query's own document out of its results; None for
            a file of judgments.

    Raises:
        UsageError: it is empty, or shares no query or no document with the judgments.
    """
    from cerank.datasets.dataset import without_identical_ids
    from cerank.evaluation.systems import System, measured
    from cerank.trec.text_io import read_run

    run = read_run(target.path)
    own = [query for query in run.ranking if query in run.ranking[query]]
    ignores = dataset is not None and dataset.ignores_identical_ids
    ranking = without_identical_ids(run.ranking) if own and ignores else run.ranking
    rows = [measured(names, condition, qrels, identity(qrels), ranking) for condition, qrels in judged.items()]
    notes = [
        *run.notes,
        *_interpolation_note(run.tag),
        *(note_on_own_documents(own, run.ranking, judged.values(), dataset) if own else []),
    ]
    for condition, qrels in judged.items():
        notes += coverage(target.path, run.ranking, qrels, str(condition))
    return System(label=target.label, measured=tuple(rows), is_fixed=True, notes=tuple(dict.fromkeys(notes)))


def _interpolation_note(tag: str) -> list[str]:
    """Return what the tag of an interpolated run says of its weight, as `cerank fuse` writes it."""
    kind, *facts = tag.split(";")
    if kind != INTERPOLATED or len(facts) != 2:
        return []
    return [f"interpolated with the first stage, {facts[0].replace('=', ' ')} ({facts[1].replace('=', ' ')})"]


def coverage(path: Path, ranking: Mapping[str, Sequence[str]], qrels: Qrels, where: str) -> list[str]:
    """Return how many judged queries the ranking lacks, and how many of its own are not judged.

    Raises:
        UsageError: it shares no query or no document with the qrels, so that every measure would be 0.
    """
    missing = sum(query not in ranking for query in qrels)
    unjudged = sum(query not in qrels for query in ranking)
    if missing == len(qrels):
        if not ranking:
            raise UsageError(
                "the run is empty", where=str(path), hint="did the search that wrote it fail?", code="run-empty"
            )
        hint = f"its queries are called {_first_few(ranking)}, those of the qrels {_first_few(qrels)}"
        raise UsageError(
            f"no query of the run is judged in {where}", where=str(path), hint=hint, code="no-judged-query"
        )
    judged_docs = set().union(*qrels.values())
    if not any(doc in judged_docs for query in ranking for doc in ranking[query]):
        ranked = (doc for query in ranking for doc in ranking[query])
        hint = f"its documents are called {_first_few(ranked)}, those of the qrels {_first_few(sorted(judged_docs))}"
        raise UsageError(
            f"no document of the run is judged in {where}", where=str(path), hint=hint, code="no-judged-document"
        )
    parts = [f"{missing} of the {counted(len(qrels), 'judged query')} have no ranking and count 0"] if missing else []
    verbs = ("has", "does") if unjudged == 1 else ("have", "do")
    note = f"{counted(unjudged, 'query')} of the run {verbs[0]} no judgments and {verbs[1]} not count"
    parts += [note] if unjudged else []
    return ["; ".join(parts)] if parts else []


def _first_few(ids: Iterable[str]) -> str:
    return ", ".join(shown(query, 40) for query in itertools.islice(ids, 3))
