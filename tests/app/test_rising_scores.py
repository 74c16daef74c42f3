"""A run of distances is said to be read backwards wherever a user hands it in, with the number of queries."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.checks.check_data import DataCheckRequest, check_data
from cerank.app.comparison.comparisons import ComparisonRequest, measured_systems
from cerank.app.comparison.named_systems import target
from cerank.app.rankings.fuse_runs import FusionRequest, fuse
from cerank.settings import Settings
from tests.worker.small import small_plan, write_dataset

TOLD = "40 of 40 queries"


@pytest.fixture
def files(tmp_path):
    """The dataset, its run, and the run with the rank of each document as its score."""
    folder = write_dataset(tmp_path / "d")
    right, wrong = folder / "runs" / "oracle.run", tmp_path / "distances.run"
    rows = [line.split() for line in right.read_text().splitlines()]
    wrong.write_text("".join(f"{' '.join(row[:4])} {row[3]} t\n" for row in rows))
    return folder, str(right), str(wrong)


def _settings(folder: Path) -> Settings:
    return Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")


def test_measuring_it_says_so_of_that_file_alone(tmp_path, files):
    settings, (dataset, *runs) = _settings(tmp_path), files
    targets = [target(settings.lab, run) for run in runs]
    systems, _ = measured_systems(settings, targets, ComparisonRequest(measures=("RR",), dataset=str(dataset)))
    assert [sum(TOLD in note for note in system.notes) for system in systems] == [0, 1]


def test_fusing_it_says_so(tmp_path, files):
    _, right, wrong = files
    request = FusionRequest(targets=(right, wrong), method="rrf", output=tmp_path / "fused.run")
    notes = [note for note in fuse(_settings(tmp_path), request).notes if TOLD in note]
    assert len(notes) == 1
    assert wrong in notes[0]


def test_checking_a_dataset_with_it_says_so(tmp_path, files):
    dataset, right, wrong = files
    for run, told in ((right, 0), (wrong, 1)):
        checked = check_data(_settings(tmp_path), DataCheckRequest(dataset=str(dataset), first_stage=run))
        assert sum(TOLD in warning for warning in checked.warnings) == told


def test_planning_a_run_with_it_notes_it_on_each_use_as_first_stage(tmp_path, files):
    _, _, wrong = files
    given = small_plan(tmp_path / "fits")[0].recipe.data
    data = {"train": given.train, "validation": given.validation, "test": list(given.test), "depth": 8}
    plan, _ = small_plan(tmp_path / "planned", data=data | {"first_stages": ["oracle", wrong]})
    noted = [entry.name for entry in plan.inputs if any(TOLD in note for note in entry.notes)]
    assert noted == [f"{wrong} on {test}" for test in given.test]
