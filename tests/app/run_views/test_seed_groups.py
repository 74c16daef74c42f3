"""Runs that differ in their seed alone as one row, and runs as a grid of bases and recipes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cerank.app.run_views import run_list, seed_groups
from cerank.app.run_views.run_monitor import LabMonitor, RunEntry
from cerank.app.run_views.seed_groups import RunSettings, SeedGroups
from cerank.datasets import folds
from tests.tui.labs import LabFolder


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabFolder]:
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    made = LabFolder(tmp_path / "lab")
    yield made
    made.close()


def entries_of(lab: LabFolder) -> tuple[RunEntry, ...]:
    return LabMonitor(lab.path).poll()


def test_runs_of_several_seeds_become_one_row_with_mean_and_standard_deviation(lab: LabFolder) -> None:
    lab.finished(lab.started(lab.run(seed=1), 5), after=0.50)
    lab.finished(lab.started(lab.run(seed=2), 5), after=0.70)
    lab.finished(lab.started(lab.run(seed=1, base="electra"), 5), after=0.40)
    entries = entries_of(lab)
    groups = SeedGroups(RunSettings())
    folded, alone = groups.folded(entries)
    assert [run.seed for run in folded.runs] == [1, 2]
    assert folded.finals["nDCG@10"] == pytest.approx(0.60)
    assert seed_groups.mean_and_sd(folded.runs) == ".600 ± .141"  # (0.7 - 0.5) / sqrt(2)
    assert alone is entries[2]
    assert groups.folded(entries)[0] is folded  # the same object, so that nothing is drawn anew
    assert groups.folded(entries, {groups.key(entries[0])}) == list(entries)


def test_a_row_of_seeds_has_the_words_with_which_all_labels_begin(lab: LabFolder) -> None:
    for seed, label in ((1, "short trial s1"), (2, "short trial s2")):
        lab.run(label, seed=seed)
    (folded,) = SeedGroups(RunSettings()).folded(entries_of(lab))
    assert folded.label == "short trial"


def test_a_run_with_another_setting_is_no_other_seed(lab: LabFolder) -> None:
    lab.run(seed=1)
    lab.run(seed=2, depth=7)
    assert len(SeedGroups(RunSettings()).folded(entries_of(lab))) == 2


def test_a_run_that_repeats_a_seed_hides_no_run_of_it(lab: LabFolder) -> None:
    lab.finished(lab.started(lab.run(seed=1), 5))
    lab.run(seed=1)
    lab.run(seed=2)
    assert [row.state for row in SeedGroups(RunSettings()).folded(entries_of(lab))] == [
        "finished",
        "waiting",
        "waiting",
    ]


def test_a_row_of_seeds_shows_the_state_that_matters_most(lab: LabFolder) -> None:
    lab.failed(lab.started(lab.run(seed=1), 5))
    lab.finished(lab.started(lab.run(seed=2), 5))
    (row,) = SeedGroups(RunSettings()).folded(entries_of(lab))
    assert row.state == "failed"
    facts = dict(run_list.details(row))
    assert facts["seed 1"].split()[1] == "failed"
    assert facts["seed 2"].endswith(".641")


def test_settings_that_differ_among_runs_of_a_recipe_are_named_and_sorted_as_numbers(lab: LabFolder) -> None:
    for depth in (100, 20, 3):
        lab.run(seed=depth, depth=depth)
    entries, settings = entries_of(lab), RunSettings()
    assert settings.differing(entries, 6) == ("data.depth",)
    ordered = run_list.ordered(entries, "data.depth", settings=settings)
    assert [settings.of(entry)["data.depth"] for entry in ordered] == ["3", "20", "100"]


def test_the_grid_counts_seeds_by_base_and_recipe_and_takes_the_newest_run_of_each(lab: LabFolder) -> None:
    lab.failed(lab.started(lab.run(seed=1), 5))
    lab.finished(lab.started(lab.run(seed=1), 5), after=0.25)
    lab.failed(lab.started(lab.run(seed=2), 5))
    lab.run(name="other", base="electra")
    grid = seed_groups.grid_of(entries_of(lab))
    assert (grid.bases, grid.recipes, grid.measure) == (("electra", "minilm"), ("other", "two-stages"), "nDCG@10")
    assert grid.cells["minilm", "two-stages"].text == "1/2 1✖  .250  +1"
    assert [entry.state for entry in grid.cells["minilm", "two-stages"].earlier] == ["failed"]
    assert grid.cells["electra", "other"].text == "0/1 1·"
    assert ("electra", "two-stages") not in grid.cells
    assert re.fullmatch(r"2 \w+ × 2 \w+, 1 of 3 runs finished \(\+1 \w+ \w+ \w+ \w+ \w+ \w+\)", grid.summary)


def test_the_time_left_is_unknown_until_a_unit_is_done(lab: LabFolder) -> None:
    lab.running(lab.started(lab.run(), 5))
    (entry,) = entries_of(lab)
    assert entry.progress is not None
    estimating = msgspec.structs.replace(entry.progress, phase="estimate", done=0, total=1, seconds_left=0.0)
    assert estimating.expected_seconds is None
    assert entry.progress.expected_seconds == 42.0
    assert msgspec.structs.replace(estimating, run_seconds_left=7.0).expected_seconds == 7.0


def of_fold(number: int, count: int) -> dict[str, object]:
    names = folds.fold_names("coll", number, count, str(count))
    return {"train": names.train, "validation": names.validation, "test": [names.test]}


def test_folds_of_a_cross_validation_become_one_row_and_one_cell(lab: LabFolder) -> None:
    for number, after in ((1, 0.50), (2, 0.70), (3, 0.60)):
        lab.finished(lab.started(lab.run(f"cv fold {number} of 3", seed=1, **of_fold(number, 3)), 5), after=after)
    lab.run("cv fold 1 of 3", seed=1)  # of no fold
    folded, alone = SeedGroups(RunSettings()).folded(entries_of(lab))
    assert [run.fold for run in folded.runs] == [1, 2, 3]
    assert folded.label == "cv"
    assert folded.finals["nDCG@10"] == pytest.approx(0.60)
    assert seed_groups.size_in_words(folded.runs) == "3 folds"
    assert alone.fold == 0
    facts = dict(run_list.details(folded))
    assert [key for key in facts if key.startswith("seed")] == [f"seed 1 fold {number}" for number in (1, 2, 3)]
    (cell,) = seed_groups.grid_of(folded.runs).cells.values()
    assert cell.text.startswith("3/3")
    assert not cell.earlier


def test_each_seed_of_a_cross_validation_is_one_value_of_the_spread(lab: LabFolder) -> None:
    for seed, number, after in ((1, 1, 0.2), (1, 2, 0.4), (2, 1, 0.6), (2, 2, 0.8)):
        lab.finished(lab.started(lab.run(seed=seed, **of_fold(number, 2)), 5), after=after)
    (folded,) = SeedGroups(RunSettings()).folded(entries_of(lab))
    assert seed_groups.mean_and_sd(folded.runs) == ".500 ± .283"  # (0.7 - 0.3) / sqrt(2)
    assert seed_groups.size_in_words(folded.runs) == "2 seeds × 2 folds"


def test_a_comparison_takes_the_folds_of_each_seed_together(lab: LabFolder) -> None:
    for seed in (1, 2):
        for number in (1, 2):
            lab.run(seed=seed, **of_fold(number, 2))
    lab.run(seed=3, base="electra", **of_fold(1, 2))
    entries = entries_of(lab)
    one, _, two, _, other = names = [entry.short_name for entry in entries]
    expected = (f"two-stages-minilm={one}@folds,{two}@folds", f"{other}@folds")
    assert run_list.seeds_folded(names, entries) == expected


def test_the_grid_has_a_mean_for_each_of_different_test_sets_and_depths(lab: LabFolder) -> None:
    for number, after in ((1, 0.50), (2, 0.70)):
        lab.finished(lab.started(lab.run(seed=1, **of_fold(number, 2)), 5), after=after)
    (cell,) = seed_groups.grid_of(entries_of(lab)).cells.values()
    assert cell.text.endswith(".600 ± .141")
    lab.finished(lab.started(lab.run(seed=1, test=["coll", "other"]), 5))
    (cell,) = seed_groups.grid_of(entries_of(lab)).cells.values()
    assert cell.text == "3/3 ✔  coll, 1 of 2 .641; coll[fold/2] .600 ± .141"
    lab.finished(lab.started(lab.run(seed=1, test=["coll", "other"], depth=7), 5))
    (cell,) = seed_groups.grid_of(entries_of(lab)).cells.values()
    assert cell.text == "4/4 ✔  means of 3 tests below"
    assert [(of, mean, runs) for of, mean, runs in cell.means] == [
        ("coll, 1 of 2, depth 7", ".641", 1),
        ("coll, 1 of 2, depth 100", ".641", 1),
        ("coll[fold/2], depth 100", ".600 ± .141", 2),
    ]
    assert not cell.earlier
