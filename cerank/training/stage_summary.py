"""Summarize a finished stage in numbers: what it was sampled from, what was repaired, how far its weights moved.

Invariant: a function of the plan alone, so that a stage which was stopped and resumed leaves the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking, tied_share
from cerank.files import json_records
from cerank.recipes.schema import VALIDATION_LOSS
from cerank.retrieval.teachers import Repairs
from cerank.training.filtering.filter_state import FilterSummary
from cerank.training.sampling.sampler import SamplingStats, TeacherTies

FILE_NAME = "facts.json"  # beside the model that the stage hands on; the name is that of earlier releases

# A stage that moved its weights by less than this share of their norm hardly changed a score: at a weight of 0.02 it is
# a change of 2e-6, some thousand float32 neighbors. The stages of this program's own recipes move them by 1 to 20 %.
NEGLIGIBLE_CHANGE = 1e-4


class WeightChange(msgspec.Struct, frozen=True):
    """How far the weights moved in a stage, from the model it started with to the one it hands on."""

    norm: float  # |after - before| / |before| over all weights
    changed: float  # fraction of the weights whose float32 value changed

    @property
    def is_negligible(self) -> bool:
        """Return whether the stage hardly changed the model: the learning rate is too small, or the steps too few."""
        return self.norm < NEGLIGIBLE_CHANGE


class StageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of one stage of a run, stored with its model."""

    stage: str
    steps: int  # steps that were done, with or without an early stop
    kept_step: int = msgspec.field(name="kept")  # step whose weights the stage hands on
    measure: str  # measure that chose them
    best: float  # value of the measure at the best validation; a loss is not negated
    best_step: int
    learning_rate: float  # peak learning rate
    sampling: SamplingStats = msgspec.field(name="supply")
    weight_change: WeightChange = msgspec.field(name="drift")
    validation: SamplingStats | None = None  # data of the validation loss
    teacher_lists: int = msgspec.field(default=0, name="lists")  # number of the teacher's lists
    repairs: Repairs = Repairs()
    teacher_ties: TeacherTies | None = None  # None in runs of earlier releases, and without a teacher
    start: float | None = None  # value of the measure before the first step; None in runs of earlier releases
    end: float | None = None  # at the weights that the stage hands on
    fresh_head: bool = False  # the stage started with a head that was just sampled, so that `start` is noise
    filter: FilterSummary | None = None  # what a filter came to; None for a stage without one

    @property
    def gain(self) -> float | None:
        """Return by how much validation improved from start to end, above 0 for better; None where it is unknown."""
        if self.start is None or self.end is None:
            return None
        return self.start - self.end if self.measure == VALIDATION_LOSS else self.end - self.start

    @property
    def no_gain(self) -> str:
        """Return a sentence where validation was no better at the stage's end than at its start, else ""."""
        if self.gain is None or self.gain > 0:
            return ""
        noise = " (a fresh head: noise)" if self.fresh_head else ""
        return (
            f"no gain in validation: {self.measure} {self.start:.4f} before the first step{noise}, "
            f"{self.end:.4f} at step {self.kept_step} (no test)"
        )


class RankingStats(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of a ranking that was measured: how deep it is, and how much of its order ties left open."""

    queries: int
    min_depth: int = msgspec.field(name="shallowest")  # documents of the query with the fewest
    max_depth: int = msgspec.field(name="deepest")
    tied: (
        float  # share of documents with the score of the document before or after; the first stage decides their order
    )


def ranking_stats(ranking: Ranking) -> RankingStats:
    """Return the statistics of a ranking whose ties are broken."""
    depths = [len(docs) for docs in ranking.values()]
    return RankingStats(
        queries=len(ranking),
        min_depth=min(depths, default=0),
        max_depth=max(depths, default=0),
        tied=tied_share(ranking, ranking.scores),
    )


def write(folder: Path, summary: StageSummary) -> None:
    """Write the summary to the folder of the stage's model."""
    json_records.save(folder / FILE_NAME, summary)


def read(folder: Path) -> StageSummary | None:
    """Return the summary in the folder of a stage's model; None where it has none, as in earlier releases.

    Raises:
        DamagedError: unreadable.
    """
    return json_records.load_if_there(folder / FILE_NAME, StageSummary)
