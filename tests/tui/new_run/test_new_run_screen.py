"""The form of a new run: what is typed is checked beside its field, and what is launched is what was shown."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from cerank import recipes
from cerank.app import Lab, plans
from cerank.app.matrix import drafts, recipe_form
from cerank.app.matrix.matrix_planning import PlannedMatrix
from cerank.app.plans import WorkItem
from cerank.app.run_views.run_monitor import LabMonitor
from cerank.machine.devices import Device
from cerank.runs import run_store
from cerank.tui.app import CerankApp
from cerank.tui.common.dialogs import ConfirmDialog
from cerank.tui.common.form_fields import Checklist, ChoiceField, FieldRow, LineInput
from cerank.tui.common.text_editor import MistakesDialog
from cerank.tui.new_run import draft_review
from cerank.tui.new_run.dataset_search import DatasetSearch
from cerank.tui.new_run.new_run_screen import NewRunScreen
from tests.tui.conftest import press, settle, text_of
from tests.tui.labs import LabFolder

PLAIN = """\
name = "plain"
base = "minilm"
chain = ["contrastive"]
force = ["shared_queries"]

[stages.contrastive]
steps = 100
learning_rate = 2e-4
"""
SIZES = [(120, 36), (80, 24)]


class QuietLab(Lab):
    """A lab whose queue is not served, so that no process outlives a test."""

    def start_queue(self) -> None:
        """Starts nothing."""


@pytest.fixture
def app(folder: LabFolder, monkeypatch: pytest.MonkeyPatch) -> CerankApp:
    monkeypatch.setenv("CERANK_LAB", str(folder.path))  # so that commands need not name it
    return CerankApp(QuietLab(folder.lab.settings, devices=(Device("cpu"),)), poll_seconds=0)


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A folder that passes for a model as long as nobody loads it."""
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")  # a header without tensors
    (folder / "tokenizer.json").write_text("{}")
    return "./tiny-model"


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    folder = tmp_path / "collection"
    folder.mkdir()
    (folder / "docs.jsonl").write_text("".join(f'{{"doc_id": "d{at}", "text": "word{at}"}}\n' for at in range(20)))
    (folder / "queries.tsv").write_text("".join(f"q{at}\tword{at}\n" for at in range(10)))
    (folder / "qrels").write_text("".join(f"q{at} 0 d{at} 1\n" for at in range(10)))
    return "./collection"


def parts_of(dataset: str) -> dict[str, str]:
    """Disjoint parts of it: what is learned from is not tested on."""
    train, validation, tests = plans.parts_of(dataset)
    return {"data.train": train, "data.validation": validation, "data.test": tests[0]}


async def opened(pilot: Pilot[str], recipe: object = "contrastive") -> NewRunScreen:
    app = pilot.app
    assert isinstance(app, CerankApp)
    screen = NewRunScreen(app.lab, recipe)  # type: ignore[arg-type]
    app.push_screen(screen)
    await settle(pilot)
    return screen


def field(screen: NewRunScreen, path: str) -> FieldRow:
    return next(row for row in screen.query(FieldRow) if row.row.path == path)


async def put(pilot: Pilot[str], screen: NewRunScreen, path: str, text: str) -> FieldRow:
    """Types a text in place of what stands in a field."""
    row = field(screen, path)
    line = row.query_one(LineInput)
    line.focus()
    line.value = ""
    await pilot.pause()
    for char in text:
        await pilot.press(char if char.isalnum() else {" ": "space"}.get(char, char))
    await pilot.pause()
    return row


async def until(pilot: Pilot[str], holds: Callable[[], bool]) -> None:
    """Waits for what a pause in typing sets off."""
    for _ in range(1000):
        await settle(pilot)
        if holds():
            return
        await pilot.pause(0.02)
    raise AssertionError("it never came to be")


async def test_the_form_opens_ready_to_launch_with_its_command(app: CerankApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot, None)
        seen = text_of(app)
        assert "[x] minilm" in seen
        assert "22.7M" in seen
        assert "Apache-2.0" in seen
        assert re.search(r"1 run = 1 .* × 1 .* × 1 ", seen)
        assert "$ cerank run --recipe contrastive-then-distill" in seen
        assert screen.checked.cells


async def test_marking_bases_and_recipes_and_typing_seeds_makes_a_matrix(app: CerankApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        await pilot.press("space", "2", "down", "space", "4")
        await put(pilot, screen, "seeds", "1-3")
        assert re.search(r"12 runs = 2 .* × 2 .* × 3 ", text_of(app))
        assert len(screen.checked.cells) == 12
        await press(pilot, "escape", "y")
        copied = app.clipboard.splitlines()
        assert len(copied) == 12
        assert {tuple(shlex.split(line)[:3]) for line in copied} == {("cerank", "run", "--recipe")}


async def test_no_base_marked_takes_the_recipes_own(app: CerankApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        await pilot.press("down", "space")  # takes the mark from the recipe's own
        assert screen.draft.bases == ()
        assert screen.checked.cells[0].recipe.base == "minilm-4"


async def test_a_mistake_is_said_beside_its_field_as_one_types_and_goes_when_mended(app: CerankApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        await press(pilot, "2")
        row = await put(pilot, screen, "stages.contrastive.learning_rate", "fast")
        seen = text_of(app)
        assert "✖" in seen
        assert "2 recipe  ✖1" in seen
        assert "$ cerank" not in seen
        assert row.has_class("-wrong")
        await put(pilot, screen, "stages.contrastive.learning_rate", "0.001")
        assert not row.has_class("-wrong")
        assert "--set stages.contrastive.learning_rate=0.001" in text_of(app)


async def test_nothing_invalid_can_be_launched(app: CerankApp, folder: LabFolder) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        await press(pilot, "4")
        await put(pilot, screen, "seeds", "x")
        await press(pilot, "escape", "l", "l")
        assert app.screen is screen
        assert "'x' is not a seed" in text_of(app)
        assert folder.lab.listed() == []


async def test_m_goes_to_the_first_mistake_in_whatever_stage_it_is(app: CerankApp) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, "contrastive-then-distill")
        screen.change_settings({"stages.distill.keep": "worst"})
        await press(pilot, "m")
        row = field(screen, "stages.distill.keep")
        assert row.query_one(ChoiceField).has_focus
        assert re.search(r"✖ .*best, last", text_of(app))


def whose(screen: NewRunScreen) -> str:
    """What the form says of whose settings it shows; "" where it says nothing."""
    line = screen.query_one("#settings .whose", Static)
    return str(line.render()) if line.display else ""


async def test_the_form_says_of_which_of_several_recipes_the_settings_are(app: CerankApp, tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(PLAIN)
    other = PLAIN.replace('"plain"', '"other"').replace("2e-4", "3e-4").replace("steps = 100", "steps = 50")
    (tmp_path / "other.toml").write_text(other)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, "./plain.toml")
        await press(pilot, "2")
        assert whose(screen) == ""
        for name in ("./other.toml", "contrastive-then-distill"):
            await put(pilot, screen, "recipes", name)
            await press(pilot, "enter", "escape")
        said = whose(screen)
        assert "plain" in said
        assert "all 3" in said
        assert {"steps", "learning_rate"} <= set(re.findall(r"\w+", said))
        await press(pilot, "right_square_bracket")
        assert "contrastive-then-distill alone" in whose(screen)  # the only one with this stage
        await press(pilot, "left_square_bracket")
        await put(pilot, screen, "stages.contrastive.learning_rate", "1e-4")
        assert "learning_rate" not in whose(screen)  # it is the same in all of them now
        assert "steps" in whose(screen)
        await press(pilot, "escape", "3")
        assert "of every run   " in text_of(app)


def test_whose_settings_are_shown_is_said_in_few_words() -> None:
    plain = recipes.load("contrastive").recipe
    faster = msgspec.structs.replace(
        plain,
        name="faster",
        stages={"contrastive": msgspec.structs.replace(plain.stages["contrastive"], learning_rate=1.0)},
    )
    twin = msgspec.structs.replace(plain, name="twin")
    path = "stages.contrastive"
    assert recipe_form.whose_values([plain], path) == ""
    same = recipe_form.whose_values([plain, twin], path)
    assert "contrastive and twin" in same
    assert recipe_form.whose_values([plain, faster], path, {f"{path}.learning_rate"}) == same.replace("twin", "faster")
    assert "faster differs in learning_rate" in recipe_form.whose_values([plain, twin, faster], path)
    assert recipe_form.whose_values([plain, faster], "stages.distill") == ""


def test_no_line_of_the_work_is_wider_than_its_page() -> None:
    parts = [
        WorkItem(
            f"re-rank {'a-collection-with-a-long-name'} by contrastive-continued-with-teacher", 6_980, 697_100_000
        ),
        WorkItem("train distill", 10, 20, minutes=1_234.0),
    ]
    state = draft_review.LaunchState((), (), PlannedMatrix(work=tuple(parts)), "", is_planning=False)
    for room in (76, 100):
        head, *rows = (line for line in draft_review.work(state, room).plain.splitlines() if "  " in line)
        assert len(head) <= room
        assert {len(row) for row in rows} == {len(head)}
    assert "…" in draft_review.work(state, 76).plain


async def test_a_choice_is_turned_with_the_arrow_keys(app: CerankApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        await press(pilot, "2")
        row = field(screen, "stages.contrastive.schedule")
        row.query_one(ChoiceField).focus()
        await press(pilot, "right")
        assert screen.draft.settings == {"stages.contrastive.schedule": "cosine"}
        await press(pilot, "left")
        assert screen.draft.settings == {}


async def test_each_stage_of_the_chain_shows_its_own_settings_and_keeps_what_was_typed(app: CerankApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot, "contrastive-then-distill")
        await press(pilot, "2")
        await put(pilot, screen, "stages.contrastive.steps", "7")
        await press(pilot, "escape", "right_square_bracket")
        assert "[distill]" in text_of(app)
        own = recipes.load("contrastive-then-distill").recipe.stages["distill"].steps
        assert field(screen, "stages.distill.steps").text == str(own)
        await put(pilot, screen, "stages.distill.steps", "0")
        await press(pilot, "escape", "left_square_bracket")
        assert field(screen, "stages.contrastive.steps").text == "7"
        assert "contrastive]" in text_of(app)
        assert "distill ✖" in text_of(app)


async def test_a_recipe_file_is_added_or_refused_beside_its_field(app: CerankApp, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "contrastive"\nname = "mine"\n')
    (tmp_path / "bad.toml").write_text('extends = "contrastive"\n[stages.contrastive]\nstepz = 1\n')
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        await press(pilot, "2")
        row = field(screen, "recipes")
        line = row.query_one(LineInput)
        line.focus()
        line.value = "bad.toml"
        await press(pilot, "enter")
        assert "'steps'" in text_of(app)
        line.value = "mine.toml"
        await press(pilot, "enter")
        assert [one.name for one in screen.draft.sources] == ["contrastive", "mine"]
        assert not row.has_class("-wrong")
        assert "mine.toml" in screen.query_one("#recipes", Checklist).chosen


async def test_a_dataset_is_found_by_words_and_taken_for_all_three_parts(app: CerankApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        await press(pilot, "3")
        screen.query_one(DatasetSearch).query_one(LineInput).value = "vaswani"
        await until(pilot, lambda: "vaswani  " in text_of(app).partition("Find a dataset")[2])
        screen.query_one("#found").focus()
        await press(pilot, "enter")
        assert "--dataset vaswani" in screen.checked.cells[0].command
        assert field(screen, "data.train").text == "vaswani[:60%]"
        await press(pilot, "t")
        assert field(screen, "data.train").text == "vaswani"


async def test_a_folder_is_found_by_its_path(app: CerankApp, dataset: str) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        await press(pilot, "3")
        screen.query_one(DatasetSearch).query_one(LineInput).value = dataset
        await until(pilot, lambda: "collection  folder" in text_of(app))


async def test_the_work_is_shown_before_and_the_matrix_is_queued_after_a_question(
    app: CerankApp, folder: LabFolder, base: str, dataset: str
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,), seeds="1, 2")
        screen.change_settings(parts_of(dataset))
        await press(pilot, "l")
        await until(pilot, lambda: screen.matrix is not None)
        seen = text_of(app)
        assert "train contrastive" in seen
        stage = recipes.load("contrastive").recipe.stages["contrastive"]
        pairs = 2 * stage.steps * stage.groups_per_step * stage.group_size  # two seeds
        assert f"{pairs:,}" in seen
        assert "✔ ready" in seen
        assert folder.lab.listed() == []
        await press(pilot, "l", "y")
        await until(pilot, lambda: not isinstance(app.screen, NewRunScreen | ConfirmDialog))
    rows = folder.lab.listed()
    assert {row.plan.recipe.seed for row in rows if row.plan} == {1, 2}
    assert len(folder.lab.queued()) == 2


async def test_the_form_says_that_an_identical_run_is_finished(
    app: CerankApp, folder: LabFolder, base: str, dataset: str
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,))
        screen.change_settings(parts_of(dataset))
        await press(pilot, "l")
        await until(pilot, lambda: screen.matrix is not None)
        assert screen.matrix is not None
        assert "dentical" not in text_of(app)
        plan = screen.matrix.plans[0]
        run = folder.lab.create(plan, b"")
        state = msgspec.structs.replace(plan, label="")
        app.entries = tuple(
            msgspec.structs.replace(entry, plan=state, status=msgspec.structs.replace(entry.status, state="finished"))
            for entry in LabMonitor(folder.path).poll()
        )
        screen.change(label="again")
        await press(pilot, "4")
        await until(pilot, lambda: screen.matrix is not None)
        assert "identical run is finished" in text_of(app)
        assert run_store.short_name(run) in text_of(app)


async def test_on_a_low_screen_messages_cover_no_field(app: CerankApp) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await opened(pilot)
        for text in ("one " * 60, "two", "three " * 60):
            app.show_message(text, "error")
            await settle(pilot)
        (toast,) = screen.query("Toast")
        assert toast.region.bottom <= 2
        assert all(field.region.y >= 2 for field in screen.query(FieldRow) if field.region)


async def test_what_planning_refuses_stands_beside_its_field(app: CerankApp, base: str, dataset: str) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,))
        screen.change_settings({"data.train": dataset, "data.validation": dataset, "data.test": "./nowhere"})
        await press(pilot, "4")
        await until(pilot, lambda: screen.matrix is not None)
        assert "✖ data.test" in text_of(app)
        await press(pilot, "3")
        assert field(screen, "data.test").has_class("-wrong")
        await press(pilot, "l", "l")
        assert isinstance(app.screen, NewRunScreen)


async def test_folds_are_counted_among_the_runs_and_one_command_makes_them(
    app: CerankApp, base: str, dataset: str
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,))
        screen.change_settings({"data.test": dataset, "data.folds": "3"})
        await press(pilot, "4")
        await until(pilot, lambda: len(screen.checked.cells) == 3)
        await settle(pilot)
        seen = text_of(app)
        assert "× 3 folds" in seen
        commands = str(screen.query_one("#commands", Static).render())
        assert commands.count("$") == commands.count("cerank run") == 1
        assert "(1 of" not in seen


async def test_with_folds_the_fields_of_data_say_which_folds_are_trained_on(
    app: CerankApp, base: str, dataset: str
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,))
        screen.change_settings({"data.test": dataset, "data.folds": "3"})
        await press(pilot, "3")
        await settle(pilot)
        for key, words in (("data.train", "other folds"), ("data.validation", "next fold")):
            line = field(screen, key).query_one(LineInput)
            assert line.value == ""
            assert words in str(line.placeholder)
            assert str(line.placeholder) in text_of(app)
        assert not field(screen, "data.train").has_class("-changed")
        line = field(screen, "data.train").query_one(LineInput)
        line.focus()
        await press(pilot, *"./a")
        assert screen.draft.settings["data.train"] == "./a"
        await press(pilot, *["backspace"] * 3)
        assert "data.train" not in screen.draft.settings
        assert line.value == ""
        line = field(screen, "data.folds").query_one(LineInput)
        line.focus()
        await press(pilot, "backspace")
        assert "data.folds" not in screen.draft.settings
        await settle(pilot)
        assert field(screen, "data.train").query_one(LineInput).value == "pydocs/train"
        assert not field(screen, "data.train").query_one(LineInput).placeholder


async def test_a_recipe_with_folds_is_saved_and_edited_with_its_folds(
    app: CerankApp, base: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,))
        screen.change_settings({"data.test": dataset, "data.folds": "3"})
        await press(pilot, "w", "enter")
        await settle(pilot)
    (file,) = tmp_path.glob("*.toml")
    saved = recipes.load(str(file)).recipe
    assert saved.data.folds == "3"
    assert saved.data.test == (str(tmp_path / dataset),)
    draft = drafts.as_changes(drafts.recipe_source("contrastive-then-distill"), saved)
    assert draft is not None
    assert draft.settings["data.folds"] == "3"


async def test_too_many_folds_are_a_mistake_of_the_folds(app: CerankApp, base: str, dataset: str) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,))
        screen.change_settings({"data.test": dataset, "data.folds": "40"})
        await press(pilot, "4")
        await until(pilot, lambda: screen.matrix is not None or "✖ data." in text_of(app))
        await settle(pilot)
        assert "✖ data.folds" in text_of(app)


async def test_a_dataset_of_folds_that_is_not_there_is_a_mistake_of_the_test_set(app: CerankApp, base: str) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,))
        screen.change_settings({"data.test": "./nowhere", "data.folds": "3"})
        await press(pilot, "4")
        await until(pilot, lambda: "✖ data." in text_of(app))
        assert "✖ data.test" in text_of(app)


async def test_typed_letters_start_nothing_and_the_form_says_how_to_get_into_a_field(
    folder: LabFolder, app: CerankApp, base: str, dataset: str
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,))
        screen.change_settings(parts_of(dataset))
        await press(pilot, "3", "h")
        await settle(pilot)
        assert any("tab" in toast.message for toast in app._notifications)
        assert "tab fields" in text_of(app)
        await press(pilot, "4")
        await until(pilot, lambda: screen.matrix is not None)
        await press(pilot, "l", "u")  # of a word: a letter that is no answer is a no
        assert app.screen is screen
        await press(pilot, "l", "enter")  # No has the focus
        assert app.screen is screen
        assert folder.lab.listed() == []


async def test_a_change_after_planning_has_to_be_planned_again(app: CerankApp, base: str, dataset: str) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change(bases=(base,))
        screen.change_settings(parts_of(dataset))
        await press(pilot, "4")
        await until(pilot, lambda: screen.matrix is not None)
        screen.change(seeds="5")
        assert screen.matrix is None


async def test_commands_name_a_lab_that_they_would_not_find(
    app: CerankApp, folder: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERANK_LAB", "elsewhere")
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        assert f"--lab {folder.path}" in screen.checked.cells[0].command


async def test_a_clone_starts_from_the_runs_recipe(app: CerankApp) -> None:
    wanted = recipes.load("distill", ["seed=9", "stages.distill.steps=11"]).recipe
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot, wanted)
        assert screen.checked.cells[0].recipe == wanted
        await press(pilot, "2")
        assert field(screen, "stages.distill.steps").text == "11"
        assert field(screen, "stages.distill.steps").has_class("-changed")


async def test_the_recipe_as_changed_is_saved_as_a_file(app: CerankApp, tmp_path: Path) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        screen.change_settings({"stages.contrastive.steps": "7"})
        await press(pilot, "w", "enter")
        assert app.screen is screen
        saved = recipes.load(str(tmp_path / "contrastive.toml")).recipe
        assert saved == screen.checked.cells[0].recipe
        await press(pilot, "w", "enter")
        assert "exists already" in text_of(app)


async def test_escape_leaves_a_field_first_and_then_the_form(app: CerankApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        await press(pilot, "3")
        field(screen, "data.train").query_one(LineInput).focus()
        await press(pilot, "escape")
        assert app.screen is screen
        await press(pilot, "escape")
        assert app.screen is not screen


@pytest.mark.parametrize("way_out", [("escape", "escape"), ("escape", "q"), ("ctrl+c", "ctrl+c")], ids=str)
async def test_a_filled_form_outlives_every_way_out_and_n_opens_it_again(
    app: CerankApp, folder: LabFolder, way_out: tuple[str, str]
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "n")
        screen = app.screen
        assert isinstance(screen, NewRunScreen)
        await pilot.press("down", "space", "4", "tab", *"42-44", "tab", "tab", *"mine")
        await settle(pilot)
        draft = screen.draft
        assert (draft.seeds, draft.label) == ("42-44", "mine")
        await press(pilot, *way_out)
        assert not app.is_running or not isinstance(app.screen, NewRunScreen)
    again = CerankApp(app.lab, poll_seconds=0)
    async with again.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "n")
        screen = again.screen
        assert isinstance(screen, NewRunScreen)
        assert screen.draft == draft
        seen = text_of(again)
        assert "42-44" in seen
        assert "draft of" in seen
        await press(pilot, "X", "y")
        assert isinstance(again.screen, NewRunScreen)
        assert not again.screen.is_changed
        await press(pilot, "escape", "n")
        assert "draft of" not in text_of(again)


async def test_a_form_that_was_not_touched_leaves_no_draft(app: CerankApp, tmp_path: Path) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "n", "2", "escape", "n")
        assert "draft of" not in text_of(app)
    assert not list((tmp_path / ".state").rglob("*.json"))


def test_the_screens_import_nothing_slow() -> None:
    names = ", ".join(
        f"cerank.tui.{name}"
        for name in (
            "new_run.new_run_screen",
            "comparison.compare_screen",
            "comparison.query_screen",
            "common.dialogs",
        )
    )
    slow = "numpy scipy torch transformers ir_datasets ir_measures pandas statsmodels bm25s huggingface_hub"
    code = f"import sys, {names}; print({{name.partition('.')[0] for name in sys.modules}} & set({slow.split()!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "set()\n"


async def test_hostile_names_neither_break_nor_steer_the_form(app: CerankApp, tmp_path: Path) -> None:
    name = "\x1b]52;c;aGk=\x07[/nope][bold]\u202e"
    hostile = msgspec.structs.replace(recipes.load("contrastive").recipe, name=name, description=name * 9)
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot, hostile)
        for key in "1234":
            await press(pilot, key)
            seen = text_of(app)
            assert "\x1b" not in seen
            assert "\u202e" not in seen
        assert screen.checked.cells[0].recipe == hostile


@pytest.mark.parametrize(
    ("step", "size", "color"),
    [
        ("base", SIZES[1], True),
        ("recipe", SIZES[0], True),
        ("data", SIZES[0], True),
        ("launch", SIZES[0], True),
        ("errors", SIZES[1], False),
    ],
    ids=lambda value: f"{value[0]}x{value[1]}" if isinstance(value, tuple) else None,
)
def test_the_form_looks_as_it_did(
    folder: LabFolder,
    color: bool,
    base: str,
    dataset: str,
    size: tuple[int, int],
    step: str,
    snap_compare: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # whatever this machine has
    monkeypatch.setattr("cerank.models.bases.is_on_this_machine", lambda known: known.name == "minilm")

    Path("plain.toml").write_text(PLAIN)
    monkeypatch.setenv("CERANK_LAB", str(folder.path))
    if not color:
        monkeypatch.setenv("NO_COLOR", "1")
    app = CerankApp(QuietLab(folder.lab.settings, devices=(Device("cpu"),)), poll_seconds=0)

    async def go(pilot: Pilot[str]) -> None:
        screen = await opened(pilot, "plain.toml")
        if step == "launch":
            field(screen, "base").query_one(LineInput).value = base
            field(screen, "seeds").query_one(LineInput).value = "1, 2"
            screen.change_settings({"data.train": dataset, "data.validation": dataset, "data.test": dataset})
        if step == "errors":
            field(screen, "seeds").query_one(LineInput).value = "5-1"
            screen.change_settings({"stages.contrastive.learning_rate": "fast", "data.depth": "0"})
        await press(pilot, {"base": "1", "recipe": "2", "data": "3", "launch": "4", "errors": "2"}[step])
        if step == "errors":
            await press(pilot, "m")
        if step == "launch":
            await until(pilot, lambda: screen.matrix is not None)
        if step == "data":
            await until(pilot, lambda: "pydocs/test" in text_of(screen.app).partition("Find")[2])  # type: ignore[arg-type]

    assert snap_compare(app, terminal_size=size, run_before=_after(go))


async def test_without_color_every_state_is_a_sign_or_a_word(
    folder: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = CerankApp(folder.lab, poll_seconds=0)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        screen.change_settings({"stages.contrastive.learning_rate": "fast"})
        await press(pilot, "m")
        seen = text_of(app)
        for sign in (
            "[x] contrastive",
            "[ ] contrastive-continued",
            "[contrastive] ✖",
            "2 recipe  ✖1",
            "• learning_rate",
            "✖ must be",
        ):
            assert sign in seen
        assert "peak of the schedule" in seen


def _after(go: Callable[[Pilot[str]], Awaitable[None]]) -> Callable[[Pilot[str]], Awaitable[None]]:
    async def run(pilot: Pilot[str]) -> None:
        await settle(pilot)
        await go(pilot)

    return run


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes an editor that runs a shell script on the file `$1`; the terminal is not handed over in a test."""
    monkeypatch.setattr(CerankApp, "suspend", lambda _: contextlib.nullcontext())
    monkeypatch.delenv("VISUAL", raising=False)

    def make(script: str) -> None:
        path = tmp_path / "editor.sh"
        path.write_text(script)
        monkeypatch.setenv("EDITOR", f"sh {path}")

    return make


async def test_the_form_is_edited_as_text_and_every_mistake_is_shown(
    app: CerankApp, editor: Callable[[str], None]
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        editor("""printf 'seeds = "1-3"\\nlable = "x"\\nbases = 3\\n' > "$1" """)
        await press(pilot, "E")
        assert isinstance(app.screen, MistakesDialog)
        assert "lable: " in text_of(app)
        assert "bases: " in text_of(app)
        assert screen.draft.seeds == ""
        editor("""printf 'recipes = ["contrastive"]\\nbases = ["minilm"]\\nseeds = "1-3"\\n' > "$1" """)
        await press(pilot, "e")
        assert app.screen is screen
        assert len(screen.checked.cells) == 3


async def test_nothing_is_lost_by_an_editor_that_fails_or_is_not_there(
    app: CerankApp, editor: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        before = screen.draft
        editor('echo "label = 1" > "$1"; exit 3')
        await press(pilot, "E")
        assert screen.draft == before
        assert any("code 3" in toast.message for toast in app._notifications)
        monkeypatch.setenv("EDITOR", "no-such-editor-anywhere")
        await press(pilot, "E")
        assert app.screen is screen
        assert screen.draft == before


async def test_a_recipe_is_edited_as_text_on_its_step(app: CerankApp, editor: Callable[[str], None]) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot)
        editor("""sed -i 's/^steps = .*/steps = 7/' "$1" """)
        await press(pilot, "2", "E")
        assert screen.draft.settings == {"stages.contrastive.steps": "7"}
