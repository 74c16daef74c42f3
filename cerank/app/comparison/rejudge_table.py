"""A published table from its TOML file, judged again, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.answers import short, shown
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.rejudge import ClaimsTable, RejudgedClaim


def read_claims(path: Path) -> ClaimsTable:
    """Return the claims in a TOML file.

    Raises:
        UsageError: it cannot be read, or is no table of claims.
    """
    from cerank.evaluation.rejudge import ClaimsTable

    try:
        return msgspec.toml.decode(path.expanduser().read_bytes(), type=ClaimsTable)
    except OSError as error:
        raise UsageError(f"cannot read it: {(error.strerror or '').lower()}", where=str(path)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "see `cerank guide verdicts` for an example"
        raise UsageError(f"not a table of claims: {error}", where=str(path), hint=hint) from error


def table(claims: ClaimsTable, rejudged: tuple[RejudgedClaim, ...]) -> Table:
    """Return each claim beside what its numbers bear."""
    from cerank.evaluation.rejudge import said_of

    columns = (
        Column("what", "comparison"),
        Column("queries", "queries", "number", 0, priority=3),
        Column("difference", "difference", "signed"),
        Column("low", "low", "signed"),
        Column("high", "high", "signed"),
        Column("p", "p", "p", priority=2),
        Column("p_corrected", "adjusted p", "p", priority=1),
        Column("says", "published"),
        Column("verdict", "the data bear"),
        Column("stands", "stands"),
        Column("detectable", "would show", "number", priority=4),
        Column("queries_for_margin", "queries for the margin", "number", 0, priority=4),
    )
    rows = tuple(
        (
            *(each.claim.what, each.claim.queries, each.difference, each.judgment.low, each.judgment.high),
            *(each.judgment.p, each.judgment.p_corrected, each.claim.says),
            *(shown(each.judgment, each.difference), "yes" if each.stands else "no"),
            *(each.judgment.detectable, each.judgment.queries_for_margin),
        )
        for each in rejudged
    )
    notes = [
        f"{said_of(rejudged)}; p adjusted over {counted(len(rejudged), 'comparison')} (Holm), intervals simultaneous",
        "would show: the true difference that these queries reveal in 4 of 5 cases",
    ]
    if claims.margin is None:
        notes.append("no margin is given, so nothing can be shown to be on par")
    else:
        notes.append(f"on par: within ±{short(claims.margin)}, a margin chosen after the results (†)")
    return Table("rejudged", columns, rows, claims.title, tuple(notes))
