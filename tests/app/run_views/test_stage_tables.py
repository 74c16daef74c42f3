"""A run's own table stands whole on 80 columns, with the interval and the verdict; more width brings more columns."""

from __future__ import annotations

import pytest

from cerank.app.comparison import comparisons, export_comparison
from cerank.app.comparison.run_answer import RunAnswer
from cerank.cli import terminal_table
from cerank.cli.tables import measured_tables
from cerank.evaluation.comparison_rows import BACKGROUND
from tests.app.made_runs import changed, made_run
from tests.worker.small import small_plan


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    plan, settings = small_plan(tmp_path_factory.mktemp("tables"))
    return comparisons.of_run(made_run(settings, changed(plan, margins={"nDCG@10": 0.05}), "one"))


@pytest.mark.parametrize("width", [80, 100, 120, 140, 200])
def test_interval_and_verdict_stand_at_every_width(found, width):
    tables = export_comparison.by_stage(found)
    assert len(tables) == 2
    for table in tables:
        text = terminal_table.table_as_text(table, terminal_table.Style(width=width))
        assert all(len(line) <= width for line in text.splitlines())
        assert "difference [interval]" in text
        assert "verdict" in text
        for row in table.rows:
            assert row[4] in text
    assert ("W/T/L" in terminal_table.table_as_text(tables[0], terminal_table.Style(width=80)).splitlines()[1]) is False
    assert "W/T/L" in terminal_table.table_as_text(tables[0], terminal_table.Style(width=120)).splitlines()[1]


def test_the_interval_shown_is_the_one_the_verdict_rests_on(found):
    table = export_comparison.by_stage(found)[0]
    rows = [row for row in found.rows if row.condition == found.conditions[0]]
    shown = {(line[0], line[1], line[2]): line[4] for line in table.rows}
    for row in rows:
        judged = row.judgment
        low, high = judged.low, judged.high
        if row.verdict in {"equivalent", "different but negligible"}:
            low, high = judged.equivalence_low, judged.equivalence_high
        text = f"{row.paired.difference:+.4f} [{low:+.4f}, {high:+.4f}]".replace("+0.", "+.").replace("-0.", "-.")
        assert shown[row.right, row.left, row.measure] == text


def test_rows_for_machines_have_the_answer_and_every_line(found):
    table = export_comparison.full_table(found)
    keys = [column.key for column in table.columns]
    rows = [dict(zip(keys, row, strict=True)) for row in table.rows]
    assert [(row["system"], row["against"]) for row in rows[:4]] == [
        ("first-stage", ""),
        ("contrastive", "first-stage"),
        ("distill", "contrastive"),
        ("distill", "first-stage"),
    ]
    assert all(bool(row["answer"]) is bool(row["against"]) for row in rows)


def test_the_short_notes_leave_out_only_what_warns_of_no_wrong_reading_and_say_how_many(found):
    every = export_comparison.by_stage(found)[-1].notes
    short = export_comparison.by_stage(found, is_short=True)[-1].notes
    assert 0 < len(short) < len(every)
    told = [note.text for row in found.rows for note in row.notes if note.kind in BACKGROUND]
    left_out = [line for line in every if line not in short]
    assert all("step-down max-t" in line or any(text in line for text in told) for line in left_out)
    answer = RunAnswer(comparison=found, costs=(), spreads=("planned", "seen"), no_gains=("no gain",))
    with_all = measured_tables.result_tables(answer, "table", run="brisk-otter", with_all_notes=True)[-2].notes
    assert with_all == (*every, "planned", "seen", "no gain")
    notes = measured_tables.result_tables(answer, "table", run="brisk-otter")[-2].notes
    hidden = len(with_all) - len(short) - 1
    assert notes == (*short, "no gain", f"{hidden} more notes: cerank show brisk-otter --notes")
