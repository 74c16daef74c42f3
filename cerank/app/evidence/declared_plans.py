"""Declare what will be compared and how, before it is; and say how comparisons stand to it.

Invariant: a comparison is confirmatory only where it does what a plan says, and where the plan is older than every look
at its comparisons that this lab recorded, and than the measurement of its runs (but the newest of each pair). What was
seen outside this lab no program can know: the hash is there to be published.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, margins, named_systems, recorded_looks
from cerank.app.comparison.comparison_schema import PlanStatus, TestSetLooks
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.measuring import named_judgments
from cerank.app.comparison.named_systems import Target
from cerank.app.comparison.several_collections import pool_comparisons, training_domains
from cerank.errors import UsageError, os_error
from cerank.files import json_records
from cerank.runs import comparison_plans, test_set_looks
from cerank.runs.comparison_plans import ComparisonPlan, DeclaredPlan
from cerank.settings import Settings
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.studies.pooling import PooledResult
    from cerank.evaluation.verdicts.terms import Margin, Terms

_SIZES = ("margins", "worth", "harm")


class RecordedComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison with what is to be said of when it was planned, and of the looks before it."""

    comparison: Comparison
    looks: TestSetLooks | None
    plan: PlanStatus | None
    pooled: PooledResult | None = None  # over its collections, where it has several and the lines are to be shown
    not_pooled: str = ""  # why there are none

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what is to be said as sentences."""
        return tuple(each.text for each in (self.looks, self.plan) if each is not None)


# --- declaring


def read_plan(path: Path) -> ComparisonPlan:
    """Return the plan in a TOML file.

    Raises:
        UsageError: it cannot be read, or is no plan.
    """
    try:
        return json_records.convert(msgspec.toml.decode(path.expanduser().read_bytes()), ComparisonPlan)
    except OSError as error:
        raise os_error(error, path) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "see `cerank guide verdicts` for an example"
        raise UsageError(f"the file is not a plan of a comparison: {error}", where=str(path), hint=hint) from error


def declare(settings: Settings, plan: ComparisonPlan) -> tuple[DeclaredPlan, Path]:
    """Check a plan, give it the time and the hash of its judgments, keep it in the lab, and return its file.

    Raises:
        UsageError: it could not be carried out: a measure that is unknown, a margin out of its range, no judgments.
    """
    from cerank.evaluation.measures import check
    from cerank.evaluation.primary_questions import questions

    if not plan.title.strip():
        raise UsageError("the plan has no title", hint='write title = "..."')
    if plan.systems and len(set(plan.systems)) < 2:
        raise UsageError("a comparison needs at least 2 systems", where="systems", hint="the baseline first")
    if not 0.5 <= plan.confidence < 1:
        raise UsageError(
            f"it lies between .5 and 1, not at {plan.confidence:g}", where="confidence", hint="such as .95"
        )
    if plan.family < 0:
        raise UsageError(f"a family cannot hold {plan.family} comparisons", where="family", hint="0 counts those shown")
    _, qrels = named_judgments.judgments(settings, plan.dataset, plan.qrels)
    names = check(plan.measures, qrels, "measures")
    sizes = {kind: _canonical_sizes(plan, kind, names) for kind in _SIZES}
    questions(plan.primary, "primary")
    plan = msgspec.structs.replace(plan, measures=names, **sizes)
    declared_plan = comparison_plans.with_hash(plan, _now(), named_judgments.identity(qrels))
    return declared_plan, comparison_plans.save(settings.lab, declared_plan)


def _canonical_sizes(plan: ComparisonPlan, kind: str, measures: Sequence[str]) -> dict[str, float | str]:
    """Return the plan's margins, gains or harm margins under canonical names.

    Raises:
        UsageError: one is of a measure that is not planned, or out of its range.
    """
    from cerank.evaluation.measures import canonical
    from cerank.evaluation.verdicts.terms import checked_margin, width_of

    given: dict[str, float | str] = getattr(plan, kind)
    out: dict[str, float | str] = {}
    for name, margin in margins.typed(_as_texts(given), kind).items():
        known = canonical(name, kind)
        if known not in measures:
            raise UsageError(f"{name} is not measured", where=kind, hint=f"add it to measures: {', '.join(measures)}")
        checked_margin(msgspec.structs.replace(margin, source=kind), known, width_of(known), kind)
        out[known] = given[name]
    return out


def _as_texts(sizes: dict[str, float | str]) -> tuple[str, ...]:
    return tuple(f"{name}={size if isinstance(size, str) else f'{size:.12g}'}" for name, size in sizes.items())


# --- comparing, with the record of looks and the plan


def compare(
    settings: Settings,
    request: ComparisonRequest,
    *,
    by: str,
    plan: str = "",
    pools: bool = True,
    in_domain: Sequence[str] = (),
) -> RecordedComparison:
    """Compare what the request names, record the look, and say how it stands to declared plans.

    Args:
        settings: where the lab and caches are.
        request: what is compared, and how.
        by: the command that asks, for the record.
        plan: title or hash of a declared plan whose measures and rules are taken; "" takes the request's own.
        pools: make the lines over several collections, too, where there are several.
        in_domain: test sets that training data came from; () finds those of runs.

    Raises:
        UsageError: it cannot be compared; no such plan; a test set that is called in-domain is not compared on.
    """
    chosen = comparison_plans.find(settings.lab, plan) if plan else None
    if chosen is not None:
        request = _with_rules(request, chosen.plan)
    targets = named_systems.targets_of(settings.lab, request.targets)
    systems, names = comparisons.measured_systems(settings, targets, request)
    comparison = comparisons.compare_measured(targets, systems, names, request)
    domain = training_domains.in_domain_for(settings, request, comparison, in_domain) if pools else frozenset()
    in_family, family = None, 0
    if request.counts_looks:
        pooled = pool_comparisons.if_possible(comparison, domain)[0] if pools else None
        in_family = recorded_looks.earlier_verdicts(settings, comparison, pooled)
        others = in_family + (0 if pooled is None else sum(row.is_of_several for row in pooled.rows))
        request = _with_family(request, comparison, others)
        comparison = comparisons.compare_measured(targets, systems, names, request)
        family = max(comparison.family, len(pooled.rows)) if pooled is not None and others else 0
    keys, looks = recorded_looks.keys_of(comparison), test_set_looks.load(settings.lab)
    known = _known_since(targets, comparison, recorded_looks.first_seen(looks, keys))
    plans = (chosen,) if chosen is not None else comparison_plans.load_all(settings.lab)[0]
    status = _nearest_plan(plans, comparison, known)
    if chosen is not None and status is None:
        what = f"the plan '{chosen.plan.title}' is for other judgments than these"
        raise UsageError(what, where="--plan", hint="compare on the judgments that it names, or without --plan")
    if chosen is not None and status is not None and status.is_confirmatory:
        terms = _declared_before(comparison.terms, chosen)
        comparison = comparisons.compare_measured(
            targets, systems, names, msgspec.structs.replace(request, terms=terms)
        )
    pooled, not_pooled = pool_comparisons.if_possible(comparison, domain, family) if pools else (None, "")
    counted = recorded_looks.record(
        settings,
        keys,
        by=by,
        now=_now(),
        earlier=looks,
        descriptive=recorded_looks.descriptive_keys_of(comparison),
        pooled=pooled,
    )
    if in_family is not None:
        if counted is None:
            raise recorded_looks.not_kept(settings)
        counted = msgspec.structs.replace(counted, in_family=in_family)
    return RecordedComparison(comparison=comparison, looks=counted, plan=status, pooled=pooled, not_pooled=not_pooled)


def _with_family(request: ComparisonRequest, comparison: Comparison, others: int) -> ComparisonRequest:
    """Return the request with a family of the comparison's own rows, of its pooled lines, and of earlier verdicts.

    Raises:
        UsageError: the correction does not bound the chance of any false verdict.
    """
    from cerank.evaluation.verdicts.terms import Terms

    terms = request.terms or Terms()
    if terms.correction in {"none", "bh"}:
        raise UsageError(
            f"the correction {terms.correction} says nothing of any false verdict among all looks",
            where="--family looks",
            hint="use --correction holm",
            code="family-without-correction",
        )
    if not others:
        return request
    return msgspec.structs.replace(request, terms=msgspec.structs.replace(terms, family=comparison.family + others))


def _now() -> str:
    """Return the time to the millisecond: a script may declare a plan and compare by it within a second."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _with_rules(request: ComparisonRequest, plan: ComparisonPlan) -> ComparisonRequest:
    """Return the request with what the plan says.

    Raises:
        UsageError: the request says some of it, too.
    """
    from cerank.evaluation.verdicts.terms import Terms

    own = request.terms or Terms()
    rules = {name: getattr(plan, name) for name in ("confidence", "correction", "family", "pairs", "claim")}
    ruled = msgspec.structs.replace(own, **{name: getattr(Terms(), name) for name in rules})
    options = (request.measures, request.margins, request.worth, request.harm, request.primary, request.counts_looks)
    if ruled != own or any(options):
        raise UsageError(
            "measures, margins, primary questions, correction, family, confidence, pairs and claim come from the plan",
            where="--plan",
            hint="leave those options out, or compare without --plan",
        )
    has_runs_own = request.dataset or request.qrels
    return msgspec.structs.replace(
        request,
        measures=plan.measures,
        dataset=request.dataset if has_runs_own else plan.dataset,
        qrels=request.qrels if has_runs_own else plan.qrels,
        margins=_as_texts(plan.margins),
        worth=_as_texts(plan.worth),
        harm=_as_texts(plan.harm),
        primary=plan.primary,
        margins_because=plan.because,
        terms=msgspec.structs.replace(own, **rules),
    )


def _declared_before(terms: Terms, declared_plan: DeclaredPlan) -> Terms:
    """Return the terms with their margins as declared by the plan."""
    source = f"declared plan {declared_plan.sha256[:12]}"

    def declared(sizes: dict[str, Margin], planned: dict[str, float | str]) -> dict[str, Margin]:
        return {
            name: msgspec.structs.replace(margin, source=source, declared=declared_plan.declared, before=True)
            if name in planned
            else margin
            for name, margin in sizes.items()
        }

    changed = {kind: declared(getattr(terms, kind), getattr(declared_plan.plan, kind)) for kind in _SIZES}
    return msgspec.structs.replace(terms, **changed)


def _known_since(targets: Sequence[Target], comparison: Comparison, seen: str) -> str:
    """Return when results of the comparison were first known in this lab; "" for not before now."""
    sides = [named_systems.sources(target) for target in targets]
    pairs = combinations(sides, 2) if comparison.terms.pairs == "all" else ((sides[0], side) for side in sides[1:])
    times = [seen, *(margins.first_known(pair) for pair in pairs)]
    return min((time for time in times if time), default="")


def _nearest_plan(plans: Sequence[DeclaredPlan], comparison: Comparison, known: str) -> PlanStatus | None:
    """Return how a comparison stands to the plan for its judgments from which it departs least; None without one."""
    judged = {at.qrels_sha256 for system in comparison.systems for at in system.measured}
    statuses = [
        PlanStatus(
            title=declared_plan.plan.title,
            sha256=declared_plan.sha256,
            declared=declared_plan.declared,
            departures=_departures(declared_plan.plan, comparison),
            known_before=known if known and margins.moment(known) <= margins.moment(declared_plan.declared) else "",
        )
        for declared_plan in plans
        if {declared_plan.qrels_sha256} == judged
    ]
    return min(statuses, key=lambda status: (len(status.departures), bool(status.known_before)), default=None)


def _departures(plan: ComparisonPlan, comparison: Comparison) -> tuple[str, ...]:
    """Return what a comparison does otherwise than a plan says."""
    from cerank.evaluation.primary_questions import is_sensitivity

    terms, out = comparison.terms, []
    measures = [name for name in comparison.measures if not is_sensitivity(name, comparison.measures)]
    if set(measures) != set(plan.measures):
        out.append(f"measures {', '.join(measures)}, not {', '.join(plan.measures)}")
    labels = [system.label for system in comparison.systems]
    if plan.systems and (labels[0] != plan.systems[0] or set(labels) != set(plan.systems)):
        out.append(f"systems {', '.join(labels)}, not {', '.join(plan.systems)}")
    for kind in _SIZES:
        planned = {name: margin.shown for name, margin in margins.typed(_as_texts(getattr(plan, kind)), kind).items()}
        used = {name: margin.shown for name, margin in getattr(terms, kind).items() if name in measures}
        if used != planned:
            out.append(f"{kind} {_sizes(used)}, not {_sizes(planned)}")
    for name in ("primary", "correction", "confidence", "family", "pairs", "claim"):
        used, planned = getattr(terms, name), getattr(plan, name)
        if used != planned:
            out.append(f"{name} {_value(used)}, not {_value(planned)}")
    return tuple(out)


def _sizes(sizes: dict[str, str]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items()) or "none"


def _value(value: object) -> str:
    return (", ".join(value) or "none") if isinstance(value, tuple) else str(value)


# --- showing


def table(settings: Settings) -> Table:
    """Return the lab's declared plans."""
    plans, problems = comparison_plans.load_all(settings.lab)
    columns = (
        Column("title", "plan"),
        Column("declared", "declared", "name"),
        Column("sha256", "SHA-256", "name"),
        Column("measures", "measures", priority=1),
        Column("qrels_sha256", "judgments", "name", priority=2),
    )
    rows = tuple(
        (each.plan.title, each.declared, each.sha256, ", ".join(each.plan.measures), each.qrels_sha256[:12])
        for each in plans
    )
    empty = f"No plans in {settings.lab} yet. `cerank declare FILE` makes one."
    return Table("plans", columns, rows, "Declared plans", problems, empty)


def as_text(declared_plan: DeclaredPlan) -> str:
    """Return a declared plan as text to publish: its content as JSON, and the hash over it."""
    content = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(declared_plan, sha256="")), indent=2)
    return f"{content.decode()}\nSHA-256 {declared_plan.sha256}\n"
