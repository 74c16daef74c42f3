"""Plain English for a comparison's verdicts: the question, what the queries show, what it cost, what would be needed.

Invariant: a sentence says what its row's judgment says, and its interval is the judgment's.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cerank.evaluation.compare import Comparison, Row
from cerank.evaluation.seed_variance import TwoWay
from cerank.evaluation.verdicts import can_show, short
from cerank.text.safe_text import counted

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the training of a stage took, or of several together."""

    seconds: float
    reused_from: str = ""  # the run that trained it, or part of it; "" where all of it was trained here
    stages: int = 1


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a comparison in words."""

    dataset: str
    first_stage: str
    measure: str
    left: str
    right: str
    verdict: str
    is_main: bool  # asks what a reader wants to know first: a stage with the one before it
    question: str
    text: str  # without the question

    @property
    def whole(self) -> str:
        """The question with its answer."""
        return f"{self.question} {self.text}"


def answers(found: Comparison, costs: Mapping[str, Cost] | None = None) -> tuple[Answer, ...]:
    """Return an answer for each row, in the rows' order.

    Args:
        found: the comparison.
        costs: what training took, by the label of a stage.
    """
    return tuple(
        Answer(
            dataset=row.condition.dataset,
            first_stage=row.condition.first_stage,
            measure=row.measure,
            left=row.left,
            right=row.right,
            verdict=row.verdict,
            is_main=_is_main(found, row),
            question=_question(found, row),
            text=" ".join(_sentences(found, row, _spent(found, row, costs or {}))),
        )
        for row in found.rows
    )


def paragraphs(found: Comparison, costs: Mapping[str, Cost] | None = None) -> tuple[str, ...]:
    """Return the text for the user: for each condition and measure, in this order, its questions with their answers."""
    texts: dict[tuple[str, str, str], list[str]] = {}
    for one in answers(found, costs):
        if one.is_main:
            texts.setdefault((one.dataset, one.first_stage, one.measure), []).append(one.whole)
    places = [
        (condition.dataset, condition.first_stage, measure)
        for condition in found.conditions
        for measure in found.measures
    ]
    return tuple(" ".join(texts[place]) for place in places if place in texts)


def _spent(found: Comparison, row: Row, costs: Mapping[str, Cost]) -> Cost | None:
    """What lies between the row's two systems: all stages after the left one, up to the right one; None if unknown."""
    if found.terms.pairs != "stages":
        return costs.get(row.right)
    labels = [system.label for system in found.systems]
    between = [costs.get(label) for label in labels[_place(found, row.left) + 1 : _place(found, row.right) + 1]]
    known = [cost for cost in between if cost is not None]
    if not known or len(known) < len(between):
        return None
    sources = dict.fromkeys(cost.reused_from for cost in known if cost.reused_from)
    return Cost(seconds=sum(cost.seconds for cost in known), reused_from=", ".join(sources), stages=len(known))


def _place(found: Comparison, label: str) -> int:
    return [system.label for system in found.systems].index(label)


def _is_main(found: Comparison, row: Row) -> bool:
    if found.terms.pairs != "stages" or len(found.systems) == 2:
        return True
    return _place(found, row.left) > 0


def _question(found: Comparison, row: Row) -> str:
    if found.terms.pairs != "stages":
        return f"Is {row.right} better than {row.left}?"
    place, stages = _place(found, row.right), len(found.systems) - 1
    if _place(found, row.left) > 0:
        return f"Was the {_ordinal(place)} stage worth it?"
    if place == 1:
        return "Was fine-tuning worth it?" if stages == 1 else f"Was fine-tuning by {row.right} worth it?"
    return f"Was fine-tuning up to {row.right} worth it?"


def _ordinal(place: int) -> str:
    return _ORDINALS[place - 1] if place <= len(_ORDINALS) else f"{place}th"


def _sentences(found: Comparison, row: Row, cost: Cost | None) -> list[str]:
    """The verdict with its reason, then what a reader must beware of, the cost, and what would be needed."""
    out = [_verdict(found, row)]
    said = ("missing", "common", "fixed")
    out += [note.text[:1].upper() + note.text[1:].removesuffix(" ...") + "." for note in row.notes if note.kind in said]
    out += _few(row)
    if row.recipes is not None:
        out.append(_about_recipes(row.recipes))
    elif any(system.members for system in found.systems if system.label in {row.left, row.right}):
        out.append("This is about these checkpoints, averaged over their seeds, not about their recipes.")
    if cost is not None:
        out.append(_cost(cost))
    if row.verdict == "cannot tell":
        out += _needed(found, row)
    return out


def _about_recipes(recipes: TwoWay) -> str:
    return (
        f"This is about the recipes: their seeds, {recipes.seeds_left} and {recipes.seeds_right}, count as a sample, "
        f"as the queries do, and are not taken as pairs ({recipes.estimate.df:.3g} degrees of freedom)."
    )


def _verdict(found: Comparison, row: Row) -> str:
    right, left = _named(found, row.right), _named(found, row.left)
    difference, measure = row.paired.difference, row.measure
    if row.verdict == "identical":
        return f"No{_where(found, row)}: {right} and {left} are the same ranking, so nothing was tested."
    how = "above" if difference > 0 else "below"
    size = f"{_figure(difference)} {measure} {how} {left}"
    scores = f"{right} scores {size}" if difference else f"{right} scores the same mean {measure} as {left}"
    if row.paired.sd == 0:
        scores = f"{right} scores {size}" if difference else f"{right} scores the same {measure} as {left}"
        scores += " on every query"
    margin = row.judgment.margin
    if row.verdict in {"better", "worse"}:
        yes = "Yes" if row.verdict == "better" else "No"
        by_p = ""
        if row.judgment.low <= 0 <= row.judgment.high:
            by_p = f"; the difference is shown by its adjusted p of {row.judgment.p_corrected:.2g}, which is sharper"
        between = "" if row.paired.sd == 0 else f", {_between(found, row)}"
        return f"{yes}{_where(found, row)}: {scores}{between}{by_p}."
    if margin is None or row.verdict == "cannot tell":
        queries = f"{'This' if row.paired.n == 1 else 'These'} {counted(row.paired.n, 'query')}"
        between = "" if row.judgment.basis == "exact sign flips" else f", {_between(found, row)}"
        return f"{queries}{_where(found, row)} cannot tell: {scores}{between}."
    late = "" if margin.before else ", a margin chosen after the results"
    within = _between(found, row, is_equivalence=True)
    low, high = row.judgment.equivalence_low or 0.0, row.judgment.equivalence_high or 0.0
    if not -margin.value < low <= high < margin.value:
        p = row.judgment.p_equivalence_corrected or 0.0
        within += f"; that it is less is shown by its adjusted p of {p:.2g}, which is sharper"
    enough = f" {left[:1].upper() + left[1:]}, which is cheaper, is enough." if found.terms.pairs == "stages" else ""
    if row.verdict == "equivalent":
        same = f"{right} and {left} are the same within ±{short(margin.value)} {measure}{late}"
        here = f"{right} scores {_figure(difference)} {how}" if difference else "their means are the same"
        return f"No{_where(found, row)}: {same}; {here}, {within}.{enough}"
    word = "better" if difference > 0 else "worse"
    less = f"{right} is {word}, but by less than {short(margin.value)} {measure}{late}"
    return f"No{_where(found, row)}: {less}; it scores {_figure(difference)} {how} {left}, {within}.{enough}"


def _few(row: Row) -> list[str]:
    """What takes the place of a t-test where so few queries differ, or all by the same, that none can be made."""
    differ = row.paired.wins + row.paired.losses
    if row.judgment.basis != "exact sign flips" or row.verdict == "identical":
        return []
    p = row.judgment.p
    if row.paired.sd == 0:
        without = "There is no spread to measure that by"
    else:
        without = f"Only {counted(differ, 'query')} {'differs' if differ == 1 else 'differ'}"
    smallest = min(1.0, 2.0 ** (1 - differ))
    if smallest > row.judgment.alpha and row.verdict == "cannot tell":
        return [f"{without}: by flipped signs the smallest possible p is {smallest:.2g}."]
    return [f"{without}; by the exact test of flipped signs p is {p:.2g}."]


def _where(found: Comparison, row: Row) -> str:
    """Which queries, where there are several kinds."""
    return f" of {row.condition}" if len(found.conditions) > 1 else ""


def _named(found: Comparison, label: str) -> str:
    is_first = found.terms.pairs == "stages" and label == found.baseline
    return "the first stage" if is_first else label


def _between(found: Comparison, row: Row, *, is_equivalence: bool = False) -> str:
    """The interval that belongs to the verdict, with its level."""
    judged = row.judgment
    low, high, level, alpha = judged.low, judged.high, judged.level, judged.alpha
    if is_equivalence:
        low, high = judged.equivalence_low or 0.0, judged.equivalence_high or 0.0
        level, alpha = 2 * (judged.equivalence_level or 0.0), alpha if found.method == "max-t" else 2 * alpha
    if found.method == "none" or found.family == 1:
        confidence = f"{100 * (1 - level):.4g} % interval"
    elif found.method == "bh":
        rate = f"false coverage rate over {counted(found.family, 'comparison')}"
        confidence = f"{100 * (1 - level):.4g} % interval, {rate}"
    else:
        confidence = f"{100 * (1 - alpha):.4g} % interval, simultaneous over {counted(found.family, 'comparison')}"
    is_exact = judged.basis == "exact sign flips"
    if not is_exact and row.limits is not None and (low <= row.limits[0] < 0 or high >= row.limits[1] > 0):
        confidence += f", cut at what {row.measure} can be"
    return f"somewhere between {_range(low, high)} ({confidence})"


def _range(low: float, high: float) -> str:
    if low >= 0:
        return f"{_figure(low)} and {_figure(high)} above"
    if high <= 0:
        return f"{_figure(high)} and {_figure(low)} below"
    return f"{_figure(low)} below and {_figure(high)} above"


def _cost(cost: Cost) -> str:
    took = duration(cost.seconds)
    if cost.stages > 1:
        where = f", partly in run {cost.reused_from}" if cost.reused_from else ""
        return f"Its {cost.stages} stages took {took} of training{where}."
    if cost.reused_from:
        return f"Its training took {took}, in run {cost.reused_from}, from which it was reused."
    return f"It took {took} more of training."


def _needed(found: Comparison, row: Row) -> list[str]:
    """Which true difference would show, and how many queries the margin takes, by the spread of these."""
    judged, margin = row.judgment, row.judgment.margin
    out = []
    if judged.detectable is not None:
        what = "these queries and seeds" if row.recipes is not None else "these queries"
        out.append(f"With {what} {can_show(judged.detectable, row.limits)}.")
    if row.recipes is not None:
        return out
    if margin is None:
        who = "The recipe declares no margin" if found.terms.pairs == "stages" else "No margin is declared"
        return [*out, f"{who}, so that the two are the same cannot be shown either."]
    if judged.detectable is None:
        return out
    size = short(margin.value)
    late = "" if margin.before else ", a margin chosen after the results,"
    return [
        f"To show a true difference of {size}{late} you would need {_many(judged.queries_for_difference)}, "
        f"to show that the two are the same "
        f"within ±{size} {_many(judged.queries_for_margin)} if they are (80 % power)."
    ]


def _many(queries: int | None) -> str:
    """A number of queries to two digits, rounded up."""
    if queries is None:
        return "more than 100 million queries"
    step = 10 ** max(0, len(str(queries)) - 2)
    return f"about {-(-queries // step) * step:,} queries" if step > 1 else counted(queries, "query")


def _figure(value: float) -> str:
    """A size without its sign: .0096, 1.25, 0."""
    size = abs(value)
    if size and size < 0.00005:
        return f"{size:.1e}"
    return f"{size:.4f}".removeprefix("0") if size else "0"


def duration(seconds: float) -> str:
    """Return a duration in words: "0.4 s", "52 s", "4 min 10 s", "3 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
