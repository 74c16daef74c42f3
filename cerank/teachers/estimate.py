"""What a teacher's rankings will take, before anything is paid: calls, tokens, money, time.

Invariant: nothing is asked; what the store has already is read as it would be by the work itself.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

import msgspec

from cerank.core.rankings import Ranking
from cerank.core.seeds import derive
from cerank.teachers import declared, prompts
from cerank.teachers.answer_store import Call, ModelAnswer, read_answers
from cerank.teachers.budget import price_of, price_share
from cerank.teachers.engines.engine import Engine, Usage
from cerank.teachers.make import candidates_of, engine_of, probe_call, ranked_queries
from cerank.teachers.parsing.choices import Order, Preference
from cerank.teachers.parsing.permutations import Permutation
from cerank.teachers.procedures.by_kind import procedure_of
from cerank.teachers.procedures.steps import Asker, PromptedQuery
from cerank.teachers.reading import Value, read
from cerank.teachers.requests import TeachRequest
from cerank.teachers.work import call_key, use_known_form


class TeachingEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The estimated calls, tokens, cost and time of one teacher."""

    name: str
    place: str  # where the passages go
    queries: int
    calls: int  # in all
    known: int  # calls that were answered before
    usage: Usage  # tokens of the other calls
    are_tokens_counted: bool  # prompts by the model's own tokenizer; otherwise estimated from words
    are_calls_exact: bool  # sorting asks as many as the answers make it
    cost: float | None  # None without a price
    currency: str = ""
    price_date: str = ""
    seconds: float | None = None  # at the latency of earlier answers; None if there are none, and for batches
    rounds: int = 0  # batches that follow one another, for the query with most calls; 0 without a Batch API

    @property
    def left(self) -> int:
        """Calls that would be made."""
        return self.calls - self.known


def parts_of(request: TeachRequest) -> list[TeachRequest]:
    """Return what is asked of each member of an ensemble; of another teacher the request itself."""
    spec = request.spec
    if spec.kind != "ensemble":
        return [request]
    return [msgspec.structs.replace(request, name=name, depth=spec.depth) for name in spec.members]


def estimate(
    request: TeachRequest, prompted: Sequence[PromptedQuery] | None = None, seen: set[str] | None = None
) -> list[TeachingEstimate]:
    """Return what the teacher takes; of an ensemble, what each member takes.

    Args:
        request: names the teacher and the queries.
        prompted: what is asked about in place of the request's queries with their candidates.
        seen: keys of calls that were counted before, for another request, and are not counted again; this request's
            are added. None counts all.

    Raises:
        CerankError: the teacher cannot be made as declared.
    """
    spec = request.spec
    seen = set() if seen is None else seen
    if spec.kind == "ensemble":
        return [each for member in parts_of(request) for each in estimate(member, seen=seen)]
    before = candidates_of(request) if prompted is None else Ranking({}, {})
    if spec.kind == "cross-encoder":
        pairs = sum(map(len, before.values()))
        return [
            TeachingEstimate(
                name=request.name, place="in process", queries=len(before), calls=0, known=0,
                usage=Usage(), are_tokens_counted=True, are_calls_exact=True, cost=None,
            )
        ] if pairs else []  # fmt: skip
    engine = engine_of(request, with_key=False)
    asker = Asker(spec, prompts.template_of(spec), request.sample)
    answers = read_answers(declared.answers_file(request.lab, engine.place, spec.model))
    probe = use_known_form(engine, probe_call(asker), answers.get)
    count = _Count(engine, asker, answers, seen)
    if probe is None:
        count.add(probe_call(asker))
    for query in ranked_queries(request, before) if prompted is None else prompted:
        count.query(query)
    price = price_of(spec, request.prices)
    times = [answer.seconds for answer in answers.values() if answer.seconds and not answer.failure]
    at_once = 1 if spec.is_local else spec.concurrency
    left = count.calls - count.known
    return [
        TeachingEstimate(
            name=request.name,
            place=spec.server or "in process",
            queries=len(before) if prompted is None else len(prompted),
            calls=count.calls,
            known=count.known,
            usage=Usage(count.input, count.output),
            are_tokens_counted=count.is_exact,
            are_calls_exact=not (spec.kind == "setwise" or spec.sorting_method in {"sorted", "sliding"}),
            cost=price.cost(Usage(count.input, count.output)) * price_share(spec, price) if price else None,
            currency=price.currency if price else "",
            price_date=price.date if price else "",
            seconds=statistics.fmean(times) * left / at_once if times and not spec.batch else None,
            rounds=count.rounds if spec.batch else 0,
        )
    ]


class _Count:
    """Goes through procedures with answers from the store, and with made-up ones where there are none."""

    def __init__(self, engine: Engine, asker: Asker, answers: dict[str, ModelAnswer], seen: set[str]) -> None:
        self._engine, self._asker, self._answers, self._seen = engine, asker, answers, seen
        self.calls = self.known = self.input = self.output = self.rounds = 0
        self.is_exact = True

    def add(self, call: Call) -> None:
        """Count a call that will be made, unless an equal one was counted."""
        if not self._is_first(call_key(self._engine, call)):
            return
        tokens, is_exact = self._engine.input_tokens(call)
        self.calls += 1
        self.input += tokens
        self.output += min(call.expected_output, call.max_output)
        self.is_exact = self.is_exact and is_exact

    def _is_first(self, key: str) -> bool:
        """Return whether no call with that key was counted before, and remember it."""
        is_first = key not in self._seen
        self._seen.add(key)
        return is_first

    def query(self, query: PromptedQuery) -> None:
        """Count the calls of a query."""
        rounds = 0
        steps = procedure_of(self._asker.spec)(query, self._asker)
        generator = random.Random(derive(0, "estimate", query.id))
        try:
            batch = next(steps)
            while True:
                values: list[Value] = []
                before = self.calls - self.known
                for call in batch:
                    key = call_key(self._engine, call)
                    known = self._answers.get(key)
                    if known is None:
                        self.add(call)
                        values.append(_made_up(call, generator))
                        continue
                    is_first = self._is_first(key)
                    self.calls += is_first
                    self.known += is_first
                    reading = read(call, known)
                    if reading.value is None:
                        return  # it failed, and is not asked again
                    values.append(reading.value)
                rounds += self.calls - self.known > before
                self.rounds = max(self.rounds, rounds)
                batch = steps.send(values)
        except StopIteration:
            return


def _made_up(call: Call, generator: random.Random) -> Value:
    """Return what an answer could mean; only how many calls follow depends on it."""
    if call.kind == "listwise":
        return Permutation(order=tuple(range(call.size)), named=call.size)
    if call.kind == "first":
        return Order(tuple(range(call.size)), 0)
    if call.kind == "pointwise":
        return Preference(0.0)
    if call.kind == "queries":
        return "a query"
    return 0 if call.kind == "graded" else generator.randrange(call.size)
