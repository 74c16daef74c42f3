"""The filter language of a list of runs: words, `state:running`, `nDCG@10>0.4`, AND, OR, NOT and parentheses.

    filter    = any
    any       = all { "OR" all }
    all       = condition { ["AND"] condition }
    condition = "NOT" condition | "(" any ")" | term
    term      = FIELD (":" | "~") text | NAME (">" | ">=" | "<" | "<=" | "=" | "!=") number | text

`base:bert` is the base of that name alone, `base:bert*` those that begin with it, `base~bert` those that contain it. A
text without a field is looked for anywhere. Case does not matter; "quoted text" may hold blanks. A run that lacks a
measure meets no comparison of it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import TypeAlias

from cerank.app.run_views.display import GLYPHS
from cerank.app.run_views.run_monitor import RunEntry
from cerank.errors import UsageError
from cerank.registry import nearest

Filter: TypeAlias = Callable[[RunEntry], bool]


def _losses(entry: RunEntry) -> tuple[str, ...]:
    stages = entry.plan.recipe.chained() if entry.plan else ()
    return tuple(part.name for _, stage in stages for part in stage.parts)


_FIELDS: Mapping[str, Callable[[RunEntry], tuple[str, ...]]] = {
    "state": lambda entry: (entry.state,),
    "recipe": lambda entry: (entry.recipe,),
    "base": lambda entry: (entry.base, entry.plan.recipe.base) if entry.plan else (),
    "label": lambda entry: (entry.label,),
    "tag": lambda entry: entry.notes.tags,
    "run": lambda entry: (entry.short_name, entry.name, entry.name.rpartition("-")[2]),
    "stage": lambda entry: entry.plan.recipe.chain if entry.plan else (),
    "loss": _losses,
    "dataset": lambda entry: (entry.plan.recipe.data.train, *entry.plan.recipe.data.test) if entry.plan else (),
    "device": lambda entry: (entry.plan.device,) if entry.plan else (),
}
_NUMBERS: Mapping[str, Callable[[RunEntry], float | None]] = {
    "seed": lambda entry: entry.plan.recipe.seed if entry.plan else None,
    "percent": lambda entry: None if entry.share is None else 100 * entry.share,
    "left": lambda entry: entry.seconds_left or None,
    "attempts": lambda entry: entry.status.attempts,
}
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
# a name may itself hold "=", as RR(rel=2)@10 does: the sign is the last one, with a number behind it
_COMPARISON = re.compile(r"(?P<name>[^<>!]*[^<>!=])(?P<sign>>=|<=|!=|>|<|=)(?P<number>-?(\d+\.?\d*|\.\d+)(e-?\d+)?)")
_HINT = 'such as: state:running nDCG@10>0.4 NOT (base:minilm OR label:"first try")'
_NOT, _OPEN = "NOT", "("
_FIELD_SIGN = re.compile("([:~])")
_DEEPEST = 50

EXAMPLE = _HINT.removeprefix("such as: ")
FIELDS = tuple(_FIELDS)


def parse(text: str) -> Filter:
    """Return the filter that `text` writes; one that is empty lets everything through.

    Raises:
        UsageError: what is wrong with it, and at which character.
    """
    parser = _Parser(_tokens(text))
    if not parser.tokens:
        return lambda _: True
    predicate = parser.any(0)
    if parser.place < len(parser.tokens):
        raise _mistake("a closing parenthesis without its opening one", parser.tokens[parser.place][1])
    return predicate


_Token: TypeAlias = tuple[str, int]  # the text and the character it starts at, from 1


def _mistake(what: str, place: int, hint: str = _HINT) -> UsageError:
    return UsageError(what, where=f"filter, character {place}", hint=hint)


def _tokens(text: str) -> list[_Token]:
    """Return words, and parentheses that stand for themselves.

    Those that a word like RR(rel=2)@10 opens belong to it.
    """
    out: list[_Token] = []
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
        elif text[place] in "()":
            out.append((text[place], place + 1))
            place += 1
        else:
            end = _word_end(text, place)
            out.append((text[place:end], place + 1))
            place = end
    return out


def _word_end(text: str, place: int) -> int:
    start, depth, is_quoted = place, 0, False
    while place < len(text):
        char = text[place]
        if char == '"':
            is_quoted = not is_quoted
        elif not is_quoted:
            if char.isspace() or (char == ")" and not depth):
                return place
            depth += {"(": 1, ")": -1}.get(char, 0)
        place += 1
    if is_quoted:
        raise _mistake("a quote that is not closed", text.rindex('"', start) + 1)
    return place


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.place = 0

    def _next(self) -> str:
        return self.tokens[self.place][0] if self.place < len(self.tokens) else ""

    def _where(self) -> int:
        if self.place < len(self.tokens):
            return self.tokens[self.place][1]
        text, at = self.tokens[-1]
        return at + len(text)

    def any(self, depth: int) -> Filter:
        alternatives = [self.all(depth)]
        while self._next() == "OR":
            self.place += 1
            alternatives.append(self.all(depth))
        return (
            alternatives[0]
            if len(alternatives) == 1
            else lambda entry: any(alternative(entry) for alternative in alternatives)
        )

    def all(self, depth: int) -> Filter:
        conditions = [self.condition(depth)]
        while self._next() not in {"", ")", "OR"}:
            if self._next() == "AND":
                self.place += 1
            conditions.append(self.condition(depth))
        return (
            conditions[0] if len(conditions) == 1 else lambda entry: all(condition(entry) for condition in conditions)
        )

    def condition(self, depth: int) -> Filter:
        token, where = self._next(), self._where()
        if depth > _DEEPEST:
            raise _mistake("parentheses and NOTs are nested too deep", where)
        if token in {"", "AND", "OR", ")"}:
            raise _mistake(f"a condition is missing before '{token}'" if token else "the filter ends too early", where)
        self.place += 1
        if token == _NOT:
            inner = self.condition(depth + 1)
            return lambda entry: not inner(entry)
        if token == _OPEN:
            inner = self.any(depth + 1)
            if self._next() != ")":
                raise _mistake("a parenthesis that is not closed", where)
            self.place += 1
            return inner
        return _term(token, where)


def _term(token: str, where: int) -> Filter:
    compared = _COMPARISON.fullmatch(token)
    if compared:
        return _comparison(compared["name"], compared["sign"], float(compared["number"]))
    field, sign, rest = _FIELD_SIGN.split(token, maxsplit=1) if _FIELD_SIGN.search(token) else (token, "", "")
    if sign and field in _FIELDS:
        return _field_condition(field, sign, rest, where)
    if sign == ":" and field.isalpha() and not token.startswith('"'):
        raise _mistake(f"runs have no '{field}'", where, nearest(field, FIELDS))
    if re.search(r"[<>]", token) and not token.startswith('"'):
        raise _mistake(f"'{token}' has no number to compare with", where)
    word = _unquoted(token)
    return lambda entry: any(word in text.casefold() for text in _searched(entry))


def _field_condition(field: str, sign: str, rest: str, where: int) -> Filter:
    """Return the condition that a field is, or contains, a text; an empty text asks whether it has any."""
    text, texts_of = _unquoted(rest), _FIELDS[field]
    if not text:
        return lambda entry: any(texts_of(entry))
    if sign == "~":
        return lambda entry: any(text in value.casefold() for value in texts_of(entry))
    if field == "state" and not any(fnmatchcase(state, text) for state in GLYPHS):
        raise _mistake(f"no run is ever '{rest}'", where, nearest(text, tuple(GLYPHS)))
    return lambda entry: any(fnmatchcase(value.casefold(), text) for value in texts_of(entry))


def _unquoted(text: str) -> str:
    return text.replace('"', "").casefold()


def _searched(entry: RunEntry) -> tuple[str, ...]:
    """Return what a word alone is looked for in."""
    return (
        entry.name,
        entry.short_name,
        entry.label,
        entry.state,
        entry.recipe,
        entry.base,
        entry.stage,
        *entry.notes.tags,
    )


def _comparison(name: str, sign: str, number: float) -> Filter:
    def value(entry: RunEntry) -> float | None:
        if name in _NUMBERS:
            return _NUMBERS[name](entry)
        measures = entry.finals or (entry.validation.measures if entry.validation else {})
        return next((mean for measure, mean in measures.items() if measure.casefold() == name.casefold()), None)

    def meets(entry: RunEntry) -> bool:
        number_of_run = value(entry)
        return number_of_run is not None and _SIGNS[sign](number_of_run, number)

    return meets
