"""What each device of a run did in training, as a table of `cerank show` and of the dashboard."""

from __future__ import annotations

from collections import Counter, defaultdict

from cerank.core.metrics import RankRow
from cerank.files import journal
from cerank.recipes.plan import Plan
from cerank.runs.layout import RunFolder
from cerank.text.table_data import Column, Table


def rank_table(folder: RunFolder, plan: Plan) -> Table | None:
    """Return what each process did in the training of each stage; None for a run in one process.

    Attempts with another number of processes have rows of their own: each has another share. "Heaviest / mean" is
    the same for all processes of a stage: 1.00 where all have as many tokens, 1.20 where one has a fifth more than the
    mean.
    """
    rows: list[RankRow]
    rows, _ = journal.read_valid_rows(folder.rank_rows, RankRow)
    if not rows:
        return None
    columns = (
        Column("stage", "stage"),
        Column("processes", "processes", "number", 0, priority=2),
        Column("rank", "rank", "number", 0),
        Column("device", "device"),
        Column("tokens", "tokens", "number", 0, priority=3),
        Column("rate", "tokens/s", "number", 0),
        Column("share", "share of tokens", "percent"),
        Column("imbalance", "heaviest / mean", "number", 2, priority=1),
        Column("waited", "waited", "percent"),
        Column("memory", "most GPU GiB", "number", 1, priority=1),
    )
    counts = Counter((row.attempt, row.stage, row.step) for row in rows)
    parts: dict[tuple[int, int, int, str], list[RankRow]] = defaultdict(list)
    totals: dict[tuple[int, int], int] = defaultdict(int)
    for row in rows:
        count = counts[row.attempt, row.stage, row.step]
        parts[row.stage, count, row.rank, row.device].append(row)
        totals[row.stage, count] += row.tokens
    heaviest: dict[tuple[int, int], int] = defaultdict(int)  # tokens of the process with most of them
    for (stage, count, *_), own in parts.items():
        heaviest[stage, count] = max(heaviest[stage, count], sum(row.tokens for row in own))
    shown = []
    for (stage, count, rank, device), own in sorted(parts.items()):
        tokens, busy, waited = (sum(getattr(row, key) for row in own) for key in ("tokens", "seconds", "waited"))
        memory = max(row.memory for row in own)
        shown.append(
            (
                plan.recipe.chain[stage],
                count,
                rank,
                device,
                tokens,
                tokens / max(busy, 1e-9),
                tokens / max(1, totals[stage, count]),
                heaviest[stage, count] * count / max(1, totals[stage, count]),
                waited / max(busy + waited, 1e-9),
                memory / 2**30 if memory else None,
            )
        )
    return Table("devices", columns, tuple(shown), "Devices in training")
