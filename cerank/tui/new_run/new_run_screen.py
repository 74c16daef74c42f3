"""A new run, or a matrix of bases x recipes x seeds: four steps of choosing, with the equivalent commands.

Invariant: what is launched is what was planned and shown; any change after that has to be planned again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.timer import Timer
from textual.widgets import ContentSwitcher, Footer, Input, Static

from cerank.app import Lab
from cerank.app.matrix import drafts, matrix_planning, recipe_form
from cerank.app.matrix.drafts import Checked, Draft
from cerank.app.matrix.recipe_form import Row
from cerank.errors import CerankError
from cerank.models.bases import BASES, is_here
from cerank.recipes import render, shipped
from cerank.recipes.schema import Recipe
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.text.safe_text import shown
from cerank.tui.cells import content
from cerank.tui.common.form_dialog import ask_for_file
from cerank.tui.common.form_fields import FieldRow, MarkList
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import Bar
from cerank.tui.new_run import draft_review
from cerank.tui.new_run.dataset_search import DatasetSearch
from cerank.tui.new_run.form_pages import FILE, LAUNCH, OTHERS, STEPS, LaunchPage, StepLine, Sum, step_of
from cerank.tui.new_run.settings_form import SettingsForm

DEFAULT = "contrastive-then-distill"  # the recipe that shows what cerank does
PAUSE = 0.4  # seconds without a key before a draft is planned


if TYPE_CHECKING:
    from cerank.app.run_views.run_monitor import Entry


class NewRunScreen(LabScreen):
    """The form of a new run."""

    HELP_TITLE = "a new run"
    HELP_TEXT = (
        "Several base models, recipes and seeds make a matrix. A setting with a bullet differs from the recipe and\n"
        "applies to the stage of that name in every chosen recipe. esc leaves a field first, then the form."
    )
    CSS_PATH = "new_run.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "step('base')", "base", show=False, id="new.base", tooltip="Choose base models"),
        Binding("2", "step('recipe')", "recipe", show=False, id="new.recipe",
                tooltip="Choose recipes and change their settings"),
        Binding("3", "step('data')", "data", show=False, id="new.data",
                tooltip="Choose datasets, first stages and depth"),
        Binding("4", "step('launch')", "launch", show=False, id="new.launch-step",
                tooltip="Choose seeds and device, and see the work"),
        Binding("n", "turn(1)", "next step", id="new.next"),
        Binding("p", "turn(-1)", "previous step", show=False, id="new.before"),
        Binding("left_square_bracket", "stage(-1)", "previous stage", show=False, key_display="[", id="new.stage-before"),
        Binding("right_square_bracket", "stage(1)", "next stage", show=False, key_display="]",
                id="new.stage-next", tooltip="Show the settings of the next stage"),
        Binding("l", "launch", "launch", id="new.launch", tooltip="Show the work of the runs, then queue them"),
        Binding("y", "copy", "copy command", id="new.copy", tooltip="Copy the equivalent commands, one per run"),
        Binding("w", "write", "save recipe", show=False, id="new.write", tooltip="Save the changed recipe to a file"),
        Binding("m", "first_error", "first error", show=False, id="new.first-error", tooltip="Go to the first error"),
        Binding("escape", "back", "back", id="new.back"),
    ]  # fmt: skip

    def __init__(self, lab: Lab, recipe: Recipe | str | None = None) -> None:
        """Starts from `recipe` (or one by shipped name or path), else from the recipe that shows what cerank does."""
        super().__init__()
        self.lab = lab
        self.draft, self._refused = drafts.first(recipe or DEFAULT, DEFAULT)
        self.checked = Checked()
        self.matrix: matrix_planning.Matrix | None = None
        self._is_planning = False
        self._refusal = ""  # of the launch
        self._known = {name: drafts.origin(name) for name in shipped()}
        self._known |= {one.source or one.name: one for one in self.draft.origins}
        self._has_rows = False
        self._fields: tuple[FieldRow, ...] = ()
        self._waiting: dict[str, Timer] = {}

    # making

    def compose(self) -> ComposeResult:
        """Bar, steps, a page for each, what it comes to."""
        yield Bar(self.lab.folder)
        yield StepLine(id="steps")
        with ContentSwitcher(initial="base"):
            with VerticalScroll(id="base", classes="page", can_focus=False):
                yield Static(content("Base models"), classes="heading")
                yield MarkList(id="bases")
                yield FieldRow(OTHERS, self._others(), placeholder="owner/name, ./folder")
            with Horizontal(id="recipe", classes="page"):
                with Vertical(id="recipes-side"):
                    yield Static(content("Recipes"), classes="heading")
                    yield MarkList(id="recipes")
                    yield FieldRow(FILE, placeholder="path of a .toml file")
                yield SettingsForm(id="settings")
            with VerticalScroll(id="data", classes="page", can_focus=False):
                yield Static(content("Data of every run"), classes="heading")
                yield Vertical(id="data-rows")
                yield DatasetSearch(id="search")
            draft = self.draft
            yield LaunchPage({"seeds": draft.seeds, "device": draft.device, "label": draft.label})
        yield Sum(id="review")
        yield Footer(compact=True, show_command_palette=False)

    def _others(self) -> str:
        return ", ".join(base for base in self.draft.bases if base not in BASES)

    def on_mount(self) -> None:
        """Fills the first page; what takes time comes in a thread, what is not seen when it is."""
        self._show_bases({})
        self._show_recipes()
        self.check()
        self.query_one("#bases", MarkList).focus()
        self.work(lambda: {name: is_here(base) for name, base in BASES.items()}, self._show_bases, group="here")
        self.work(lambda: drafts.lab_option(self.lab.settings.lab, os.environ, Path.cwd()), self._see_lab, group="lab")
        self.call_after_refresh(self._mount_rows)
        if self._refused:
            self.house.refuse(self._refused)

    async def _mount_rows(self) -> None:
        await self.query_one("#data-rows").mount_all(
            [FieldRow(row, self._text(row), is_of_recipe=True) for row in self._data_rows()]
        )
        await self.query_one(SettingsForm).fill(self._groups(), self._text)
        self._has_rows = True
        self._fields = tuple(self.query(FieldRow))
        self._say_mistakes()

    def _see_lab(self, option: str) -> None:
        if option:
            self.change(lab=option)

    def see(self, entries: tuple[Entry, ...]) -> None:  # noqa: ARG002 - the bar asks the house
        """Keeps the bar up to date."""
        self.query_one(Bar).say(self.house.tally, self.house.devices, "new run")

    # showing

    def _show_bases(self, here: dict[str, bool]) -> None:
        self.query_one("#bases", MarkList).show(draft_review.base_marks(here), self.draft.bases)

    def _show_recipes(self) -> None:
        chosen = [one.source or one.name for one in self.draft.origins]
        self.query_one("#recipes", MarkList).show(draft_review.recipe_marks(self._known), chosen)

    def _groups(self, *, of_data: bool = False) -> tuple[recipe_form.Group, ...]:
        """The tables of the chosen recipes (of the first known one while none is chosen), either data's or the rest."""
        chosen = [one.recipe for one in self.draft.origins or list(self._known.values())[:1]]
        return tuple(
            group for group in recipe_form.groups_of(chosen) if (group.path in {"data", "evaluate"}) == of_data
        )

    def _data_rows(self) -> tuple[Row, ...]:
        return tuple(row for group in self._groups(of_data=True) for row in group.rows)

    def _text(self, row: Row) -> str:
        return self.draft.settings.get(row.path, row.text)

    def _show_settings(self) -> None:
        """Shows the draft's texts in every field, after something other than typing changed them."""
        if not self._has_rows:
            return
        for row, field in zip(self._data_rows(), self.query("#data-rows FieldRow").results(FieldRow), strict=False):
            field.show(row, self._text(row))
        self.query_one(SettingsForm).show(self._groups(), self._text)
        self._say_mistakes()

    # the draft

    def change(self, **changed: object) -> None:
        """Changes the draft and looks at it again."""
        self.draft = msgspec.structs.replace(self.draft, **changed)
        self.matrix = None
        self._refusal = ""
        self.check()

    def check(self) -> None:
        """Says what the draft stands for, or what is wrong with it, everywhere it is shown."""
        self.checked = drafts.checked(self.draft)
        self._say_mistakes()
        if self.query_one(ContentSwitcher).current == "launch":
            self._plan_soon()

    def _mistakes(self) -> tuple[drafts.Mistake, ...]:
        return self.checked.mistakes or (self.matrix.mistakes if self.matrix else ())

    def _say_mistakes(self) -> None:
        mistakes = self._mistakes()
        by_path = {mistake.path: mistake.text for mistake in reversed(mistakes)}
        for field in self._fields:
            if field.row is not FILE:  # it says what is wrong with a file by itself
                field.say(by_path.get(field.row.path, ""))
        self.query_one(SettingsForm).say(by_path)
        self.query_one(StepLine).show(mistakes, self.query_one(ContentSwitcher).current or "")
        self.query_one(Sum).show(self.draft, self.checked, self.matrix, mistakes)
        self._show_launch()

    def _show_launch(self) -> None:
        state = draft_review.State(self._mistakes(), self.matrix, self._refusal, self._is_planning)
        self.query_one(LaunchPage).show(self.checked.cells, state)

    # events

    def on_mark_list_chosen(self, event: MarkList.Chosen) -> None:
        """Takes the bases or recipes that are marked now."""
        if event.marks.id == "bases":
            others = tuple(base for base in self.draft.bases if base not in BASES)
            self.change(bases=(*event.marks.chosen, *others))
            return
        self.change(origins=tuple(self._known[name] for name in event.marks.chosen))
        self._show_settings()

    def on_field_row_changed(self, event: FieldRow.Changed) -> None:
        """Takes what was typed."""
        row, text = event.row.row, event.text
        if row is OTHERS:
            others = tuple(part.strip() for part in text.split(",") if part.strip())
            self.change(bases=(*(base for base in self.draft.bases if base in BASES), *others))
        elif row is FILE:
            event.row.say("")
        elif row in LAUNCH:
            self.change(**{row.path: text})
        else:
            kept = {path: old for path, old in self.draft.settings.items() if path != row.path}
            self.change(settings=kept | ({row.path: text} if text != row.text else {}))

    def on_field_row_submitted(self, event: FieldRow.Submitted) -> None:
        """Adds a recipe file; in any other field goes to the next."""
        if event.row.row is not FILE:
            self.focus_next()
            return
        try:
            found = drafts.origin(event.row.text.strip())
        except CerankError as error:
            event.row.say(matrix_planning.in_a_line(error))
            return
        self._known[found.source] = found
        event.row.show(FILE, "")
        self.change(origins=(*(one for one in self.draft.origins if one.source != found.source), found))
        self._show_recipes()
        self._show_settings()

    def on_step_line_wanted(self, event: StepLine.Wanted) -> None:
        """Goes to the step that was clicked."""
        self.action_step(event.name)

    def _later(self, name: str, act: Callable[[], None]) -> None:
        """Does `act` after a pause in which nobody asked for it again."""
        if name in self._waiting:
            self._waiting[name].stop()

        def due() -> None:
            del self._waiting[name]
            act()

        self._waiting[name] = self.set_timer(PAUSE, due)

    @property
    def is_waiting(self) -> bool:
        """Whether something is to be done after a pause in typing."""
        return bool(self._waiting)

    def on_dataset_search_taken(self, event: DatasetSearch.Taken) -> None:
        """Takes a dataset that was found, for one part of the recipe's data or for all three."""
        if event.part == "all":
            self._settings(drafts.data_from(event.name))
            return
        name = event.name
        if event.part == "test":
            typed = self.draft.settings.get("data.test", "")
            name = ", ".join(dict.fromkeys([*(one for one in typed.split(", ") if one), name]))
        self._settings({f"data.{event.part}": name})

    def _settings(self, taken: dict[str, str]) -> None:
        own = {row.path: row.text for row in self._data_rows()}
        merged = self.draft.settings | taken
        self.change(settings={path: text for path, text in merged.items() if text != own.get(path)})
        self._show_settings()

    # planning and launching

    def _plan_soon(self) -> None:
        if self.checked.cells and self.matrix is None:
            self._is_planning = True
            self._later("plan", self._plan)
            self._show_launch()

    def _plan(self) -> None:
        draft, cells, settings = self.draft, self.checked.cells, self.lab.settings
        if not cells:
            return

        def look() -> tuple[Draft, matrix_planning.Matrix]:
            return draft, matrix_planning.planned(cells, draft, settings, datetime.now(UTC), lambda _: None)

        self.house.do(look, self._see_plan, group="plan", node=self)

    def _see_plan(self, found: tuple[Draft, matrix_planning.Matrix]) -> None:
        draft, matrix = found
        if draft == self.draft:
            self.matrix = matrix
            self._is_planning = False
            self._say_mistakes()

    def action_launch(self) -> None:
        """Shows the work first; what was shown is put in the queue."""
        if self._mistakes():
            self.action_step("launch")
            self.house.say("Not launched. Fix the highlighted fields first (press m).", "warning")
        elif self.matrix is None or self.query_one(ContentSwitcher).current != "launch":
            self.action_step("launch")
        else:
            matrix = self.matrix
            self.work(lambda: self._launched(matrix), self._see_launched, group="launch")

    def _launched(self, matrix: matrix_planning.Matrix) -> tuple[RunFolder, ...] | CerankError:
        try:
            return matrix_planning.launched(self.lab, matrix)
        except CerankError as error:
            return error

    def _see_launched(self, found: tuple[RunFolder, ...] | CerankError) -> None:
        if isinstance(found, CerankError):
            self._refusal = matrix_planning.in_a_line(found)
            self._show_launch()
            return
        self.house.say(
            f"{draft_review.runs(len(found))} queued: {run_store.title(found[0])}{' …' if len(found) > 1 else ''}"
        )
        self.house.look(*(folder.name for folder in found))
        self.dismiss(None)

    # actions

    def action_step(self, name: str) -> None:
        """Goes to a step."""
        self.query_one(ContentSwitcher).current = name
        first = {"base": "#bases", "recipe": "#recipes", "data": "#data LineInput", "launch": "#work"}[name]
        self.set_focus(None)
        if name in {"base", "recipe"}:
            self.query_one(first).focus()
        if name == "data":
            self.query_one(DatasetSearch).start()
        self._say_mistakes()
        self.refresh_bindings()
        if name == "launch":
            self._plan_soon()

    def action_turn(self, step: int) -> None:
        """Goes to the next step, or the one before."""
        at = STEPS.index(self.query_one(ContentSwitcher).current or "base")
        self.action_step(STEPS[max(0, min(at + step, len(STEPS) - 1))])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """After the last step there is no next one."""
        return not (action == "turn" and parameters == (1,) and self.query_one(ContentSwitcher).current == STEPS[-1])

    def action_stage(self, step: int) -> None:
        """Shows the settings of the next stage, or of the one before."""
        if self._has_rows:
            self.query_one(SettingsForm).turn(step, self._text)
            self._say_mistakes()

    def action_first_error(self) -> None:
        """Go to the field of the first error."""
        if not self._mistakes() or not self._has_rows:
            return
        path = self._mistakes()[0].path
        self.action_step(step_of(path))
        self.query_one(SettingsForm).open(path, self._text)
        self._say_mistakes()
        for field in self._fields:
            if field.row.path == path:
                self.call_after_refresh(field.open)  # once its page is laid out, or it would not know where to scroll

    def action_copy(self) -> None:
        """Copies the commands, one a line."""
        if not self.checked.cells:
            self.house.say("There is no command yet. Fix the highlighted fields first (press m).", "warning")
            return
        text = "".join(f"{cell.command}\n" for cell in self.checked.cells)
        self.app.copy_to_clipboard(shown(text, 1_000_000, lines=True))
        hint = "" if all(one.source for one in self.draft.origins) else "; save the recipe (w) before you use it"
        self.house.say(f"copied {len(self.checked.cells)} command{'s' * (len(self.checked.cells) > 1)}{hint}")

    def action_write(self) -> None:
        """Asks where, and saves the first recipe as it stands now."""
        if not self.checked.cells:
            self.house.say("There is no recipe to save yet. Fix the highlighted fields first (press m).", "warning")
            return
        recipe = self.checked.cells[0].recipe
        where = Path.cwd() / drafts.recipe_file(recipe.name)
        ask_for_file(self, "Save the recipe", where, lambda _: render(recipe), drafts.file_mistake)

    def action_back(self) -> None:
        """Leaves a field, then the form."""
        if isinstance(self.focused, Input):
            self.set_focus(None)
        else:
            self.dismiss(None)

    def would_lose(self) -> str:
        """A form that was filled in and never launched."""
        return "The form of a new run is not launched yet." if self.draft.settings else ""
