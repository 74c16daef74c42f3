"""From a step to its groups: a pure function of (seed, stage, step), so a resume needs no state of the sampler.

Invariant: `groups(step)` never depends on which steps were asked for before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from cerank.domain.groups import Group
from cerank.domain.recipe import Stage
from cerank.domain.seeds import derive
from cerank.errors import RunFailedError

Qrels = Mapping[str, Mapping[str, int]]


class Supply(msgspec.Struct, frozen=True):
    """What a stage's data can give, counted before training: for the log, and for whoever distrusts the numbers."""

    queries: int  # queries in the training dataset
    usable: int  # of them, those with something to learn from
    without_candidates: int  # not ranked by the first stage or teacher
    without_positive: int  # no document of at least the stage's relevance
    without_negative: int  # every candidate in the window is relevant, or fewer than two candidates to compare
    short: int  # usable, with fewer candidates than the group size asks for
    unretrieved_positives: int  # positives the first stage did not find; they are used all the same


class Sampler:
    """Draws the groups of a stage.

    Args:
        name: the stage's name; part of every seed, so that two stages draw independently.
        stage: its settings.
        seed: the run's seed.
        query_ids: the training queries.
        qrels: query -> document -> grade; read where `stage.source` is "labels".
        ranking: query -> documents, best first: the first stage's for labels, the teacher's for a teacher.
        has_text: whether a judged document has a text; those without cannot be positives.

    Raises:
        RunFailedError: no query is usable, or one is not and `stage.without_pair` is "refuse".
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        seed: int,
        *,
        query_ids: Sequence[str],
        qrels: Qrels,
        ranking: Mapping[str, Sequence[str]],
        has_text: Callable[[str], bool],
    ) -> None:
        self._name, self._stage, self._seed = name, stage, seed
        self._first, self._last = stage.window[0] - 1, stage.window[1]
        self._ranking = ranking
        self._positives: dict[str, list[str]] = {}
        if stage.source == "labels":
            for query in query_ids:
                grades = qrels.get(query, {})
                relevant = sorted(doc for doc, grade in grades.items() if grade >= stage.relevance and has_text(doc))
                self._positives[query] = relevant
        self._qrels = qrels
        self.supply, self._queries = self._count(query_ids)
        self._order: tuple[int, list[str]] = (-1, [])
        self._refuse_if_empty()

    @property
    def steps(self) -> int:
        """Steps of the whole stage."""
        if self._stage.steps:
            return self._stage.steps
        return max(1, math.ceil(self._stage.epochs * len(self._queries) / self._stage.groups_per_step))

    def groups(self, step: int) -> list[Group]:
        """The groups of `step` (1 is the first): `groups_per_step` of them, each of at least two candidates."""
        start = (step - 1) * self._stage.groups_per_step
        return [self._group(self._query_at(start + offset), step) for offset in range(self._stage.groups_per_step)]

    def _query_at(self, position: int) -> str:
        epoch, index = divmod(position, len(self._queries))
        if self._order[0] != epoch:
            order = list(self._queries)
            random.Random(derive(self._seed, "order", self._name, epoch)).shuffle(order)
            self._order = (epoch, order)
        return self._order[1][index]

    def _group(self, query: str, step: int) -> Group:
        draw = random.Random(derive(self._seed, "group", self._name, step, query))
        return self._from_teacher(query, draw) if self._stage.source == "teacher" else self._from_labels(query, draw)

    def _from_labels(self, query: str, draw: random.Random) -> Group:
        relevant, pool = self._positives[query], self._negatives(query)
        chosen = draw.sample(relevant, min(self._stage.positives, len(relevant)))
        size = min(self._stage.group_size - len(chosen), len(pool))
        negatives = pool[:size] if self._stage.negatives == "top" else draw.sample(pool, size)
        grades = self._qrels[query]
        labels = [float(grades[doc]) for doc in chosen] + [0.0] * len(negatives)
        return Group(query, (*chosen, *negatives), tuple(labels))

    def _from_teacher(self, query: str, draw: random.Random) -> Group:
        pool = self._window(query)
        size = min(self._stage.group_size, len(pool))
        places = range(size) if self._stage.negatives == "top" else sorted(draw.sample(range(len(pool)), size))
        return Group(query, tuple(pool[place] for place in places), tuple(float(size - rank) for rank in range(size)))

    def _window(self, query: str) -> Sequence[str]:
        return self._ranking.get(query, ())[self._first : self._last]

    def _negatives(self, query: str) -> list[str]:
        relevant = {doc for doc, grade in self._qrels.get(query, {}).items() if grade >= self._stage.relevance}
        return [doc for doc in self._window(query) if doc not in relevant]

    def _count(self, query_ids: Sequence[str]) -> tuple[Supply, list[str]]:
        usable: list[str] = []
        counts = dict.fromkeys(("candidates", "positive", "negative", "short", "unretrieved"), 0)
        for query in query_ids:
            lack, short = self._lack(query)
            if lack:
                counts[lack] += 1
                continue
            usable.append(query)
            counts["short"] += short
            if self._stage.source == "labels":
                counts["unretrieved"] += len(set(self._positives[query]) - set(self._ranking.get(query, ())))
        supply = Supply(
            queries=len(query_ids),
            usable=len(usable),
            without_candidates=counts["candidates"],
            without_positive=counts["positive"],
            without_negative=counts["negative"],
            short=counts["short"],
            unretrieved_positives=counts["unretrieved"],
        )
        return supply, usable

    def _lack(self, query: str) -> tuple[str, bool]:
        """What a query lacks to be learnt from ("" if nothing), and whether its group will be smaller than asked."""
        if not self._window(query):
            return "candidates", False
        if self._stage.source == "teacher":
            count = len(self._window(query))
            return ("negative" if count < 2 else ""), count < self._stage.group_size
        if not self._positives[query]:
            return "positive", False
        negatives = len(self._negatives(query))
        chosen = min(self._stage.positives, len(self._positives[query]))
        return ("" if negatives else "negative"), negatives < self._stage.group_size - chosen

    def _refuse_if_empty(self) -> None:
        supply = self.supply
        reasons = (
            f"{supply.without_candidates} have no candidates in the window, {supply.without_positive} no document of "
            f"grade {self._stage.relevance} or more, {supply.without_negative} nothing to compare it with"
        )
        where = f"stages.{self._name}"
        if not supply.usable:
            raise RunFailedError(
                f"none of the {supply.queries} training queries can be learnt from: {reasons}", where=where
            )
        if self._stage.without_pair == "refuse" and supply.usable < supply.queries:
            hint = 'set without_pair = "skip" to leave them out'
            lost = supply.queries - supply.usable
            raise RunFailedError(
                f"{lost} of {supply.queries} training queries lack a pair: {reasons}", where=where, hint=hint
            )
