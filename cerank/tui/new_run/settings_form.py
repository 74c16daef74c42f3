"""The settings of a recipe: its own and those of each stage, one table at a time.

Invariant: rows are made once and shown again with other settings, so that going from stage to stage mounts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from cerank.app.matrix.recipe_form import FieldGroup, FieldSpec
from cerank.tui.cells import content, joined
from cerank.tui.common.form_fields import ERROR_SIGN, FieldRow

TextOf = Callable[[FieldSpec], str]


class SettingsForm(Vertical):
    """A line that names the tables, and the fields of the one that is open."""

    DEFAULT_CSS = """
    SettingsForm .heading { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    SettingsForm VerticalScroll { height: 1fr; }
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id)
        self._groups: tuple[FieldGroup, ...] = ()
        self._wrong: frozenset[str] = frozenset()
        self._at = 0

    def compose(self) -> ComposeResult:
        """Lay out the names, the recipe's own fields, a stage's fields."""
        yield Static(classes="heading")
        yield VerticalScroll(classes="own", can_focus=False)
        yield VerticalScroll(classes="stage", can_focus=False)

    async def fill(self, groups: Sequence[FieldGroup], text_of: TextOf) -> None:
        """Mount the fields, once, and open the first stage."""
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
        self.query_one(".heading", Static).update(line + joined(("   [ ] other stage", "dim")))
