"""The JSON Schema of what `cerank compare --json` prints.

Invariant: every document that `export_comparison.document` writes decodes strictly as a `ComparisonDocument`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cerank.evaluation.comparison_rows import SummaryRow
from cerank.evaluation.verdicts.terms import Margin
from cerank.text.safe_text import counted


class DocumentRow(SummaryRow, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the table in full precision, with the family and method it was judged by."""

    family: int
    family_equivalence: int
    correction: str
    alpha: float
    claim: str
    run: str = ""  # the system's run in the lab
    against_run: str = ""
    cost_seconds: float | None = None  # training time of what lies between the two systems
    cost_pairs: int | None = None  # query-document pairs of that training
    cost_money: float | None = None  # of it, where an hour of the device has a price
    break_even_seconds: float | None = None  # of training that .01 of the measure must be worth; null: no price pays
    break_even_at_low: float | None = None
    break_even_at_high: float | None = None
    answer: str = ""  # the verdict in words
    reason: str = ""  # with --reasons


class DocumentSecondaryRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The secondary tests of one row; none of them makes a verdict."""

    dataset: str
    first_stage: str
    measure: str
    left: str
    right: str
    p: float  # paired t-test
    randomization: float
    wilcoxon: float
    sign: float
    bca_low: float
    bca_high: float
    posterior_left_better: float | None = None
    posterior_within_margin: float | None = None
    posterior_right_better: float | None = None


class DocumentPooledRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A system against another over several collections: the mean of a random-effects model, in a family of its own."""

    system: str
    against: str
    measure: str
    domain: str  # "all", "in-domain" or "out-of-domain": which of the collections
    collections: int
    names: str  # of the collections, with commas between
    queries: int  # of all of them
    difference: float  # mean over collections
    error: float  # its standard error, by Hartung and Knapp
    df: float
    level: float  # low and high are the ends of the interval at confidence 1 - level
    low: float
    high: float
    p: float
    p_corrected: float  # over the pooled rows
    margin: float | None = None
    margin_is_late: bool | None = None  # chosen after the results
    p_equivalence: float | None = None
    p_equivalence_corrected: float | None = None
    equivalence_level: float | None = None  # equivalence_low and equivalence_high are at confidence 1 - 2 times this
    equivalence_low: float | None = None
    equivalence_high: float | None = None
    unseen: float | None = None  # one more query that differs so much, in each collection where few do, undoes it
    verdict: str
    tau: float | None = None  # sd of the true differences between collections; it and what follows: null for one
    tau_low: float | None = None  # its 95 % interval; null where it is empty, too: they scatter less than by chance
    tau_high: float | None = None
    i2: float | None = None  # share of the scatter seen that lies between collections
    q: float | None = None  # Cochran's
    p_q: float | None = None
    predicted_low: float | None = None  # for the true difference on a new collection; null for two collections
    predicted_high: float | None = None
    family: int  # pooled rows that are adjusted together, and with --family looks all others of the family
    correction: str
    alpha: float


class RankingSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ranking that was measured, by its content."""

    system: str
    run: str
    seeds: int
    dataset: str
    first_stage: str
    ranking_sha256: str  # "" for a mean of seeds
    qrels_sha256: str


class TestSetLooks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often the judgments of a comparison were looked at in this lab."""

    __test__ = False  # no test class, whatever its name begins with

    look: int  # this one, from 1
    before: int  # distinct comparisons recorded before it
    new: int  # comparisons of this one that were not among them
    in_family: int | None = None  # earlier verdicts that the family counts, too; null: adjusted over this table alone

    @property
    def text(self) -> str:
        """Return it as a sentence."""
        if self.look == 1:
            return "first recorded look at these judgments in this lab"
        seen = (
            f"look {self.look} at these judgments in this lab: {counted(self.before, 'distinct comparison')} before, "
            f"{self.new} new"
        )
        if self.in_family is None:
            return f"{seen}; p is adjusted over this table alone (--family looks counts the earlier ones, too)"
        if not self.in_family:
            return f"{seen}; none but this table's had a verdict, so that p is adjusted over this table"
        earlier = "the one with a verdict" if self.in_family == 1 else f"the {self.in_family:,} with a verdict"
        return (
            f"{seen}; p is adjusted over this table and {earlier} before it: what is promised of them all holds where "
            "each is judged at this level, not for a verdict that an earlier table gave at a milder one"
        )


class PlanStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a comparison follows a plan that was declared for its judgments, and where it departs from it."""

    title: str
    sha256: str
    declared: str  # UTC, ISO 8601
    departures: tuple[str, ...]  # what the comparison does otherwise; empty: it follows the plan
    known_before: str  # when results were known before the plan; "" if none were

    @property
    def is_confirmatory(self) -> bool:
        """Return whether the comparison follows a plan that was made before its results were known."""
        return not self.departures and not self.known_before

    @property
    def text(self) -> str:
        """Return it as a sentence."""
        name = f"the plan '{self.title}' ({self.sha256[:12]}), declared {self.declared}"
        if self.departures:
            return f"exploratory: it departs from {name}: {'; '.join(self.departures)}"
        if self.known_before:
            return f"exploratory: it follows {name}, but results were known on {self.known_before}"
        return f"confirmatory: it follows {name}, before any of its results were known"


class DocumentMeta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The versions, inputs and rules behind the rows of a document."""

    format: int
    cerank: str  # version
    command: str  # as it was typed; "" from the dashboard
    baseline: str
    pairs: str
    primary: tuple[str, ...]
    claim: str
    confidence: float
    alpha: float
    correction: str
    family: int
    family_equivalence: int
    rounds: int
    seed: int
    margins: dict[str, Margin]
    worth: dict[str, Margin]
    harm: dict[str, Margin]
    looks: TestSetLooks | None = None  # null where the lab cannot keep count
    plan: PlanStatus | None = None  # null where none is declared for these judgments
    rankings: tuple[RankingSource, ...]


class ComparisonDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that `cerank compare --json` prints."""

    meta: DocumentMeta
    rows: tuple[DocumentRow, ...]
    secondary: tuple[DocumentSecondaryRow, ...]
    pooled: tuple[DocumentPooledRow, ...] = ()  # over the collections; empty for one, or where they cannot be pooled
    notes: tuple[str, ...]


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a comparison document."""
    described = msgspec.json.schema(ComparisonDocument)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cerank compare --json", **described}
