"""Whether a new system may replace the present one: checks that were declared, with one answer, over repeated looks.

Each check is of one measure in one condition: that the new system is not worse by its margin (non-inferiority), or that
it is better (superiority). It ships where every check passes. No adjustment is needed for that, because a system that
must not ship fails at least one check truly (an intersection-union test; Berger, Technometrics 24, 1982); an alarm,
which any check can raise, is adjusted by Bonferroni.

Looks: who gates every change against the same queries tests again and again. The k-th look may err in
6 / (pi k)^2 of alpha, which over any number of looks sums to alpha, whatever they have in common.

Invariant: "cannot tell" is an outcome of its own; it never ships and is no alarm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.compare import Condition, System
from cerank.evaluation.significance import p_not_worse
from cerank.evaluation.systems import measured_in
from cerank.evaluation.verdicts.row_tests import inference
from cerank.evaluation.verdicts.terms import Margin, Terms, checked_margin, width_of
from cerank.text.safe_text import counted

Outcome = Literal["ships", "worse", "cannot tell"]
Kind = Literal["non-inferiority", "superiority"]


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One declared check with its result."""

    measure: str
    condition: Condition
    kind: Kind
    slice: str = ""  # the declared part of the queries that it is of; "" for all
    margin: float  # 0 for superiority
    queries: int
    mean_base: float
    mean_new: float
    difference: float  # new minus base
    low: float  # of the interval whose low end the check asks for: one-sided at the level of this look
    high: float
    p: float  # one-sided, for what the check asks
    p_worse: float  # one-sided, for a true loss, adjusted over all checks
    outcome: Outcome
    differing: int  # queries that differ
    is_unseen: bool = False  # it cannot tell only because so few differ that rare large losses would go unseen

    @property
    def claim(self) -> str:
        """Return what the check asks, in words."""
        text = "better" if self.kind == "superiority" else f"not worse by {self.margin:g}"
        return f"{text} on {self.slice}" if self.slice else text


class SliceMargin(msgspec.Struct, frozen=True, kw_only=True):
    """A declared check of non-inferiority on one slice of the queries."""

    slice: str
    measure: str
    margin: Margin


_PlannedCheck = tuple[str, Kind, float, str]  # measure, kind, margin, slice


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """All checks, and what they come to."""

    new: str
    base: str
    look: int
    alpha: float
    level: float  # of this look
    checks: tuple[GateCheck, ...]

    @property
    def outcome(self) -> Outcome:
        """Return "worse" if any check says so, "ships" if all pass, else "cannot tell"."""
        outcomes = {check.outcome for check in self.checks}
        if "worse" in outcomes:
            return "worse"
        return "ships" if outcomes == {"ships"} else "cannot tell"


def level_of(look: int, alpha: float = 0.05) -> float:
    """Return the level of the k-th look, so that all looks together err in at most alpha."""
    return alpha * 6 / (math.pi * look) ** 2


def gate(
    base: System,
    new: System,
    *,
    margins: Mapping[str, Margin],
    superior: Sequence[str] = (),
    slices: Mapping[str, frozenset[str]] | None = None,
    slice_margins: Sequence[SliceMargin] = (),
    look: int = 0,
    alpha: float = 0.05,
) -> GateResult:
    """Decide whether `new` may replace `base`.

    Args:
        base: the system in use, measured.
        new: the one that would replace it, measured on the same queries.
        margins: by measure, the largest loss that would not matter: each is a check of non-inferiority.
        superior: measures by which the new system must be better.
        slices: declared parts of the queries, by name; they may overlap.
        slice_margins: further checks of non-inferiority, each on one slice.
        look: which look at these queries this is, from 1; 0 for a single look that was planned alone.
        alpha: the rate of false shipping, and of false alarms, over all looks.

    Raises:
        UsageError: there is nothing to check, or the systems cannot be compared.
    """
    planned_checks: list[_PlannedCheck] = [
        (measure, "non-inferiority", checked_margin(margin, measure, width_of(measure)).value, "")
        for measure, margin in margins.items()
    ]
    planned_checks += [(measure, "superiority", 0.0, "") for measure in superior]
    for part in slice_margins:
        if part.slice not in (slices or {}):
            known = ", ".join(slices or {}) or "none"
            raise UsageError(f"no slice is called '{part.slice}'", where="--slice-margin", hint=f"declared: {known}")
        value = checked_margin(part.margin, part.measure, width_of(part.measure)).value
        planned_checks.append((part.measure, "non-inferiority", value, part.slice))
    if not planned_checks:
        raise UsageError("a gate needs something to check", hint="such as --margin nDCG@10=.02, or --superior nDCG@10")
    if look < 0 or not 0 < alpha < 0.5:
        raise UsageError("a look is counted from 1, and alpha lies between 0 and .5")
    level = level_of(look, alpha) if look else alpha
    count = len(planned_checks) * len(base.measured)
    checks = []
    for entry in base.measured:
        for measure, kind, margin, name in planned_checks:
            sides = [_on_slice(system, entry.condition, name, (slices or {}).get(name)) for system in (base, new)]
            figures, test, limits = inference(sides[0], sides[1], entry.condition, measure, Terms())
            alone, p_worse = test.p_above(-margin), min(1.0, count * test.p_below(0.0))
            p = p_not_worse(test, margin) if kind == "non-inferiority" else alone
            outcome: Outcome = "ships" if p <= level else "worse" if p_worse <= level else "cannot tell"
            low, high = test.interval(2 * level)
            if limits is not None:
                low, high = max(low, limits[0]), min(high, limits[1])
            checks.append(
                GateCheck(
                    measure=measure,
                    condition=entry.condition,
                    kind=kind,
                    slice=name,
                    margin=margin,
                    queries=figures.n,
                    mean_base=figures.mean_left,
                    mean_new=figures.mean_right,
                    difference=figures.difference,
                    low=low,
                    high=high,
                    p=p,
                    p_worse=p_worse,
                    outcome=outcome,
                    differing=figures.wins + figures.losses,
                    is_unseen=outcome == "cannot tell" and alone <= level < p,
                )
            )
    return GateResult(new=new.label, base=base.label, look=look, alpha=alpha, level=level, checks=tuple(checks))


def _on_slice(system: System, condition: Condition, name: str, queries: frozenset[str] | None) -> System:
    """Return a system with the queries of a slice only; as it is without one.

    Raises:
        UsageError: fewer than two of the slice's queries were measured.
    """
    if queries is None:
        return system
    entry = measured_in(system, condition)
    values = {
        measure: {query: value for query, value in by_query.items() if query in queries}
        for measure, by_query in entry.values.items()
    }
    count = len(next(iter(values.values())))
    if count < 2:
        what = f"slice '{name}' has {counted(count, 'query')} of {condition}: a test needs at least 2"
        raise UsageError(what, where="--slices", hint="each line is a query's id, a tab, and the name of its slice")
    missing = tuple(query for query in entry.missing if query in queries)
    part = msgspec.structs.replace(entry, values=values, missing=missing, facts=None, ranking_sha256="")
    return msgspec.structs.replace(system, measured=(part,))
