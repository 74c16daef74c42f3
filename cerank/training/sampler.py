"""From a step to its groups: a pure function of (seed, stage, step), so a resume needs no state of the sampler.

Invariant: `groups(step)` never depends on which steps were asked for before.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from cerank.core.groups import Group
from cerank.core.seeds import derive
from cerank.errors import RunFailedError
from cerank.recipes.loss_specs import target_of
from cerank.recipes.schema import Stage
from cerank.training import negatives

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
    dropped_positives: int = 0  # of these, left out all the same: `unretrieved = "none"`


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
        scores: query -> the scores of its list in `ranking`; needed where the loss takes a teacher's scores.

    Raises:
        RunFailedError: no query is usable, or one is not and `stage.without_pair` is "refuse"; the loss takes scores,
            and those of the teacher are ranks.
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
        scores: Callable[[str], Sequence[float]] | None = None,
    ) -> None:
        self._name, self._stage, self._seed = name, stage, seed
        self._first, self._last = stage.window[0] - 1, stage.window[1]
        self._ranking, self._has_text = ranking, has_text
        self._scores = scores if target_of(stage) == "scores" else None
        self._positives: dict[str, list[str]] = {}
        if stage.source == "labels":
            for query in query_ids:
                grades = qrels.get(query, {})
                ranked = ranking.get(query, ()) if stage.unretrieved == "none" and grades else ()
                self._positives[query] = negatives.positives(stage, grades, ranked, has_text)
        self._qrels = qrels
        self.supply, self._queries = self._count(query_ids)
        self._order: tuple[int, list[str]] = (-1, [])
        self._refuse_if_empty()
        self._refuse_ranks_for_scores()

    @property
    def steps(self) -> int:
        """Steps of the whole stage."""
        if self._stage.steps:
            return self._stage.steps
        return max(1, math.ceil(self._stage.epochs * len(self._queries) / self._stage.groups_per_step))

    @property
    def usable(self) -> tuple[str, ...]:
        """The queries with something to learn from, in the order they were given."""
        return tuple(self._queries)

    @property
    def drawn(self) -> tuple[str, ...]:
        """Return the queries that the stage's steps draw, in the order of `usable`."""
        taken = self.steps * self._stage.groups_per_step
        if taken >= len(self._queries):
            return self.usable
        wanted = {self._query_at(position) for position in range(taken)}
        return tuple(query for query in self._queries if query in wanted)

    def taught(self, ranking: Mapping[str, Sequence[str]], scores: Callable[[str], Sequence[float]]) -> Sampler:
        """Return this sampler with a teacher's order of the candidates: the same queries are drawn at the same steps.

        Args:
            ranking: of each query in `drawn` the same documents as before, in the teacher's order; no others are asked.
            scores: query -> the teacher's scores of that list.
        """
        made = copy.copy(self)
        made._ranking = ranking
        made._scores = scores if target_of(self._stage) == "scores" else None
        made._refuse_ranks_for_scores()
        return made

    def groups(self, step: int) -> list[Group]:
        """The groups of `step` (1 is the first): `groups_per_step` of them, each of at least two candidates."""
        start = (step - 1) * self._stage.groups_per_step
        queries = [self._query_at(start + offset) for offset in range(self._stage.groups_per_step)]
        groups = [self._group(query, step) for query in queries]
        return [self._with_others(at, groups, step) for at in range(len(groups))] if self._stage.in_batch else groups

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
        stage, ranked = self._stage, self._ranking.get(query, ())
        chosen = negatives.chosen_positives(stage, self._positives[query], ranked, draw)
        pool = self._negatives(query, len(chosen))
        size = min(stage.group_size - len(chosen), len(pool))
        taken = negatives.drawn(stage, [doc for _, doc in pool], [rank for rank, _ in pool], size, draw)
        grades = self._qrels[query]
        labels = [float(grades[doc]) for doc in chosen] + [0.0] * len(taken)
        return Group(query, (*chosen, *taken), tuple(labels))

    def _from_teacher(self, query: str, draw: random.Random) -> Group:
        pool = self._window(query)
        size = min(self._stage.group_size, len(pool))
        ranks = range(self._first + 1, self._first + 1 + len(pool))
        places = sorted(negatives.drawn(self._stage, range(len(pool)), ranks, size, draw))
        labels = [float(size - rank) for rank in range(size)]
        if self._scores is not None:
            given = self._scores(query)[self._first : self._last]
            labels = [given[place] for place in places]
        return Group(query, tuple(pool[place] for place in places), tuple(labels))

    def _with_others(self, at: int, groups: Sequence[Group], step: int) -> Group:
        """The group at a place of the step, with documents of the others as negatives."""
        group = groups[at]
        grades = self._qrels.get(group.query_id, {})
        others = dict.fromkeys(doc for other in groups if other is not group for doc in other.doc_ids)
        own = set(group.doc_ids)
        pool = [doc for doc in others if doc not in own and grades.get(doc, 0) < self._stage.relevance]
        draw = random.Random(derive(self._seed, "in-batch", self._name, step, at))
        added = draw.sample(pool, min(self._stage.in_batch, len(pool)))
        return Group(group.query_id, (*group.doc_ids, *added), (*group.labels, *[0.0] * len(added)))

    def _window(self, query: str) -> Sequence[str]:
        return self._ranking.get(query, ())[self._first : self._last]

    def _negatives(self, query: str, chosen: int) -> list[tuple[int, str]]:
        return negatives.negatives(
            self._stage,
            self._qrels.get(query, {}),
            self._ranking.get(query, ()),
            found=self._positives[query],
            wanted=self._stage.group_size - chosen,
            has_text=self._has_text,
        )

    def _count(self, query_ids: Sequence[str]) -> tuple[Supply, list[str]]:
        usable: list[str] = []
        counts = dict.fromkeys(("candidates", "positive", "negative", "short", "unretrieved", "dropped"), 0)
        for query in query_ids:
            lack, short = self._lack(query)
            counts["dropped"] += self._dropped(query)
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
            dropped_positives=counts["dropped"],
        )
        return supply, usable

    def _dropped(self, query: str) -> int:
        """Positives with a text that the stage leaves out because they were not retrieved."""
        if self._stage.source == "teacher" or self._stage.unretrieved != "none":
            return 0
        grades = self._qrels.get(query, {})
        every = [doc for doc, grade in grades.items() if grade >= self._stage.relevance and self._has_text(doc)]
        return len(every) - len(self._positives[query])

    def _lack(self, query: str) -> tuple[str, bool]:
        """What a query lacks to be learnt from ("" if nothing), and whether its group will be smaller than asked."""
        window = self._window(query)
        if self._stage.source == "teacher":
            lack = "candidates" if not window else "negative" if len(window) < 2 else ""
            return lack, len(window) < self._stage.group_size
        if not window and (self._stage.unretrieved != "judged" or not self._qrels.get(query)):
            return "candidates", False
        if not self._positives[query]:
            return "positive", False
        chosen = min(self._stage.positives, len(self._positives[query]))
        count = len(self._negatives(query, chosen))
        return ("" if count else "negative"), count < self._stage.group_size - chosen

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

    def _refuse_ranks_for_scores(self) -> None:
        """Refuses scores that fall by exactly 1 from document to document in every list: an order, and no more."""
        if self._scores is None:
            return
        lists = (self._scores(query) for query in self._queries if query in self._ranking)
        long = [values for values in itertools.islice(lists, 1000) if len(values) > 2]
        if long and all(left - right == 1.0 for values in long for left, right in itertools.pairwise(values)):
            hint = 'take a loss on ranks, such as "ranknet", or a teacher with scores of its own'
            what = (
                f'loss "{self._stage.loss}" needs scores, and the teacher\'s are ranks: each is 1 below the one before'
            )
            raise RunFailedError(what, where=f"stages.{self._name}.teacher", hint=hint)
