"""Runs as a grid of bases and recipes, and seeds folded into one row of the list, by keys."""

from __future__ import annotations

import pytest
from textual.widgets import DataTable, Input

from cerank.datasets import folds
from cerank.runs import queue
from cerank.tui.app import CerankApp
from cerank.tui.comparison.compare_screen import CompareScreen
from cerank.tui.runs.grid_screen import GridScreen
from cerank.tui.runs.run_list_screen import RunsScreen
from cerank.tui.runs.run_screen import RunScreen
from cerank.tui.runs.run_table import RunTable
from tests.tui.conftest import press, settle, text_of
from tests.tui.labs import LabFolder, keep_sweep


async def test_enter_on_a_cell_lists_its_runs_and_names_stay_in_sight(folder: LabFolder, app: CerankApp) -> None:
    for at in range(12):
        folder.finished(folder.started(folder.run(base=f"base-number-{at:02d}"), 5))
    folder.failed(folder.started(folder.run(base="base-number-11", seed=43), 5))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "M", *["right"] * 11)
        assert isinstance(app.screen, GridScreen)
        assert app.screen.query_one("#grid", DataTable).scroll_x > 0
        seen = text_of(app)
        assert "two-stages" in seen
        assert "1/2 1✖  .641" in seen
        assert "base-number-00" not in seen
        await press(pilot, "enter")
        assert isinstance(app.screen, RunsScreen)
        assert app.screen.query_one("#filter", Input).value == 'base:"base-number-11" recipe:"two-stages"'
        assert [entry.seed for entry in app.screen.query_one(RunTable).listed] == [43, 42]


async def test_r_on_a_cell_resumes_its_failures(folder: LabFolder, app: CerankApp) -> None:
    failed = folder.failed(folder.started(folder.run(seed=1), 5))
    folder.finished(folder.started(folder.run(seed=2), 5))
    app.lab.start_queue = lambda: None  # type: ignore[method-assign]  # no process outlives the test
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "M", "r")
        assert not queue.entries(folder.path)
        await press(pilot, "y")
        await settle(pilot)
        assert [entry.run for entry in queue.entries(folder.path)] == [failed.name]
        assert "1/2 1○" in text_of(app)


async def test_seeds_are_folded_into_a_row_that_opens_and_acts_on_all(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run(seed=1), 5), after=0.5)
    folder.finished(folder.started(folder.run(seed=2), 5), after=0.7)
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "z")
        table = app.screen.query_one(RunTable)
        assert len(table.listed) == 1
        assert ".600 ± .141" in text_of(app)
        await press(pilot, "space")
        assert set(app.marked) == {entry.name for entry in app.entries}
        await press(pilot, "right")
        assert [entry.seed for entry in table.listed] == [2, 1]
        await press(pilot, "left")
        assert len(table.listed) == 1
        assert app.state.are_seeds_folded


def cross_validation(folder: LabFolder, finished: int = 2, seed: int = 1) -> None:
    """Makes the runs of two folds, of which so many are finished."""
    for number in (1, 2):
        names = folds.fold_names("coll", number, 2, "2")
        run = folder.run(seed=seed, train=names.train, validation=names.validation, test=[names.test])
        if number <= finished:
            folder.finished(folder.started(run, 5), queries=(f"q{number}1", f"q{number}2"))


@pytest.mark.parametrize("keys", [("enter",), ("space", "m")])
async def test_a_row_of_folds_opens_as_all_folds_against_their_first_stage(
    folder: LabFolder, app: CerankApp, keys: tuple[str, ...]
) -> None:
    cross_validation(folder)
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        if len(app.screen.query_one(RunTable).listed) > 1:
            await press(pilot, "z")
        (row,) = app.screen.query_one(RunTable).listed
        await press(pilot, *keys)
        await settle(pilot)
        assert isinstance(app.screen, CompareScreen)
        name = row.runs[0].short_name
        assert app.screen.named.targets == (f"{name}@folds:first-stage", f"{name}@folds")
        assert app.screen.shown is not None
        assert {line.paired.n for line in app.screen.shown.found.rows} == {4}


async def test_folds_of_several_seeds_are_compared_as_one_system(folder: LabFolder, app: CerankApp) -> None:
    cross_validation(folder, seed=1)
    cross_validation(folder, seed=2)
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        if len(app.screen.query_one(RunTable).listed) > 1:
            await press(pilot, "z")
        await press(pilot, "enter")
        await settle(pilot)
        assert isinstance(app.screen, CompareScreen)
        assert len(app.screen.named.targets) == 2
        assert app.screen.shown is not None


async def test_the_palette_says_that_folds_are_folded_too(folder: LabFolder, app: CerankApp) -> None:
    cross_validation(folder)
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "colon", *"fold")
        await settle(pilot)
        assert "seeds and folds" in text_of(app)


async def test_a_row_of_folds_that_are_not_all_finished_opens_one_of_them(folder: LabFolder, app: CerankApp) -> None:
    cross_validation(folder, finished=1)
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        if len(app.screen.query_one(RunTable).listed) > 1:
            await press(pilot, "z")
        await press(pilot, "enter")
        assert isinstance(app.screen, RunScreen)


async def test_an_arm_of_a_sweep_is_one_row_that_z_opens_and_enter_lists(folder: LabFolder, app: CerankApp) -> None:
    names = [f"cl rates#00{number}" for number in (1, 2)]
    runs = [folder.finished(folder.started(folder.run(name=name), 5)) for name in names]
    folder.finished(folder.started(folder.run(), 5))
    keep_sweep(folder, [run.name for run in runs], planned=2)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "M", "up")
        seen = text_of(app)
        assert "cl (sweep rates)" in seen
        assert names[0] not in seen
        await press(pilot, "z")
        seen = text_of(app)
        assert all(name in seen for name in names)
        assert "(sweep rates)" not in seen
        await press(pilot, "z", "down", "z")
        assert names[0] not in text_of(app)  # there is no sweep in this row
        await press(pilot, "up", "enter")
        assert isinstance(app.screen, RunsScreen)
        assert [entry.name for entry in app.screen.query_one(RunTable).listed] == [run.name for run in reversed(runs)]
        await press(pilot, "M")  # what is open in the list is open in the grid
        assert names[0] in text_of(app)
