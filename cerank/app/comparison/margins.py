"""Which margins judge a comparison, and whether they were declared before its numbers could be known.

Invariant: a margin counts as declared beforehand only where each pair of systems has a run whose plan declares one,
and where it was declared before the pair's difference could be guessed from results on the same queries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from cerank import recipes
from cerank.errors import CerankError, UsageError
from cerank.files import json_records
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Evaluate, share_of, shown_size
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.runs.records import Done

if TYPE_CHECKING:
    from cerank.evaluation.verdicts.terms import Margin


class Source(msgspec.Struct, frozen=True):
    """A run behind a system, and when results of it were first known: "" where nothing is measured yet.

    Training is deterministic: a run that differs from an earlier one in nothing but its margins gives the same numbers,
    so `known` is the earlier one's time.
    """

    plan: Plan
    known: str  # UTC, ISO 8601


Pairs = Sequence[tuple[Sequence[Source], Sequence[Source]]]  # the runs behind either side of each row; a file has none


def sources(runs: Sequence[tuple[RunFolder, Plan]]) -> tuple[Source, ...]:
    """Return the runs with the time when results of them were first known in their lab."""
    out = []
    for folder, plan in runs:
        times = [_measured(folder, plan)]
        if plan.recipe.evaluate != measuring_alone(plan.recipe.evaluate):
            times += [_measured(*twin) for twin in _twins(folder, plan)]
        out.append(Source(plan, min((time for time in times if time), default="")))
    return tuple(out)


def _twins(folder: RunFolder, plan: Plan) -> list[tuple[RunFolder, Plan]]:
    """Return the runs of the lab whose plans differ from this one in nothing but margins, labels and dates."""
    twins, identity = [], _but_for_margins(plan)
    for other in run_store.folders(folder.lab):
        if other.name == folder.name:
            continue
        try:
            its = run_store.load_plan(other)
        except CerankError:  # a run that cannot be read gives no numbers either
            continue
        if _but_for_margins(its) == identity:
            twins.append((other, its))
    return twins


def measuring_alone(evaluate: Evaluate) -> Evaluate:
    """Return what decides numbers of an evaluation: its measures, without what decides verdicts."""
    return Evaluate(measures=evaluate.measures)


def _but_for_margins(plan: Plan) -> str:
    recipe = msgspec.structs.replace(plan.recipe, evaluate=measuring_alone(plan.recipe.evaluate))
    return msgspec.structs.replace(plan, recipe=recipe).fingerprint


def _measured(folder: RunFolder, plan: Plan) -> str:
    """Return when the run's last stage was measured: its end, or the time of its oldest measures; "" for not yet."""
    done = json_records.load_if_there(folder.done, Done)
    if done is not None:
        return done.time
    data = plan.recipe.data
    paths = [folder.measures(plan.recipe.chain[-1], test, first) for test in data.test for first in data.first_stages]
    times = [path.stat().st_mtime for path in paths if path.exists()]
    return datetime.fromtimestamp(min(times), UTC).isoformat(timespec="seconds") if times else ""


Kind = Literal["margins", "worth", "harm"]  # the tables of `evaluate` that hold a difference for each measure


def typed(texts: Sequence[str], option: str = "--margin") -> dict[str, Margin]:
    """Return `nDCG@10=.02` or `nDCG@10=5%` each, as measure -> margin, in the names typed; the last `=` ends the name.

    A percentage is a share of the baseline's mean.

    Raises:
        UsageError: a text is not MEASURE=NUMBER above 0, or a percentage below 100; a measure comes twice.
    """
    from cerank.evaluation.verdicts.terms import Margin

    margins: dict[str, Margin] = {}
    for text in texts:
        name, equals, raw = (part.strip() for part in text.rpartition("="))
        number = raw.removesuffix("%").rstrip()
        is_number = re.fullmatch(r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,2})?|[0-9]+\.", number) is not None
        most = 100.0 if raw.endswith("%") else float("inf")
        if not name or not equals or not is_number or not 0 < float(number) < most:
            hint = "MEASURE=NUMBER, such as nDCG@10=.02, or a share of the baseline's mean, such as nDCG@10=5%"
            raise UsageError(f"'{text}' is not a margin", where=option, hint=hint, code="margin-syntax")
        if name in margins:
            raise UsageError(f"two margins for {name}", where=option, hint="give one", code="margin-twice")
        size = float(number)
        margins[name] = Margin(value=0.0, share=size / 100) if raw.endswith("%") else Margin(value=size)
    return margins


def typed_by_measure(texts: Sequence[str], option: str = "--margin") -> dict[str, Margin]:
    """Return what was typed as measure -> margin, in canonical names; raises as `typed`, and for an unknown measure."""
    from cerank.evaluation.measures import canonical

    return {canonical(name, option): margin for name, margin in typed(texts, option).items()}


def numbers(texts: Sequence[str], option: str = "--margin") -> dict[str, float]:
    """Return the margins of `typed`, where a share of the baseline's mean has no meaning.

    Raises:
        UsageError: also where one is a percentage.
    """
    out = {}
    for name, margin in typed(texts, option).items():
        if margin.share is not None:
            what = f"a margin for {name} in percent of a baseline's mean"
            raise UsageError(
                what,
                where=option,
                hint=f"give a number in the measure's units here, such as {name}=.02",
                code="margin-share",
            )
        out[name] = margin.value
    return out


def declared(measures: Sequence[str], pairs: Pairs, kind: Kind = "margins") -> dict[str, Margin]:
    """Return the margins (or gains worth their cost, or harm margins) that the plans of compared runs declare.

    Where runs declare different ones the smallest is taken, and its source says so: what lies within it lies within
    the others, so nobody gains by declaring another. It is `before` where every pair has a run that declares one, and
    where it was declared before results were known of every run of the pair but the newest: from then on the newest
    one's margin could be fitted to what it is compared with.
    """
    from cerank.evaluation.verdicts.terms import Margin

    def table(plan: Plan) -> dict[str, float | str]:
        evaluate = plan.recipe.evaluate
        return {"margins": evaluate.margins, "worth": evaluate.worth, "harm": evaluate.harm}[kind]

    margins: dict[str, Margin] = {}
    for measure in measures:
        declarations = [
            (table(plan)[measure], plan.created)
            for pair in pairs
            for side in pair
            for plan in (source.plan for source in side)
            if measure in table(plan)
        ]
        if not declarations:
            continue
        # A number and a share of a mean have no order: the numbers go first, and nothing counts as declared then.
        values = sorted(
            {value for value, _ in declarations}, key=lambda size: (share_of(size) is not None, _size(size))
        )
        is_mixed = len({isinstance(value, str) for value in values}) > 1
        when = min(time for value, time in declarations if value == values[0])
        others = ", ".join(f"±{shown_size(value)}" for value in values[1:])
        by = _declared_by(
            [
                behind.plan
                for pair in pairs
                for side in pair
                for behind in side
                if table(behind.plan).get(measure) == values[0]
            ],
            kind,
            measure,
        )
        source = f"{by}; the smallest of those declared, others {others}" if others else by
        if is_mixed:
            source = f"{by}; others {others}, and which is smaller is not known before the baseline's mean"
        is_of_all = all(any(measure in table(behind.plan) for side in pair for behind in side) for pair in pairs)
        late = [known for pair in pairs if (known := first_known(pair)) and moment(when) >= moment(known)]
        if not is_of_all:
            source += ", but not of every pair's runs"
        elif late:
            source += f", but after results of {min(late)}"
        reasons = dict.fromkeys(
            behind.plan.recipe.evaluate.margins_because
            for pair in pairs
            for side in pair
            for behind in side
            if table(behind.plan).get(measure) == values[0]
        )
        because = "; ".join(reason for reason in reasons if reason)
        share = share_of(values[0])
        margins[measure] = Margin(
            value=_size(values[0]) if share is None else 0.0,
            share=share,
            source=source,
            declared=when,
            before=is_of_all and not late and not is_mixed,
            because=because,
        )
    return margins


def _declared_by(plans: Sequence[Plan], kind: Kind, measure: str) -> str:
    """Return who declared a margin: the recipe, or the recipe of that name as it comes with cerank."""
    names = {plan.recipe.name for plan in plans}
    value = next(getattr(plan.recipe.evaluate, kind)[measure] for plan in plans)
    if names <= set(recipes.shipped()):
        tables = [getattr(recipes.load(name).recipe.evaluate, kind) for name in names]
        if all(own.get(measure) == value for own in tables):
            return "recipe, as it comes with cerank"
    return "recipe"


def _size(size: float | str) -> float:
    """Return a declared size as a number: a percentage as the share that it is."""
    return share_of(size) or float(size)


def first_known(pair: tuple[Sequence[Source], Sequence[Source]]) -> str:
    """Return when results of the pair's runs were first known, the newest run left out unless it is the only one."""
    times = {source.plan.fingerprint + source.plan.created: source.known for side in pair for source in side}
    known = sorted((time for time in times.values() if time), key=moment)
    if len(known) == len(times) > 1:
        known = known[:-1]
    return known[0] if known else ""


def moment(time: str) -> datetime:
    """Return a time in ISO 8601 as one that can be compared."""
    return datetime.fromisoformat(time)


def chosen(
    typed: Mapping[str, Margin], declared: Mapping[str, Margin], *, now: str = "", because: str = ""
) -> dict[str, Margin]:
    """Return the declared margins with those of the command line laid over them.

    A margin that repeats the declared one stays declared; any other was chosen afterwards and says what it replaces.

    Args:
        typed: by canonical measure.
        declared: by canonical measure.
        now: when the typed ones are given, UTC, ISO 8601.
        because: the reason for the typed ones, if any.
    """
    out = dict(declared)
    for measure, margin in typed.items():
        old = declared.get(measure)
        if old is not None and (old.value, old.share) == (margin.value, margin.share):
            continue
        source = "command line" + (f", in place of ±{old.shown} from the {old.source}" if old else "")
        out[measure] = msgspec.structs.replace(margin, source=source, declared=now, before=False, because=because)
    return out


def carried(margins: Mapping[str, Margin], to: Mapping[str, str]) -> dict[str, Margin]:
    """Return the plain measures' margins for those over condensed lists, as chosen afterwards.

    Args:
        to: plain measure -> condensed measure.
    """
    from cerank.evaluation.verdicts.terms import Margin

    return {
        condensed: Margin(
            value=margins[plain].value,
            share=margins[plain].share,
            source=f"that of {plain}",
            declared=margins[plain].declared,
            because=margins[plain].because,
        )
        for plain, condensed in to.items()
        if plain in margins and condensed != plain
    }
