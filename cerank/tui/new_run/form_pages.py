"""The parts of the form of a new run: the line of steps, the page of the launch, and the sum at its foot.

Invariant: each shows what it is given and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Click
from textual.message import Message
from textual.widgets import Static

from cerank.app.matrix import recipe_form
from cerank.app.matrix.drafts import CheckedDraft, Draft, DraftRun, FieldError
from cerank.app.matrix.matrix_planning import PlannedMatrix
from cerank.app.matrix.recipe_form import FieldSpec
from cerank.tui.cells import content
from cerank.tui.common.form_fields import FieldRow
from cerank.tui.new_run import draft_review

STEPS = ("base", "recipe", "data", "launch")
OTHERS = FieldSpec("base", "others", "", "hub ids (owner/name) or folders, separated by commas", "names")
FILE = FieldSpec("recipes", "file", "", "path of a .toml file; press enter to add it", "a path")
LAUNCH = (
    FieldSpec("seeds", "seeds", "", "42, 43 or 1-5; empty: the recipe's", "whole numbers"),
    FieldSpec("device", "device", "", "auto, cpu, cuda, cuda:N; empty: as in the settings", "a device"),
    FieldSpec("label", "label", "", "a label for the runs", "text"),
)
_FIELDS = {
    "base": ("base",),
    "recipe": ("recipes", "stages", *recipe_form.SCALARS),
    "data": ("data", "evaluate"),
    "launch": ("seeds", "device", "label"),
}


def step_of(path: str) -> str:
    """Return the step on which the field at a key path stands."""
    return next((name for name, heads in _FIELDS.items() if path.split(".", maxsplit=1)[0] in heads), "recipe")


class StepLine(Horizontal):
    """The steps by number, with how much is wrong in each; a click goes to one."""

    class Selected(Message):
        """A step was clicked."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def compose(self) -> ComposeResult:
        """Lay out a word each."""
        for name in STEPS:
            yield Static(classes="step", id=f"step-{name}")

    def show(self, errors: Sequence[FieldError], now: str) -> None:
        """Set off the step one is at."""
        for number, name in enumerate(STEPS, 1):
            count = sum(step_of(mistake.path) == name for mistake in errors)
            self.query_one(f"#step-{name}", Static).update(draft_review.step(number, name, count, is_now=name == now))

    def on_click(self, event: Click) -> None:
        """Report which step is wanted."""
        name = str(event.widget.id if event.widget else "")
        if name.startswith("step-"):
            self.post_message(self.Selected(name.removeprefix("step-")))


class LaunchPage(VerticalScroll):
    """Seeds, device and label; the work; the commands."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        super().__init__(id="launch", classes="page", can_focus=False)
        self._texts = texts

    def compose(self) -> ComposeResult:
        """Lay out the fields, then their result."""
        yield Static(content("Runs"), classes="heading")
        for row in LAUNCH:
            yield FieldRow(row, self._texts[row.path])
        yield Static(id="grid")
        yield Static(id="work")
        yield Static(id="commands")

    def show(self, cells: Sequence[DraftRun], state: draft_review.LaunchState) -> None:
        """Show work and commands, or why there are none."""
        grid = self.query_one("#grid", Static)
        grid.display = len(cells) > 1
        grid.update(draft_review.grid(cells))
        self.query_one("#commands", Static).update(draft_review.commands(cells))
        self.query_one("#work", Static).update(draft_review.work(state))


class DraftSummary(Vertical):
    """What the draft stands for, in a line, and the first command."""

    def compose(self) -> ComposeResult:
        """Lay out two lines."""
        yield Static(id="sum")
        yield Static(id="command")

    def show(
        self,
        draft: Draft,
        checked: CheckedDraft,
        matrix: PlannedMatrix | None,
        errors: Sequence[FieldError],
        *,
        is_at_launch: bool,
    ) -> None:
        """Show it anew."""
        line = draft_review.outcome(draft, checked, matrix, errors, is_at_launch=is_at_launch)
        self.query_one("#sum", Static).update(line)
        self.query_one("#command", Static).update(draft_review.first_command(checked, errors))
