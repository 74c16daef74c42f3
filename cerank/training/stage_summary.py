"""What a stage came to, in numbers that outlive its log: what it drew from, what was mended, how far its weights moved.

Invariant: a function of the plan alone, so that a stage which was cut and resumed leaves the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking, tied_share
from cerank.files import json_records
from cerank.retrieval.teachers import Repairs
from cerank.training.sampler import Supply

NAME = "facts.json"  # in the sealed folder of the model that a stage hands on

# A stage that moved its weights by less than this share of their norm hardly changed a score: at a weight of 0.02 it is
# a change of 2e-6, some thousand float32 neighbours. The stages of this program's own recipes move them by 1 to 20 %.
STILL = 1e-4


class Drift(msgspec.Struct, frozen=True):
    """How far the weights moved in a stage, from the model it started with to the one it hands on."""

    norm: float  # |after - before| / |before| over all weights
    changed: float  # share of the weights that are not the same float32 any more

    @property
    def is_still(self) -> bool:
        """Whether the stage hardly moved the model: a rate too small, or too few steps."""
        return self.norm < STILL


class StageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a run."""

    stage: str
    steps: int  # done, early stop included
    kept: int  # the step whose weights it hands on
    measure: str  # that chose them
    best: float  # its value at the best validation; a loss as it is
    best_step: int
    learning_rate: float  # peak
    supply: Supply
    drift: Drift
    validation: Supply | None = None  # what the validation loss was computed on
    lists: int = 0  # of the teacher
    repairs: Repairs = Repairs()


class RankingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a ranking is like that was measured: how deep, and how much of its order a tie left open."""

    queries: int
    shallowest: int  # documents of the query with fewest
    deepest: int
    tied: float  # share of documents whose score was a neighbour's; their order is the first stage's


def ranking_facts(ranking: Ranking) -> RankingFacts:
    """The facts of a ranking whose ties are broken."""
    depths = [len(docs) for docs in ranking.values()]
    return RankingFacts(
        queries=len(ranking),
        shallowest=min(depths, default=0),
        deepest=max(depths, default=0),
        tied=tied_share(ranking, ranking.scores),
    )


def write(folder: Path, facts: StageFacts) -> None:
    """Puts the facts into the folder of the stage's model."""
    json_records.save(folder / NAME, facts)


def read(folder: Path) -> StageFacts | None:
    """The facts in the folder of a stage's model; None where it has none, as those of earlier releases.

    Raises:
        DamagedError: unreadable.
    """
    return json_records.load_if_there(folder / NAME, StageFacts)
