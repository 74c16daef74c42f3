"""The lab book: its entries, the one under the cursor as it reads, new ones in the user's editor, export as a page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Markdown, Static

from cerank.app import dashboard_state
from cerank.app.comparison import export_comparison
from cerank.app.lab_book import book_entries
from cerank.app.lab_book.book_entries import MAIN_STUDY
from cerank.app.run_views.display import local_time
from cerank.errors import CerankError
from cerank.runs import lab_book
from cerank.runs.lab_book import WrittenEntry
from cerank.text.safe_text import counted, shown
from cerank.tui.cells import cell, content, joined, stacked
from cerank.tui.common.key_footer import KeyFooter
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.row_list import RowColumn, RowList, text_width
from cerank.tui.common.status_bar import StatusBar
from cerank.tui.common.text_editor import edit_text

_LONGEST = 200_000  # characters of an entry that are drawn


class EntryList(RowList):
    """Entries of the book, the newest first."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.entries: tuple[WrittenEntry, ...] = ()

    def show(self, entries: Sequence[WrittenEntry]) -> None:
        """Show these entries; the title comes first where there is no room for the rest."""
        self.entries = tuple(entries)
        self._lay_out()
        self.set_row_count(len(entries))
        self.move_cursor(self.cursor_row)

    def on_resize(self) -> None:
        """Choose the columns for a new width."""
        self._lay_out()

    def _lay_out(self) -> None:
        rows = [self._texts(written) for written in self.entries]
        columns = []
        room = self.size.width - 1
        for place, name in ((0, "written"), (1, "study"), (3, "pinned"), (2, "title")):
            needed = max([text_width(name), *(text_width(row[place]) for row in rows)])
            columns.append((place, name, needed))
        chosen = [columns[-1]]
        room -= min(columns[-1][2], 80) + 2
        for column in columns[:-1]:
            if column[2] + 2 <= room:
                chosen.append(column)
                room -= column[2] + 2
        self._places = sorted(place for place, _, _ in chosen)
        widths = {place: (name, min(needed, 80)) for place, name, needed in chosen}
        self.set_columns([RowColumn(widths[place][0], widths[place][0], widths[place][1]) for place in self._places])

    _places: Sequence[int] = ()

    @staticmethod
    def _texts(written: WrittenEntry) -> tuple[str, str, str, str]:
        entry = written.entry
        changed = "changed since; " if written.is_changed else ""
        pins = changed + book_entries.pins_in_words(entry)
        title = Text(shown(entry.title, 80))
        title.truncate(80, overflow="ellipsis")  # of 80 characters some may take two columns
        return local_time(entry.time), shown(entry.study, 80), title.plain, pins

    def cells(self, place: int) -> list[Text]:
        """Return the cells of an entry."""
        texts = self._texts(self.entries[place])
        return [cell(texts[at]) for at in self._places]


class BookScreen(LabScreen):
    """The lab book of the lab, or one study of it."""

    AUTO_FOCUS = "#entries"
    HELP_TITLE = "the lab book"
    HELP_TEXT = (
        "An entry is a Markdown file in the lab. It keeps the verdicts of runs, declared plans and figures under\n"
        "their hashes, and says whether they are still the same. cerank never changes an entry."
    )
    CSS = """
    BookScreen EntryList { height: 1fr; min-height: 4; }
    BookScreen #text { height: 2fr; border-top: solid $panel; padding: 0 1; }
    BookScreen #none { display: none; height: 1fr; content-align: center middle; text-align: center; }
    BookScreen.-empty #none { display: block; }
    BookScreen.-empty EntryList, BookScreen.-empty #text { display: none; }
    BookScreen Markdown { margin: 0; padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "new entry", id="book.new",
                tooltip="Write an entry in $VISUAL or $EDITOR; it keeps the verdicts of the marked runs"),
        Binding("s", "study", "next study", id="book.study", tooltip="Show the entries of the next study, or of all"),
        Binding("e", "export", "export", id="book.export",
                tooltip="Write these entries as one HTML page with their figures"),
        Binding("y", "copy", "copy", id="book.copy", tooltip="Copy the entry as Markdown"),
        Binding("tab", "app.focus_next", "text", show=False, id="book.next"),
        Binding("escape", "back", "back", id="book.back"),
    ]  # fmt: skip

    def __init__(self, runs: Sequence[str] = ()) -> None:
        """A screen over the book.

        Args:
            runs: runs whose verdicts a new entry keeps where none are marked.
        """
        super().__init__()
        self._runs = tuple(runs)
        self._study = ""  # "" shows all
        self._written: tuple[WrittenEntry, ...] = ()
        self._problems: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out bar, entries, the text of one."""
        yield StatusBar("lab book")
        yield EntryList(id="entries")
        with VerticalScroll(id="text"):
            yield Static(id="problems")
            yield Markdown(open_links=False, id="markdown")
        yield Static(id="none")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Read the book."""
        self._read()

    def _read(self) -> None:
        self.run_in_thread(
            lambda: lab_book.load_all(self.lab_app.lab.folder), lambda read: self._show(*read), group="book"
        )

    def _show(self, written: tuple[WrittenEntry, ...], problems: tuple[str, ...]) -> None:
        self._written, self._problems = written[::-1], problems
        listed = self._listed()
        self.query_one(StatusBar).title = f"study {self._study}" if self._study else counted(len(listed), "entry")
        self.set_class(not listed, "-empty")
        self.query_one("#none", Static).update(
            stacked(
                content("The lab book is empty.", "bold"),
                content(""),
                content("It keeps what you plan, decide and find, with verdicts and figures as they were."),
                joined(("n", "bold $primary"), " writes the first entry; runs that are marked go with it."),
            )
        )
        self.query_one("#problems", Static).update(stacked(*(content(line, "$error") for line in problems)))
        self.query_one("#problems").display = bool(problems)
        self.query_one(EntryList).show(listed)
        self._show_text()

    def _listed(self) -> list[WrittenEntry]:
        return [written for written in self._written if not self._study or written.entry.study == self._study]

    @property
    def _here(self) -> WrittenEntry | None:
        entries = self.query_one(EntryList)
        return entries.entries[entries.cursor_row] if entries.cursor_row < len(entries.entries) else None

    def _show_text(self) -> None:
        written = self._here
        if written is None:
            return
        lab = self.lab_app.lab.folder

        def show(text: str) -> None:
            if self._here is written:
                self.query_one("#markdown", Markdown).update(shown(text, _LONGEST, lines=True))
                self.query_one("#text").scroll_home(animate=False)

        self.run_in_thread(lambda: book_entries.as_markdown(lab, written), show, group="text")

    def on_row_list_highlighted(self, _: RowList.Highlighted) -> None:
        """Show the entry under the cursor."""
        self._show_text()

    def on_row_list_selected(self, _: RowList.Selected) -> None:
        """Go to the text, to scroll it."""
        self.query_one("#text").focus()

    # actions

    def action_new(self) -> None:
        """Open a new entry in the user's editor."""
        lab = self.lab_app.lab
        names = {entry.name: entry.short_name for entry in self.lab_app.entries}
        runs = [names[name] for name in self.lab_app.marked if name in names] or list(self._runs)
        template = book_entries.as_form(self._study or MAIN_STUDY, runs)

        def take(text: str) -> tuple[str, ...]:
            try:
                written = book_entries.add(lab.folder, book_entries.from_form(text), datetime.now(UTC))
            except CerankError as error:
                return (str(error),)
            self.lab_app.show_message(f"Wrote '{written.entry.title}' into the lab book.")
            self._read()
            return ()

        edit_text(self, template, dashboard_state.state_folder() / "drafts" / "lab-book.md", take)

    def action_study(self) -> None:
        """Show the next study, or all."""
        studies = ["", *sorted({written.entry.study for written in self._written})]
        at = studies.index(self._study) if self._study in studies else 0
        self._study = studies[(at + 1) % len(studies)]
        self._show(self._written[::-1], self._problems)

    def action_export(self) -> None:
        """Write the entries as one page."""
        from cerank.app.lab_book import book_page

        now = datetime.now(UTC)
        path = self.lab_app.files / f"cerank-log-{now.astimezone():%Y%m%d-%H%M%S}.html"
        self.run_in_thread(
            lambda: export_comparison.save(book_page.page(self.lab_app.lab.folder, self._study, now), path),
            lambda written: self.lab_app.show_message(f"wrote {written}"),
            group="export",
        )

    def action_copy(self) -> None:
        """Copy the entry."""
        written = self._here
        if written is not None:
            self.lab_app.copy_text(book_entries.as_markdown(self.lab_app.lab.folder, written), "the entry")

    def action_back(self) -> None:
        """Go back."""
        self.app.pop_screen()
