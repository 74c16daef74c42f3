"""What a comparison compares: systems, and what each scored where.

Invariant: pure data, JSON-serializable; queries are known by id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from cerank.core.rankings import Ranking
from cerank.errors import UsageError
from cerank.evaluation import diagnostics
from cerank.evaluation import measures as by_name
from cerank.evaluation.tuning_budgets import SystemTuning
from cerank.files.hashing import sha256_json
from cerank.registry import nearest


class Condition(msgspec.Struct, frozen=True, order=True):
    """Where systems are compared: one dataset's queries over one first stage's candidates."""

    dataset: str
    first_stage: str = ""  # "" where the systems are whole rankings of their own

    def __str__(self) -> str:
        return f"{self.dataset} over {self.first_stage}" if self.first_stage else self.dataset


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The per-query values of a system in one condition."""

    condition: Condition
    qrels_sha256: str
    values: dict[str, dict[str, float]]  # measure -> query id -> value, every query of the qrels
    missing: tuple[str, ...] = ()  # queries of the qrels the ranking lacks; they count 0
    unjudged: int = 0  # queries of the ranking without qrels; they are ignored
    facts: diagnostics.RankingDiagnostics | None = None
    ranking_sha256: str = ""  # of the documents in their order; "" for a mean of seeds


class System(msgspec.Struct, frozen=True, kw_only=True):
    """Something that ranks: a first stage, a run after one of its stages, a TREC run file, or several seeds as one."""

    label: str
    measured: tuple[Measured, ...]
    members: tuple[System, ...] = ()  # the seeds, where `measured` holds their means
    run: str = ""  # the run's id in its lab; "" for a file or for several seeds
    seed: int | None = None  # of a run; of several seeds each member has its own
    shares: tuple[str, ...] = ()  # what the seed decided: keys of stages, and of the order of their data
    is_fixed: bool = False  # has no seed (BM25): a claim about recipes needs no spread of it
    is_baseline: bool = False  # a finished re-ranker that the recipe names beside its stages, not trained by it
    folds: tuple[tuple[str, ...], ...] = ()  # queries of each fold, which one model ranked; () for no cross-validation
    notes: tuple[str, ...] = ()  # sentences on how its file was read and which of its queries count
    tuning: SystemTuning | None = None  # None for a file, and for what is not trained

    @property
    def known_tuning(self) -> SystemTuning | None:
        """Return its tuning; of several seeds that of the most tuned one."""
        known = [system.tuning for system in (self, *self.members) if system.tuning is not None]
        return max(known, key=lambda tuning: tuning.trials, default=None)


def measured(
    names: Sequence[str],
    condition: Condition,
    qrels: by_name.Qrels,
    qrels_sha256: str,
    ranking: Ranking,
    *,
    values: dict[str, dict[str, float]] | None = None,
) -> Measured:
    """Measure a ranking on qrels.

    Args:
        names: canonical, as `measures.check` returned them.
        condition: where it is measured.
        qrels: what it is measured on.
        qrels_sha256: their hash.
        ranking: what is measured.
        values: measure -> query -> value where they are known already; None computes them.
    """
    return Measured(
        condition=condition,
        qrels_sha256=qrels_sha256,
        values=by_name.per_query(names, qrels, ranking) if values is None else values,
        missing=tuple(query for query in qrels if not ranking.get(query)),
        unjudged=sum(query not in qrels for query in ranking),
        facts=diagnostics.of_ranking(names, qrels, ranking),
        ranking_sha256=fingerprint(ranking),
    )


def fingerprint(ranking: Ranking) -> str:
    """Return the SHA-256 of a ranking: its queries and the documents of each in order, whatever their scores."""
    rows = sorted((query, *ranking[query]) for query in ranking)
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()


# --- what systems must share to be compared


def measured_in(system: System, condition: Condition) -> Measured:
    """Return what a system scored in a condition.

    Raises:
        UsageError: it was not measured there.
    """
    for entry in system.measured:
        if entry.condition == condition:
            return entry
    has = "; ".join(str(entry.condition) for entry in system.measured) or "nothing"
    raise UsageError(
        f"'{system.label}' was not measured on {condition}", hint=f"it was measured on {has}", code="not-measured"
    )


def ranking_identity(system: System, condition: Condition) -> str:
    """Return the hash of what a system ranked in a condition; of a mean of seeds that of all their rankings.

    Raises:
        UsageError: it was not measured there.
    """
    own = measured_in(system, condition).ranking_sha256
    if own or not system.members:
        return own
    return sha256_json(sorted(ranking_identity(member, condition) for member in system.members))


def values_by_query(
    left: System, right: System, condition: Condition, measure: str
) -> tuple[tuple[str, ...], tuple[list[float], list[float]]]:
    """Return the queries of a condition, and the values of both systems in that order.

    Raises:
        UsageError: the systems were measured on different qrels or queries, or by other measures.
    """
    first, second = measured_in(left, condition), measured_in(right, condition)
    if first.qrels_sha256 != second.qrels_sha256:
        raise UsageError(
            f"'{left.label}' and '{right.label}' were measured on different qrels of {condition.dataset}: "
            f"sha256 {first.qrels_sha256[:12]} and {second.qrels_sha256[:12]}",
            hint="a difference would mix the systems with the judgments; evaluate both on one qrels file",
            code="qrels-differ",
        )
    for system, entry in ((left, first), (right, second)):
        if measure not in entry.values:
            raise UsageError(
                f"'{system.label}' has no {measure} on {condition}",
                hint=nearest(measure, entry.values),
                code="not-measured",
            )
    values, others = first.values[measure], second.values[measure]
    if values.keys() != others.keys():
        in_one = sorted(values.keys() ^ others.keys())
        raise UsageError(
            f"'{left.label}' and '{right.label}' have {measure} for different queries of {condition}: "
            f"{len(in_one)} are in one only, such as {in_one[0]}",
            hint="measure both on the same qrels; a query a ranking lacks counts 0",
            code="queries-differ",
        )
    return tuple(values), (list(values.values()), [others[query] for query in values])


def shared_conditions(systems: Sequence[System]) -> tuple[Condition, ...]:
    """Return the conditions in which all systems were measured.

    Raises:
        UsageError: they were not measured in the same ones, or in none.
    """
    first = [entry.condition for entry in systems[0].measured]
    if not first:
        raise UsageError(f"'{systems[0].label}' was measured on nothing")
    for system in systems[1:]:
        other = [entry.condition for entry in system.measured]
        if set(other) != set(first):
            raise UsageError(
                f"'{systems[0].label}' and '{system.label}' were not measured on the same: "
                f"{'; '.join(map(str, first))} against {'; '.join(map(str, other)) or 'nothing'}",
                hint="compare runs with the same test datasets and first stages, or name the one to compare on",
                code="conditions-differ",
            )
    return tuple(first)


def check_labels(systems: Sequence[System]) -> None:
    """Refuse fewer than two systems, and two of the same label.

    Raises:
        UsageError: they are.
    """
    if len(systems) < 2:
        raise UsageError(f"a comparison needs at least 2 systems, not {len(systems)}", code="too-few-systems")
    labels = [system.label for system in systems]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        what = f"two systems are called '{repeated[0]}'"
        raise UsageError(what, hint="name each once, or give them labels", code="name-twice")
