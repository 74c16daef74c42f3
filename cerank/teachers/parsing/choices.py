"""The one passage that an answer chooses, a grade from 0 to 3, and the log-probabilities of an answer's first token."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from cerank.teachers.parsing.permutations import answer_of

Alternatives = Sequence[tuple[str, float]]  # tokens at one place of an answer, with their log-probabilities

_GRADE_TAG = re.compile(r"final\s*score\W{0,5}\s*([0-9])(?![0-9.])", re.IGNORECASE)
_GRADE_JSON = re.compile(r'"(?:O|final_score|score|grade|relevance)"\s*:\s*"?([0-9])(?![0-9.])')
_LONE_DIGIT = re.compile(r"(?<![0-9.])([0-9])(?![0-9.])")
_AFTER_A_CHOICE = {"", ".", ":", ",", ")", "]", "\n", '"', "*"}  # what may follow a letter that is a choice
YES, NO = frozenset({"yes", "Yes", "YES"}), frozenset({"no", "No", "NO"})  # rank_llm's spellings


class Order(msgspec.Struct, frozen=True):
    """An order by the log-probabilities of identifiers; those without one follow in the order that was given."""

    order: tuple[int, ...]
    missing: int  # identifiers that the server's list of tokens does not hold


def chosen_letter(text: str, size: int) -> int | None:
    """Return the place, from 0, of the passage that an answer such as "Passage B" chooses; None if it names none.

    An answer that names several different ones chooses none.
    """
    body = answer_of(text)
    if body is None:
        return None
    clean = body.strip().strip("*_`\"'")
    match = re.match(r"(?:passage[\s:]*)?[\[(\"']?([A-Za-z])(?![A-Za-z])", clean, re.IGNORECASE)
    # "A" at the start of "A relevant passage is C" is an article
    letters = {letter.upper() for letter in re.findall(r"\bpassage[\s:\"'\[(]*([A-Z])\b", clean, re.IGNORECASE)}
    if match and (len(clean) <= 3 or clean[match.end() : match.end() + 1] in _AFTER_A_CHOICE):
        letters |= {match[1].upper()}
    places = {ord(letter) - ord("A") for letter in letters}
    return places.pop() if len(places) == 1 and max(places, default=size) < size else None


def read_grade(text: str) -> int | None:
    """Return the grade in an answer of UMBRELA's form; None if there is none from 0 to 3.

    "##final score: 2", or JSON, or a digit alone on the last line that has one.
    """
    body = answer_of(text)
    if body is None:
        return None
    grades = _GRADE_TAG.findall(body) or _GRADE_JSON.findall(body)
    if not grades:
        lines = [line for line in body.splitlines() if line.strip()]
        grades = _LONE_DIGIT.findall(lines[-1]) if lines else []
        grades = grades if len(set(grades)) == 1 else []
    grade = int(grades[-1]) if grades else None
    return grade if grade is not None and grade <= 3 else None


def order_by_log_probability(positions: Sequence[Alternatives], identifiers: Sequence[str]) -> Order | None:
    """Return the order of FIRST: identifiers by the log-probability of being the answer's first token.

    As in rank_llm, a token counts if it is exactly the identifier; of several such, the most probable. The place that
    is read is the first in the answer that holds any identifier: right at its start, or behind a "[".

    Args:
        positions: the tokens at each place of the answer with their log-probabilities.
        identifiers: what the passages are called, in the order that was given.
    """
    places = {name: place for place, name in enumerate(identifiers)}
    for alternatives in positions:
        best: dict[int, float] = {}
        for token, value in alternatives:
            place = places.get(token)
            if place is not None and value > best.get(place, -math.inf):
                best[place] = value
        if best:
            ranked = sorted(best, key=lambda place: (-best[place], place))
            rest = [place for place in range(len(identifiers)) if place not in best]
            return Order((*ranked, *rest), len(rest))
    return None


class Preference(msgspec.Struct, frozen=True):
    """How much more probable "yes" is than "no"."""

    log_odds: float
    is_bound: bool = False  # one of both was not among the tokens: its probability is at most that of the last one


def yes_over_no(alternatives: Alternatives) -> Preference | None:
    """Return the log-odds of yes against no at an answer's first token; None if the list has neither.

    Where one of them is missing, it is taken to be as probable as the last token of the list, the most that it can be.
    """
    masses = [_mass(alternatives, words) for words in (YES, NO)]
    if masses == [0.0, 0.0]:
        return None
    bound = math.exp(min(value for _, value in alternatives))
    yes, no = (mass or bound for mass in masses)
    if yes <= 0.0 or no <= 0.0:
        return None
    return Preference(math.log(yes) - math.log(no), 0.0 in masses)


def _mass(alternatives: Alternatives, words: frozenset[str]) -> float:
    return math.fsum(math.exp(value) for token, value in alternatives if token.strip() in words)
