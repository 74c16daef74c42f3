"""Plain English for a comparison's verdicts: the question, what the queries show, what it cost, what would be needed.

Invariant: a sentence says what its row's judgment says, and its interval is the judgment's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from cerank.evaluation.compare import Comparison, Row
from cerank.evaluation.seed_variance import TwoWay
from cerank.evaluation.verdicts.verdict import Judgment, Worth
from cerank.text.safe_text import counted

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the training of a stage took, or of several together."""

    seconds: float
    reused_from: str = ""  # the run that trained it, or part of it; "" where all of it was trained here
    stages: int = 1
    pairs: int | None = None  # query-document pairs that training took through the model
    money: float | None = None  # where an hour of the device, or its teachers' calls, have a price
    calls: int = 0  # of the teachers


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a comparison in words."""

    dataset: str
    first_stage: str
    measure: str
    left: str
    right: str
    verdict: str
    worth: str  # "worth it", "not worth it", "not worse", "harmful", "cannot tell"; "" where no gain is declared
    is_main: bool  # asks what a reader wants to know first: a stage with the one before it
    question: str
    text: str  # without the question

    @property
    def with_question(self) -> str:
        """Return the question with its answer."""
        return f"{self.question} {self.text}"


SHARPER = "which is sharper, for p is stepped down"
ANOTHER_SEED = "The same recipe with another seed may come out otherwise."


def answers(comparison: Comparison, costs: Mapping[str, Cost] | None = None) -> tuple[Answer, ...]:
    """Return an answer for each row, in the rows' order.

    Args:
        comparison: the comparison.
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
            worth=row.worth.answer if row.worth else "",
            is_main=_is_main(comparison, row),
            question=_question(comparison, row),
            text=" ".join(_sentences(comparison, row, cost_of(comparison, row, costs or {}))),
        )
        for row in comparison.rows
    )


def paragraphs(comparison: Comparison, costs: Mapping[str, Cost] | None = None) -> tuple[str, ...]:
    """Return the text for the user: for each condition and measure, in this order, its questions with their answers."""
    texts: dict[tuple[str, str, str], list[str]] = {}
    for answer in answers(comparison, costs):
        if answer.is_main and answer.verdict != "descriptive":
            texts.setdefault((answer.dataset, answer.first_stage, answer.measure), []).append(answer.with_question)
    places = [
        (condition.dataset, condition.first_stage, measure)
        for condition in comparison.conditions
        for measure in comparison.measures
    ]
    is_one_seed = comparison.terms.pairs == "stages" and any(
        note.kind == "one seed" for row in comparison.rows for note in row.notes
    )
    last = [ANOTHER_SEED] if is_one_seed else []
    return tuple(" ".join([*texts[place], *last]) for place in places if place in texts)


def cost_of(comparison: Comparison, row: Row, costs: Mapping[str, Cost]) -> Cost | None:
    """Return what the row's right system cost more than its left one; None where that is unknown, or was not more.

    Of stages: the cost of all after the left one, up to the right one.
    """
    if comparison.terms.pairs != "stages":
        return _more(costs.get(row.left), costs.get(row.right))
    if _names_baseline(comparison, row):
        return None
    labels = _chain(comparison)
    between = [
        costs.get(label) for label in labels[_place(comparison, row.left) + 1 : _place(comparison, row.right) + 1]
    ]
    known = [cost for cost in between if cost is not None]
    if not known or len(known) < len(between):
        return None
    sources = dict.fromkeys(cost.reused_from for cost in known if cost.reused_from)
    return Cost(
        seconds=sum(cost.seconds for cost in known),
        reused_from=", ".join(sources),
        stages=len(known),
        calls=sum(cost.calls for cost in known),
    )


def _more(left: Cost | None, right: Cost | None) -> Cost | None:
    """Return what one system cost more than another."""
    if left is None or right is None or right.seconds <= left.seconds:
        return None
    has_pairs, has_money = (None not in {getattr(left, name), getattr(right, name)} for name in ("pairs", "money"))
    return Cost(
        seconds=right.seconds - left.seconds,
        pairs=(right.pairs or 0) - (left.pairs or 0) if has_pairs else None,
        money=(right.money or 0.0) - (left.money or 0.0) if has_money else None,
        calls=max(0, right.calls - left.calls),
    )


def _chain(comparison: Comparison) -> list[str]:
    """Return the labels of the first stage and the stages, without the finished re-rankers beside them."""
    return [system.label for system in comparison.systems if not system.is_baseline]


def _place(comparison: Comparison, label: str) -> int:
    return _chain(comparison).index(label)


def _names_baseline(comparison: Comparison, row: Row) -> bool:
    """Return whether a row is about a finished re-ranker beside the stages of a run."""
    return any(system.is_baseline and system.label in {row.left, row.right} for system in comparison.systems)


def _is_main(comparison: Comparison, row: Row) -> bool:
    if comparison.terms.pairs == "stages" and _names_baseline(comparison, row):
        return row.is_primary
    if comparison.terms.pairs != "stages" or len(_chain(comparison)) == 2:
        return True
    return _place(comparison, row.left) > 0


def _question(comparison: Comparison, row: Row) -> str:
    if comparison.terms.pairs != "stages" or _names_baseline(comparison, row):
        comparative = "worth its cost over" if row.worth else "better than"
        return f"Is {_named(comparison, row.right)} {comparative} {_named(comparison, row.left)}?"
    place, stages = _place(comparison, row.right), len(_chain(comparison)) - 1
    if _place(comparison, row.left) > 0:
        return f"Was the {_ordinal(place)} stage worth it?"
    if place == 1:
        return "Was fine-tuning worth it?" if stages == 1 else f"Was fine-tuning by {row.right} worth it?"
    return f"Was fine-tuning up to {row.right} worth it?"


def _ordinal(place: int) -> str:
    return _ORDINALS[place - 1] if place <= len(_ORDINALS) else f"{place}th"


def _sentences(comparison: Comparison, row: Row, cost: Cost | None) -> list[str]:
    """Return the verdict with its reason, then what a reader must beware of, the cost, and what would be needed."""
    out = [_worth(comparison, row, row.worth) if row.worth else _verdict(comparison, row)]
    repeated = ("missing", "common", "fixed", "no room")
    out += [
        note.text[:1].upper() + note.text[1:].removesuffix(" ...") + "." for note in row.notes if note.kind in repeated
    ]
    out += _few(row)
    if row.recipes is not None:
        out.append(_about_recipes(row.recipes))
    elif any(system.members for system in comparison.systems if system.label in {row.left, row.right}):
        out.append("This is about these checkpoints, averaged over their seeds, not about their recipes.")
    if cost is not None:
        name = _named(comparison, row.right)
        out.append(_cost(cost, _capital(name) if comparison.terms.pairs == "stages" else name))
        if row.worth is not None:
            out.append(_break_even(row, cost))
    if row.worth is not None:
        out += _worth_needed(row.worth)
    elif row.verdict == "cannot tell":
        out += _needed(comparison, row)
    return out


def _about_recipes(recipes: TwoWay) -> str:
    if recipes.is_paired:
        return (
            f"This is about the recipes: {counted(recipes.seeds_left, 'seed')}, which both share, count as a sample, "
            f"as the queries do, each seed compared with itself ({recipes.estimate.df:.3g} degrees of freedom)."
        )
    return (
        f"This is about the recipes: their seeds, {recipes.seeds_left} and {recipes.seeds_right}, count as a sample, "
        f"as the queries do, and are not taken as pairs ({recipes.estimate.df:.3g} degrees of freedom)."
    )


def _verdict(comparison: Comparison, row: Row) -> str:
    right, left = _named(comparison, row.right), _named(comparison, row.left)
    difference, measure = row.paired.difference, row.measure
    if row.verdict == "identical":
        return f"No{_where(comparison, row)}: {right} and {left} are the same ranking, so nothing was tested."
    how = "above" if difference > 0 else "below"
    size = f"{_figure(difference)} {measure} {how} {left}"
    scores = f"{right} scores {size}" if difference else f"{right} scores the same mean {measure} as {left}"
    if row.paired.sd == 0:
        scores = f"{right} scores {size}" if difference else f"{right} scores the same {measure} as {left}"
        scores += " on every query"
    margin = row.judgment.margin
    if row.verdict == "descriptive":
        between = "" if row.paired.sd == 0 else f", {_between(comparison, row)}"
        return f"No primary question{_where(comparison, row)}, so no verdict is made: {scores}{between}."
    if row.verdict in {"better", "worse"}:
        yes = "Yes" if row.verdict == "better" else "No"
        by_p = ""
        if not row.judgment.excludes_zero:
            by_p = f"; the difference is shown by its adjusted p of {row.judgment.p_corrected:.2g}, {SHARPER}"
        between = "" if row.paired.sd == 0 else f", {_between(comparison, row)}"
        return f"{yes}{_where(comparison, row)}: {scores}{between}{by_p}."
    if margin is None or row.verdict == "cannot tell":
        queries = f"{'This' if row.paired.n == 1 else 'These'} {counted(row.paired.n, 'query')}"
        between = "" if row.judgment.basis == "exact sign flips" else f", {_between(comparison, row)}"
        return f"{queries}{_where(comparison, row, has_queries=True)} cannot tell: {scores}{between}."
    late = "" if margin.before else ", a margin chosen after the results"
    within = _between(comparison, row, is_equivalence=True)
    low, high = row.judgment.equivalence_low or 0.0, row.judgment.equivalence_high or 0.0
    if not row.judgment.is_within_margin:
        p = row.judgment.p_equivalence_corrected or 0.0
        within += f"; that it is less is shown by its adjusted p of {p:.2g}, {SHARPER}"
    if row.judgment.is_different and low <= 0 <= high:
        within += f"; that it is not 0 is shown by its adjusted p of {row.judgment.p_corrected:.2g}, {SHARPER}"
    is_chain = comparison.terms.pairs == "stages" and not _names_baseline(comparison, row)
    enough = f" {_capital(left)}, which is cheaper, is enough." if is_chain else ""
    if row.verdict == "equivalent":
        declared = late or ", declared before as too small to matter"
        same = f"{right} and {left} are the same within ±{short(margin.value)} {measure}{declared}"
        here = f"{right} scores {_figure(difference)} {how} {left}" if difference else "their means are the same"
        return f"No{_where(comparison, row)}: {same}; {here}, {within}.{enough}"
    word = "better" if difference > 0 else "worse"
    less = f"{right} is {word}, but by less than {short(margin.value)} {measure}{late}"
    return f"No{_where(comparison, row)}: {less}; it scores {_figure(difference)} {how} {left}, {within}.{enough}"


def _worth(comparison: Comparison, row: Row, worth: Worth) -> str:
    """Return whether the system is worth its cost: the answer, what was declared, the difference, its interval."""
    right, left = _named(comparison, row.right), _named(comparison, row.left)
    difference, measure = row.paired.difference, row.measure
    gain, late = short(worth.gain.value), "" if worth.gain.before else " (chosen after the results)"
    how = "above" if difference > 0 else "below"
    scores = f"{right} scores {_figure(difference)} {how} {left}" if difference else f"{right} scores as {left} does"
    figures = f"{scores}, {_between(comparison, row)}"
    alone = "" if comparison.family == 1 else ", by itself"
    where = _where(comparison, row)
    if worth.answer == "worth it":
        p = _p(worth.p_gain)
        return f"Yes{where}: a gain of at least {gain} {measure}{late} is shown (one-sided p {p}{alone}): {figures}."
    harm = worth.harm
    late_harm = "" if harm is None or harm.before else " (chosen after the results)"
    if worth.answer == "harmful" and harm is not None:
        p = _p(worth.p_harmful)
        loss = f"a loss of more than {short(harm.value)} {measure}{late_harm} is shown"
        return f"No{where}, it harms: {loss} (one-sided p {p}{alone}): {figures}."
    if worth.answer == "not worth it":
        p = _p(worth.p_ruled_out)
        text = f"No{where}: a gain of {gain} {measure}{late} is ruled out (one-sided p {p}{alone}): {figures}."
        if harm is not None and row.judgment.low > -harm.value:
            text += f" Nor is it worse by {short(harm.value)} or more{late_harm}."
        return text
    queries = f"{'This' if row.paired.n == 1 else 'These'} {counted(row.paired.n, 'query')}"
    queries += _where(comparison, row, has_queries=True)
    text = f"{queries} cannot tell whether it gains {gain} {measure}{late}: {figures}."
    if worth.answer == "not worse" and harm is not None:
        text += (
            f" It is not worse by {short(harm.value)} or more{late_harm} (one-sided p {_p(worth.p_not_worse)}{alone})."
        )
    return text


def _p(p: float | None) -> str:
    """Return a p to two digits: .0096, < .001."""
    value = 1.0 if p is None else p
    return "< .001" if value < 0.001 else f"{value:.2g}".removeprefix("0")


def _worth_needed(worth: Worth) -> list[str]:
    """Return how many queries would rule the gain out, where these cannot tell."""
    if worth.queries_to_rule_out is None:
        return []
    gain = short(worth.gain.value)
    return [
        f"To rule a gain of {gain} out you would need {_many(worth.queries_to_rule_out)} if there is none (80 % power)."
    ]


def break_even(row: Row, cost: Cost) -> tuple[float, float, float]:
    """Return the seconds of training that .01 of the measure must be worth for the stage to pay.

    Args:
        row: of the comparison.
        cost: what the row's system took more than its baseline.

    Returns:
        By the difference, by the low end of the interval, and by its high end; infinite where there is no gain to pay
        for the training.
    """
    ends = row.paired.difference, row.judgment.low, row.judgment.high
    at, low, high = (0.01 * cost.seconds / end if end > 0 else math.inf for end in ends)
    return at, low, high


def _break_even(row: Row, cost: Cost) -> str:
    at, slowest, fastest = break_even(row, cost)
    unit = f".01 {row.measure}"
    if math.isinf(fastest):
        return f"It never pays for its training: by its whole interval it gains no {row.measure}."
    best, worst = duration(fastest), "never" if math.isinf(slowest) else duration(slowest)
    if math.isinf(at):
        return f"It scores no more: it pays only if {unit} is worth {best} of training, by the interval's high end."
    return f"It pays if {unit} is worth more than {duration(at)} of training ({best} to {worst} by the interval)."


def _few(row: Row) -> list[str]:
    """Return what replaces a t-test where few queries differ, or all differ by the same."""
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
        return [f"{without}: by flipped signs the smallest possible p is {smallest:.2g}.", *_unseen(row)]
    sentences = [f"{without}; by the exact test of flipped signs p is {p:.2g}."]
    if any(note.kind == "rare" for note in row.notes):
        sentences.append("That speaks for these queries, and little for others: rare large differences go unseen.")
    return [*sentences, *_unseen(row)]


def _unseen(row: Row) -> list[str]:
    """Return why an equivalence of few queries that differ is not said."""
    unseen, margin = row.judgment.unseen, row.judgment.margin
    if unseen is None or margin is None or row.verdict not in {"cannot tell", "better", "worse"}:
        return []
    return [
        f"That the two are the same within ±{short(margin.value)} is not shown either: one more query that differs by "
        f"{_figure(unseen)} would undo it, and rare large differences easily go unseen."
    ]


def _where(comparison: Comparison, row: Row, *, has_queries: bool = False) -> str:
    """Return the words for the row's condition, where there are several, or where a run's answer stands by itself.

    Args:
        comparison: the comparison.
        row: one of its rows.
        has_queries: the text before names the queries.
    """
    if comparison.terms.pairs == "stages":
        return f" of {row.condition}" if has_queries else f", on {counted(row.paired.n, 'query')} of {row.condition}"
    return f" {'of' if has_queries else 'on'} {row.condition}" if len(comparison.conditions) > 1 else ""


def _named(comparison: Comparison, label: str) -> str:
    is_first = comparison.terms.pairs == "stages" and label == comparison.baseline
    return "the first stage" if is_first else label


def _between(comparison: Comparison, row: Row, *, is_equivalence: bool = False) -> str:
    """Return the interval that belongs to the verdict, with its level."""
    judged = row.judgment
    low, high = judged.low, judged.high
    if is_equivalence:
        low, high = judged.equivalence_low or 0.0, judged.equivalence_high or 0.0
    confidence = f"{percent_of(comparison, row, is_equivalence=is_equivalence)} interval"
    if not row.is_primary:
        confidence += " of this row alone"
    elif comparison.method == "bh" and comparison.family > 1:
        confidence += f", false coverage rate over {counted(comparison.family, 'comparison')}"
    elif is_simultaneous(comparison):
        confidence += f", simultaneous over {counted(comparison.family, 'comparison')}"
    is_exact = judged.basis == "exact sign flips"
    if not is_exact and row.limits is not None and (low <= row.limits[0] < 0 or high >= row.limits[1] > 0):
        confidence += f", cut at what {row.measure} can be"
    return f"somewhere between {_range(low, high)} ({confidence})"


HOLDS_ZERO = "it holds a 0 that the adjusted p rules out, for p is stepped down"
REACHES_BEYOND = "it reaches beyond the margin, which the adjusted p rules out, for p is stepped down"


def beyond_interval(judgment: Judgment) -> str:
    """Return what the verdict says that the interval beside it does not, as the end of a sentence; "" for nothing."""
    if not judgment.is_beyond_interval:
        return ""
    parts = [HOLDS_ZERO] if judgment.is_different and not judgment.excludes_zero else []
    return "; ".join([*parts, *([REACHES_BEYOND] if judgment.is_equivalent and not judgment.is_within_margin else [])])


def is_simultaneous(comparison: Comparison) -> bool:
    """Return whether the intervals beside the verdicts of a table hold all of its true differences together."""
    return comparison.family > 1 and comparison.method in {"holm", "bonferroni", "max-t"}


def percent_of(comparison: Comparison, row: Row, *, is_equivalence: bool = False) -> str:
    """Return the confidence of the interval beside a verdict, or of the one that shows equivalence, as "95 %".

    Simultaneous intervals are named by the confidence with which all of a table hold together. Equivalence is shown at
    alpha by an interval at 1 - 2 alpha (Schuirmann 1987), but for the maximum statistic, whose two tests share one.
    """
    judged = row.judgment
    level, alpha = judged.level, judged.alpha
    if is_equivalence:
        level, alpha = 2 * (judged.equivalence_level or 0.0), alpha if comparison.method == "max-t" else 2 * alpha
    missed = alpha if row.is_primary and is_simultaneous(comparison) else level
    return f"{100 * (1 - missed):.4g} %"


def _range(low: float, high: float) -> str:
    if low >= 0:
        return f"{_figure(low)} and {_figure(high)} above"
    if high <= 0:
        return f"{_figure(high)} and {_figure(low)} below"
    return f"{_figure(low)} below and {_figure(high)} above"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cost(cost: Cost, right: str) -> str:
    took = duration(cost.seconds)
    if cost.calls:
        return f"It took {took} of training and {counted(cost.calls, 'call')} of its teacher."
    if cost.stages > 1:
        where = f", partly in run {cost.reused_from}" if cost.reused_from else ""
        return f"Its {cost.stages} stages took {took} of training{where}."
    if cost.reused_from:
        return f"Its training took {took}, in run {cost.reused_from}, from which it was reused."
    return f"{right} took {took} more of training."


def _needed(comparison: Comparison, row: Row) -> list[str]:
    """Return which true difference would show, and how many queries the margin takes, by the spread of these."""
    judged, margin = row.judgment, row.judgment.margin
    out = []
    if judged.detectable is not None:
        what = "these queries and seeds" if row.recipes is not None else "these queries"
        out.append(f"With {what} {can_show(judged.detectable, row.limits)}.")
    if row.recipes is not None:
        return out
    if margin is None:
        who = "The recipe declares no margin" if comparison.terms.pairs == "stages" else "No margin is declared"
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
    """Return a number of queries to two digits, rounded up."""
    if queries is None:
        return "more than 100 million queries"
    step = 10 ** max(0, len(str(queries)) - 2)
    return f"about {-(-queries // step) * step:,} queries" if step > 1 else counted(queries, "query")


def _figure(value: float) -> str:
    """Return a size without its sign: .0096, 1.25, 0."""
    size = abs(value)
    if size and size < 0.00005:
        return f"{size:.1e}"
    return f"{size:.4f}".removeprefix("0") if size else "0"


def duration(seconds: float) -> str:
    """Return a duration in words: "0.4 s", "52 s", "4 min 10 s", "3 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    minutes, rest = divmod(rounded, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(rounded / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


# --- a verdict in a cell, and its reason in a sentence


def shown(judgment: Judgment, difference: float) -> str:
    """Return the verdict as tables show it: with its direction, and † where its margin was chosen after the results."""
    text: str = judgment.verdict
    if judgment.verdict == "different but negligible" and judgment.margin:
        text = f"{'better' if difference > 0 else 'worse'}, but by less than {short(judgment.margin.value)}"
    return f"{text} †" if judgment.is_late else text


def short(value: float) -> str:
    """Return a number as papers write it: .02, 1.5."""
    return f"{value:g}".removeprefix("0")


def explain(judgment: Judgment, limits: tuple[float, float] | None = None) -> str:
    """Return the verdict's reason in a sentence, numbers to four decimals; for tables' footnotes and reports.

    Args:
        limits: the differences that the measure allows, to say where none of them would show.
    """
    if judgment.verdict == "identical":
        return "identical: both rankings hold the same documents in the same order, so nothing was tested"
    interval = f"{_judged_interval(judgment)} [{judgment.low:+.4f}, {judgment.high:+.4f}]"
    side = "excludes 0" if judgment.excludes_zero else "includes 0"
    if judgment.is_different and not judgment.excludes_zero:
        side += f", but the adjusted p of {judgment.p_corrected:.3g}, which is stepped down, does not allow it"
    at_range = ", cut at the range of the measure" if judgment.is_cut else ""
    parts = [f"{judgment.verdict}{_missing_half(judgment)}: {interval} {side}{at_range}"]
    if judgment.basis == "exact sign flips":
        parts.append(f"too few queries differ for a t-test: the exact sign-flip test has p {judgment.p:.3g}")
    margin = judgment.margin
    if margin is not None and judgment.equivalence_level is not None:
        kind = _judged_interval(judgment, is_equivalence=True)
        low, high = judgment.equivalence_low or 0.0, judgment.equivalence_high or 0.0
        is_within = (judgment.p_equivalence_corrected or 0.0) <= judgment.alpha
        late = "" if margin.before else ", chosen after the results"
        place = "lies within" if judgment.is_within_margin else "reaches beyond"
        text = f"{kind} [{low:+.4f}, {high:+.4f}] {place} ±{margin.value:g} (margin{late})"
        if is_within and place == "reaches beyond":
            text += f", but the adjusted p of equivalence, {judgment.p_equivalence_corrected:.3g}, shows it"
        parts.append(text)
    if judgment.unseen is not None:
        parts.append(f"equivalence would be undone by one more query that differs by {judgment.unseen:.2g}")
    if judgment.detectable is not None:
        parts.append(can_show(judgment.detectable, limits))
    if judgment.queries_for_margin is not None and margin is not None:
        parts.append(f"to show equivalence takes {counted(judgment.queries_for_margin, 'query')} (80 % power)")
    if judgment.queries_for_difference is not None and margin is not None:
        many = counted(judgment.queries_for_difference, "query")
        parts.append(f"to show a true difference of {margin.value:g} takes {many} (80 % power)")
    return "; ".join(parts)


def _judged_interval(judgment: Judgment, *, is_equivalence: bool = False) -> str:
    """Return which interval a verdict rests on: the row's own, or one that is wider because the table has more rows."""
    level = 2 * (judgment.equivalence_level or 0.0) if is_equivalence else judgment.level
    percent = f"{100 * (1 - level):.4g} %"
    full = 2 * judgment.alpha if is_equivalence else judgment.alpha
    return f"interval adjusted for the whole table ({percent})" if level < full - 1e-9 else f"{percent} interval"


def _missing_half(judgment: Judgment) -> str:
    """Return what is not shown where the verdict is "cannot tell"."""
    if judgment.verdict != "cannot tell":
        return ""
    if judgment.margin is None:
        return " (no difference shown; no margin given, so equivalence was not asked)"
    return f" (neither a difference nor equivalence within ±{judgment.margin.value:g} is shown)"


def can_show(detectable: float, limits: tuple[float, float] | None) -> str:
    """Return which true difference would show, or that the measure leaves no room for one."""
    if limits is None or detectable <= min(-limits[0], limits[1]):
        return f"a true difference of {detectable:.4f} would show with 80 % power"
    up, down = limits[1], -limits[0]
    if detectable > max(up, down):
        return (
            f"no true difference that the measure allows would show with 80 % power: it takes {detectable:.4f}, and "
            f"only {up:.4f} is left above and {down:.4f} below"
        )
    side, room, other = ("gain", up, "loss") if detectable > up else ("loss", down, "gain")
    return (
        f"no {side} that the measure allows would show with 80 % power: only {room:.4f} is left; a {other} of "
        f"{detectable:.4f} would"
    )
