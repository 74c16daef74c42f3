"""Sample the groups of a stage with several losses: candidates once, with the targets that each loss has for them.

A group is sampled as that of a stage with one loss: by the labels where a loss learns from them (positives, then
negatives from the first stage's candidates), else from the list of the first teacher named. Each loss reads the whole
group, in that order, but for candidates that its teacher did not rank; they have no target for it.

Invariant: the groups are those of `Sampler` with the same name, seed and pool; only targets are added.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence

from cerank.core.groups import Group
from cerank.core.rankings import Ranking, tie_starts
from cerank.recipes.loss_specs import part_target
from cerank.recipes.schema import Stage
from cerank.recipes.sections.loss_parts import LossPart
from cerank.text.safe_text import counted
from cerank.training.sampling.sampler import Sampler, TeacherTies, TrainingPool, reject_ranks

_LOOKED_AT = 32  # steps whose groups are looked at for what teachers did not rank


class JointSampler(Sampler):
    """Samples the groups of a stage that has `losses`.

    Args:
        name: name of the stage.
        stage: settings of the stage.
        seed: seed of the run, from 0.
        pool: what groups are sampled from, as for a stage with the first of `stage.by_source()`.
        lists: teacher -> its rankings; may lack those that are made later (see `with_lists`).
        sets: for each loss the numbers of the sets of a mixture that it is for; none for all.

    Raises:
        RunFailedError: as `Sampler`, for any of the losses.
    """

    def __init__(
        self, name: str, stage: Stage, seed: int, pool: TrainingPool, lists: Mapping[str, Ranking], *,
        sets: Sequence[frozenset[str]] = (),
    ) -> None:  # fmt: skip
        self._parts, self._at = stage.parts, f"stages.{name}"
        self._sets = sets or [frozenset[str]()] * len(stage.parts)
        self._use(lists)
        super().__init__(name, stage.by_source()[0], seed, pool)

    def with_lists(self, lists: Mapping[str, Ranking]) -> JointSampler:
        """Return this sampler with the rankings of all teachers; each step samples the same queries as before.

        Where no loss learns from labels, the groups are sampled from the list of the first teacher.
        """
        sampler = copy.copy(self)
        if all(part.teacher for part in self._parts):
            ranking = lists[self._parts[0].teacher]
            sampler = self.with_teacher(ranking, ranking.scores)
        sampler._use(lists)
        return sampler

    def groups(self, step: int) -> list[Group]:
        """Return the groups of a step, with the targets of each loss."""
        return [self._with_targets(group) for group in super().groups(step)]

    def teacher_scores(self, query: str) -> Sequence[float]:
        """Return the scores of the first teacher's list of a query, best first; [] where there is none."""
        ranking = self._lists[next(part.teacher for part in self._parts if part.teacher)]
        return ranking.scores(query) if query in ranking else ()

    def teacher_ties(self) -> TeacherTies:
        """Return how many pairs of documents tie in the teachers' lists of the queries that the stage samples."""
        tied = pairs = lists = 0
        for ranking in self._lists.values():
            for query in self.sampled_queries:
                starts = tie_starts(ranking.scores(query)) if query in ranking else []
                tied_here = sum(count * (count - 1) // 2 for count in Counter(starts).values())
                tied, pairs = tied + tied_here, pairs + len(starts) * (len(starts) - 1) // 2
                lists += bool(tied_here)
        return TeacherTies(tied=tied, pairs=pairs, lists=lists)

    @property
    def teacher_lists(self) -> int:
        """Return how many lists the teachers gave together."""
        return sum(map(len, self._lists.values()))

    def describe_unknown(self) -> str:
        """Return a sentence about candidates of the first steps that a teacher did not rank; "" without any."""
        groups = [group for step in range(1, min(self.steps, _LOOKED_AT) + 1) for group in self.groups(step)]
        unknown = sum(
            any(None in targets for number, targets in enumerate(group.targets) if self._is_for(number, group))
            for group in groups
        )
        if not unknown:
            return ""
        return (
            f"of the first {counted(len(groups), 'group')}, {unknown} hold a candidate that a teacher did not rank and "
            "that its loss leaves out"
        )

    def _use(self, lists: Mapping[str, Ranking]) -> None:
        self._lists = dict(lists)
        for part in self._parts:
            if part.teacher in self._lists and part_target(part) == "scores":
                ranking = self._lists[part.teacher]
                reject_ranks((ranking.scores(query) for query in ranking), part.name, f"{self._at}.losses")

    def _with_targets(self, group: Group) -> Group:
        targets = tuple(
            self._targets(part, group) if self._is_for(number, group) else (None,) * len(group)
            for number, part in enumerate(self._parts)
        )
        return Group(group.query_id, group.doc_ids, group.labels, targets)

    def _is_for(self, number: int, group: Group) -> bool:
        """Return whether a loss is for the set of a mixture that a group is from."""
        return not self._sets[number] or group.query_id.partition(":")[0] in self._sets[number]

    def _targets(self, part: LossPart, group: Group) -> tuple[float | None, ...]:
        if not part.teacher:
            return group.labels
        ranking = self._lists.get(part.teacher)
        if ranking is None or group.query_id not in ranking:
            return (None,) * len(group)
        places = {doc: place for place, doc in enumerate(ranking[group.query_id])}
        scores = ranking.scores(group.query_id)
        if part_target(part) == "scores":
            return tuple(scores[places[doc]] if doc in places else None for doc in group.doc_ids)
        return rank_targets([places.get(doc) for doc in group.doc_ids], tie_starts(scores))


def rank_targets(places: Sequence[int | None], starts: Sequence[int]) -> tuple[float | None, ...]:
    """Return `size - rank + 1` of each candidate that a teacher ranked; those that it scores alike have equal targets.

    Args:
        places: place of each candidate in the teacher's list, from 0; None for one that is not in it.
        starts: for each place of the list the first place that the teacher scores alike.

    >>> rank_targets([4, None, 0, 1], [0, 1, 2, 3, 4])
    (1.0, None, 3.0, 2.0)
    >>> rank_targets([0, 1, 2], [0, 0, 2])
    (3.0, 3.0, 1.0)
    """
    ordered = sorted(place for place in places if place is not None)
    first_of: dict[int, int] = {}
    for rank, place in enumerate(ordered):
        first_of.setdefault(starts[place], rank)
    return tuple(None if place is None else float(len(ordered) - first_of[starts[place]]) for place in places)
