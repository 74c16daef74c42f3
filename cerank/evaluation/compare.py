"""Systems against a baseline or each other, query by query, over every dataset, first stage and measure.

Invariant: values are matched by query id, never by position, and never over a silent intersection of queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import msgspec

from cerank.core.seeds import derive
from cerank.errors import UsageError
from cerank.evaluation import diagnostics, exact, multiple_testing, seed_variance, verdicts
from cerank.evaluation.measures import limits as limits_of
from cerank.evaluation.multiple_testing import Correction
from cerank.evaluation.secondary_tests import ROUNDS, Interval, Secondary, effect_interval, secondary
from cerank.evaluation.significance import Estimate, Paired, differences, estimate_of, paired
from cerank.evaluation.systems import Condition, Measured, System, measured
from cerank.evaluation.verdicts import Basis, Inference, Judgment, Margin
from cerank.registry import nearest
from cerank.text.safe_text import counted

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
    correction: Correction = "auto"  # max-t where several rows share their queries, else Holm's
    family: int = 0  # comparisons declared; 0 takes those shown
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
    low: float  # at the comparison's confidence, as if the row were the only one; within what the measure allows
    high: float
    limits: tuple[float, float] | None  # the differences that the measure allows; None where it has no known range
    effect: Interval | None  # of d_z, exact; None where d_z is infinite
    missing_left: tuple[str, ...]
    missing_right: tuple[str, ...]
    zero_share: float  # of queries where both score the same
    notes: tuple[diagnostics.Note, ...] = ()
    recipes: seed_variance.TwoWay | None = None  # where the claim is about recipes; the judgment then rests on it
    secondary: Secondary | None = None

    @property
    def verdict(self) -> verdicts.Verdict:
        """Return the verdict on `right`."""
        return self.judgment.verdict


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All rows and all values they were computed from; as JSON it can be recomputed anywhere."""

    format: int = 1
    baseline: str
    measures: tuple[str, ...]
    conditions: tuple[Condition, ...]
    terms: Terms
    method: Correction  # that corrected: what "auto" came to
    family: int  # comparisons corrected together, each with its tests of a difference and of equivalence
    family_equivalence: int  # of them with a margin
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
    recipes: seed_variance.TwoWay | None
    limits: tuple[float, float] | None
    is_identical: bool

    @property
    def test(self) -> Inference:
        """Return what the verdict is made of; where few queries differ, the exact test, which no claim may outdo."""
        if self.recipes is None:
            return self._exact or estimate_of(self.paired)
        if self._exact is None:
            return self.recipes.estimate
        return self._exact if self.recipes.estimate.error == 0 else exact.Stricter(self.recipes.estimate, self._exact)

    @property
    def basis(self) -> Basis:
        """Return which test that is."""
        if self._exact is not None:
            return "exact sign flips"
        return "t" if self.recipes is None else "seeds"

    @property
    def _exact(self) -> exact.SignFlips | None:
        found = self.paired
        if not exact.is_due(found.wins + found.losses, found.sd):
            return None
        least, most = self.limits or self._seen
        changed = tuple(each for each in differences(*self.values).tolist() if each)
        return exact.SignFlips(values=changed, n=found.n, least=least, most=most)

    @property
    def _seen(self) -> tuple[float, float]:
        """Return the differences that values between the smallest and the largest one seen allow."""
        values = [*self.values[0], *self.values[1]]
        return min(values) - self.paired.mean_left, max(values) - self.paired.mean_left


_DEFAULT = Terms()


def compare(
    systems: Sequence[System],
    measures: Sequence[str],
    *,
    conditions: Sequence[Condition] = (),
    pairings: Sequence[Pairing] = (),
    terms: Terms = _DEFAULT,
) -> Comparison:
    """Return every system against the first (or as `terms.pairs` says), in every condition, by every measure.

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
        if name not in measures:
            raise UsageError(f"a margin for {name}: it is not compared, {', '.join(measures)} is")
        verdicts.checked_margin(margin, name, width_of(name))
    if pairings:
        chosen = tuple(dict.fromkeys(pairing.condition for pairing in pairings))
    else:
        chosen = tuple(conditions) or _shared_conditions(systems)
        pairings = _every(systems, measures, chosen, terms)
    known = {system.label: system for system in systems}
    drafts = [_draft(one.measure, one.condition, (known[one.left], known[one.right]), terms) for one in pairings]
    tested = [draft for draft in drafts if not draft.is_identical]
    found = _corrected(tested, terms)
    return Comparison(
        baseline=systems[0].label,
        measures=tuple(measures),
        conditions=chosen,
        terms=terms,
        method=found.method,
        family=found.family,
        family_equivalence=sum(p is not None for p in found.ps_equivalent),
        rows=_rows(drafts, tested, found, terms),
        systems=tuple(systems),
    )


def width_of(measure: str) -> float | None:
    """Return how far two values of a measure can lie apart; None where it has no known range."""
    limits = limits_of(measure)
    return None if limits is None else limits[1] - limits[0]


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
        recipes = seed_variance.two_way(
            _by_seed(left, condition, measure, queries),
            _by_seed(right, condition, measure, queries),
            left_fixed=left.is_fixed,
            right_fixed=right.is_fixed,
        )
    figures = paired(*values, terms.confidence)
    known = limits_of(measure)
    return _Draft(
        measure=measure,
        systems=couple,
        at=at,
        queries=queries,
        values=values,
        paired=figures,
        recipes=recipes,
        limits=None if known is None else (known[0] - figures.mean_left, known[1] - figures.mean_left),
        is_identical=bool(at[0].ranking_sha256) and at[0].ranking_sha256 == at[1].ranking_sha256,
    )


def _by_seed(system: System, condition: Condition, measure: str, queries: Sequence[str]) -> list[list[float]]:
    """Return (seeds, queries) values; one row for a system that is not a mean of seeds."""
    members = system.members or (system,)
    return [[_at(member, condition).values[measure][query] for query in queries] for member in members]


def _corrected(drafts: Sequence[_Draft], terms: Terms) -> multiple_testing.Corrected:
    """Return the tests of all drafts, of a difference and of equivalence, corrected as one family of comparisons."""
    alpha = round(1 - terms.confidence, 12)
    method = _method(drafts, terms)
    margins = [terms.margins.get(draft.measure) for draft in drafts]
    within = [
        draft.test.p_equivalent(margin.value) if margin else None for draft, margin in zip(drafts, margins, strict=True)
    ]
    multiple_testing.refuse_smaller(terms.family, len(drafts))
    if method != "max-t":
        ps = [draft.test.p() for draft in drafts]
        return multiple_testing.corrected(ps, method, equivalent=within, alpha=alpha, family=terms.family)
    if terms.claim == "recipes" or terms.family > len(drafts):
        why = "has no form for recipes" if terms.claim == "recipes" else "needs the values of the whole declared family"
        raise UsageError(f"the max-t correction {why}", hint="use holm")
    return _by_max_t(drafts, within, alpha, terms)


def _method(drafts: Sequence[_Draft], terms: Terms) -> Correction:
    """Return what corrects: max-t needs several rows over the same queries, all of them shown, and no claim about recipes."""
    if terms.correction != "auto":
        return terms.correction
    blocks = {_block(draft) for draft in drafts}
    can_flip = len(drafts) > 1 and len(blocks) == 1 and terms.claim == "checkpoints"
    return "max-t" if can_flip and terms.family <= len(drafts) else "holm"


def _block(draft: _Draft) -> tuple[str, frozenset[str]]:
    """Return the queries of a draft: those of one dataset are flipped together, whatever the first stage or the measure."""
    return draft.at[0].condition.dataset, frozenset(draft.queries)


def _by_max_t(
    drafts: Sequence[_Draft], within: Sequence[float | None], alpha: float, terms: Terms
) -> multiple_testing.Corrected:
    """Return all drafts over the same queries are flipped together, whatever their first stage or measure."""
    import numpy as np

    blocks: dict[tuple[str, frozenset[str]], list[int]] = {}
    for place, draft in enumerate(drafts):
        blocks.setdefault(_block(draft), []).append(place)
    order = [place for places in blocks.values() for place in places]
    columns = []
    for places in blocks.values():
        queries = sorted(drafts[places[0]].queries)
        columns.append(np.column_stack([_column(drafts[place], queries) for place in places]))
    found = multiple_testing.max_t(
        columns,
        statistics=[_as_t(drafts[place], drafts[place].test.p() / 2, 0.0) for place in order],
        equivalent=[_within_as_t(drafts[place], within[place], terms) for place in order],
        is_ranked=[drafts[place].basis == "exact sign flips" for place in order],
        alpha=alpha,
        rounds=terms.rounds,
        seed=derive(terms.seed, "max-t"),
    )
    back = {place: at for at, place in enumerate(order)}
    at = [back[place] for place in range(len(drafts))]
    return multiple_testing.Corrected(
        method="max-t",
        family=len(drafts),
        alpha=alpha,
        ps=tuple(found.ps[place] for place in at),
        ps_equivalent=tuple(found.ps_equivalent[place] for place in at),
        raw=tuple(found.raw[place] for place in at),
        level=alpha,
        level_equivalent=alpha,
        critical=found.critical,
    )


def _as_t(draft: _Draft, p: float, margin: float) -> float:
    """Return the t against a difference of 0, or of the nearer margin; for an exact test, the one whose upper tail is `p`."""
    from scipy.special import stdtrit

    test = draft.test
    if isinstance(test, Estimate):
        size = abs(test.difference)
        return (margin - size if margin else size) / test.error
    return float(-stdtrit(draft.paired.df, p))


def _within_as_t(draft: _Draft, p: float | None, terms: Terms) -> float | None:
    """Return the t against the nearer margin; None for a comparison without one."""
    return None if p is None else _as_t(draft, p, terms.margins[draft.measure].value)


def _levels(draft: _Draft, found: multiple_testing.Corrected) -> tuple[float, float]:
    """Return the level of the row's interval, and of one side of that of equivalence; by max-t both are one interval."""
    from scipy.special import stdtr

    if found.critical is None:
        return found.level, found.level_equivalent
    level = min(float(2 * stdtr(draft.paired.df, -found.critical)), found.alpha)
    return level, level / 2


def _column(draft: _Draft, queries: Sequence[str]) -> list[float]:
    of = dict(zip(draft.queries, differences(*draft.values).tolist(), strict=True))
    return [of[query] for query in queries]


def _rows(
    drafts: Sequence[_Draft], tested: Sequence[_Draft], found: multiple_testing.Corrected, terms: Terms
) -> tuple[Row, ...]:
    alpha = round(1 - terms.confidence, 12)
    place_of = {id(draft): place for place, draft in enumerate(tested)}
    rows = []
    for draft in drafts:
        margin = terms.margins.get(draft.measure)
        if draft.is_identical:
            rows.append(_row(draft, verdicts.identical(alpha, margin), margin, terms))
            continue
        place, test, equivalence = place_of[id(draft)], draft.test, None
        level, level_within = _levels(draft, found)
        p_within = found.ps_equivalent[place]
        if margin is not None and p_within is not None:
            raw = test.p_equivalent(margin.value)
            equivalence = verdicts.Level(p=raw, corrected=max(raw, p_within), level=level_within)
        is_flipped = found.method == "max-t" and draft.basis == "t"
        raw = found.raw[place] if is_flipped else test.p()
        judgment = verdicts.judge(
            test,
            verdicts.Level(p=raw, corrected=max(raw, found.ps[place]), level=level),
            alpha=alpha,
            basis="sign flips" if is_flipped else draft.basis,
            margin=margin,
            equivalence=equivalence,
            sd=None if draft.recipes else draft.paired.sd,
            limits=draft.limits,
        )
        rows.append(_row(draft, judgment, margin, terms))
    return tuple(rows)


def _row(draft: _Draft, judgment: Judgment, margin: Margin | None, terms: Terms) -> Row:
    (left, right), (at_left, at_right), figures = draft.systems, draft.at, draft.paired
    others = None
    if terms.with_secondary:
        place = (str(at_left.condition), draft.measure, left.label, right.label)
        seed = derive(terms.seed, "secondary", *place)
        rope = margin.value if margin and draft.basis != "exact sign flips" else None
        others = secondary(
            differences(*draft.values),
            terms.confidence,
            estimate=_estimate(draft),
            rope=rope,
            seed=seed,
            rounds=terms.rounds,
        )
    alone = verdicts.cut(*draft.test.interval(round(1 - terms.confidence, 12)), draft.limits)
    if draft.is_identical:
        alone = (0.0, 0.0)  # nothing was tested, and nothing is uncertain
    return Row(
        condition=at_left.condition,
        measure=draft.measure,
        left=left.label,
        right=right.label,
        paired=figures,
        p_corrected=judgment.p_corrected,
        judgment=judgment,
        low=alone[0],
        high=alone[1],
        limits=draft.limits,
        effect=effect_interval(figures, terms.confidence),
        missing_left=at_left.missing,
        missing_right=at_right.missing,
        zero_share=figures.ties / figures.n,
        notes=_notes(draft),
        recipes=draft.recipes,
        secondary=others,
    )


def _estimate(draft: _Draft) -> Estimate:
    """Return the mean difference with its standard error, for a claim about recipes that of their seeds, too."""
    return draft.recipes.estimate if draft.recipes else estimate_of(draft.paired)


def _notes(draft: _Draft) -> tuple[diagnostics.Note, ...]:
    out = []
    for system, at in zip(draft.systems, draft.at, strict=True):
        if at.missing:
            text = (
                f"'{system.label}' lacks {counted(len(at.missing), 'query')}, counted as 0: {', '.join(at.missing[:5])}"
            )
            out.append(diagnostics.Note("missing", text + (" ..." if len(at.missing) > 5 else "")))
        if at.unjudged:
            out.append(
                diagnostics.Note("ignored", f"{counted(at.unjudged, 'query')} of '{system.label}' without qrels")
            )
    out += _on_common(draft)
    left, right = draft.systems
    if draft.is_identical:
        text = f"'{left.label}' and '{right.label}' are the same ranking: nothing was tested, the family leaves it out"
        return (*out, diagnostics.Note("identical", text))
    if not any(system.members for system in draft.systems):
        text = "about these two rankings as they are; the same recipe with another seed may come out otherwise"
        out.append(diagnostics.Note("one seed", text))
    elif draft.recipes is not None:
        fixed = [system for system in draft.systems if not system.members]
        out += [diagnostics.Note("fixed", _is_fixed(system, *draft.systems)) for system in fixed]
    first, second = ((system.label, at.facts) for system, at in zip(draft.systems, draft.at, strict=True))
    return (*out, *diagnostics.notes(draft.measure, first, second, n=draft.paired.n, zeros=draft.paired.ties))


def _on_common(draft: _Draft) -> list[diagnostics.Note]:
    """Return the difference on the queries that both sides rank, where one of them lacks some; it makes no verdict."""
    lost = {query for at in draft.at for query in at.missing}
    kept = [place for place, query in enumerate(draft.queries) if query not in lost]
    if not lost or len(kept) < 2:
        return []
    left, right = draft.systems
    found = paired([draft.values[0][at] for at in kept], [draft.values[1][at] for at in kept], draft.paired.confidence)
    interval = "" if found.low is None or found.high is None else f" [{found.low:+.4f}, {found.high:+.4f}]"
    text = f"on the {counted(found.n, 'query')} that both rank, '{right.label}' differs from '{left.label}' by "
    figures = f"{found.difference:+.4f}{interval}, W/T/L {found.wins}/{found.ties}/{found.losses}"
    return [diagnostics.Note("common", text + figures)]


def _is_fixed(system: System, left: System, right: System) -> str:
    other = right.label if system is left else left.label
    return f"'{system.label}' is taken as fixed: the claim is about the recipe of '{other}' against this one ranking"


def _refuse_without_seeds(left: System, right: System) -> None:
    """Return two rankings that stand for themselves hold no seed that could speak of a recipe."""
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
