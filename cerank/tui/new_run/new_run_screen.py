"""A new run, or a matrix of bases x recipes x seeds: four steps of choosing, with the equivalent commands.

Invariant: what is launched is what was planned and shown; any change after that has to be planned again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Key, Resize
from textual.timer import Timer
from textual.widgets import ContentSwitcher, Input, Static

from cerank.app import Lab, dashboard_state
from cerank.app.matrix import draft_text, drafts, fold_recipes, input_limits, matrix_planning, recipe_form
from cerank.app.matrix.drafts import CheckedDraft, Draft
from cerank.app.matrix.recipe_form import FieldSpec
from cerank.app.run_views import display
from cerank.errors import CerankError
from cerank.models.bases import BASES
from cerank.recipes import render, shipped
from cerank.recipes.schema import Recipe
from cerank.text.safe_text import counted, shown
from cerank.tui.cells import content, joined
from cerank.tui.common.dialogs import ConfirmDialog, ask_for_file
from cerank.tui.common.form_fields import Checklist, FieldRow
from cerank.tui.common.key_footer import KeyFooter
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import StatusBar
from cerank.tui.common.text_editor import edit_text
from cerank.tui.new_run import draft_review
from cerank.tui.new_run.dataset_search import DatasetSearch
from cerank.tui.new_run.form_pages import (
    FILE,
    LAUNCH,
    OTHERS,
    STEPS,
    DraftSummary,
    LaunchPage,
    SettingsForm,
    StepLine,
    step_of,
)

DATA_HEADING = "Data of every run"
DEFAULT = "contrastive-then-distill"  # the recipe that shows what cerank does
TYPING_PAUSE = 0.4  # seconds without a key before a draft is planned


class NewRunScreen(LabScreen):
    """The form of a new run."""

    HELP_TITLE = "a new run"
    SHOWS_ONE_MESSAGE = True
    HELP_TEXT = (
        "Several base models, recipes and seeds make a matrix. A setting with a bullet differs from the recipe and\n"
        "applies to the stage of that name in every chosen recipe. Letters are keys until tab or a click goes into a\n"
        "field; esc leaves the field first, then the form."
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
        # the app's own key for it, which acts before the focused field, named in the footer
        Binding("tab", "app.focus_next", "fields", priority=True, id="new.fields",
                tooltip="Go into the next field; esc leaves it, so that letters are keys again"),
        Binding("n", "turn(1)", "next step", id="new.next"),
        Binding("p", "turn(-1)", "previous step", show=False, id="new.before"),
        Binding("left_square_bracket", "stage(-1)", "previous stage", show=False, key_display="[",
                id="new.stage-before"),
        Binding("right_square_bracket", "stage(1)", "next stage", show=False, key_display="]",
                id="new.stage-next", tooltip="Show the settings of the next stage"),
        Binding("l", "launch", "launch", id="new.launch",
                tooltip="Show the work of the runs; then ask whether to queue them"),
        Binding("y", "copy", "copy", id="new.copy", tooltip="Copy the equivalent commands, one per run"),
        Binding("w", "write", "save recipe", show=False, id="new.write", tooltip="Save the changed recipe to a file"),
        Binding("E", "edit", "edit as text", show=False, id="new.edit",
                tooltip="Open the recipe (step 2) or the whole form in $VISUAL or $EDITOR"),
        Binding("m", "first_error", "first error", show=False, id="new.first-error", tooltip="Go to the first error"),
        Binding("X", "clear", "clear the form", show=False, id="new.clear",
                tooltip="Forget this draft and start afresh"),
        Binding("escape", "back", "back", id="new.back", tooltip="Leave; the form is kept as a draft"),
    ]  # fmt: skip

    def __init__(self, lab: Lab, recipe: Recipe | str | None = None) -> None:
        """Start from `recipe` (or one by shipped name or path), else from the recipe that shows what cerank does."""
        super().__init__()
        self.lab = lab
        self._copied_from = recipe if isinstance(recipe, Recipe) else None
        self._is_example = isinstance(recipe, str)  # it can be had again by a key, so it needs no draft
        self._first_draft, self._refused = drafts.first_draft(recipe or DEFAULT, DEFAULT)
        saved = None if isinstance(recipe, str) else dashboard_state.load_draft(self._copied_from)
        self.draft = saved.draft if saved else self._first_draft
        self._saved_draft = saved
        self.checked = CheckedDraft()
        self._limits = input_limits.InputLimits()
        self._limited: tuple[object, ...] = ()  # the names that the limits were looked up for
        self.matrix: matrix_planning.PlannedMatrix | None = None
        self._is_planning = False
        self._finished: tuple[str, ...] = ()  # finished runs of the lab with the same plan as one of the draft's
        self._refusal = ""  # why the runs cannot be launched
        self._known = {name: drafts.recipe_source(name) for name in shipped()}
        self._known |= {
            source.source or source.name: source for source in (*self._first_draft.sources, *self.draft.sources)
        }
        self._has_rows = False
        self._fields: tuple[FieldRow, ...] = ()
        self._waiting: dict[str, Timer] = {}

    # making

    def compose(self) -> ComposeResult:
        """Lay out the status bar, the steps with a page for each, and the summary."""
        yield StatusBar("new run")
        yield StepLine(id="steps")
        with ContentSwitcher(initial="base"):
            with VerticalScroll(id="base", classes="page", can_focus=False):
                yield Static(content("Base models"), classes="heading")
                yield Checklist(id="bases")
                yield FieldRow(OTHERS, self._others(), placeholder="owner/name, ./folder")
            with Horizontal(id="recipe", classes="page"):
                with Vertical(id="recipes-side"):
                    yield Static(content("Recipes"), classes="heading")
                    yield Checklist(id="recipes")
                    yield FieldRow(FILE, placeholder="path of a .toml file")
                yield SettingsForm(id="settings")
            with VerticalScroll(id="data", classes="page", can_focus=False):
                yield Static(content(DATA_HEADING), id="data-heading", classes="heading")
                yield Vertical(id="data-rows")
                yield DatasetSearch(id="search")
            draft = self.draft
            yield LaunchPage({"seeds": draft.seeds, "device": draft.device, "label": draft.label})
        yield DraftSummary(id="review")
        yield KeyFooter()

    def _others(self) -> str:
        return ", ".join(base for base in self.draft.bases if base not in BASES)

    def on_mount(self) -> None:
        """Fill the first page; what takes time comes in a thread, what is not seen when it is."""
        self._show_bases({})
        self._show_recipes()
        self.check()
        self.query_one("#bases", Checklist).focus()
        if self._saved_draft is not None:
            self.query_one(
                StatusBar
            ).title = f"new run, draft of {display.local_time(self._saved_draft.saved)} (X starts afresh)"
            self.action_step(self._saved_draft.step)
        self.run_in_thread(
            self.lab_app.access.bases_at_hand,
            lambda looked_up: self._show_bases(*looked_up),
            group="here",
        )
        if self.lab_app.access.is_remote:
            self._see_lab(self.lab_app.access.folder_there)
        else:
            self.run_in_thread(
                lambda: drafts.lab_option(self.lab.settings.lab, os.environ, Path.cwd()), self._see_lab, group="lab"
            )
        self.call_after_refresh(self._mount_rows)
        if self._refused:
            self.lab_app.show_error(self._refused)

    async def _mount_rows(self) -> None:
        await self.query_one("#data-rows").mount_all(
            [FieldRow(row, self._text(row), is_of_recipe=True) for row in self._data_rows()]
        )
        await self.query_one(SettingsForm).fill(self._groups(), self._text, self._whose)
        self._has_rows = True
        self._fields = tuple(self.query(FieldRow))
        self._show_folds()
        self._show_errors()

    def _see_lab(self, option: str) -> None:
        if option:
            self.change(lab=option)

    # showing

    def _show_bases(self, is_local: dict[str, bool], is_without_hub: bool = False) -> None:
        items = draft_review.base_items(is_local, is_offline=is_without_hub)
        self.query_one("#bases", Checklist).show(items, self.draft.bases)

    def _show_recipes(self) -> None:
        chosen = [source.source or source.name for source in self.draft.sources]
        self.query_one("#recipes", Checklist).show(draft_review.recipe_items(self._known), chosen)

    def _groups(self, *, of_data: bool = False) -> tuple[recipe_form.FieldGroup, ...]:
        """Return the data's tables or the other tables of the chosen recipes; of the first recipe if none is chosen."""
        chosen = [source.recipe for source in self.draft.sources or list(self._known.values())[:1]]
        return tuple(
            group for group in recipe_form.groups_of(chosen) if (group.path in {"data", "evaluate"}) == of_data
        )

    def _whose(self, path: str) -> str:
        """Return which of several recipes the values of a table are of."""
        return recipe_form.whose_values([source.recipe for source in self.draft.sources], path, self.draft.settings)

    def _data_rows(self) -> tuple[FieldSpec, ...]:
        return tuple(row for group in self._groups(of_data=True) for row in group.rows)

    def _text(self, row: FieldSpec) -> str:
        return self.draft.settings.get(row.path, row.text)

    def _show_settings(self) -> None:
        """Show the draft's texts in every field, after something other than typing changed them."""
        if not self._has_rows:
            return
        for row, field in zip(self._data_rows(), self.query("#data-rows FieldRow").results(FieldRow), strict=False):
            field.show(row, self._text(row))
        self.query_one(SettingsForm).show(self._groups(), self._text)
        self._show_folds()
        self._show_errors()

    def _show_folds(self) -> None:
        """Say in the fields of data which folds are read where folds take the place of the recipe's own data."""
        fields = {field.row.key: field for field in self._fields if field.row.path.startswith("data.")}
        of = self._text(fields["folds"].row) if "folds" in fields else ""
        for key, field in fields.items():
            field.show_instead(fold_recipes.instead_of(key, self._text(field.row), of))

    # the draft

    def change(self, **changed: object) -> None:
        """Change the draft, check it, and save it."""
        self.draft = msgspec.structs.replace(self.draft, **changed)
        self.save_draft()
        self.matrix = None
        self._finished = ()
        self._refusal = ""
        self.check()

    def check(self) -> None:
        """Show what the draft stands for, or what is wrong with it, everywhere it is shown."""
        self.checked = drafts.check_draft(self.draft, is_elsewhere=self.lab_app.access.is_remote)
        self._find_limits()
        self._show_errors()
        if self.query_one(ContentSwitcher).current == "launch":
            self._plan_soon()

    def _find_limits(self) -> None:
        """Look up, in a thread, what the chosen base models and first stages hold at most."""
        names = input_limits.names_of(self.checked.cells)
        if not self.checked.cells or names == self._limited or self.lab_app.access.is_remote:
            return
        self._limited = names
        cache = self.lab.settings.cache

        def found(limits: input_limits.InputLimits) -> None:
            self._limits = limits
            self._show_errors()

        self.run_in_thread(lambda: input_limits.find_limits(*names, cache), found, group="limits")

    @property
    def _warnings(self) -> tuple[drafts.FieldError, ...]:
        return (*self.checked.warnings, *input_limits.beyond(self.checked.cells, self._limits))

    @property
    def is_changed(self) -> bool:
        """Return whether the form differs from the draft that it was opened with."""
        return msgspec.structs.replace(self.draft, lab="") != msgspec.structs.replace(self._first_draft, lab="")

    def save_draft(self) -> None:
        """Write the draft to disk where it differs from the first one; it takes a millisecond."""
        if self._is_example:
            return
        if self.is_changed:
            step = self.query_one(ContentSwitcher).current or STEPS[0]
            now = datetime.now(UTC).isoformat(timespec="seconds")
            saved = dashboard_state.SavedDraft(draft=self.draft, saved=now, step=step)
            dashboard_state.save_draft(self._copied_from, saved)
        else:
            dashboard_state.delete_draft(self._copied_from)

    def action_clear(self) -> None:
        """Start afresh, after a confirmation where something was filled in."""
        if not self.is_changed:
            self.lab_app.show_message("The form is as it opens; there is nothing to clear.")
            return

        def answered(is_yes: bool | None) -> None:
            if is_yes:
                dashboard_state.delete_draft(self._copied_from)
                lab_app, recipe = self.lab_app, self._copied_from
                self.dismiss(None)
                lab_app.open_new(recipe)

        self.app.push_screen(ConfirmDialog(content("Clear this form and start afresh?", "bold"), "Clear"), answered)

    def _errors(self) -> tuple[drafts.FieldError, ...]:
        return self.checked.errors or (self.matrix.errors if self.matrix else ())

    def _show_errors(self) -> None:
        errors = self._errors()
        by_path = {mistake.path: mistake.text for mistake in reversed(errors)}
        unusual = {warning.path: warning.text for warning in self._warnings}
        for field in self._fields:
            if field.row is not FILE:  # it says what is wrong with a file by itself
                field.show_error(by_path.get(field.row.path, ""), unusual.get(field.row.path, ""))
        settings = self.query_one(SettingsForm)
        settings.mark_errors(by_path)
        settings.show_whose()
        whose = self._whose("data")
        heading = joined(DATA_HEADING, (f"   {whose}", "dim")) if whose else content(DATA_HEADING)
        self.query_one("#data-heading", Static).update(heading)
        self.query_one(StepLine).show(errors, self.query_one(ContentSwitcher).current or "")
        is_at_launch = self.query_one(ContentSwitcher).current == "launch"
        self.query_one(DraftSummary).show(self.draft, self.checked, self.matrix, errors, is_at_launch=is_at_launch)
        self._show_launch()

    def _show_launch(self) -> None:
        state = draft_review.LaunchState(
            self._errors(), self._warnings, self.matrix, self._refusal, self._is_planning, self._finished
        )
        self.query_one(LaunchPage).show(self.checked.cells, state)

    def on_resize(self, _: Resize) -> None:
        """Lay the table of the work out for a new width."""
        if self._has_rows:
            self._show_launch()

    # events

    def on_key(self, event: Key) -> None:
        """Say how to get into a field, where a letter is typed that is no key."""
        is_key = event.key in self.active_bindings
        if event.is_printable and not is_key and not isinstance(self.focused, Input):
            self.lab_app.show_message("Letters are keys here. tab goes into the next field.")

    def on_checklist_chosen(self, event: Checklist.Chosen) -> None:
        """Take the bases or recipes that are marked now."""
        if event.marks.id == "bases":
            others = tuple(base for base in self.draft.bases if base not in BASES)
            self.change(bases=(*event.marks.chosen, *others))
            return
        self.change(sources=tuple(self._known[name] for name in event.marks.chosen))
        self._show_settings()

    def on_field_row_changed(self, event: FieldRow.Changed) -> None:
        """Take what was typed."""
        row, text = event.row.row, event.text
        if row is OTHERS:
            others = tuple(part.strip() for part in text.split(",") if part.strip())
            self.change(bases=(*(base for base in self.draft.bases if base in BASES), *others))
        elif row is FILE:
            event.row.show_error("")
        elif row in LAUNCH:
            self.change(**{row.path: text})
        else:
            unchanged = {path: former for path, former in self.draft.settings.items() if path != row.path}
            self.change(settings=unchanged | ({row.path: text} if text != row.text else {}))
            if row.path == "data.folds":
                self._show_folds()

    def on_field_row_submitted(self, event: FieldRow.Submitted) -> None:
        """Add a recipe file; in any other field goes to the next."""
        if event.row.row is not FILE:
            self.focus_next()
            return
        try:
            added = drafts.recipe_source(event.row.text.strip())
        except CerankError as error:
            event.row.show_error(matrix_planning.one_line(error))
            return
        self._known[added.source] = added
        event.row.show(FILE, "")
        self.change(sources=(*(source for source in self.draft.sources if source.source != added.source), added))
        self._show_recipes()
        self.query_one("#recipes", Checklist).move_to(added.source)
        self._show_settings()

    def on_step_line_selected(self, event: StepLine.Selected) -> None:
        """Go to the step that was clicked."""
        self.action_step(event.name)

    def _later(self, name: str, act: Callable[[], None]) -> None:
        """Call `act` after a pause without another such request."""
        if name in self._waiting:
            self._waiting[name].stop()

        def due() -> None:
            self._waiting.pop(name, None)  # a timer that was stopped too late fires as well
            act()

        self._waiting[name] = self.set_timer(TYPING_PAUSE, due)

    @property
    def is_waiting(self) -> bool:
        """Return whether an action is waiting for a pause in typing."""
        return bool(self._waiting)

    def on_dataset_search_selected(self, event: DatasetSearch.Selected) -> None:
        """Take a dataset that was found, for one part of the recipe's data or for all three."""
        if event.part == "all":
            self.change_settings(drafts.data_from(event.name))
            return
        name = event.name
        if event.part == "test":
            typed = self.draft.settings.get("data.test", "")
            name = ", ".join(dict.fromkeys([*(test for test in typed.split(", ") if test), name]))
        self.change_settings({f"data.{event.part}": name})

    def change_settings(self, texts: dict[str, str]) -> None:
        """Change several settings at once, by key path."""
        own = {row.path: row.text for row in self._data_rows()}
        merged = self.draft.settings | texts
        self.change(settings={path: text for path, text in merged.items() if text != own.get(path)})
        self._show_settings()

    # planning and launching

    def _plan_soon(self) -> None:
        if self.checked.cells and self.matrix is None:
            self._is_planning = True
            self._later("plan", self._plan)
            self._show_launch()

    def _plan(self) -> None:
        draft, cells, access = self.draft, self.checked.cells, self.lab_app.access
        if not cells:
            return

        def look() -> tuple[Draft, matrix_planning.PlannedMatrix]:
            return draft, access.plan(cells, draft.device)

        self.lab_app.run_in_thread(look, self._see_plan, group="plan", node=self)

    def _see_plan(self, planned: tuple[Draft, matrix_planning.PlannedMatrix]) -> None:
        draft, matrix = planned
        if draft == self.draft:
            self.matrix = matrix
            self._finished = self._identical_runs(matrix)
            self._is_planning = False
            self._show_errors()

    def _identical_runs(self, matrix: matrix_planning.PlannedMatrix) -> tuple[str, ...]:
        """Return the finished runs of the lab with the same plan as one of the matrix, the newest first."""
        planned = {plan.fingerprint for plan in matrix.plans}
        return tuple(
            entry.short_name or entry.name
            for entry in reversed(self.lab_app.entries)
            if entry.state == "finished" and entry.plan is not None and entry.plan.fingerprint in planned
        )

    def action_launch(self) -> None:
        """Show the work first; what was shown is put in the queue."""
        if self._errors():
            self.action_step("launch")
            self.lab_app.show_message("Not launched. Fix the highlighted fields first (press m).", "warning")
        elif self.matrix is None or self.query_one(ContentSwitcher).current != "launch":
            self.action_step("launch")
        else:
            self._confirm_launch(self.matrix)

    def _confirm_launch(self, matrix: matrix_planning.PlannedMatrix) -> None:
        """Ask, since letters that were meant for a field come here as keys."""

        def answered(is_yes: bool | None) -> None:
            if is_yes:
                self.run_in_thread(lambda: self._launched(matrix), self._see_launched, group="launch")

        self.app.push_screen(ConfirmDialog(draft_review.launch_question(matrix), "Start", loses=False), answered)

    def _launched(self, matrix: matrix_planning.PlannedMatrix) -> list[str] | CerankError:
        try:
            return self.lab_app.access.launch(matrix)
        except CerankError as error:
            return error

    def _see_launched(self, launched: list[str] | CerankError) -> None:
        if isinstance(launched, CerankError):
            self._refusal = matrix_planning.one_line(launched)
            self._show_launch()
            return
        first = self.lab_app.access.shown_name(launched[0])
        self.lab_app.show_message(f"{counted(len(launched), 'run')} queued: {first}{' …' if len(launched) > 1 else ''}")
        if not self._is_example:
            dashboard_state.delete_draft(self._copied_from)
        self.lab_app.poll(*launched)
        self.dismiss(None)

    # actions

    def action_step(self, name: str) -> None:
        """Go to a step."""
        self.query_one(ContentSwitcher).current = name
        first = {"base": "#bases", "recipe": "#recipes", "data": "#data LineInput", "launch": "#work"}[name]
        self.set_focus(None)
        if name in {"base", "recipe"}:
            self.query_one(first).focus()
        if name == "data":
            self.query_one(DatasetSearch).start()
        self._show_errors()
        self.refresh_bindings()
        if name == "launch":
            self._plan_soon()

    def action_turn(self, step: int) -> None:
        """Go to the next step, or the one before."""
        at = STEPS.index(self.query_one(ContentSwitcher).current or "base")
        self.action_step(STEPS[max(0, min(at + step, len(STEPS) - 1))])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """After the last step there is no next one."""
        return not (action == "turn" and parameters == (1,) and self.query_one(ContentSwitcher).current == STEPS[-1])

    def action_stage(self, step: int) -> None:
        """Show the settings of the next stage, or of the one before."""
        if self._has_rows:
            self.query_one(SettingsForm).turn(step, self._text)
            self._show_errors()

    def action_first_error(self) -> None:
        """Go to the field of the first error."""
        if not self._errors() or not self._has_rows:
            return
        path = self._errors()[0].path
        self.action_step(step_of(path))
        self.query_one(SettingsForm).open(path, self._text)
        self._show_errors()
        for field in self._fields:
            if field.row.path == path:
                self.call_after_refresh(field.open)  # once its page is laid out, or it would not know where to scroll

    def action_edit(self) -> None:
        """Open the recipe, on its step, or the whole form in the user's editor."""
        folder = dashboard_state.state_folder() / "drafts"
        if self.query_one(ContentSwitcher).current != "recipe":
            self._edit_form(folder / "form.toml")
        elif len(self.draft.sources) != 1:
            self.lab_app.show_message("Choose exactly one recipe to edit it as text.", "warning")
        elif not self.checked.cells:
            self.lab_app.show_message(
                "Fix the highlighted fields first (press m), or edit the form on step 1.", "warning"
            )
        else:
            self._edit_recipe(folder / "recipe.toml", self.checked.cells[0].declared)

    def _edit_form(self, path: Path) -> None:
        def take(text: str) -> tuple[str, ...]:
            draft, mistakes = draft_text.read_form(text, self.draft, self._known)
            if not mistakes:
                self._take_over(draft)
            return mistakes

        edit_text(self, draft_text.form_text(self.draft), path, take)

    def _edit_recipe(self, path: Path, before: Recipe) -> None:
        def take(_: str) -> tuple[str, ...]:
            draft, mistakes = draft_text.read_recipe(path, self.draft, before)
            if not mistakes:
                self._take_over(draft)
            return mistakes

        edit_text(self, draft_text.recipe_text(before), path, take)

    def _take_over(self, draft: Draft) -> None:
        """Show a draft that was edited as text, in every field."""
        self._known |= {source.source or source.name: source for source in draft.sources}
        self.change(
            **{key: getattr(draft, key) for key in ("sources", "bases", "seeds", "settings", "device", "label")}
        )
        for field in self._fields:
            if field.row in LAUNCH:
                field.show(field.row, getattr(draft, field.row.path))
            elif field.row is OTHERS:
                field.show(field.row, self._others())
        self.query_one("#bases", Checklist).choose(draft.bases)
        self._show_recipes()
        self._show_settings()
        count = len(self._errors())
        said = f"; {counted(count, 'mistake')} in it, m goes to the first" if count else ""
        self.lab_app.show_message(f"The text was taken over{said}.")

    def action_copy(self) -> None:
        """Copy the commands, one a line."""
        if not self.checked.cells:
            self.lab_app.show_message("There is no command yet. Fix the highlighted fields first (press m).", "warning")
            return
        text = "".join(f"{cell.command}\n" for cell in self.checked.cells if cell.command)
        self.app.copy_to_clipboard(shown(text, 1_000_000, lines=True))
        hint = "" if all(source.source for source in self.draft.sources) else "; save the recipe (w) before you use it"
        self.lab_app.show_message(
            f"copied {len(self.checked.cells)} command{'s' * (len(self.checked.cells) > 1)}{hint}"
        )

    def action_write(self) -> None:
        """Ask where, and save the first recipe as it stands now."""
        if not self.checked.cells:
            self.lab_app.show_message(
                "There is no recipe to save yet. Fix the highlighted fields first (press m).", "warning"
            )
            return
        recipe = self.checked.cells[0].declared
        where = Path.cwd() / drafts.recipe_file(recipe.name)
        ask_for_file(self, "Save the recipe", where, lambda _: render(recipe), drafts.file_error)

    def action_back(self) -> None:
        """Leave a field, then the form; what was filled in is kept as a draft."""
        if isinstance(self.focused, Input):
            self.set_focus(None)
            return
        self.save_draft()
        if self.is_changed and not self._is_example:
            key = "n" if self._copied_from is None else "c on the same run"
            self.lab_app.show_message(f"The form is kept as a draft; {key} opens it again.")
        self.dismiss(None)
