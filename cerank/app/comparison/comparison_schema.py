"""The JSON Schema of what `cerank compare --json` prints.

Invariant: every document that `export_comparison.document` writes decodes strictly as a `ComparisonDocument`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cerank.evaluation.compare import Margin
from cerank.evaluation.comparison_rows import SummaryRow


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


class RankingSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ranking that was measured, by its content."""

    system: str
    run: str
    seeds: int
    dataset: str
    first_stage: str
    ranking_sha256: str  # "" for a mean of seeds
    qrels_sha256: str


class DocumentMeta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the rows rest on."""

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
    rankings: tuple[RankingSource, ...]


class ComparisonDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that `cerank compare --json` prints."""

    meta: DocumentMeta
    rows: tuple[DocumentRow, ...]
    secondary: tuple[DocumentSecondaryRow, ...]
    notes: tuple[str, ...]


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a comparison document."""
    described = msgspec.json.schema(ComparisonDocument)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cerank compare --json", **described}
