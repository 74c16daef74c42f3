"""What a report is made of: pure data, from which every form of it is written.

Invariant: JSON-serializable; all text in it is as it was found, and made safe by whoever writes a form.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cerank.app.report.paper.methods_text import MethodsText
from cerank.datasets.query_overlaps import Overlap
from cerank.evaluation.answers import Cost
from cerank.evaluation.compare import Comparison
from cerank.evaluation.studies.pooling import PooledResult
from cerank.evaluation.systems import Condition
from cerank.text.table_data import Table
from cerank.training.stage_summary import StageSummary

FIRST = "first stage"  # the row that is re-ranked

Sign = Literal["", "better", "worse", "equivalent", "negligibly better", "negligibly worse"]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the tables: a base fine-tuned by a recipe, the mean of its seeds."""

    label: str
    base: str  # "" for the first stage, and for a finished re-ranker beside the stages
    recipe: str
    system: str  # the stage that re-ranks, "first-stage", or the name of a finished re-ranker
    chain: tuple[str, ...] = ()  # of each stage up to that one: "cl" (labels), "kd" (a teacher) or "joint" (both)
    loss: str = ""  # of that stage
    teacher: str = ""  # of that stage, as its recipe names it; "" for labels
    seeds: tuple[int, ...] = ()
    runs: tuple[str, ...] = ()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the tables: a test set re-ranked over a first stage's candidates."""

    test: str  # as plans name it
    first_stage: str
    condition: Condition
    heading: str  # of the test set, short
    queries: int = 0
    depth: int = 0


class ResultCell(msgspec.Struct, frozen=True, kw_only=True):
    """A model at a place, by one measure."""

    measure: str  # canonical, with its relevance threshold
    value: float | None  # None: not measured yet
    sign: Sign = ""  # against the baseline, after correction
    is_late: bool = False  # the sign rests on a margin that was chosen after the results
    is_best: bool = False  # of its column, as far as four decimals tell


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a grid."""

    model: Model
    is_baseline: bool
    cells: tuple[ResultCell, ...]  # one a place


class ResultsTable(msgspec.Struct, frozen=True, kw_only=True):
    """One table of the paper: a measure, a row a model, a column a place."""

    measure: str  # without relevance threshold, where that tells the tables apart
    places: tuple[Place, ...]
    lines: tuple[ResultLine, ...]
    caption: tuple[str, ...]  # sentences


class PublishedComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A mean of this report beside a published one."""

    paper: str
    model: str
    published_as: str
    test: str
    first_stage: str
    measure: str
    ours: float
    theirs: float
    remark: str = ""

    @property
    def difference(self) -> float:
        """Return ours minus theirs."""
        return self.ours - self.theirs


class SourceFile(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A file that a figure of the report comes from."""

    run: str  # "" for what is no run's
    role: str  # "plan", "stage", "ranking", "measures", "qrels", "matrix"
    path: str  # from the lab's folder
    sha256: str


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage of a run recorded of itself."""

    stage: str
    facts: StageSummary | None  # None for a stage of an earlier release, or one that is not finished
    events: tuple[tuple[str, str], ...] = ()  # kind and text of its events, where there are no facts


class PlaceStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Depth, ties and judged share of a model's ranking of one test set."""

    place: str
    system: str
    shallowest: int
    deepest: int
    ties: float  # share of neighbors in the top 10 that had the same score
    tied: float | None  # share of all documents that had a neighbor's score, as the run recorded it
    judged: float  # mean share of judged documents in the top 10
    missing: int  # queries of the qrels without a ranking; they count 0


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run behind the tables: its versions, stages, inputs and events."""

    run: str
    short_name: str = ""
    label: str
    model: str
    seed: int
    state: str
    fingerprint: str
    command: str
    recipe_toml: str  # the plan's recipe whole, for the report's folder
    inputs: tuple[tuple[str, str, str], ...]  # role, name, sha256
    versions: tuple[tuple[str, str], ...]
    stages: tuple[StageRecord, ...]
    shared: tuple[Overlap, ...] | None  # None where the run did not look: not started, or of an earlier release
    events: tuple[tuple[str, str], ...]  # kind and text of what stands in no table


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of training curves as SVG, with its name and title."""

    name: str  # of its file, without ending
    title: str
    svg: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of a report."""

    format: int = 1
    title: str
    command: str
    created: str  # UTC, ISO 8601
    version: str  # of cerank
    is_declared: bool  # the family stood in a matrix before any run
    declared: str  # when and by what; "" where it was not
    family: int
    baseline: str
    models: tuple[Model, ...]
    grids: tuple[ResultsTable, ...]
    facing: tuple[PublishedComparison, ...]
    papers: tuple[tuple[str, str], ...]  # key, citation with its notes
    places: tuple[PlaceStatistics, ...]
    runs: tuple[RunRecord, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]  # cells of the declared tables that are not measured yet
    sources: tuple[SourceFile, ...]
    comparison: Comparison | None  # None where there is nothing to compare
    curves: tuple[Curve, ...] = ()
    methods: MethodsText | None = None  # None where there is nothing to compare
    pooled: PooledResult | None = None  # None with one test set
    answers: tuple[str, ...] = ()  # the verdicts in plain English, with condition and measure in the comparison's order
    described: tuple[str, ...] = ()  # rows outside the family, likewise; they have no verdict
    released: tuple[Table, ...] = ()  # the paper's table again, from the rankings that it released
    depths: tuple[Table, ...] = ()  # of each run whose recipe names depths: how deep to re-rank
    costs: dict[str, Cost] = {}  # model -> what its training took, the mean of its seeds
