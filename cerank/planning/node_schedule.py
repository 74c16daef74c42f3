"""When the stages of runs are done if several nodes share them: the longest chain first, each on one node.

Invariant: a stage begins when the one that it continues from is done, and a node works on one stage at a time, as the
jobs of an executor do; what a node does not get is not counted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cerank.planning.workload import WorkItem

START_MINUTES = 0.25  # of each stage: its job starts Python, torch and the model; 15 s were measured on idle nodes
MOST_NODES = 10_000


class StageTask(msgspec.Struct, frozen=True):
    """The work of one stage: its training, validations and re-rankings."""

    key: str
    minutes: float  # on one node
    after: str = ""  # key of the stage that it continues from; "" for the first


class NodeSchedule(msgspec.Struct, frozen=True):
    """What comes of it."""

    minutes: float  # until everything is done
    busy_minutes: float  # of all nodes together
    longest_minutes: float  # of the longest chain of stages: more nodes make it no shorter
    nodes: int  # that were of use


def tasks_of(chain: Sequence[tuple[str, str]], work: Iterable[WorkItem]) -> list[StageTask] | None:
    """Return the tasks of one run; None where the time of a part is unknown.

    Args:
        chain: name and key of each stage, in order.
        work: its work with the time on one node; parts of no stage, such as baselines, count to the first.
    """
    minutes = dict.fromkeys((name for name, _ in chain), 0.0)
    for part in work:
        if part.minutes is None:
            return None
        minutes[part.stage if part.stage in minutes else chain[0][0]] += part.minutes
    keys = ["", *(key for _, key in chain)]
    return [StageTask(key, minutes[name], before) for (name, key), before in zip(chain, keys, strict=False)]


def schedule(tasks: Iterable[StageTask], nodes: int) -> NodeSchedule:
    """Return when all tasks are done; of tasks with the same key, which several runs share, the first counts.

    Example:
        >>> both = [StageTask("a", 9.75), StageTask("b", 9.75, "a"), StageTask("c", 9.75, "a")]
        >>> schedule(both, 2).minutes, schedule(both, 1).minutes
        (20.0, 30.0)
    """
    known: dict[str, StageTask] = {}
    for task in tasks:
        known.setdefault(task.key, task)
    rest = _remaining(known)
    followers: dict[str, list[str]] = {}
    for task in known.values():
        followers.setdefault(task.after if task.after in known else "", []).append(task.key)
    ready = [(-rest[key], key) for key in followers.get("", [])]
    heapq.heapify(ready)
    at_work: list[tuple[float, str]] = []  # (when it is done, key)
    free, now, busy, most = nodes, 0.0, 0.0, 0
    while ready or at_work:
        while ready and free:
            key = heapq.heappop(ready)[1]
            minutes = known[key].minutes + START_MINUTES
            heapq.heappush(at_work, (now + minutes, key))
            busy, free, most = busy + minutes, free - 1, max(most, len(at_work))
        now, done = heapq.heappop(at_work)
        free += 1
        for key in followers.get(done, []):
            heapq.heappush(ready, (-rest[key], key))
    return NodeSchedule(now, busy, max(rest.values(), default=0.0), most)


def _remaining(tasks: Mapping[str, StageTask]) -> dict[str, float]:
    """Return key -> minutes from the start of a task to the end of the longest chain that it begins."""
    rest = {key: task.minutes + START_MINUTES for key, task in tasks.items()}
    depth = {key: len(list(_before(tasks, key))) for key in tasks}
    for key in sorted(tasks, key=lambda name: -depth[name]):
        before = tasks[key].after
        if before in tasks:
            rest[before] = max(rest[before], tasks[before].minutes + START_MINUTES + rest[key])
    return rest


def _before(tasks: Mapping[str, StageTask], key: str) -> Iterable[str]:
    while (key := tasks[key].after) in tasks:
        yield key
