"""Samplers of negatives: which of a query's possible negatives, or of a teacher's candidates, become part of a group.

Invariant: what is sampled depends on the arguments alone; everything random comes from `generator`.

>>> NEGATIVE_SAMPLERS["top"](["d4", "d1", "d9"], [1, 2, 3], 2, random.Random(1))
['d4', 'd1']
>>> NEGATIVE_SAMPLERS["random"](["d4", "d1", "d9"], [1, 2, 3], 2, random.Random(1))
['d4', 'd9']
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cerank.registry import Registry

T = TypeVar("T")

# (pool, ranks of its items from 1, number of items to return, source of random numbers) -> the items
NegativeSampler = Callable[[Sequence[T], Sequence[int], int, random.Random], Sequence[T]]

NEGATIVE_SAMPLERS: Registry[NegativeSampler[Any]] = Registry("sampler of negatives")


@NEGATIVE_SAMPLERS.add("random")
def uniform(pool: Sequence[T], ranks: Sequence[int], size: int, generator: random.Random) -> Sequence[T]:  # noqa: ARG001
    """Return `size` items, each as likely as any other."""
    return generator.sample(pool, size)


@NEGATIVE_SAMPLERS.add("top")
def top(pool: Sequence[T], ranks: Sequence[int], size: int, generator: random.Random) -> Sequence[T]:  # noqa: ARG001
    """Return the first `size` items."""
    return pool[:size]


@NEGATIVE_SAMPLERS.add("log-random")
def log_random(pool: Sequence[T], ranks: Sequence[int], size: int, generator: random.Random) -> Sequence[T]:
    """Return `size` items, each with a chance in proportion to 1/rank: as many from ranks 1 to 10 as from 10 to 100.

    lightning-ir's sampler `log_random` is another one: see "log1p-random".

    Source: Efraimidis and Spirakis 2006: the smallest of exponential samples times rank.
    """
    keys = [generator.expovariate(1.0) * rank for rank in ranks]
    return [pool[at] for at in sorted(range(len(pool)), key=keys.__getitem__)[:size]]


@NEGATIVE_SAMPLERS.add("log1p-random")
def log1p_random(pool: Sequence[T], ranks: Sequence[int], size: int, generator: random.Random) -> Sequence[T]:
    """Return `size` items, each with a chance in proportion to 1/log(1 + rank), as lightning-ir's `log_random` does.

    It is close to uniform: rank 1 is 7 times as likely as rank 100, where "log-random" makes it 100 times as likely.
    """
    keys = [generator.expovariate(1.0) * math.log1p(rank) for rank in ranks]
    return [pool[at] for at in sorted(range(len(pool)), key=keys.__getitem__)[:size]]
