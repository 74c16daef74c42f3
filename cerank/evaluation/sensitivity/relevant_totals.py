"""The limits of AP and Rprec over all judgments: measures that divide by the number of relevant documents.

Each unjudged document that becomes relevant raises that number R, so that a judgment which helps a ranking may still
lower its value. The numerators are therefore bounded for each number m of documents that become relevant, over the
choices of exactly m; the limits are the extremes of these over R + m.

- Rprec counts relevant documents within rank R: for a given m each document adds 1, 0 or -1 to the difference of the
  counts. Its limits are exact, for any number of documents.
- AP: the difference of the numerators is a quadratic form in the choice, in which two documents meet with
  1 / (the deeper rank of the two) in each ranking. Up to 15 documents every choice is computed: exact. Beyond, each
  document is given half of its m - 1 largest (smallest) meetings, whichever documents they are with (Gilmore and
  Lawler's bound of a quadratic assignment), and the numerators of both rankings are bounded apart as well; the nearer
  of the two counts. It is a bound, which no choice passes, and may be wider than need be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

KINDS = ("AP", "Rprec")
_MOST_CHOSEN_FROM = 15  # unjudged documents of which every choice is computed for AP: 32,768 choices


class _SideRanks:
    """Where one ranking has the judged relevant and the unjudged documents of a query; ranks from 1, inf for absent."""

    def __init__(self, ranking: Sequence[str], cutoff: int | None, relevant: set[str], unjudged: Sequence[str]) -> None:
        import numpy as np

        ranks = {doc: float(rank) for rank, doc in enumerate(ranking[:cutoff], 1)}
        self.relevant = np.array(sorted(ranks[doc] for doc in relevant if doc in ranks), dtype=np.float64)
        self.unjudged = np.array([ranks.get(doc, math.inf) for doc in unjudged], dtype=np.float64)

    def known(self) -> float:
        """Return the sum of precisions at the judged relevant documents, were no unjudged one relevant."""
        return math.fsum(hit / rank for hit, rank in enumerate(self.relevant, 1))

    def alone(self) -> Floats:
        """Return what each unjudged document adds to that sum if it alone is relevant."""
        import numpy as np

        before = np.searchsorted(self.relevant, self.unjudged)
        later = np.append(np.cumsum((1 / self.relevant)[::-1])[::-1], 0.0)
        own = (1 + before) / self.unjudged
        return np.where(np.isfinite(self.unjudged), own + later[before], 0.0)

    def together(self, places: Sequence[int] | slice) -> Floats:
        """Return (places, unjudged) what two unjudged documents add beyond each alone; a document with itself 0."""
        import numpy as np

        out = 1 / np.maximum(self.unjudged[places][:, None], self.unjudged[None, :])
        chosen = np.arange(self.unjudged.size)[places]
        out[np.arange(chosen.size), chosen] = 0.0
        return out

    def ends_of_sum(self) -> tuple[Floats, Floats]:
        """Return the least and the largest sum of precisions for each number of unjudged documents that are relevant.

        A relevant document that changes places with one above it that is not raises the sum, so the extremes are the
        documents nearest to the bottom and those nearest to the top; absent ones add nothing.
        """
        import numpy as np

        ends = []
        for order in (np.argsort(-self.unjudged, kind="stable"), np.argsort(self.unjudged, kind="stable")):
            sums, chosen = [self.known()], np.zeros(order.size)
            alone = self.alone()
            for place in order:
                both = float((chosen / np.maximum(self.unjudged[place], self.unjudged)).sum())
                sums.append(sums[-1] + float(alone[place]) + both)
                chosen[place] = 1.0
            ends.append(np.array(sums))
        return ends[0], ends[1]

    def hits(self, depth: float) -> int:
        """Return how many judged relevant documents are within a depth."""
        import numpy as np

        return int(np.searchsorted(self.relevant, depth, side="right"))


class JudgedTotals:
    """The difference of AP or Rprec between two rankings of a query, as a function of what is found relevant."""

    def __init__(
        self,
        kind: str,
        grades: Mapping[str, int],
        sides: tuple[Sequence[str], Sequence[str]],
        unjudged: Sequence[str],
        *,
        cutoff: int | None = None,
        rel: int = 1,
    ) -> None:
        relevant = {doc for doc, grade in grades.items() if grade >= rel}
        self._kind, self._relevant, self._count = kind, len(relevant), len(unjudged)
        self._left, self._right = (_SideRanks(side, cutoff, relevant, unjudged) for side in sides)

    def limits(self) -> tuple[float, float, bool]:
        """Return the smallest and the largest difference over all judgments, and whether both are reached."""
        if self._kind == "Rprec":
            return *self._limits_of_counts(), True
        if self._count <= _MOST_CHOSEN_FROM:
            return *self._limits_of_every_choice(), True
        return *self._limits_of_sums(), False

    def if_relevant(self, decided: Sequence[int]) -> Floats:
        """Return for each unjudged document the difference if it is relevant beside those at the places decided."""
        import numpy as np

        total = self._relevant + len(decided) + 1
        chosen = list(decided)
        if self._kind == "Rprec":
            counts = [
                side.hits(total) + float((side.unjudged[chosen] <= total).sum()) + (side.unjudged <= total)
                for side in (self._left, self._right)
            ]
            return np.asarray(counts[1] - counts[0], dtype=np.float64) / total
        sums = self._right.known() - self._left.known() + self._alone()
        if chosen:
            meetings = self._together(chosen)
            sums = sums + meetings.sum(axis=0) + float(self._alone()[chosen].sum()) + meetings[:, chosen].sum() / 2
        return sums / total

    def _alone(self) -> Floats:
        return self._right.alone() - self._left.alone()

    def _together(self, places: Sequence[int] | slice = slice(None)) -> Floats:
        return self._right.together(places) - self._left.together(places)

    def _limits_of_counts(self) -> tuple[float, float]:
        """Return the limits of Rprec: for each number of relevant documents those that help most and harm most."""
        import numpy as np

        lows, highs = [], []
        for more in range(self._count + 1):
            total = self._relevant + more
            gains = np.sort((self._right.unjudged <= total).astype(int) - (self._left.unjudged <= total).astype(int))
            known = self._right.hits(total) - self._left.hits(total)
            lows.append((known + int(gains[:more].sum())) / total if total else 0.0)
            highs.append((known + int(gains[self._count - more :].sum())) / total if total else 0.0)
        return min(lows), max(highs)

    def _limits_of_every_choice(self) -> tuple[float, float]:
        import numpy as np

        choices = ((np.arange(2**self._count)[:, None] >> np.arange(self._count)) & 1).astype(np.float64)
        totals = self._relevant + choices.sum(axis=1)
        sums = self._right.known() - self._left.known() + choices @ self._alone()
        sums += ((choices @ self._together()) * choices).sum(axis=1) / 2
        values = np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)
        return float(values.min()), float(values.max())

    def _limits_of_sums(self) -> tuple[float, float]:
        import numpy as np

        known, alone = self._right.known() - self._left.known(), self._alone()
        meetings = np.sort(self._together(), axis=1)
        apart = [side.ends_of_sum() for side in (self._left, self._right)]
        lows, highs = [], []
        # Half of the m - 1 smallest and largest meetings of each document; its own 0 is among them, which only widens.
        least, most = np.zeros(self._count), np.zeros(self._count)
        for more in range(self._count + 1):
            total = self._relevant + more
            if more > 1:
                least, most = least + meetings[:, more - 2] / 2, most + meetings[:, self._count - more + 1] / 2
            low = known + float(np.sort(alone + least)[:more].sum())
            high = known + float(np.sort(alone + most)[self._count - more :].sum())
            low, high = (
                max(low, apart[1][0][more] - apart[0][1][more]),
                min(high, apart[1][1][more] - apart[0][0][more]),
            )
            lows.append(low / total if total else 0.0)
            highs.append(high / total if total else 0.0)
        return max(min(lows), -1.0), min(max(highs), 1.0)
