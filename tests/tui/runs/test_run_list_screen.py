from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from textual.command import CommandPalette
from textual.widgets import Static

from cerank.app.lab import TRASH_SECONDS
from cerank.app.run_views import label_runs, run_list, verdict_summaries
from cerank.errors import UsageError
from cerank.runs import run_store, user_labels
from cerank.tui.app import CerankApp
from cerank.tui.common.dialogs import ConfirmDialog
from cerank.tui.runs.run_list_screen import RunsScreen
from cerank.tui.runs.run_screen import RunScreen
from cerank.tui.runs.run_table import COLUMNS, RunTable
from cerank.tui.theme import state_color
from tests.tui.conftest import look, press, settle, text_of, whole_cells
from tests.tui.labs import NOW, LabFolder, keep_sweep

WIDE, NARROW = (120, 36), (80, 24)


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_an_empty_lab_says_how_to_begin(app: CerankApp, size: tuple[int, int]) -> None:
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        assert "No runs yet" in text_of(app)
        assert "cerank run --recipe contrastive-then-distill" in text_of(app)


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_every_state_is_a_sign_and_a_word(folder: LabFolder, app: CerankApp, size: tuple[int, int]) -> None:
    folder.running(folder.started(folder.run("alpha"), 20))
    folder.finished(folder.started(folder.run("beta"), 20))
    folder.failed(folder.started(folder.run("gamma"), 5))
    folder.started(folder.run("delta"), 5)
    folder.run("epsilon")
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        seen = text_of(app)
    for words in ("▶ running", "✔ finished", "✖ failed", "? lost", "· waiting"):
        assert words in seen
    assert "2/2 distill 61%" in seen
    assert "0:42" in seen
    assert ".641" in seen


@pytest.mark.parametrize("width", [60, 80, 100, 120, 140, 200])
async def test_no_cell_of_the_list_is_cut_and_hidden_columns_are_named(
    folder: LabFolder, app: CerankApp, width: int
) -> None:
    folder.running(folder.started(folder.run("a label of several words", base="electra", seed=7), 20))
    folder.finished(folder.started(folder.run("beta"), 20))
    folder.failed(folder.started(folder.run("gamma"), 5), "out of memory on the device while scoring a batch")
    async with app.run_test(size=(width, 24)) as pilot:
        await settle(pilot)
        table = app.screen.query_one(RunTable)
        assert whole_cells(table)
        assert all(name in text_of(app) for name in table.hidden)
        shown = {column.heading.rstrip("▼▲") for column in table.row_columns}
        assert {"state", "run"} <= shown
        assert (width < 200) == bool(table.hidden)


async def test_a_broken_run_is_one_red_row_with_its_reason(folder: LabFolder, app: CerankApp) -> None:
    folder.damaged(folder.run("broken"))
    folder.finished(folder.started(folder.run("whole"), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        seen = text_of(app)
        assert "! damaged" in seen
        assert "plan.json" in seen
        assert "whole" in seen
        await press(pilot, "down", "enter")
        assert isinstance(app.screen, RunScreen)
        await press(pilot, "2", "3", "4", "5", "1", "escape")
        assert isinstance(app.screen, RunsScreen)


async def test_only_a_row_that_changed_is_written_again(
    folder: LabFolder, app: CerankApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("one", "two", "three"):
        folder.finished(folder.started(folder.run(label), 5))
    folder.failed(folder.started(folder.run("has the same width"), 5))
    changing = folder.started(folder.run("four"), 5)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        table = app.screen.query_one(RunTable)
        drawn: list[int] = []
        draw = table.render_line
        monkeypatch.setattr(table, "render_line", lambda y: (drawn.append(y), draw(y))[1])
        await look(pilot)
        assert drawn == []
        folder.failed(changing)
        await look(pilot)
        assert set(drawn) == {1}  # the newest run's row, below the headings
        assert "✖ failed" in text_of(app)


async def test_the_filter_narrows_as_one_types_and_keeps_the_last_right_one(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("good"), 5), after=0.7)
    folder.finished(folder.started(folder.run("poor"), 5), after=0.2)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "slash")
        await press(pilot, *"nDCG@10>0.4")
        assert "1 of 2 runs" in text_of(app)
        assert [entry.label for entry in _listed(app)] == ["good"]
        await press(pilot, "space", "(")
        assert app.screen.query_one("#said").has_class("-wrong")
        assert [entry.label for entry in _listed(app)] == ["good"]
        await press(pilot, "escape")
        assert len(_listed(app)) == 2


async def test_theme_and_order_are_kept_and_rows_take_the_new_colors_at_once(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("one"), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        app.theme = "cerank-light"
        await press(pilot, "o", "o")
        assert app.screen.query_one(RunTable).cells(0)[0].style == state_color("finished", is_dark=False)
        kept = app.screen.query_one(RunTable).sorted_by
    again = CerankApp(app.lab, poll_seconds=0)
    async with again.run_test(size=WIDE) as pilot:
        await settle(pilot)
        assert again.theme == "cerank-light"
        assert again.screen.query_one(RunTable).sorted_by == kept


async def test_columns_are_chosen_and_kept(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("one"), 5))
    folder.run("two", base="electra", seed=7)
    async with app.run_test(size=(160, 36)) as pilot:
        await settle(pilot)
        assert "recipe" in text_of(app)
        keys = [column.key for column in COLUMNS if column.priority]
        await press(pilot, "C", *["down"] * keys.index("recipe"), "space", "enter")
        assert "recipe" not in text_of(app).splitlines()[1]
    again = CerankApp(app.lab, poll_seconds=0)
    async with again.run_test(size=(160, 36)) as pilot:
        await settle(pilot)
        assert "recipe" not in text_of(again).splitlines()[1]
        assert "base" in text_of(again).splitlines()[1]


async def test_the_palette_finds_runs_and_recipes(folder: LabFolder, app: CerankApp) -> None:
    made = folder.run("my first")
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        commands = {command.title: command for command in app.get_system_commands(app.screen)}
        assert "Recipe contrastive" in commands
        assert "Down" not in commands
        name = run_store.short_name(made)
        commands[f"Run {name} (my first)"].callback()
        await settle(pilot)
        assert isinstance(app.screen, RunScreen)
        await press(pilot, "escape", "colon")
        assert isinstance(app.screen, CommandPalette)


async def test_a_screenshot_is_written_as_svg(folder: LabFolder, app: CerankApp, tmp_path: Path) -> None:
    folder.run("one")
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "P")
        (picture,) = tmp_path.glob("cerank-*.svg")
        assert "waiting" in picture.read_text()


async def test_marks_that_esc_removed_come_back_in_their_order(folder: LabFolder, app: CerankApp) -> None:
    names = {folder.run(label).name for label in ("one", "two", "three")}
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "space", "space")
        marked = app.marked
        await press(pilot, "escape")
        assert app.marked == ()
        await press(pilot, "u")
        assert app.marked == marked
        (other,) = names - set(marked)
        await press(pilot, "escape", "G")
        app.toggle_mark(other)
        await press(pilot, "u")
        assert app.marked == (*marked, other)
        await press(pilot, "escape", "g", "d", "y")  # a deletion after it is undone first
        assert len(app.entries) == 2
        await press(pilot, "u")
        assert ({entry.name for entry in app.entries}, app.marked) == (names, ())


async def test_a_recording_plays_back_what_stood_on_the_screen(
    folder: LabFolder, app: CerankApp, tmp_path: Path
) -> None:
    folder.run("one")
    folder.run("two")
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        before = text_of(app)
        await press(pilot, "ctrl+r")
        assert "● recording" in text_of(app)
        await press(pilot, "question_mark")
        while "Keys of" not in path_of_recording(tmp_path).read_text(encoding="utf8"):
            await pilot.pause(0.05)
        await press(pilot, "escape")
        await pilot.resize_terminal(*NARROW)
        await settle(pilot)
        path = path_of_recording(tmp_path)
        while played(path)[1][-1] != text_of(app):  # the frame after the last change is still to come
            await pilot.pause(0.05)
        at_the_end = text_of(app)
        await press(pilot, "ctrl+r")
        assert "● recording" not in text_of(app)
        app.files = tmp_path / "other"
        app.files.mkdir()
        await press(pilot, "ctrl+r", "q")  # leaving ends a recording, too
    header, shown = played(path)
    assert (header["version"], header["width"], header["height"]) == (2, *WIDE)
    assert [line for line in shown[0].splitlines()[1:] if line] == [line for line in before.splitlines()[1:] if line]
    assert any("Keys of" in screen for screen in shown)
    assert shown[-2] == at_the_end
    assert "● recording" in played(path_of_recording(tmp_path / "other"))[1][0]


def path_of_recording(folder: Path) -> Path:
    (path,) = folder.glob("cerank-*.cast")
    return path


def played(path: Path) -> tuple[dict[str, object], list[str]]:
    """Return the header of an asciicast, and the screen after each of its events, as a terminal shows it."""
    header, *events = map(json.loads, path.read_text(encoding="utf8").splitlines())
    assert [event[0] for event in events] == sorted(event[0] for event in events)
    shown: list[str] = []
    lines: dict[int, str] = {}
    for _, kind, data in events:
        if kind == "r":
            assert re.fullmatch(r"[0-9]+x[0-9]+", data)
            continue
        assert kind == "o"
        clear, *writes = re.split(r"(?=\x1b\[[0-9]+;1H)", data)
        lines = {} if "\x1b[2J" in clear else lines
        for write in writes:
            row, text = re.fullmatch(r"\x1b\[([0-9]+);1H(.*)", write, re.DOTALL).groups()  # type: ignore[union-attr]
            lines[int(row)] = re.sub(r"\x1b\[[0-9;?]*[mh]", "", text).rstrip()
        shown.append("\n".join(lines[row] for row in sorted(lines)))
    return header, shown


async def test_a_recording_that_cannot_be_written_is_an_error_and_not_the_end(
    folder: LabFolder, app: CerankApp, tmp_path: Path
) -> None:
    folder.run("one")
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        app.files = tmp_path / "gone"
        await press(pilot, "ctrl+r")
        assert any(toast.severity == "error" and "gone" in toast.message for toast in app._notifications)
        assert not app.is_recording


async def test_a_message_does_not_cover_the_screen_that_opens_next(folder: LabFolder, app: CerankApp) -> None:
    folder.run("one")
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "m")
        assert _toasts(app)
        await press(pilot, "question_mark")
        assert not _toasts(app)
        await press(pilot, "escape", "enter")
        app.show_message("said by the screen that closes")
        await press(pilot, "escape")
        assert "said by" in _toasts(app)


async def test_nothing_that_passes_the_filter_says_how_to_clear_it(folder: LabFolder, app: CerankApp) -> None:
    folder.run("one")
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "slash", *"nosuchrun")
        assert re.search(r"\besc", text_of(app))


async def test_runs_are_sorted_by_any_column_and_the_cursor_stays_on_its_run(folder: LabFolder, app: CerankApp) -> None:
    for label, value in (("a", 0.3), ("b", 0.9), ("c", 0.6)):
        folder.finished(folder.started(folder.run(label), 5), after=value)
    folder.run("d")
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        app.screen.query_one(RunTable).highlight(app.entries[1].name)
        await press(pilot, *["o"] * run_list.KEYS.index("test"))
        assert "nDCG@10▼" in text_of(app)
        assert [entry.label for entry in _listed(app)] == ["b", "c", "a", "d"]
        await press(pilot, "O")
        assert [entry.label for entry in _listed(app)] == ["a", "c", "b", "d"]
        highlighted = app.screen.query_one(RunTable).highlighted
        assert highlighted is not None
        assert highlighted.label == "b"
        await pilot.click("#runs", offset=(20, 0))
        await settle(pilot)
        names = [entry.short_name for entry in _listed(app)]
        assert names == sorted(names)


async def test_marks_survive_looking_and_go_with_their_run(folder: LabFolder, app: CerankApp) -> None:
    one, two = folder.run("one"), folder.run("two")
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "space", "space")
        assert app.marked == (two.name, one.name)
        run_store.remove(one)
        await look(pilot)
        assert app.marked == (two.name,)
        assert "●· waiting" in text_of(app)
        await press(pilot, "m")
        assert "two runs" in _toasts(app)


async def test_deleting_asks_names_what_goes_and_no_is_the_answer_in_focus(folder: LabFolder, app: CerankApp) -> None:
    made = folder.finished(folder.started(folder.run("doomed"), 5))
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "d")
        assert isinstance(app.screen, ConfirmDialog)
        assert "doomed" in text_of(app)
        assert "files" in text_of(app)
        await press(pilot, "enter")
        assert made.path.exists()
        await press(pilot, "d", "y")
        assert not made.path.exists()
        assert "No runs yet" in text_of(app)


async def test_keys_act_on_all_marked_runs_and_u_brings_deleted_ones_back(folder: LabFolder, app: CerankApp) -> None:
    made = [folder.finished(folder.started(folder.run(label), 5)) for label in ("one", "two", "three")]
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "space", "space", "d")
        assert "Delete 2 runs?" in text_of(app)
        await press(pilot, "y")
        assert [run.path.exists() for run in made] == [True, False, False]
        assert app.marked == ()
        await press(pilot, "u")
        assert all(run.path.exists() for run in made)
        assert len(_listed(app)) == 3
        assert run_store.status(made[2], NOW).state == "finished"


def test_the_trash_keeps_a_run_for_a_week(folder: LabFolder) -> None:
    lab, made = folder.lab, folder.finished(folder.started(folder.run("one"), 5))
    lab.trash(made)
    lab.empty_trash(60.0)
    assert [path.name for path in lab.trash_folder.iterdir()] == [made.name]
    os.utime(lab.trash_folder / made.name, (0, 0))
    lab.empty_trash(TRASH_SECONDS)
    assert not list(lab.trash_folder.iterdir())
    with pytest.raises(UsageError):
        lab.restore(made.name)


async def test_the_verdict_of_a_run_that_has_just_finished_is_announced_and_listed(
    folder: LabFolder, app: CerankApp
) -> None:
    made = folder.running(folder.started(folder.run("one"), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        folder.close()
        folder.finished(made)
        await look(pilot)
        assert "nDCG@10 .641" in _toasts(app)
        summary = verdict_summaries.save_summary(app.lab.settings.cache, made)
        assert summary is not None
        app.poll(made.name)
        await settle(pilot)
        assert summary.sentence in _toasts(app)
        assert "worth it?" in text_of(app)
        assert summary.verdict in text_of(app)
        measures = next((made.path / "measures").rglob("*.jsonl"))
        measures.write_bytes(measures.read_bytes() + b"\n")
        assert verdict_summaries.load_summary(app.lab.settings.cache, made) is None


async def test_a_run_that_a_worker_holds_is_not_deleted(folder: LabFolder, app: CerankApp) -> None:
    folder.running(folder.started(folder.run("busy"), 5))
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "d")
        assert not isinstance(app.screen, ConfirmDialog)
        assert "stop it first" in _toasts(app)


async def test_stopping_asks_and_leaves_the_request_in_the_run(folder: LabFolder, app: CerankApp) -> None:
    made = folder.running(folder.started(folder.run("busy"), 5))
    held = folder.leases[0]
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "s", "escape")
        assert not made.stop.exists()
        # the lease's owner is this very process, which the signal would end
        made.lease.write_bytes(b"")
        await press(pilot, "s", "y")
        assert made.stop.exists()
        await look(pilot)
        assert "◑ stopping" in text_of(app)
    held.release()


async def test_label_and_tags_are_kept_beside_the_plan(folder: LabFolder, app: CerankApp) -> None:
    made = folder.run("old name")
    plan = made.plan.read_bytes()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "t", *"new", "tab", *"keep #best", "enter")
        assert "new" in text_of(app)
        assert "#keep #best" in text_of(app)
    assert made.plan.read_bytes() == plan
    assert label_runs.tags_in("keep #best") == ("keep", "best")


async def test_what_happened_is_told_in_a_toast(folder: LabFolder, app: CerankApp) -> None:
    one, two = folder.started(folder.run("one"), 5), folder.started(folder.run("two"), 5)
    folder.running(one)
    folder.running(two)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        folder.finished(one)
        folder.failed(two, "a loss of nan")
        folder.close()
        await look(pilot)
        assert "(one) finished" in _toasts(app)
        assert "nDCG@10 .641" in _toasts(app)
        assert "a loss of nan" in _toasts(app)


async def test_a_lost_run_says_which_key_goes_on(folder: LabFolder, app: CerankApp) -> None:
    folder.running(folder.started(folder.run("one"), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        folder.close()
        await look(pilot)
        assert "? lost" in text_of(app)
        assert "Press r to resume" in _toasts(app)


async def test_quitting_says_how_many_jobs_keep_running(folder: LabFolder, app: CerankApp) -> None:
    for label in ("one", "two"):
        folder.running(folder.started(folder.run(label), 5))
    folder.run("three")
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("q")
    assert app.return_value == "2 jobs keep running"


async def test_the_list_is_written_as_it_is_filtered(folder: LabFolder, app: CerankApp, tmp_path: Path) -> None:
    folder.finished(folder.started(folder.run("good"), 5))
    folder.run("=cmd()")
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "slash", *"state:finished", "enter", "e")
        (written,) = tmp_path.glob("cerank-runs-*.csv")
        rows = written.read_text().splitlines()
    assert len(rows) == 2
    assert "good" in rows[1]


async def test_a_refusal_is_a_toast_and_a_fault_goes_to_a_file(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run("done"), 5))
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "r")
        assert "finished" in _toasts(app)
        app.run_in_thread(lambda: 1 // 0)
        await settle(pilot)
        said = _toasts(app)
        assert "ZeroDivisionError" in said
    path = next(word for word in said.split() if word.startswith("/") and word.endswith(".txt"))
    assert "1 // 0" in Path(path).read_text()
    Path(path).unlink()


async def test_help_lists_every_binding_of_the_screen(folder: LabFolder, app: CerankApp) -> None:
    folder.run("one")
    async with app.run_test(size=(120, 60)) as pilot:
        await settle(pilot)
        await press(pilot, "question_mark")
        seen = text_of(app)
        for binding in RunsScreen.BINDINGS:
            assert binding.description in seen  # type: ignore[union-attr]
        await press(pilot, "escape")
        assert isinstance(app.screen, RunsScreen)


def _listed(app: CerankApp) -> list:  # type: ignore[type-arg]
    return list(app.screen.query_one(RunTable).listed)


def _toasts(app: CerankApp) -> str:
    return "\n".join(toast.message for toast in app._notifications)


async def test_a_column_that_fits_stays_when_a_wider_one_had_to_go(folder: LabFolder, app: CerankApp) -> None:
    folder.running(folder.started(folder.run("a label of several words", seed=7), 20))
    folder.finished(folder.started(folder.run("beta"), 20))
    folder.failed(folder.started(folder.run("gamma"), 5), "out of memory on the device while scoring a batch")
    async with app.run_test(size=(72, 24)) as pilot:
        await settle(pilot)
        table = app.screen.query_one(RunTable)
        assert "label" in table.hidden
        assert "seed" not in table.hidden
        assert whole_cells(table)


def _shown_columns(app: CerankApp) -> dict[str, str]:
    return {column.key: column.heading for column in app.screen.query_one(RunTable).row_columns}


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_recipes_and_verdicts_are_seen_beside_a_run_at_work_and_a_failed_one(
    folder: LabFolder, app: CerankApp, size: tuple[int, int]
) -> None:
    names = ("contrastive-then-distill", "contrastive-continued", "distill")
    done = [folder.finished(folder.started(folder.run(name=name), 100, stage=1)) for name in names]
    verdict_summaries.compute_in_process(app.lab.settings.cache, done, lambda: False)
    folder.failed(folder.started(folder.run(name="distill", seed=2), 12), "out of memory on the device")
    folder.running(folder.started(folder.run(name=names[0], seed=2), 80, stage=1))
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        seen = text_of(app)
        assert all(name in seen for name in names)
        assert "2/2 distill 61%" in seen
        assert "≡ identical" in seen
        assert {"run", "verdict", "recipe", "test"} <= _shown_columns(app).keys()
        assert whole_cells(app.screen.query_one(RunTable))
        is_joined = "now" not in _shown_columns(app)
        assert is_joined == (size == NARROW)
        for glyph in "▶✖✔":
            assert glyph in seen
        # a column that the user hid says nothing in another one
        await press(pilot, "C", *["down"] * app.screen.query_one(RunTable).offered.index("now"), "space", "enter")
        assert "2/2 distill" not in "\n".join(text_of(app).splitlines()[:6])


async def test_a_low_screen_tells_in_two_lines_which_run_is_under_the_cursor(folder: LabFolder, app: CerankApp) -> None:
    folder.running(folder.started(folder.run("by hand", base="electra", seed=7), 80, stage=1))
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        told = str(app.screen.query_one("#detail", Static).render())
        for words in ("running", "two-stages on electra, seed 7", "by hand", "2/2 distill 61%", "0:42 left"):
            assert words in told
        assert len(told.splitlines()) == 2
        await pilot.resize_terminal(80, 12)
        await settle(pilot)
        assert not app.screen.query_one("#detail").display
        await pilot.resize_terminal(*WIDE)
        await settle(pilot)
        assert "trains on" in text_of(app)


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_sweep_is_one_row_that_enter_opens_to_its_trials(
    folder: LabFolder, app: CerankApp, size: tuple[int, int]
) -> None:
    runs = [folder.finished(folder.started(folder.run(f"rates cl {number}/2"), 5)) for number in (1, 2)]
    keep_sweep(folder, [run.name for run in runs], planned=2)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        assert [entry.short_name for entry in _listed(app)] == ["rates"]
        assert ("2 of 2" if size == WIDE else "2/2") in text_of(app)
        await press(pilot, "enter")
        assert isinstance(app.screen, RunsScreen)
        assert [entry.name for entry in _listed(app)] == [run.name for run in reversed(runs)]
        for rate in ("1e-05", "0.0001"):
            assert rate in text_of(app)
        await press(pilot, "left")
        assert [entry.short_name for entry in _listed(app)] == ["rates"]
        await press(pilot, "right", "down", "enter")
        assert isinstance(app.screen, RunScreen)


async def test_resuming_a_sweep_leaves_its_stopped_trials_as_they_are(folder: LabFolder, app: CerankApp) -> None:
    runs = [folder.run(f"rates cl {number}/2") for number in (1, 2)]
    keep_sweep(folder, [run.name for run in runs], stopped={2: 1})
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "r", "y")
        await settle(pilot)
        assert [run.name for run in app.lab.queued()] == [runs[0].name]


async def test_what_is_done_with_a_single_run_is_not_done_with_some_trial_of_a_sweep(
    folder: LabFolder, app: CerankApp
) -> None:
    runs = [folder.run(f"rates cl {number}/2") for number in (1, 2)]
    label_runs.note(runs[1], "mine", "keep")
    keep_sweep(folder, [run.name for run in runs])
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        for key in ("t", "c", "N"):
            await press(pilot, key)
            assert isinstance(app.screen, RunsScreen)
            assert "is a sweep" in _toasts(app)
        await press(pilot, "enter", "t")  # the newest trial is first
        assert not isinstance(app.screen, RunsScreen)
    assert user_labels.load(runs[1]).label == "mine"


async def test_of_a_trial_that_its_sweep_stopped_nobody_is_told_to_resume_it(folder: LabFolder, app: CerankApp) -> None:
    runs = [folder.running(folder.started(folder.run(f"rates cl {number}/2"), 5)) for number in (1, 2)]
    keep_sweep(folder, [run.name for run in runs], stopped={2: 1})
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        folder.event(runs[1], "paused", "by the user")
        folder.close()
        await look(pilot)
        assert "stopped early" in _toasts(app)
        assert "paused" not in _toasts(app)


@pytest.mark.parametrize("keys", [["r"], ["M", "R"]], ids="".join)
async def test_the_only_trial_that_a_sweep_stopped_is_resumed_where_it_is_meant_alone(
    folder: LabFolder, app: CerankApp, keys: list[str]
) -> None:
    stopped = folder.started(folder.run("rates cl 1/2"), 5)
    folder.event(stopped, "paused", "by the user")
    keep_sweep(folder, [stopped.name], stopped={1: 1})
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, *keys)
        await settle(pilot)
        assert not isinstance(app.screen, ConfirmDialog)
        if keys == ["r"]:
            await press(pilot, "enter", "r", "y")
            await settle(pilot)
            assert [run.name for run in app.lab.queued()] == [stopped.name]
