"""Sample the groups of a step: a pure function of (seed, stage, step), so that a resume needs no state of the sampler.

Invariant: `groups(step)` never depends on which steps were asked for before.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

import msgspec

from cerank.core.groups import Group
from cerank.core.rankings import tie_starts
from cerank.core.row_sets import ChosenItems, RowSet
from cerank.core.seeds import derive
from cerank.datasets.collection_ids import CollectionIds
from cerank.datasets.mapped.mixed_sets import MixedIds
from cerank.datasets.mapped.rows_record import RowsRecord
from cerank.errors import RunFailedError
from cerank.recipes.loss_specs import target_of
from cerank.recipes.schema import Stage
from cerank.text.safe_text import counted
from cerank.training.sampling import negatives
from cerank.training.sampling.mixed_negatives import GroupQuery, MixedNegatives, SampledNegative
from cerank.training.sampling.query_orders import QUERY_ORDERS, QuerySupply

Qrels = Mapping[str, Mapping[str, int]]


class SamplingStats(msgspec.Struct, frozen=True):
    """What a stage's data can give, counted before training."""

    queries: int  # queries in the training dataset
    usable: int  # queries that can be trained on
    without_candidates: int  # not ranked by the first stage or teacher
    without_positive: int  # no document of at least the stage's relevance
    without_negative: int  # every candidate in the window is relevant, or fewer than two candidates to compare
    undersized: int = msgspec.field(name="short")  # usable, with fewer candidates than the group size asks for
    unretrieved_positives: int  # positives that the first stage did not retrieve, and that are used
    dropped_positives: int = 0  # positives that were not retrieved and are not used: `unretrieved = "none"`


class TeacherTies(msgspec.Struct, frozen=True, kw_only=True):
    """The pairs of documents that a teacher scores alike; a loss on its order takes no preference from them."""

    tied: int = 0
    pairs: int = 0  # pairs in all lists that the stage samples
    lists: int = 0  # lists that hold a tie

    def __str__(self) -> str:
        share = f"{100 * self.tied / max(1, self.pairs):.2g} %"
        return (
            f"{self.tied:,} of {self.pairs:,} pairs of documents in the teacher's lists have equal scores ({share}, in "
            f"{counted(self.lists, 'list')})"
        )


# keys of a stage that decide, with its pool, which queries can be trained on
DECIDING_KEYS = (
    *("source", "relevance", "unretrieved", "positives", "group_size", "window"),
    *("negatives_from", "below_positives", "negative_sources"),
)


class TrainingPool(msgspec.Struct, frozen=True, kw_only=True):
    """What the groups of a stage are sampled from.

    Args:
        query_ids: ids of the training queries.
        qrels: query -> document -> grade; read where the stage's `source` is "labels".
        ranking: query -> document ids, best first: the first stage's ranking for labels, the teacher's for a teacher.
        has_text: returns whether a judged document has a text; a document without one cannot be a positive.
        scores: query -> scores of its list in `ranking`; needed where the loss takes a teacher's scores, and where
            documents that a teacher scores alike shall carry no preference.
        unranked: query -> documents in `ranking` that a teacher of the stage did not rank, and that are no negatives
            where they come from `ranking`.
        sources: name of a run in the stage's `negative_sources`, "" for the stage's own first stage -> its ranking.
        collections: ids of all documents under "", or of each set of a mixture under its number; needed where negatives
            come from the whole collection.
        shares: of a mixture: number of each set -> its share of the groups, relative to the others.
        usable: where it is kept which queries can be used, for pools that take minutes to go through; None counts them.
    """

    query_ids: Sequence[str]
    qrels: Qrels
    ranking: Mapping[str, Sequence[str]]
    has_text: Callable[[str], bool]
    scores: Callable[[str], Sequence[float]] | None = None
    unranked: Mapping[str, frozenset[str]] = {}
    sources: Mapping[str, Mapping[str, Sequence[str]]] = {}
    collections: Mapping[str, CollectionIds] = {}
    shares: Mapping[str, float] = {}
    usable: RowsRecord | None = None


class Sampler:
    """Samples the groups of a stage.

    Args:
        name: name of the stage; part of every seed, so that two stages sample independently.
        stage: settings of the stage: its group size, window of ranks, and sampler of negatives.
        seed: seed of the run, from 0.
        pool: the queries, their judgments and their candidates.

    Raises:
        RunFailedError: no query is usable, or one is not and `stage.without_pair` is "refuse"; the loss takes a
            teacher's scores, and those of this teacher are ranks.

    Example:
        >>> pool = TrainingPool(
        ...     query_ids=["q1"],
        ...     qrels={"q1": {"d3": 1}},
        ...     ranking={"q1": ["d1", "d2", "d3"]},
        ...     has_text=lambda doc_id: True,
        ... )
        >>> sampler = Sampler("contrastive", Stage(steps=2, group_size=3, groups_per_step=1), seed=1, pool=pool)
        >>> for group in sampler.groups(step=1):
        ...     print(group.query_id, sorted(zip(group.labels, group.doc_ids), reverse=True))
        q1 [(1.0, 'd3'), (0.0, 'd2'), (0.0, 'd1')]
    """

    def __init__(self, name: str, stage: Stage, seed: int, pool: TrainingPool) -> None:
        self._name, self._stage, self._seed = name, stage, seed
        self._first, self._last = stage.window[0] - 1, stage.window[1]
        self._ranking, self._has_text, self._qrels = pool.ranking, pool.has_text, pool.qrels
        self._scores = pool.scores if target_of(stage) == "scores" else None
        self._teacher_scores = pool.scores if stage.source == "teacher" else None
        self._pool = pool
        self._dropped: Mapping[str, frozenset[str]] = {}  # query -> documents that a filter dropped
        self._left_out: frozenset[str] = frozenset()  # queries that a teacher could not rank
        self._mixed = (
            MixedNegatives(name, stage, seed, pool.sources, pool.collections) if stage.negative_sources else None
        )
        self._first_queries: Sequence[str] = ()  # of the first groups, in the order of a curriculum
        self._newest: tuple[str, list[str]] = ("", [])  # the query that was looked at last, and its positives
        self._count_queries()
        self._reject_ranks_for_scores()

    def _count_queries(self) -> None:
        """Count what the data can give, and begin with no order of any epoch.

        Raises:
            RunFailedError: no query is usable, or one is not and the stage refuses that.
        """
        query_ids = self._pool.query_ids
        record = None if self._dropped or self._left_out else self._pool.usable
        known = record.load(SamplingStats.__struct_fields__) if record is not None else None
        if known is not None:
            usable, facts = known
            self.sampling, supplied, emptied = SamplingStats(**facts), usable, list[int]()
        else:
            self.sampling, usable, supplied, emptied = self._count(query_ids)
            if record is not None:
                record.save(usable, msgspec.structs.asdict(self.sampling))
        self._queries = ChosenItems(query_ids, None if len(usable) == len(query_ids) else usable)
        supply = self._supply(query_ids, supplied, emptied)
        self._order = QUERY_ORDERS[self._stage.query_order](self._name, self._seed, supply)
        self._reject_if_empty(supply)

    @property
    def steps(self) -> int:
        """Return the number of steps of the stage."""
        if self._stage.steps:
            return self._stage.steps
        return max(1, math.ceil(self._stage.epochs * len(self._queries) / self._stage.groups_per_step))

    @property
    def usable(self) -> Sequence[str]:
        """Return the queries that can be trained on, in the order they were given."""
        return self._in_memory(self._queries)

    @property
    def emptied(self) -> tuple[str, ...]:
        """Return the queries that filters against false negatives left without a negative."""
        supply = self._order.supply
        passed_over = (supply.queries[place] for place in supply.emptied)
        return tuple(query for query in passed_over if query not in self._left_out)

    @property
    def sampled_queries(self) -> Sequence[str]:
        """Return the queries that the stage's steps sample, in the order of `usable`."""
        groups = self.steps * self._stage.groups_per_step
        if groups >= len(self._queries) and not self._pool.shares:  # a mixture may take a small set twice before that
            return self.usable
        every = self._order.supply.queries
        places = RowSet(len(every))
        for position in range(groups):
            places.add(self._order.place_at(position))
        return self._in_memory(ChosenItems(every, places))

    def _in_memory(self, queries: Sequence[str]) -> Sequence[str]:
        """Return queries as a tuple where all ids are in memory anyway; else looked up when they are asked for."""
        return tuple(queries) if isinstance(self._pool.query_ids, list | tuple) else queries

    def with_teacher(self, ranking: Mapping[str, Sequence[str]], scores: Callable[[str], Sequence[float]]) -> Self:
        """Return this sampler with a teacher's order of the candidates; each step samples the same queries as before.

        Args:
            ranking: query -> the same documents as before, in the teacher's order, for the queries in
                `sampled_queries`; others are not read.
            scores: query -> the teacher's scores of that list.
        """
        sampler = copy.copy(self)
        sampler._ranking = ranking
        sampler._scores = scores if target_of(self._stage) == "scores" else None
        sampler._teacher_scores = scores
        sampler._reject_ranks_for_scores()
        return sampler

    def dropping(self, dropped: Mapping[str, frozenset[str]]) -> Self:
        """Return this sampler without some candidates; queries that keep a negative are sampled in the same order.

        Args:
            dropped: query -> documents that are no negatives of it.

        Raises:
            RunFailedError: no query keeps a negative, or one does not and `stage.without_pair` is "refuse".
        """
        sampler = copy.copy(self)
        sampler._dropped = dropped
        sampler._count_queries()
        return sampler

    def leaving_out(self, queries: Iterable[str]) -> Self:
        """Return this sampler without some more queries, such as those that a teacher could not rank.

        The others are sampled in the same order as before, so that few new ones come in.

        Raises:
            RunFailedError: no query is left.
        """
        sampler = copy.copy(self)
        sampler._left_out = self._left_out.union(queries)
        sampler._count_queries()
        return sampler

    def candidates_of(self, query: str) -> tuple[list[str], dict[str, tuple[str, int]]]:
        """Return a query's positives, and its possible negatives from rankings: document -> (source, rank).

        Of a document in several sources the first counts.
        """
        positives = self._positives(query)
        needed = self._stage.group_size - min(self._stage.positives, len(positives))
        if self._mixed is None:
            return positives, {doc: ("first-stage", rank) for rank, doc in self._negatives(query, needed)}
        places: dict[str, tuple[str, int]] = {}
        for source, pool in zip(self._stage.negative_sources, self._pools(self._mixed, query, needed), strict=True):
            for rank, doc in pool:
                places.setdefault(doc, (str(source), rank))
        return positives, places

    def groups(self, step: int) -> list[Group]:
        """Return the `groups_per_step` groups of `step` (1 is the first), each of at least two candidates."""
        start = (step - 1) * self._stage.groups_per_step
        queries = [self._query_at(start + offset) for offset in range(self._stage.groups_per_step)]
        if self._mixed is not None:
            return [group for group, _ in self._mixed_groups(self._mixed, queries, step)]
        groups = [self._group(query, step) for query in queries]
        return (
            [self._with_in_batch_negatives(at, groups, step) for at in range(len(groups))]
            if self._stage.in_batch
            else groups
        )

    def queries_of_steps(self, steps: int) -> list[str]:
        """Return the query of each group of the first steps, in order."""
        return [self._query_at(position) for position in range(steps * self._stage.groups_per_step)]

    def teacher_scores(self, query: str) -> Sequence[float]:
        """Return the scores of the teacher's list of a query, best first; [] where there is none."""
        return self._teacher_scores(query) if self._teacher_scores is not None and query in self._ranking else ()

    def with_first_queries(self, queries: Sequence[str]) -> Self:
        """Return this sampler with these queries in its first groups, in place of the same ones in random order."""
        sampler = copy.copy(self)
        sampler._first_queries = tuple(queries)
        return sampler

    def _query_at(self, position: int) -> str:
        if position < len(self._first_queries):
            return self._first_queries[position]
        return self._order.query_at(position)

    def set_counts(self, step: int) -> dict[str, int]:
        """Return number of a set of the mixture -> groups of a step that are from it."""
        start = (step - 1) * self._stage.groups_per_step
        positions = range(start, start + self._stage.groups_per_step)
        return dict(sorted(Counter(self._query_at(position).partition(":")[0] for position in positions).items()))

    def _group(self, query: str, step: int) -> Group:
        generator = random.Random(derive(self._seed, "group", self._name, step, query))
        if self._stage.source == "teacher":
            return self._from_teacher(query, generator)
        return self._from_labels(query, generator)

    def sampled_negatives(self, step: int) -> list[tuple[Group, list[SampledNegative]]]:
        """Return the groups of a step with the source and rank of each negative, for a look at them."""
        start = (step - 1) * self._stage.groups_per_step
        queries = [self._query_at(start + offset) for offset in range(self._stage.groups_per_step)]
        if self._mixed is not None:
            return self._mixed_groups(self._mixed, queries, step)
        groups = []
        for group in self.groups(step):
            ranks = {doc: rank for rank, doc in enumerate(self._ranking.get(group.query_id, ()), 1)}
            relevant = set(self._positives(group.query_id))
            docs = [doc for doc in group.doc_ids if doc not in relevant]
            groups.append((group, [SampledNegative(doc, 0, ranks.get(doc, 0)) for doc in docs]))
        return groups

    def _mixed_groups(
        self, mixed: MixedNegatives, queries: Sequence[str], step: int
    ) -> list[tuple[Group, list[SampledNegative]]]:
        """Return the groups of a step whose negatives come from several sources."""
        stage, first = self._stage, []
        for query in queries:
            generator = random.Random(derive(self._seed, "group", self._name, step, query))
            chosen = negatives.choose_positives(stage, self._positives(query), self._ranking.get(query, ()), generator)
            count = stage.group_size - len(chosen)
            is_allowed = self._is_allowed(query, takes_judged=stage.negatives_from != "unjudged")
            of = GroupQuery(step, query, self._pools(mixed, query, count), is_allowed)
            first.append((of, chosen, mixed.sample(of, count) if mixed.has_in_batch else []))
        groups = []
        for at, (of, chosen, _) in enumerate(first):
            others = dict.fromkeys(
                doc
                for place, (_, positives, sampled) in enumerate(first)
                if place != at
                for doc in (*positives, *(negative.doc_id for negative in sampled))
            )
            sampled = mixed.sample(of, stage.group_size - len(chosen), list(others))
            labels = [float(self._qrels[of.query][doc]) for doc in chosen] + [0.0] * len(sampled)
            doc_ids = (*chosen, *(negative.doc_id for negative in sampled))
            groups.append((Group(of.query, doc_ids, tuple(labels)), sampled))
        return groups

    def _is_allowed(self, query: str, *, takes_judged: bool) -> Callable[[str], bool]:
        """Return what tells whether a document from anywhere may be a negative of the query."""
        grades, dropped = self._qrels.get(query, {}), self._dropped.get(query, frozenset())
        own = f"{query.partition(':')[0]}:" if self._pool.shares else ""  # its own set of a mixture

        def is_allowed(doc: str) -> bool:
            if not doc.startswith(own) or doc in dropped or grades.get(doc, 0) >= self._stage.relevance:
                return False
            return takes_judged or doc not in grades

        return is_allowed

    def _from_labels(self, query: str, generator: random.Random) -> Group:
        stage, ranked = self._stage, self._ranking.get(query, ())
        chosen = negatives.choose_positives(stage, self._positives(query), ranked, generator)
        pool = self._negatives(query, stage.group_size - len(chosen))
        size = min(stage.group_size - len(chosen), len(pool))
        sampled = negatives.sample_candidates(
            stage, [doc for _, doc in pool], [rank for rank, _ in pool], size, generator
        )
        grades = self._qrels[query]
        labels = [float(grades[doc]) for doc in chosen] + [0.0] * len(sampled)
        return Group(query, (*chosen, *sampled), tuple(labels))

    def _from_teacher(self, query: str, generator: random.Random) -> Group:
        pool = self._window(query)
        size = min(self._stage.group_size, len(pool))
        ranks = range(self._first + 1, self._first + 1 + len(pool))
        places = sorted(negatives.sample_candidates(self._stage, range(len(pool)), ranks, size, generator))
        if self._scores is not None:
            scores = self._scores(query)[self._first : self._last]
            labels = [scores[place] for place in places]
        else:  # documents that tie share the label of the first of them, so that no pair of theirs is a preference
            starts = self._tie_starts(query, len(pool))
            first_of = {starts[place]: rank for rank, place in reversed(list(enumerate(places)))}
            labels = [float(size - first_of[starts[place]]) for place in places]
        return Group(query, tuple(pool[place] for place in places), tuple(labels))

    def _tie_starts(self, query: str, size: int) -> list[int]:
        """Return for each place of a query's window the first place that the teacher scores alike."""
        if self._teacher_scores is None or query not in self._ranking:
            return list(range(size))
        return tie_starts(self._teacher_scores(query)[self._first : self._last])

    def teacher_ties(self) -> TeacherTies:
        """Return how many pairs of documents tie in the teacher's lists of the queries that the stage samples."""
        tied = pairs = lists = 0
        record = None
        if self._pool.usable is not None and self._stage.source == "teacher" and not (self._dropped or self._left_out):
            order = [self._name, self._seed, self._stage.query_order, self._pool.shares]
            record = self._pool.usable.beside("teacher-ties", [*order, self.steps * self._stage.groups_per_step])
            known = record.load(TeacherTies.__struct_fields__)
            if known is not None:
                return TeacherTies(**known[1])
        for query in self.sampled_queries if self._stage.source == "teacher" else ():
            size = len(self._window(query))
            sizes = Counter(self._tie_starts(query, size)).values()
            tied_here = sum(count * (count - 1) // 2 for count in sizes)
            tied, pairs, lists = tied + tied_here, pairs + size * (size - 1) // 2, lists + bool(tied_here)
        ties = TeacherTies(tied=tied, pairs=pairs, lists=lists)
        if record is not None:
            record.save(RowSet(0), msgspec.structs.asdict(ties))
        return ties

    def _with_in_batch_negatives(self, at: int, groups: Sequence[Group], step: int) -> Group:
        """Return a group of the step with documents of the other groups as further negatives."""
        group = groups[at]
        is_allowed = self._is_allowed(group.query_id, takes_judged=True)  # `negatives_from` is about the own candidates
        others = dict.fromkeys(doc for other in groups if other is not group for doc in other.doc_ids)
        own = set(group.doc_ids)
        pool = [doc for doc in others if doc not in own and is_allowed(doc)]
        generator = random.Random(derive(self._seed, "in-batch", self._name, step, at))
        added = generator.sample(pool, min(self._stage.in_batch, len(pool)))
        return Group(group.query_id, (*group.doc_ids, *added), (*group.labels, *[0.0] * len(added)))

    def _positives(self, query: str) -> list[str]:
        """Return a query's positives; those of the newest query alone are kept, for there may be millions."""
        newest = self._newest
        if newest[0] != query:
            stage, grades = self._stage, self._qrels.get(query, {})
            ranked = self._ranking.get(query, ()) if stage.unretrieved == "none" and grades else ()
            newest = self._newest = query, negatives.usable_positives(stage, grades, ranked, self._has_text)
        return newest[1]

    def _window(self, query: str) -> Sequence[str]:
        return self._ranking.get(query, ())[self._first : self._last]

    def _negatives(self, query: str, needed: int) -> list[tuple[int, str]]:
        pool = negatives.possible_negatives(
            self._stage,
            self._qrels.get(query, {}),
            self._ranking.get(query, ()),
            positives=self._positives(query),
            needed=needed,
            has_text=self._has_text,
        )
        left_out = self._dropped.get(query, frozenset()) | self._pool.unranked.get(query, frozenset())
        return [entry for entry in pool if entry[1] not in left_out] if left_out else pool

    def _pools(self, mixed: MixedNegatives, query: str, needed: int) -> list[list[tuple[int, str]]]:
        return mixed.pools(
            query,
            self._qrels.get(query, {}),
            positives=self._positives(query),
            needed=needed,
            has_text=self._has_text,
            dropped=self._dropped.get(query, frozenset()),
            unranked=self._pool.unranked.get(query, frozenset()),
        )

    def _count(self, query_ids: Sequence[str]) -> tuple[SamplingStats, RowSet, RowSet, list[int]]:
        """Return what the data can give, the usable queries, these with those that the filters emptied, and the latter.

        Queries are given by their places in `query_ids`. All of the stage that decides this is in `DECIDING_KEYS`.
        """
        usable, supplied, emptied = RowSet(len(query_ids)), RowSet(len(query_ids)), list[int]()
        counts = dict.fromkeys(("candidates", "positive", "negative", "undersized", "unretrieved", "dropped"), 0)
        for row, query in enumerate(query_ids):
            if query in self._left_out:
                emptied.append(row)
                supplied.add(row)
                continue
            missing, is_undersized = self._missing(query)
            counts["dropped"] += self._dropped_positives(query)
            if missing == "filtered":
                emptied.append(row)
                supplied.add(row)
                missing = "negative"
            if missing:
                counts[missing] += 1
                continue
            usable.add(row)
            supplied.add(row)
            counts["undersized"] += is_undersized
            if self._stage.source == "labels":
                counts["unretrieved"] += len(set(self._positives(query)) - set(self._ranking.get(query, ())))
        sampling = SamplingStats(
            queries=len(query_ids) - len(self._left_out),
            usable=len(usable),
            without_candidates=counts["candidates"],
            without_positive=counts["positive"],
            without_negative=counts["negative"],
            undersized=counts["undersized"],
            unretrieved_positives=counts["unretrieved"],
            dropped_positives=counts["dropped"],
        )
        return sampling, usable, supplied, emptied

    def _supply(self, query_ids: Sequence[str], rows: RowSet, emptied: Sequence[int]) -> QuerySupply:
        """Return the queries at some rows, as an order goes through them; `emptied` are rows that it passes over."""
        queries = ChosenItems(query_ids, None if len(rows) == len(query_ids) else rows)
        passed_over = RowSet(len(rows))
        for row in emptied:
            passed_over.add(rows.count_before(row))
        shares = self._pool.shares
        sets = {number: RowSet(len(rows)) for number in shares}
        if shares and isinstance(query_ids, MixedIds):  # one set after the other: no id is looked up
            for number, bounds in query_ids.bounds.items():
                for place in range(rows.count_before(bounds.start), rows.count_before(bounds.stop)):
                    sets[number].add(place)
            return QuerySupply(queries, passed_over, sets, shares)
        for place, query in enumerate(queries if shares else ()):
            sets[query.partition(":")[0]].add(place)
        return QuerySupply(queries, passed_over, sets, shares)

    def _dropped_positives(self, query: str) -> int:
        """Return how many positives with a text are not used because they were not retrieved."""
        if self._stage.source == "teacher" or self._stage.unretrieved != "none":
            return 0
        grades = self._qrels.get(query, {})
        every = [doc for doc, grade in grades.items() if grade >= self._stage.relevance and self._has_text(doc)]
        return len(every) - len(self._positives(query))

    def _missing(self, query: str) -> tuple[str, bool]:
        """Return why a query cannot be trained on ("" if it can), and whether its group will be undersized."""
        window = self._window(query)
        if self._stage.source == "teacher":
            missing = "candidates" if not window else "negative" if len(window) < 2 else ""
            return missing, len(window) < self._stage.group_size
        needed = self._stage.group_size - min(self._stage.positives, len(self._positives(query)))
        if self._mixed is not None:
            return self._missing_in_sources(self._mixed, query, needed)
        if not window and (self._stage.unretrieved != "judged" or not self._qrels.get(query)):
            return "candidates", False
        if not self._positives(query):
            return "positive", False
        count = len(self._negatives(query, needed))
        without = "filtered" if self._dropped.get(query) else "negative"
        return ("" if count else without), count < needed

    def _missing_in_sources(self, mixed: MixedNegatives, query: str, needed: int) -> tuple[str, bool]:
        """Return the same for a stage whose negatives come from several sources."""
        if not self._positives(query):
            return "positive", False
        pools = self._pools(mixed, query, needed)
        if mixed.has_any(pools):
            return "", not mixed.has_collection and len({doc for pool in pools for _, doc in pool}) < needed
        is_ranked = any(query in ranking for ranking in self._pool.sources.values())
        return ("filtered" if self._dropped.get(query) else "negative" if is_ranked else "candidates"), False

    def _reject_if_empty(self, supply: QuerySupply) -> None:
        sampling = self.sampling
        reasons = (
            f"{sampling.without_candidates} without candidates in the window, {sampling.without_positive} without a "
            f"positive (grade >= {self._stage.relevance}), {sampling.without_negative} without a negative"
        )
        unranked = len(self._left_out)
        reasons += f", {unranked} that a teacher could not rank" if unranked else ""
        where = f"stages.{self._name}"
        if not sampling.usable:
            every = sampling.queries + unranked
            if len(supply.emptied) > unranked:
                what = f"the filters leave no negative for any of the {every} training queries: {reasons}"
                hint = "loosen the margins of false_negatives, or take lower ranks"
                raise RunFailedError(what, where=f"{where}.false_negatives", hint=hint, code="no-negative-left")
            what = f"none of the {every} training queries can be used: {reasons}"
            raise RunFailedError(what, where=where, code="no-usable-query")
        without = [number for number in supply.shares if not supply.size_of(number)]
        if without:
            what = f"none of the queries of set {without[0]} of the mixture can be used: {reasons}"
            hint = "take the set out, or change what makes its queries unusable"
            raise RunFailedError(what, where=where, hint=hint, code="no-usable-query")
        if self._stage.without_pair == "refuse" and sampling.usable < sampling.queries:
            hint = 'set without_pair = "skip" to leave them out'
            lost = sampling.queries - sampling.usable
            raise RunFailedError(
                f"{lost} of {sampling.queries} training queries lack a pair: {reasons}",
                where=where,
                hint=hint,
                code="unusable-queries",
            )

    def _reject_ranks_for_scores(self) -> None:
        """Reject scores that fall by exactly 1 from document to document in every list: those are ranks."""
        if self._scores is not None:
            lists = (self._scores(query) for query in self._queries if query in self._ranking)
            reject_ranks(lists, self._stage.loss, f"stages.{self._name}.teacher")


def reject_ranks(lists: Iterable[Sequence[float]], loss: str, where: str) -> None:
    """Reject a teacher's scores that fall by exactly 1 from document to document in every list: those are ranks.

    Args:
        lists: the scores of each list, best first; the first thousand are looked at.
        loss: name of the loss that needs scores.
        where: key path that names the teacher.

    Raises:
        RunFailedError: they are.
    """
    long = [values for values in itertools.islice(lists, 1000) if len(values) > 2]
    if long and all(left - right == 1.0 for values in long for left, right in itertools.pairwise(values)):
        hint = 'take a loss on ranks, such as "ranknet", or a teacher with scores of its own'
        what = f'loss "{loss}" needs scores, and the teacher\'s are ranks: each is 1 below the one before'
        raise RunFailedError(what, where=where, hint=hint, code="teacher-without-scores")
