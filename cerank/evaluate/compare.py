"""Systems against a baseline or each other, query by query, over every dataset, first stage and measure.

Invariant: values are matched by query id, never by position, and never over a silent intersection of queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import msgspec

from cerank.domain.seeds import derive
from cerank.errors import UsageError
from cerank.evaluate import families, hygiene, seeds, verdicts
from cerank.evaluate.families import Correction
from cerank.evaluate.secondary import ROUNDS, Interval, Secondary, effect_interval, secondary
from cerank.evaluate.significance import Estimate, Paired, differences, estimate_of, paired
from cerank.evaluate.systems import Condition, Measured, System, measured
from cerank.evaluate.verdicts import Judgment, Margin
from cerank.registry import nearest
from cerank.text import counted

__all__ = ["Comparison", "Condition", "Measured", "Pairing", "Row", "System", "Terms", "compare", "measured"]


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """One row to be: which two systems, by what measure, where."""

    condition: Condition
    measure: str
    left: str  # the baseline's label
    right: str


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How systems are compared; everything but the values that a comparison is a function of."""

    confidence: float = 0.95  # of intervals; verdicts are at 1 - confidence after correction
    margins: dict[str, Margin] = {}  # measure -> the largest difference that does not matter
    correction: Correction = "holm"
    family: int = 0  # tests declared; 0 takes those shown
    pairs: Literal["baseline", "all", "stages"] = "baseline"  # stages: each against the one before it and the first
    claim: Literal["checkpoints", "recipes"] = "checkpoints"  # recipes: seeds are a sample, too
    with_secondary: bool = False
    rounds: int = ROUNDS  # random flips and resamples
    seed: int = 42


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One system against another, by one measure in one condition."""

    condition: Condition
    measure: str
    left: str  # the baseline's label
    right: str
    paired: Paired
    p_corrected: float  # over the family
    judgment: Judgment
    effect: Interval | None  # of d_z, exact; None where d_z is infinite
    missing_left: tuple[str, ...]
    missing_right: tuple[str, ...]
    zero_share: float  # of queries where both score the same
    notes: tuple[hygiene.Note, ...] = ()
    recipes: seeds.TwoWay | None = None  # where the claim is about recipes; the judgment then rests on it
    secondary: Secondary | None = None

    @property
    def verdict(self) -> verdicts.Verdict:
        """The verdict on `right`."""
        return self.judgment.verdict


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All rows and all values they were computed from; as JSON it can be recomputed anywhere."""

    format: int = 1
    baseline: str
    measures: tuple[str, ...]
    conditions: tuple[Condition, ...]
    terms: Terms
    family: int  # tests of a difference corrected together
    family_equivalence: int  # tests of equivalence corrected together, by the same method (Holm for max-t)
    rows: tuple[Row, ...]
    systems: tuple[System, ...]


class _Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A row before correction."""

    measure: str
    systems: tuple[System, System]
    at: tuple[Measured, Measured]
    queries: tuple[str, ...]
    values: tuple[list[float], list[float]]
    paired: Paired
    recipes: seeds.TwoWay | None

    @property
    def estimate(self) -> Estimate:
        return self.recipes.estimate if self.recipes else estimate_of(self.paired)


_DEFAULT = Terms()


def compare(
    systems: Sequence[System],
    measures: Sequence[str],
    *,
    conditions: Sequence[Condition] = (),
    pairings: Sequence[Pairing] = (),
    terms: Terms = _DEFAULT,
) -> Comparison:
    """Every system against the first (or as `terms.pairs` says), in every condition, by every measure.

    Args:
        systems: at least two, the baseline first.
        measures: canonical names; each system must have them.
        conditions: only these; empty takes the baseline's, which every other system must share exactly.
        pairings: exactly these rows instead, by several baselines or with measures of each condition's own.

    Raises:
        UsageError: the systems were measured on different datasets, first stages, qrels or queries; a margin for a
            measure not compared; a family smaller than what is shown; a claim about recipes with one seed.
    """
    _refuse_labels(systems)
    for name, margin in terms.margins.items():
        verdicts.checked_margin(margin)
        if name not in measures:
            raise UsageError(f"a margin for {name}, which is not compared", hint=nearest(name, measures))
    if pairings:
        chosen = tuple(dict.fromkeys(pairing.condition for pairing in pairings))
    else:
        chosen = tuple(conditions) or _shared_conditions(systems)
        pairings = _every(systems, measures, chosen, terms)
    known = {system.label: system for system in systems}
    drafts = [_draft(one.measure, one.condition, (known[one.left], known[one.right]), terms) for one in pairings]
    different = _different(drafts, terms)
    within = _equivalent(drafts, terms)
    return Comparison(
        baseline=systems[0].label,
        measures=tuple(measures),
        conditions=chosen,
        terms=terms,
        family=different.family,
        family_equivalence=within.family,
        rows=_rows(drafts, different, within, terms),
        systems=tuple(systems),
    )


def _every(
    systems: Sequence[System], measures: Sequence[str], conditions: Sequence[Condition], terms: Terms
) -> list[Pairing]:
    if terms.pairs == "all":
        couples = list(combinations(systems, 2))
    elif terms.pairs == "stages":
        # The second system has the first one before it, so it is compared once.
        steps = [(place, place - 1) for place in range(1, len(systems))]
        couples = [(systems[left], systems[at]) for at, before in steps for left in dict.fromkeys((before, 0))]
    else:
        couples = [(systems[0], other) for other in systems[1:]]
    return [
        Pairing(condition=condition, measure=measure, left=left.label, right=right.label)
        for condition in conditions
        for left, right in couples
        for measure in measures
    ]


def _draft(measure: str, condition: Condition, couple: tuple[System, System], terms: Terms) -> _Draft:
    left, right = couple
    at = _at(left, condition), _at(right, condition)
    _refuse_other_qrels(left.label, at[0], right.label, at[1])
    first, second = _values(left, at[0], measure), _values(right, at[1], measure)
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise UsageError(
            f"'{left.label}' and '{right.label}' have {measure} for different queries of {condition}: "
            f"{len(odd)} are in one only, such as {odd[0]}",
            hint="measure both on the same qrels; a query a ranking lacks counts 0",
        )
    queries = tuple(first)
    values = [first[query] for query in queries], [second[query] for query in queries]
    recipes = None
    if terms.claim == "recipes":
        _refuse_without_seeds(left, right)
        recipes = seeds.two_way(
            _by_seed(left, condition, measure, queries),
            _by_seed(right, condition, measure, queries),
            left_fixed=left.is_fixed,
            right_fixed=right.is_fixed,
        )
    return _Draft(
        measure=measure,
        systems=couple,
        at=at,
        queries=queries,
        values=values,
        paired=paired(*values, terms.confidence),
        recipes=recipes,
    )


def _by_seed(system: System, condition: Condition, measure: str, queries: Sequence[str]) -> list[list[float]]:
    """(seeds, queries) values; one row for a system that is not a mean of seeds."""
    members = system.members or (system,)
    return [[_at(member, condition).values[measure][query] for query in queries] for member in members]


def _different(drafts: Sequence[_Draft], terms: Terms) -> families.Corrected:
    """The tests of a difference, corrected over the family."""
    alpha = 1 - terms.confidence
    if terms.correction != "max-t":
        ps = [draft.estimate.p() for draft in drafts]
        return families.corrected(ps, terms.correction, alpha=alpha, family=terms.family)
    if terms.claim == "recipes" or terms.family > len(drafts):
        why = "has no form for recipes" if terms.claim == "recipes" else "needs the values of the whole declared family"
        raise UsageError(f"the max-t correction {why}", hint="use holm")
    return _by_max_t(drafts, alpha, terms)


def _by_max_t(drafts: Sequence[_Draft], alpha: float, terms: Terms) -> families.Corrected:
    """All drafts over the same queries are flipped together, whatever their first stage or measure."""
    import numpy as np
    from scipy.special import stdtr

    blocks: dict[tuple[str, frozenset[str]], list[int]] = {}
    for place, draft in enumerate(drafts):
        blocks.setdefault((draft.at[0].condition.dataset, frozenset(draft.queries)), []).append(place)
    order = [place for places in blocks.values() for place in places]
    columns = []
    for places in blocks.values():
        queries = sorted(drafts[places[0]].queries)
        columns.append(np.column_stack([_column(drafts[place], queries) for place in places]))
    found = families.max_t(columns, alpha=alpha, rounds=terms.rounds, seed=derive(terms.seed, "max-t"))
    ps = dict(zip(order, found.ps, strict=True))
    return families.Corrected(
        method="max-t",
        family=len(drafts),
        alpha=alpha,
        ps=tuple(ps[place] for place in range(len(drafts))),
        levels=tuple(float(2 * stdtr(draft.paired.df, -found.critical)) for draft in drafts),
    )


def _column(draft: _Draft, queries: Sequence[str]) -> list[float]:
    of = dict(zip(draft.queries, differences(*draft.values).tolist(), strict=True))
    return [of[query] for query in queries]


def _equivalent(drafts: Sequence[_Draft], terms: Terms) -> families.Corrected:
    """The tests of equivalence of the drafts that have a margin, in order, corrected as a family of their own."""
    ps = [draft.estimate.p_equivalent(m.value) for draft in drafts if (m := terms.margins.get(draft.measure))]
    method: Correction = "holm" if terms.correction == "max-t" else terms.correction
    return families.corrected(ps, method, alpha=1 - terms.confidence, family=terms.family if ps else 0)


def _rows(
    drafts: Sequence[_Draft], different: families.Corrected, within: families.Corrected, terms: Terms
) -> tuple[Row, ...]:
    rows = []
    tests = iter(zip(within.ps, within.levels, strict=True))
    for draft, p, level in zip(drafts, different.ps, different.levels, strict=True):
        margin = terms.margins.get(draft.measure)
        equivalence = None
        if margin is not None:
            p_within, level_within = next(tests)
            raw = draft.estimate.p_equivalent(margin.value)
            equivalence = verdicts.Level(p=raw, corrected=p_within, level=level_within)
        judgment = verdicts.judge(
            draft.estimate,
            verdicts.Level(p=draft.estimate.p(), corrected=p, level=level),
            alpha=1 - terms.confidence,
            margin=margin,
            equivalence=equivalence,
            sd=None if draft.recipes else draft.paired.sd,
        )
        rows.append(_row(draft, judgment, margin, terms))
    return tuple(rows)


def _row(draft: _Draft, judgment: Judgment, margin: Margin | None, terms: Terms) -> Row:
    (left, right), (at_left, at_right), figures = draft.systems, draft.at, draft.paired
    others = None
    if terms.with_secondary:
        place = (str(at_left.condition), draft.measure, left.label, right.label)
        seed = derive(terms.seed, "secondary", *place)
        rope = margin.value if margin else None
        others = secondary(differences(*draft.values), terms.confidence, rope=rope, seed=seed, rounds=terms.rounds)
    return Row(
        condition=at_left.condition,
        measure=draft.measure,
        left=left.label,
        right=right.label,
        paired=figures,
        p_corrected=judgment.p_corrected,
        judgment=judgment,
        effect=effect_interval(figures, terms.confidence),
        missing_left=at_left.missing,
        missing_right=at_right.missing,
        zero_share=figures.ties / figures.n,
        notes=_notes(draft),
        recipes=draft.recipes,
        secondary=others,
    )


def _notes(draft: _Draft) -> tuple[hygiene.Note, ...]:
    out = []
    for system, at in zip(draft.systems, draft.at, strict=True):
        if at.missing:
            text = (
                f"'{system.label}' lacks {counted(len(at.missing), 'query')}, counted as 0: {', '.join(at.missing[:5])}"
            )
            out.append(hygiene.Note("missing", text + (" ..." if len(at.missing) > 5 else "")))
        if at.unjudged:
            out.append(hygiene.Note("ignored", f"{counted(at.unjudged, 'query')} of '{system.label}' without qrels"))
    if not any(system.members for system in draft.systems):
        text = "about these two rankings as they are; the same recipe with another seed may come out otherwise"
        out.append(hygiene.Note("one seed", text))
    elif draft.recipes is not None:
        fixed = [system for system in draft.systems if not system.members]
        out += [hygiene.Note("fixed", _is_fixed(system, *draft.systems)) for system in fixed]
    left, right = ((system.label, at.facts) for system, at in zip(draft.systems, draft.at, strict=True))
    return (*out, *hygiene.notes(draft.measure, left, right, n=draft.paired.n, zeros=draft.paired.ties))


def _is_fixed(system: System, left: System, right: System) -> str:
    other = right.label if system is left else left.label
    return f"'{system.label}' is taken as fixed: the claim is about the recipe of '{other}' against this one ranking"


def _refuse_without_seeds(left: System, right: System) -> None:
    """Two rankings that stand for themselves hold no seed that could speak of a recipe."""
    if left.is_fixed and right.is_fixed:
        raise UsageError(
            f"a claim about recipes needs several seeds of at least one side, and '{left.label}' and '{right.label}' "
            "are single rankings",
            hint="name the seeds of a recipe as LABEL=RUN,RUN,..., or leave --claim recipes away",
        )


def _values(system: System, at: Measured, measure: str) -> Mapping[str, float]:
    if measure not in at.values:
        raise UsageError(f"'{system.label}' has no {measure} on {at.condition}", hint=nearest(measure, at.values))
    return at.values[measure]


def _at(system: System, condition: Condition) -> Measured:
    for entry in system.measured:
        if entry.condition == condition:
            return entry
    has = "; ".join(str(entry.condition) for entry in system.measured) or "nothing"
    raise UsageError(f"'{system.label}' was not measured on {condition}", hint=f"it was measured on {has}")


def _shared_conditions(systems: Sequence[System]) -> tuple[Condition, ...]:
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
            )
    return tuple(first)


def _refuse_labels(systems: Sequence[System]) -> None:
    if len(systems) < 2:
        raise UsageError(f"a comparison needs at least 2 systems, not {len(systems)}")
    labels = [system.label for system in systems]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(f"two systems are called '{twice[0]}'", hint="name each once, or give them labels")


def _refuse_other_qrels(left_label: str, left: Measured, right_label: str, right: Measured) -> None:
    if left.qrels_sha256 != right.qrels_sha256:
        raise UsageError(
            f"'{left_label}' and '{right_label}' were measured on different qrels of {left.condition.dataset}: "
            f"sha256 {left.qrels_sha256[:12]} and {right.qrels_sha256[:12]}",
            hint="a difference would mix the systems with the judgments; evaluate both on one qrels file",
        )
