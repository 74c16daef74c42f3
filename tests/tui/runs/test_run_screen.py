from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest
from textual import events
from textual.widgets import DataTable, Log, Static

from cerank.app.run_views.curves import Curves
from cerank.core.metrics import Progress, RankRow, UsageRow, Validation
from cerank.files import journal, json_records
from cerank.runs import run_store, test_set_looks
from cerank.runs.layout import ReadingRow
from cerank.tui.app import CerankApp
from cerank.tui.comparison.compare_screen import CompareScreen
from cerank.tui.comparison.comparison_table import ComparisonTable
from cerank.tui.runs.plot import CurvePlot
from cerank.tui.runs.results_pane import VerdictTable
from cerank.tui.runs.run_list_screen import RunsScreen
from cerank.tui.runs.run_screen import RunScreen
from tests.tui.conftest import look, press, settle, text_of, whole_cells
from tests.tui.labs import CHAIN, LabFolder, made_collection, reading, recipe

WIDE, NARROW = (120, 36), (80, 24)


def _main(app: CerankApp) -> CurvePlot:
    return app.screen.query_one("#main", CurvePlot)


async def test_curves_of_both_stages_stand_on_one_axis_with_the_boundary(folder: LabFolder, app: CerankApp) -> None:
    folder.running(folder.started(folder.run("one"), 50, stage=1))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter")
        frame = _main(app).frame
        assert frame.boundaries == ((0.0, "contrastive"), (50.0, "distill"))
        raw = [line for line in frame.lines if line.is_faint]
        assert [line.steps.tolist() for line in raw] == [list(range(1, 51)), list(range(51, 101))]  # no line joins them
        seen = text_of(app)
        assert "contrastive" in seen
        assert "┊" in seen
        for name in ("validation nDCG@10", "learning rate", "gradient norm", "pairs/s"):
            assert name in seen


async def test_a_filter_shows_the_charts_whose_name_matches(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("one"), 50, stage=1))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "slash", *"grad", "space", "R", "A", "t", "e")
        assert "2 of 5 charts" in text_of(app)
        shown = [plot.frame.title.partition("  ")[0] for plot in app.screen.query(CurvePlot) if plot.is_on_screen]
        assert shown == ["gradient norm", "learning rate"]
        await press(pilot, "enter", "p")
        assert _main(app).frame.title == "learning rate"
        await press(pilot, "p")
        assert _main(app).frame.title.startswith("gradient norm")
        await press(pilot, "slash", "end", "x")
        assert "1 of 5 charts" in text_of(app)
        assert sum(plot.is_on_screen for plot in app.screen.query(CurvePlot)) == 1
        await press(pilot, "home", "x")
        assert "no chart matches" in text_of(app)
        await press(pilot, "escape")
        assert sum(plot.is_on_screen for plot in app.screen.query(CurvePlot)) == 5
        await press(pilot, "escape")
        assert not isinstance(app.screen, RunScreen)


async def test_a_run_of_several_losses_has_a_chart_of_each_and_of_their_gradients(
    folder: LabFolder, app: CerankApp
) -> None:
    run = folder.finished(folder.started(folder.run("one"), 50, stage=1))
    kind: type[ReadingRow] = ReadingRow  # type: ignore[assignment]
    with journal.Journal(run.readings, kind) as file:
        for step in (51, 52, 53):
            cosines = {"lce, kl": 0.25} if step == 52 else {}
            row = reading(1, step, 0.7)
            file.append(msgspec.structs.replace(row, parts={"lce": 0.5, "kl": 0.2}, cosines=cosines))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "slash", *"losses", "enter")
        assert "1 of 7 charts" in text_of(app)
        frame = _main(app).frame
        assert [line.steps.tolist() for line in frame.lines] == [[101, 102, 103]] * 2
        assert re.search(r"a lce 0?\.50*\b.*b kl 0?\.20*\b", text_of(app)), text_of(app)
        await press(pilot, "slash", *["backspace"] * 6, *"cosines", "enter")
        assert [line.values.tolist() for line in _main(app).frame.lines] == [[0.25]]


async def test_a_live_run_goes_on_and_a_still_one_is_left_alone(
    folder: LabFolder, app: CerankApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = folder.running(folder.started(folder.run("one"), 10))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter")
        with journal.Journal(made.readings, ReadingRow) as rows:
            rows.append(reading(0, 11, 0.5))
        await look(pilot)
        assert _main(app).frame.lines[0].steps.tolist()[-1] == 11
        folder.close()
        folder.finished(made)
        await look(pilot)
        read: list[float] = []
        monkeypatch.setattr(Curves, "read", lambda _, seconds: bool(read.append(seconds)))
        await look(pilot)
        await look(pilot)
        assert not read


async def test_steps_done_again_after_a_resume_stand_once(folder: LabFolder, app: CerankApp) -> None:
    made = folder.running(folder.started(folder.run("one"), 10, validations=False))
    with journal.Journal(made.readings, ReadingRow) as rows:
        rows.append(reading(0, 6, 0.9, attempt=2))
        rows.append(Validation(0, 6, {"nDCG@10": 0.5}))
        rows.append(reading(0, 7, 0.8, attempt=2))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter")
        line = _main(app).frame.lines[0]
        assert line.steps.tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert line.values.tolist()[-2:] == [0.9, 0.8]


async def test_keys_change_smoothing_axis_window_and_plot(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("one"), 50, stage=1))
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter")
        assert "smoothed 0.9" in text_of(app)
        await press(pilot, "right_square_bracket")
        assert "smoothed 0.95" in text_of(app)
        for _ in range(6):
            await press(pilot, "left_square_bracket")
        assert "raw" in text_of(app)
        await press(pilot, "L")
        assert _main(app).frame.is_log
        await press(pilot, "plus")
        assert _main(app).frame.window == (0.5, 1.0)
        await press(pilot, "left")
        assert _main(app).frame.window == (0.375, 0.875)
        await press(pilot, "minus", "minus")
        assert _main(app).frame.window == (0.0, 1.0)
        await press(pilot, "plus", "0")
        assert _main(app).frame.window == (0.0, 1.0)
        await press(pilot, "p")
        assert "a nDCG@10" in text_of(app)
        await press(pilot, "p", "p", "p")
        assert "pairs/s" in text_of(app)


async def test_every_series_has_its_name_and_values_are_read_off_at_a_line(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("one"), 50, stage=1))
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "p")
        seen = text_of(app)
        assert re.search(r"a nDCG@10 \.350 .*\.350 at 50", seen)
        assert "b RR@10 .500" in seen
        await press(pilot, "i", "left", "left")
        seen = text_of(app)
        assert "step 80" in seen
        assert "a nDCG@10 .330" in seen
        assert _main(app).frame.cursor == 80
        await press(pilot, "i")
        assert _main(app).frame.cursor is None
        await pilot.hover("#main", offset=(44, 8))
        await settle(pilot)
        assert _main(app).frame.cursor is not None
        app.screen.query_one("#main").post_message(CurvePlot.Scrolled(_main(app), -1, 0.5))
        await settle(pilot)
        assert _main(app).frame.window == pytest.approx((0.1, 0.9))


async def test_marked_runs_are_drawn_over_each_other_with_letters(folder: LabFolder, app: CerankApp) -> None:
    for label in ("one", "two"):
        folder.finished(folder.started(folder.run(label), 20))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "space", "space", "enter")
        seen = text_of(app)
        assert "a glad-ferret (one)" in seen
        assert "b happy-dove (two)" in seen
        assert {line.key for line in _main(app).frame.lines} == {"a", "b"}
        assert len({line.color for line in _main(app).frame.lines}) == 2


async def test_the_log_is_followed_and_searched(folder: LabFolder, app: CerankApp) -> None:
    made = folder.running(folder.started(folder.run("one"), 5))
    made.log.write_bytes(b"alpha\nbeta\n")
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "3")
        log = app.screen.query_one(Log)
        assert list(log.lines)[-2:] == ["alpha", "beta"]
        with made.log.open("ab") as file:
            file.write(b"gamma alpha\nhalf a li")
        await look(pilot)
        assert list(log.lines)[-1] == "gamma alpha"
        await press(pilot, "slash", *"ALPHA", "enter", "f")
        assert list(log.lines) == ["alpha", "gamma alpha"]
        assert re.search(r"\b1 of 2\b.*\b2 hidden", text_of(app))
        await press(pilot, "escape")
        assert len(log.lines) == 4
        await press(pilot, "escape")
        assert isinstance(app.screen, RunsScreen)


async def test_n_goes_from_match_to_match_and_each_is_set_off(folder: LabFolder, app: CerankApp) -> None:
    made = folder.started(folder.run("one"), 5)
    made.log.write_text("".join(f"line {at}{' with an Error' if at % 30 == 0 else ''}\n" for at in range(1, 121)))
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "3", "slash", *"error")
        assert "4 matching lines" in text_of(app)
        await press(pilot, "enter")
        log = app.screen.query_one(Log)
        places = []
        for key in ("n", "n", "n", "n", "N"):
            await press(pilot, key)
            places.append(text_of(app).partition(" of 4 matching")[0].split()[-1])
            here = [strip for strip in log.screen._compositor.render_strips(app.screen.size) if "Error" in strip.text]
            set_off = [piece for strip in here for piece in strip if piece.style and piece.text == "Error"]
            assert sum(bool(piece.style and piece.style.reverse) for piece in set_off) == 1
            assert log.line_count == 121
        assert [int(later) % 4 for later in places[1:4]] == [(int(one) + 1) % 4 for one in places[:3]]
        assert places[4] == places[2]
        assert isinstance(app.screen, RunScreen)
        await press(pilot, "escape", "n")
        assert not isinstance(app.screen, RunScreen)  # without a search it is the screen's key for a new run


async def test_a_bar_of_progress_leaves_its_last_state_in_the_log(folder: LabFolder, app: CerankApp) -> None:
    made = folder.started(folder.run("one"), 5)
    made.log.write_bytes(b"\rLoading:  0%\rLoading: 100%\ndone\r\n")
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "3")
        assert list(app.screen.query_one(Log).lines)[-2:] == ["Loading: 100%", "done"]


async def test_the_plan_shows_what_differs_from_a_marked_run(folder: LabFolder, app: CerankApp) -> None:
    folder.run("one")
    folder.run("two", seed=7)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "space", "enter", "2")
        table = app.screen.query_one("#differences", DataTable)
        assert [str(cell) for cell in table.get_row_at(0)] == ["seed", "42", "7"]
        assert "chain = " in text_of(app)


async def test_the_results_are_stage_against_stage_first_and_enter_compares_query_by_query(
    folder: LabFolder, app: CerankApp
) -> None:
    folder.finished(folder.started(folder.run("one"), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "4")
        table = app.screen.query_one(VerdictTable)
        pairs = [tuple(str(cell) for cell in table.get_row_at(row)[:2]) for row in range(table.row_count)]
        assert pairs[:2] == [("distill", "contrastive")] * 2  # by either measure
        assert [against for _, against in pairs[2:]] == ["first-stage"] * 4 + [""] * 2
        assert [look.by for look in test_set_looks.load_all(folder.path)] == ["dashboard"]
        seen = text_of(app)
        assert "worth it?" in seen
        assert "5 %" in str(app.screen.query_one("#notes", Static).render())
        await press(pilot, "enter")
        assert isinstance(app.screen, CompareScreen)
        assert [name.partition(":")[2] for name in app.screen.named.targets] == ["contrastive", "distill"]
        await press(pilot, "escape", "b")
        assert isinstance(app.screen, CompareScreen)
        assert len(app.screen.named.targets) == 3


async def test_of_several_test_sets_the_figure_says_which_it_is_of(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("one", test=["adi", "med"]), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        assert "(on adi, 1 of 2)" in text_of(app)
        assert ".641  adi, 1 of 2" in text_of(app)  # in its row
        await press(pilot, "enter")
        assert ".641 on adi, 1 of 2" in text_of(app)


async def test_enter_compares_on_the_dataset_that_the_results_show(folder: LabFolder, app: CerankApp) -> None:
    run = folder.finished(folder.started(folder.run("one", first_stages=["bm25", "other"]), 5))
    test = recipe().data.test[0]
    for system in ("first-stage", *CHAIN):
        for path in (run.ranking, run.measures):
            shutil.copy(path(system, test, "bm25"), path(system, test, "other"))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "4")
        await settle(pilot)
        said = str(app.screen.query_one("#answer", Static).render())
        assert said.index("over bm25") < said.index("over other")
        await press(pilot, "v", "v", "v")
        await settle(pilot)
        said = str(app.screen.query_one("#answer", Static).render())
        assert said.index("over other") < said.index("over bm25")
        assert "(2 of 2" in text_of(app)
        await press(pilot, "enter")
        await settle(pilot)
        assert isinstance(app.screen, CompareScreen)
        assert "2 of 2, v next" in text_of(app)
        await press(pilot, "v")
        assert "1 of 2, v next" in text_of(app)


@pytest.mark.parametrize("width", [80, 100, 120, 140, 200])
async def test_no_cell_of_a_runs_tables_is_cut(folder: LabFolder, app: CerankApp, width: int) -> None:
    folder.finished(folder.started(folder.run("one"), 5))
    async with app.run_test(size=(width, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "4")
        assert whole_cells(app.screen.query_one(VerdictTable))
        await press(pilot, "enter")
        assert whole_cells(app.screen.query_one(ComparisonTable))


async def test_rankings_that_vanished_or_changed_are_named_and_not_awaited(folder: LabFolder, app: CerankApp) -> None:
    gone = folder.finished(folder.started(folder.run("gone"), 5))
    shutil.rmtree(gone.path / "rankings")
    cut = folder.finished(folder.started(folder.run("cut"), 5))
    ranking = next((cut.path / "rankings" / "distill").glob("*.run.gz"))
    ranking.write_bytes(ranking.read_bytes()[:40])
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "4")
        assert "cerank verify" in text_of(app)
        await press(pilot, "5")
        assert "cannot be read" in text_of(app)
        await press(pilot, "greater_than_sign", "4")
        assert "are gone" in text_of(app)
        await press(pilot, "5")
        assert "are gone" in text_of(app)


@pytest.mark.parametrize("tab", ["4", "5"])
async def test_a_run_without_rankings_says_that_they_come(folder: LabFolder, app: CerankApp, tab: str) -> None:
    folder.started(folder.run("one"), 5)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", tab)
        assert "Nothing has been re-ranked" in text_of(app)


async def test_rankings_show_where_each_document_went(folder: LabFolder, app: CerankApp, tmp_path: Path) -> None:
    folder.finished(folder.started(folder.run("one", test=[str(made_collection(tmp_path))]), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "5")
        table = app.screen.query_one("#documents", DataTable)
        rows = [[str(cell) for cell in table.get_row_at(place)] for place in range(table.row_count)]
        assert rows[0] == ["1", "3", "↑2", "2", "d3", "the third text"]
        assert rows[1] == ["2", "1", "↓1", "0", "d1", "the first text"]
        assert rows[2][:5] == ["3", "2", "↓1", "-", "d2"]
        assert "who is there" in text_of(app)


async def test_rankings_name_the_fold_that_they_are_of(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("one", test=["/sets/med[fold=1/5]"]), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "5")
        assert "after bm25 on med[fold=1/5]" in str(app.screen.query_one("#which", Static).render())


async def test_rankings_stand_without_their_texts(folder: LabFolder, app: CerankApp, tmp_path: Path) -> None:
    collection = made_collection(tmp_path)
    folder.finished(folder.started(folder.run("one", test=[str(collection)]), 5))
    collection.rename(tmp_path / "elsewhere")
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "5")
        assert app.screen.query_one("#documents", DataTable).row_count == 3


async def test_the_machine_is_sampled_only_while_it_is_shown(folder: LabFolder, app: CerankApp) -> None:
    folder.running(folder.started(folder.run("one"), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "6")
        seen = text_of(app)
        assert "CPU" in seen
        assert "memory" in seen
        assert "free" in seen
        pane = app.screen.query_one("#tab-6")
        count = len(pane.samples)  # type: ignore[attr-defined]
        await press(pilot, "1")
        await look(pilot)
        assert len(pane.samples) == count  # type: ignore[attr-defined]


async def test_a_run_that_is_deleted_elsewhere_closes_its_screen(folder: LabFolder, app: CerankApp) -> None:
    made = folder.started(folder.run("one"), 5)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "enter")
        run_store.remove(made)
        await look(pilot)
        assert isinstance(app.screen, RunsScreen)
        assert "No runs yet" in text_of(app)


async def test_the_next_run_is_a_key_away_and_each_tab_follows(folder: LabFolder, app: CerankApp) -> None:
    for label in ("one", "two"):
        folder.finished(folder.started(folder.run(label), 5)).log.write_text(f"words of {label}\n")
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "3")
        assert "words of two" in text_of(app)
        await press(pilot, "greater_than_sign")
        assert "words of one" in text_of(app)
        assert "words of two" not in text_of(app)
        await press(pilot, "1", "2", "4", "5", "6")
        assert "one" in text_of(app)


async def test_what_a_tab_shows_is_written_to_a_file(folder: LabFolder, app: CerankApp, tmp_path: Path) -> None:
    made = folder.finished(folder.started(folder.run("one"), 5))
    made.log.write_text("said\n")
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "e", "2", "e", "3", "e", "4", "e", "5", "e")
    readings = (tmp_path / f"{made.name}-readings.csv").read_text().splitlines()
    assert readings[0] == '"step","loss","learning rate","gradient norm","pairs/s"'
    assert len(readings) == 6
    assert "fingerprint" in (tmp_path / f"{made.name}-plan.toml").read_text()
    assert "said" in (tmp_path / f"{made.name}-log.txt").read_text()
    assert "tabular" in (tmp_path / f"{made.name}.tex").read_text()
    assert "d3" in (tmp_path / f"{made.name}-query.csv").read_text()


async def test_at_80_columns_the_run_has_the_screen_to_itself(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("one"), 5))
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "enter")
        assert isinstance(app.screen, RunScreen)
        assert not app.screen.query_one("#beside").display
        assert _main(app).size.height >= 14
        await press(pilot, "w")
        assert app.screen.query_one("#beside").display
        await press(pilot, "w")
        assert not app.screen.query_one("#beside").display


async def test_the_list_stands_beside_every_tab_where_there_is_room(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("one"), 5))
    async with app.run_test(size=(170, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "enter")
        for tab in "123456":
            await press(pilot, tab)
            assert app.screen.query_one("#beside").display


async def test_a_live_run_says_its_share_its_time_left_and_when_it_ends(folder: LabFolder, app: CerankApp) -> None:
    made = folder.running(folder.started(folder.run("one"), 5))
    progress = json_records.load(made.progress, Progress)
    json_records.save(made.progress, msgspec.structs.replace(progress, run_share=0.62, run_seconds_left=303.0))
    async with app.run_test(size=(100, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "enter")
        assert re.search(r"62 % .*5:03 .*10:05", text_of(app))


async def test_keys_pressed_faster_than_the_screen_opens_do_no_harm(folder: LabFolder, app: CerankApp) -> None:
    for label in ("one", "two"):
        folder.finished(folder.started(folder.run(label), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        for keys in (("enter", "6", "3", "greater_than_sign", "5"), ("escape", "enter", "4", "space", "escape", "d")):
            for key in keys:
                app.post_message(events.Key(key, None))
        await settle(pilot)
        await look(pilot)
        assert app.is_running


async def test_long_lines_of_the_log_are_wrapped_and_a_match_is_found_in_them(
    folder: LabFolder, app: CerankApp
) -> None:
    run = folder.started(folder.run("alpha"), 5)
    folder.event(run, "groups counted", " ".join(f"word{at}" for at in range(60)) + " the-end")
    folder.event(run, "paused", "a last line")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "3")
        assert "the-end" in text_of(app)
        await press(pilot, "slash", *"last", "enter")
        assert "1 of 1" in text_of(app)
        await press(pilot, "W")
        assert "the-end" not in text_of(app)
        assert "a last line" in text_of(app)


async def test_the_machine_is_shown_over_the_whole_run_where_its_worker_kept_a_record(
    folder: LabFolder, app: CerankApp
) -> None:
    run = folder.finished(folder.started(folder.run("alpha"), 5))
    with journal.Journal(run.usage, UsageRow) as rows:
        for minute in range(30):
            time = f"2026-11-23T10:{minute:02d}:00+00:00"
            rows.append(UsageRow(time=time, cpu=minute / 30, memory=1 << 30, memory_total=4 << 30, worker_cores=1.0))
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "enter", "6")
        assert "minutes" in text_of(app)


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_run_on_several_devices_shows_what_each_of_them_did(
    folder: LabFolder, app: CerankApp, size: tuple[int, int]
) -> None:
    run = folder.finished(folder.started(folder.run("one"), 20, stage=1))
    folder.finished(folder.started(folder.run("alone"), 20, stage=1))
    with journal.Journal(run.rank_rows, RankRow) as rows:
        for rank, tokens in ((0, 3000), (1, 1000)):
            rows.append(RankRow(0, 20, rank, "cuda:0", tokens, seconds=2.0, waited=0.5, memory=3 << 30, attempt=1))
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await press(pilot, "g", "enter", "6")
        await settle(pilot)
        assert not app.screen.query_one("#devices", DataTable).display
        await press(pilot, "escape", "G", "enter", "6")
        await settle(pilot)
        table = app.screen.query_one("#devices", DataTable)
        assert table.display
        assert table.row_count == 2
        seen = text_of(app)
        for figure in ("tokens/s", "1500", "500", "75", "25"):
            assert figure in seen.replace(",", "")
        if size == WIDE:
            assert "1.50" in seen  # the heaviest has one and a half times the mean
            assert "3.0" in seen  # GiB
