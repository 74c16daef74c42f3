"""Order the queries of a stage's first steps by how sure the teacher is of their lists.

Invariant: only the order changes: each query is sampled as often as without a curriculum, and the order is a function
of the plan, so that a resume needs no state of it.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

from cerank.errors import RunFailedError
from cerank.recipes.sections.curriculum_specs import CurriculumSpec
from cerank.training.sampling.sampler import Sampler

AnySampler = TypeVar("AnySampler", bound=Sampler)


def confidence(by: str, scores: Sequence[float]) -> float:
    """Return how sure a teacher is of a list, from its scores, best first; -inf for a list of fewer than two.

    >>> confidence("margin", [5.0, 2.0, 1.0]), confidence("spread", [3.0, 1.0])
    (3.0, 1.0)
    """
    if len(scores) < 2:
        return -math.inf
    return scores[0] - scores[1] if by == "margin" else statistics.pstdev(scores)


def in_order(sampler: AnySampler, spec: CurriculumSpec, where: str) -> tuple[AnySampler, str]:
    """Return the sampler with the queries of its first steps in order, and a sentence about them.

    Args:
        sampler: samples the stage's groups, with the lists of its teacher.
        spec: the curriculum.
        where: key path of the curriculum, for the error.

    Raises:
        RunFailedError: the teacher is equally sure of all queries, as one whose scores are ranks.
    """
    steps = spec.ordered_steps(sampler.steps)
    queries = sampler.queries_of_steps(steps)
    sure = {query: confidence(spec.by, sampler.teacher_scores(query)) for query in dict.fromkeys(queries)}
    if len(sure) > 1 and len(set(sure.values())) == 1:
        raise RunFailedError(
            f"the teacher is equally sure of all {len(sure)} queries: the {spec.by} of its scores is the same",
            where=where,
            hint="its scores are ranks; take a teacher with scores of its own, or no curriculum",
            code="teacher-without-scores",
        )
    in_line = sorted(queries, key=lambda query: -sure[query])  # equal ones stay in random order
    ordered = _with_different_queries(in_line, len(queries) // max(1, steps))
    known = [sure[query] for query in in_line if math.isfinite(sure[query])]
    figures = f", from {known[0]:.4g} over {statistics.median(known):.4g} down to {known[-1]:.4g}" if known else ""
    what = f"the queries of the first {steps} of {sampler.steps} steps come by the {spec.by} of the teacher's scores"
    return sampler.with_first_queries(ordered), what + figures


def _with_different_queries(in_line: Sequence[str], size: int) -> list[str]:
    """Return the queries of steps of `size` in this order; one that comes again waits for the next step.

    Of several passes over the queries the same ones stand next to each other, and a step would hold a group twice. Only
    where too few different queries are left does it.

    >>> _with_different_queries(["a", "a", "b", "b", "c", "c"], 2)
    ['a', 'b', 'a', 'b', 'c', 'c']
    """
    waiting, ordered = deque(in_line), list[str]()
    while waiting:
        of_step: dict[str, None] = {}
        again: list[str] = []
        while waiting and len(of_step) < size:
            query = waiting.popleft()
            if query in of_step:
                again.append(query)
            else:
                of_step[query] = None
        missing = size - len(of_step)
        ordered += [*of_step, *again[:missing]]
        waiting.extendleft(reversed(again[missing:]))
    return ordered
