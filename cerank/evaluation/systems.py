"""What a comparison compares: systems, and what each scored where.

Invariant: pure data, JSON-serialisable; queries are known by id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from cerank.core.rankings import Ranking
from cerank.evaluation import diagnostics
from cerank.evaluation import measures as by_name


class Condition(msgspec.Struct, frozen=True, order=True):
    """Where systems are compared: one dataset's queries over one first stage's candidates."""

    dataset: str
    first_stage: str = ""  # "" where the systems are whole rankings of their own

    def __str__(self) -> str:
        return f"{self.dataset} over {self.first_stage}" if self.first_stage else self.dataset


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one system scored in one condition."""

    condition: Condition
    qrels_sha256: str
    values: dict[str, dict[str, float]]  # measure -> query id -> value, every query of the qrels
    missing: tuple[str, ...] = ()  # queries of the qrels the ranking lacks; they count 0
    unjudged: int = 0  # queries of the ranking without qrels; they are ignored
    facts: diagnostics.Facts | None = None
    ranking_sha256: str = ""  # of the documents in their order; "" for a mean of seeds


class System(msgspec.Struct, frozen=True, kw_only=True):
    """Something that ranks: a first stage, a run after one of its stages, a TREC run file, or several seeds as one."""

    label: str
    measured: tuple[Measured, ...]
    members: tuple[System, ...] = ()  # the seeds, where `measured` holds their means
    run: str = ""  # the run's id in its lab; "" for a file or for several seeds
    is_fixed: bool = False  # has no seed (BM25): a claim about recipes needs no spread of it


def measured(
    names: Sequence[str], condition: Condition, qrels: by_name.Qrels, qrels_sha256: str, ranking: Ranking
) -> Measured:
    """Measure a ranking on qrels.

    Args:
        names: canonical, as `measures.check` returned them.
    """
    return Measured(
        condition=condition,
        qrels_sha256=qrels_sha256,
        values=by_name.per_query(names, qrels, ranking),
        missing=tuple(query for query in qrels if not ranking.get(query)),
        unjudged=sum(query not in qrels for query in ranking),
        facts=diagnostics.facts(names, qrels, ranking),
        ranking_sha256=fingerprint(ranking),
    )


def fingerprint(ranking: Ranking) -> str:
    """Return the SHA-256 of a ranking: its queries and the documents of each in order, whatever their scores."""
    rows = sorted((query, *ranking[query]) for query in ranking)
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()
