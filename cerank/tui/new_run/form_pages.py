"""The parts of the form of a new run: the line of steps, the settings of a recipe, the launch, and the summary.

Invariant: each shows what it is given and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Click
from textual.message import Message
from textual.widgets import Static

from cerank.app.matrix import recipe_form
from cerank.app.matrix.drafts import CheckedDraft, Draft, DraftRun, FieldError
from cerank.app.matrix.matrix_planning import PlannedMatrix
from cerank.app.matrix.recipe_form import FieldGroup, FieldSpec
from cerank.tui.cells import content, joined
from cerank.tui.common.form_fields import ERROR_SIGN, FieldRow
from cerank.tui.new_run import draft_review

STEPS = ("base", "recipe", "data", "launch")
OTHERS = FieldSpec("base", "others", "", "hub ids or folders, separated by commas", "names")
FILE = FieldSpec("recipes", "file", "", "path of a .toml file; press enter to add it", "a path")
LAUNCH = (
    FieldSpec("seeds", "seeds", "", "42, 43 or 1-5; empty: the recipe's", "whole numbers"),
    FieldSpec("device", "device", "", "auto, cpu, cuda, cuda:N; empty: as in the settings", "a device"),
    FieldSpec("label", "label", "", "a label for the runs", "text"),
)
_BESIDE_WORK = 4  # cells that margins and scrollbar take beside the table of the work
_FIELDS = {
    "base": ("base",),
    "recipe": ("recipes", "stages", *recipe_form.SCALARS),
    "data": ("data", "evaluate"),
    "launch": ("seeds", "device", "label"),
}


def step_of(path: str) -> str:
    """Return the step that shows the field of a key path."""
    return next((name for name, heads in _FIELDS.items() if path.split(".", maxsplit=1)[0] in heads), "recipe")


class StepLine(Horizontal):
    """The steps by number, with how much is wrong in each; a click goes to one."""

    class Selected(Message):
        """A step was clicked."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def compose(self) -> ComposeResult:
        """Lay out one word for each step."""
        for name in STEPS:
            yield Static(classes="step", id=f"step-{name}")

    def show(self, errors: Sequence[FieldError], now: str) -> None:
        """Highlight the current step."""
        for number, name in enumerate(STEPS, 1):
            count = sum(step_of(mistake.path) == name for mistake in errors)
            self.query_one(f"#step-{name}", Static).update(draft_review.step(number, name, count, is_now=name == now))

    def on_click(self, event: Click) -> None:
        """Post which step was clicked."""
        name = str(event.widget.id if event.widget else "")
        if name.startswith("step-"):
            self.post_message(self.Selected(name.removeprefix("step-")))


class LaunchPage(VerticalScroll):
    """The last page: seeds, device and label, the work that this means, and the commands."""

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
        room = self.app.size.width - _BESIDE_WORK
        self.query_one("#work", Static).update(draft_review.work(state, room))


class DraftSummary(Vertical):
    """The summary of a draft: its outcome in one line, and the first command."""

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
        """Show the outcome of the draft and its first command."""
        self.query_one("#sum", Static).update(
            draft_review.outcome(draft, checked, matrix, errors, is_at_launch=is_at_launch)
        )
        self.query_one("#command", Static).update(draft_review.first_command(checked, errors))


TextOf = Callable[[FieldSpec], str]
WhoseOf = Callable[[str], str]


class SettingsForm(Vertical):
    """A line that names the tables, and the fields of the one that is open."""

    DEFAULT_CSS = """
    SettingsForm .heading, SettingsForm .whose { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    SettingsForm .whose { display: none; }
    SettingsForm VerticalScroll { height: 1fr; }
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id)
        self._groups: tuple[FieldGroup, ...] = ()
        self._whose: WhoseOf = lambda _: ""
        self._wrong: frozenset[str] = frozenset()
        self._at = 0

    def compose(self) -> ComposeResult:
        """Lay out the names, the recipe's own fields, a stage's fields."""
        yield Static(classes="heading")
        yield Static(classes="whose")
        yield VerticalScroll(classes="own", can_focus=False)
        yield VerticalScroll(classes="stage", can_focus=False)

    async def fill(self, groups: Sequence[FieldGroup], text_of: TextOf, whose: WhoseOf) -> None:
        """Mount the fields, once, and open the first stage.

        Args:
            groups: the tables.
            text_of: text of a field.
            whose: says of a table, by its path, which recipe's values it shows; "" where there is one recipe.
        """
        self._whose = whose
        stages = [group for group in groups if group.path]
        for name, group in (("own", groups[0]), ("stage", stages[0] if stages else None)):
            rows = group.rows if group else ()
            await self.query_one(f".{name}").mount_all([FieldRow(row, text_of(row), is_of_recipe=True) for row in rows])
        self._at = 1 if stages else 0
        self.show(groups, text_of)

    def show(self, groups: Sequence[FieldGroup], text_of: TextOf) -> None:
        """Show these tables, the open one staying open where it is there still."""
        self._groups = tuple(groups)
        self._at = min(self._at, len(groups) - 1)
        group = self._groups[self._at]
        own, stage = self.query_one(".own"), self.query_one(".stage")
        own.display, stage.display = not group.path, bool(group.path)
        rows = (stage if group.path else own).query(FieldRow)
        for row, field in zip(group.rows, rows, strict=False):
            field.show(row, text_of(row))
        self._headline()
        self.show_whose()

    def show_whose(self) -> None:
        """Say which recipe's values the open table shows, where several are chosen."""
        line, text = self.query_one(".whose", Static), self._whose(self._groups[self._at].path) if self._groups else ""
        line.display = bool(text)
        line.update(content(text, "dim"))

    def turn(self, step: int, text_of: TextOf) -> None:
        """Open the next table, or the one before."""
        self._at = (self._at + step) % len(self._groups)
        self.show(self._groups, text_of)

    def open(self, path: str, text_of: TextOf) -> None:
        """Open the table that holds the setting at `path`, if one of these does."""
        table = path.rpartition(".")[0]
        places = [at for at, group in enumerate(self._groups) if group.path == table]
        if places:
            self._at = places[0]
            self.show(self._groups, text_of)

    def mark_errors(self, paths: Iterable[str]) -> None:
        """Mark the tables in which something is wrong."""
        wrong = frozenset(path.rpartition(".")[0] for path in paths)
        if wrong != self._wrong:
            self._wrong = wrong
            self._headline()

    def _headline(self) -> None:
        line = content("settings  ", "dim")
        for at, group in enumerate(self._groups):
            is_open = at == self._at
            title = group.title if group.path else "recipe"
            line += joined((" → " if at > 1 else "  " if at else "", "dim"))
            line += joined((f"[{title}]" if is_open else title, "bold $primary" if is_open else ""))
            line += joined((f" {ERROR_SIGN}" if group.path and group.path in self._wrong else "", "bold $error"))
        self.query_one(".heading", Static).update(line + joined(("   [ and ] other stage", "dim")))
