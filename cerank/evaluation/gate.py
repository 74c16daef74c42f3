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
from cerank.evaluation.compare import Condition, Margin, System, Terms, checked_margin, inference, width_of

Outcome = Literal["ships", "worse", "cannot tell"]
Kind = Literal["non-inferiority", "superiority"]


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One declared check, decided."""

    measure: str
    condition: Condition
    kind: Kind
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

    @property
    def claim(self) -> str:
        """Return what the check asks, in words."""
        return "better" if self.kind == "superiority" else f"not worse by {self.margin:g}"


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
    look: int = 0,
    alpha: float = 0.05,
) -> GateResult:
    """Decide whether `new` may replace `base`.

    Args:
        base: the system in use, measured.
        new: the one that would replace it, measured on the same queries.
        margins: by measure, the largest loss that would not matter: each is a check of non-inferiority.
        superior: measures by which the new system must be better.
        look: which look at these queries this is, from 1; 0 for a single look that was planned alone.
        alpha: the rate of false shipping, and of false alarms, over all looks.

    Raises:
        UsageError: there is nothing to check, or the systems cannot be compared.
    """
    planned_checks: list[tuple[str, Kind, float]] = [
        (measure, "non-inferiority", checked_margin(margin, measure, width_of(measure)).value)
        for measure, margin in margins.items()
    ]
    planned_checks += [(measure, "superiority", 0.0) for measure in superior]
    if not planned_checks:
        raise UsageError("a gate needs something to check", hint="such as --margin nDCG@10=.02, or --superior nDCG@10")
    if look < 0 or not 0 < alpha < 0.5:
        raise UsageError("a look is counted from 1, and alpha lies between 0 and .5")
    level = level_of(look, alpha) if look else alpha
    count = len(planned_checks) * len(base.measured)
    checks = []
    for entry in base.measured:
        for measure, kind, margin in planned_checks:
            figures, test, limits = inference(base, new, entry.condition, measure, Terms())
            p, p_worse = test.p_above(-margin), min(1.0, count * test.p_below(0.0))
            outcome: Outcome = "ships" if p <= level else "worse" if p_worse <= level else "cannot tell"
            low, high = test.interval(2 * level)
            if limits is not None:
                low, high = max(low, limits[0]), min(high, limits[1])
            checks.append(
                GateCheck(
                    measure=measure,
                    condition=entry.condition,
                    kind=kind,
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
                )
            )
    return GateResult(new=new.label, base=base.label, look=look, alpha=alpha, level=level, checks=tuple(checks))
