"""The order in which a stage goes through its usable queries, epoch after epoch.

Invariant: the query at a position is a function of (seed, stage, position) and of which queries are usable; nothing
depends on which positions were asked for before, so that a resume needs no state.
"""

from __future__ import annotations

import abc
import random
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cerank.core.computed_permutation import ComputedPermutation
from cerank.core.row_sets import RowSet
from cerank.core.seeds import derive
from cerank.training.sampling.mixed_negatives import divide


class QuerySupply(NamedTuple):
    """The queries that an order goes through.

    Those that filters left without a negative have a place, so that the others keep theirs, and are passed over.
    """

    queries: Sequence[str]
    emptied: RowSet  # places of queries that are passed over
    sets: Mapping[str, RowSet] = {}  # number of a set of a mixture -> places of its queries
    shares: Mapping[str, float] = {}  # number of a set -> its share of the groups, relative to the others

    @property
    def size(self) -> int:
        """Return the number of queries that are not passed over."""
        return len(self.queries) - len(self.emptied)

    def size_of(self, number: str) -> int:
        """Return the same of one set of a mixture."""
        places = self.sets[number]
        return len(places) - sum(place in places for place in self.emptied)


class _EpochShares(NamedTuple):
    """How many groups of an epoch each set of a mixture gives, and how many it gave in all epochs before."""

    numbers: list[str]
    counts: list[int]
    before: list[int]


class QueryOrder(abc.ABC):
    """An order of a stage's queries, endless: position 0 is the first group's.

    Args:
        name: name of the stage.
        seed: seed of the run.
        supply: the queries.
    """

    def __init__(self, name: str, seed: int, supply: QuerySupply) -> None:
        self._name, self._seed, self.supply = name, seed, supply
        self._size = supply.size
        self._sizes = {number: supply.size_of(number) for number in supply.shares}
        self._current: tuple[int, Sequence[int]] = (-1, ())  # one tuple: two threads may ask at once

    def place_at(self, position: int) -> int:
        """Return the place, in the supply's queries, of the query of the group number `position`, from 0."""
        epoch, index = divmod(position, self._size)
        current = self._current
        if current[0] != epoch:
            current = self._current = (epoch, self._epoch(epoch))
        return current[1][index]

    def query_at(self, position: int) -> str:
        """Return the query of the group number `position`, from 0."""
        return self.supply.queries[self.place_at(position)]

    @abc.abstractmethod
    def _epoch(self, epoch: int) -> Sequence[int]:
        """Return the places of an epoch's queries, in order."""

    def _derived(self, purpose: str, *what: int | str) -> int:
        return derive(self._seed, purpose, self._name, *what)

    def _shares_of(self, epoch: int) -> _EpochShares:
        """Return how a mixture's epoch is divided: as a group's negatives are among sources.

        An epoch has as many groups as there are usable queries; a set is gone through again and again.
        """
        numbers, shares = list(self.supply.shares), list(self.supply.shares.values())
        before, counts = [0] * len(numbers), [0] * len(numbers)
        for past in range(epoch + 1):
            before = [done + more for done, more in zip(before, counts, strict=True)]
            counts = divide(self._size, shares, random.Random(self._derived("sets", past)).random())
        return _EpochShares(numbers, counts, before)


class ShuffledOrder(QueryOrder):
    """Each epoch is shuffled in memory: 4 bytes a query."""

    def _epoch(self, epoch: int) -> Sequence[int]:
        supply = self.supply
        if not supply.shares:
            return self._shuffled(range(len(supply.queries)), epoch)
        order = array("I")
        parts = self._shares_of(epoch)
        for number, count, before in zip(*parts, strict=True):
            passes: dict[int, Sequence[int]] = {}
            for position in range(before, before + count):
                of_pass, index = divmod(position, self._sizes[number])
                if of_pass not in passes:
                    passes[of_pass] = self._shuffled(supply.sets[number], number, of_pass)
                order.append(passes[of_pass][index])
        random.Random(self._derived("order", epoch)).shuffle(order)
        return order

    def _shuffled(self, places: Sequence[int], *what: int | str) -> Sequence[int]:
        """Return places in random order; those that are passed over are taken out last, so that the others keep it."""
        order = array("I", places)
        random.Random(self._derived("order", *what)).shuffle(order)
        emptied = self.supply.emptied
        return array("I", (place for place in order if place not in emptied)) if len(emptied) else order


class ComputedOrder(QueryOrder):
    """Each place of an epoch is computed by itself, so that nothing is stored but places that are passed over."""

    def _epoch(self, epoch: int) -> Sequence[int]:
        if not self.supply.shares:
            return self._permuted(range(len(self.supply.queries)), epoch)
        return _MixedEpoch(self, epoch)

    def _permuted(self, places: Sequence[int], *what: int | str) -> _PermutedPlaces:
        return _PermutedPlaces(places, self.supply.emptied, self._derived("order", *what))


class _PermutedPlaces(Sequence[int]):
    """Places in a computed order, without those that are passed over."""

    def __init__(self, places: Sequence[int], emptied: RowSet, seed: int) -> None:
        self._places, self._order = places, ComputedPermutation(len(places), seed)
        numbers = [
            places.count_before(place) if isinstance(places, RowSet) else place for place in emptied if place in places
        ]
        passed_over = sorted(map(self._order.place_of, numbers))
        # how many places that are kept come before each that is not
        self._kept_before = array("Q", (place - at for at, place in enumerate(passed_over)))

    def __len__(self) -> int:
        return len(self._places) - len(self._kept_before)

    def __getitem__(self, index: int) -> int:  # type: ignore[override]  # no slices
        return self._places[self._order[index + bisect_right(self._kept_before, index)]]


class _MixedEpoch(Sequence[int]):
    """An epoch of a mixture in a computed order."""

    def __init__(self, order: ComputedOrder, epoch: int) -> None:
        self._of = order
        self._numbers, self._counts, self._before = order._shares_of(epoch)
        self._ends = [sum(self._counts[: at + 1]) for at in range(len(self._counts))]
        self._order = ComputedPermutation(self._ends[-1], order._derived("order", epoch))
        self._passes: dict[tuple[str, int], _PermutedPlaces] = {}  # small: they store nothing of the order

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> int:  # type: ignore[override]  # no slices
        at = self._order[index]
        which = bisect_right(self._ends, at)
        number = self._numbers[which]
        position = self._before[which] + at - (self._ends[which] - self._counts[which])
        of_pass, within = divmod(position, self._of._sizes[number])
        if (number, of_pass) not in self._passes:
            self._passes[number, of_pass] = self._of._permuted(self._of.supply.sets[number], number, of_pass)
        return self._passes[number, of_pass][within]


QUERY_ORDERS: Mapping[str, type[QueryOrder]] = {"shuffled": ShuffledOrder, "computed": ComputedOrder}
