"""A sweep is one row in lists of runs, with how far it is and its best trial; opened, its trials are told apart."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cerank.app.run_views import run_list
from cerank.app.run_views.run_monitor import LabMonitor, RunEntry
from cerank.app.run_views.seed_groups import RunSettings, SeedGroups, grid_of
from cerank.files import disk, json_records
from cerank.runs.records import Done
from tests.tui.labs import LabFolder, keep_sweep


@pytest.fixture
def lab(tmp_path: Path) -> LabFolder:
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    return LabFolder(tmp_path / "lab")


def with_values(entries: tuple[RunEntry, ...], values: list[float | None]) -> list[RunEntry]:
    return [msgspec.structs.replace(entry, kept=value) for entry, value in zip(entries, values, strict=True)]


def row_of(entries: list[RunEntry]) -> RunEntry:
    (row,) = SeedGroups(RunSettings()).folded(entries, are_seeds_folded=False)
    return row


def test_a_sweep_is_one_row_with_its_best_trial_whether_or_not_seeds_are_folded(lab: LabFolder) -> None:
    folders = [lab.run(f"trial {number}", seed=1, name=f"cl rates#00{number}") for number in (1, 2, 3)]
    for folder in folders:
        lab.finished(lab.started(folder, 5))
    other = [lab.run(seed=1), lab.run(seed=2)]
    keep_sweep(lab, [folder.name for folder in folders])
    entries = with_values(LabMonitor(lab.path).poll(), [0.5, 0.75, 0.6, None, None])
    groups = SeedGroups(RunSettings())
    row, *singles = groups.folded(entries, are_seeds_folded=False)
    assert [entry.name for entry in singles] == [folder.name for folder in other]
    assert len(groups.folded(entries)) == 2
    assert row.short_name == "rates"
    assert (row.sweep.over, row.sweep.planned) == (3, 4)
    best = row.sweep.best()
    assert (best.trial.title, best.value) == ("cl 2", 0.75)
    assert row.validated == ("nDCG@10", 0.75)
    assert "learning_rate 0.0001" in row.label
    assert [run.name for run in row.runs] == [folder.name for folder in folders]
    assert groups.folded(entries, are_seeds_folded=False)[0] is row  # the same object, so that nothing is drawn anew
    assert groups.folded(entries, {groups.key(row)}, are_seeds_folded=False) == entries
    assert groups.key(row) == groups.key(entries[0])


def test_a_sweep_that_has_more_to_try_waits_and_one_with_a_failed_trial_is_not_failed(lab: LabFolder) -> None:
    folders = [lab.run(seed=1), lab.run(seed=1)]
    lab.finished(lab.started(folders[0], 5))
    lab.failed(lab.started(folders[1], 5))
    names = [folder.name for folder in folders]
    keep_sweep(lab, names)
    row = row_of(with_values(LabMonitor(lab.path).poll(), [0.5, None]))
    assert row.state == "waiting"
    keep_sweep(lab, names, planned=2)
    row = row_of(with_values(LabMonitor(lab.path).poll(), [0.5, None]))
    assert row.state == "finished"
    assert row.at.startswith("2 of 2")
    assert "1 failed" in row.at
    assert row_of(with_values(LabMonitor(lab.path).poll(), [None, None])).state == "failed"


def test_a_trial_that_was_stopped_early_is_over_and_has_no_value(lab: LabFolder) -> None:
    folders = [lab.run(seed=1), lab.run(seed=1)]
    for folder in folders:
        lab.finished(lab.started(folder, 5))
    keep_sweep(lab, [folder.name for folder in folders], stopped={2: 3}, planned=2)
    entries = with_values(LabMonitor(lab.path).poll(), [0.5, 0.9])
    assert row_of(entries).validated == ("nDCG@10", 0.5)
    assert "3" in entries[1].at.split()


def test_a_watched_lab_takes_up_new_trials_and_draws_nothing_anew_without_a_change(lab: LabFolder) -> None:
    folders = [lab.run(seed=1), lab.run(seed=1)]
    monitor = LabMonitor(lab.path)
    assert [entry.trial for entry in monitor.poll()] == [None, None]
    keep_sweep(lab, [folders[0].name])
    first, second = monitor.poll()
    assert first.trial.title == "cl 1"
    assert second.trial is None
    assert monitor.poll()[0] is first
    keep_sweep(lab, [folder.name for folder in folders])
    assert [entry.trial.number for entry in monitor.poll()] == [1, 2]


def test_trials_are_told_apart_by_their_settings_even_where_room_is_short(lab: LabFolder) -> None:
    folders = [lab.run(seed=1), lab.run(seed=1)]
    keep_sweep(lab, [folder.name for folder in folders])
    first, second = LabMonitor(lab.path).poll()
    assert first.trial.text() == "cl 1: learning_rate 1e-05, group_size 4"
    assert second.trial.text(20) == "cl 2: 0.0001, 4"
    details = dict(run_list.details(second))
    assert "0.0001" in details["trial"]
    assert "rates" in details["trial"]
    (best,) = [
        text for word, text in run_list.details(row_of(with_values((first, second), [0.1, 0.2]))) if word == "best"
    ]
    assert "cl 2" in best


def test_what_a_row_says_of_a_sweep_does_not_depend_on_which_trials_a_filter_lets_through(lab: LabFolder) -> None:
    folders = [lab.run(seed=1) for _ in range(3)]
    lab.finished(lab.started(folders[0], 5))
    lab.finished(lab.started(folders[1], 5))
    lab.running(lab.started(folders[2], 5))
    keep_sweep(lab, [folder.name for folder in folders], planned=3)
    entries = with_values(LabMonitor(lab.path).poll(), [0.75, 0.5, None])
    groups = SeedGroups(RunSettings())
    (whole,) = groups.folded(entries, lab=entries)
    (row,) = groups.folded(entries[1:2], lab=entries)
    assert [run.name for run in row.runs] == [folders[1].name]
    assert (row.state, row.sweep, row.label) == (whole.state, whole.sweep, whole.label)
    assert row.state == "running"
    assert {"filter"} == dict(run_list.details(row)).keys() - dict(run_list.details(whole)).keys()
    lab.close()


def test_a_sweep_of_which_a_trial_was_deleted_is_not_told_to_have_more_to_try(lab: LabFolder) -> None:
    folders = [lab.run(seed=1), lab.run(seed=1)]
    lab.finished(lab.started(folders[0], 5))
    names = [folder.name for folder in folders]
    disk.remove_tree(folders[1].path)
    keep_sweep(lab, names, planned=2)
    row = row_of(with_values(LabMonitor(lab.path).poll(), [0.5]))
    assert row.state == "finished"
    assert "1 deleted" in row.at
    assert "next" not in dict(run_list.details(row))
    keep_sweep(lab, names, planned=3)
    row = row_of(with_values(LabMonitor(lab.path).poll(), [0.5]))
    assert row.state == "waiting"
    assert "deleted" in dict(run_list.details(row))["next"]


def test_the_grid_has_one_cell_for_an_arm_with_its_best_trial_until_the_sweep_is_opened(lab: LabFolder) -> None:
    folders = [lab.run(seed=1, name=f"cl rates#00{number}") for number in (1, 2, 3, 4)]
    for folder in folders[:2]:
        lab.finished(lab.started(folder, 5))
    lab.running(lab.started(folders[2], 5))
    lab.event(lab.started(folders[3], 5), "paused", "at a checkpoint")  # as its sweep stopped it
    lab.finished(lab.started(lab.run(seed=1), 5))
    keep_sweep(lab, [folder.name for folder in folders], stopped={4: 2})
    entries = with_values(LabMonitor(lab.path).poll(), [0.5, 0.75, None, None, None])
    grid = grid_of(entries, ())
    assert grid.recipes == ("cl (sweep rates)", "two-stages")
    arm = grid.cells["minilm", "cl (sweep rates)"]
    assert arm.text == "3/4 1▶  best 2: valid. .750"
    assert (arm.state, arm.means, arm.best.trial.number) == ("running", (), 2)
    assert [run.name for run in arm.runs] == [folder.name for folder in folders]
    opened = grid_of(entries, ("rates",))
    assert opened == grid_of(entries)
    assert opened.recipes == (*(f"cl rates#00{number}" for number in (1, 2, 3, 4)), "two-stages")
    lab.close()
    over = with_values(LabMonitor(lab.path).poll()[3:4], [None])
    (none_left,) = grid_of(over, ()).cells.values()
    assert (none_left.text, none_left.state) == ("1/1 ✔", "failed")


def test_an_opened_trial_shows_its_value_on_validation_in_the_grid(lab: LabFolder) -> None:
    folder = lab.run(seed=1, name="cl rates#001")
    lab.started(folder, 5)
    json_records.save(folder.done, Done(time="2026-11-23T10:01:00+00:00", attempt=1, seconds=60.0))
    keep_sweep(lab, [folder.name])
    (cell,) = grid_of(with_values(LabMonitor(lab.path).poll(), [0.75])).cells.values()
    assert cell.text == "1/1 ✔  valid. .750"
