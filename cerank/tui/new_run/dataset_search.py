"""Finding a dataset by words of its name or a folder's path, and taking it for a part of the data.

Invariant: names are looked up in a thread, once the typing pauses; ir_datasets is imported there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from cerank.app.matrix import drafts
from cerank.app.matrix.matrix_planning import one_line
from cerank.datasets.open_datasets import DatasetEntry
from cerank.errors import CerankError
from cerank.tui.cells import content, joined
from cerank.tui.common.form_fields import LineInput

if TYPE_CHECKING:
    from cerank.tui.protocol import LabApp

TYPING_PAUSE = 0.3  # seconds without a key before a search
MOST_SHOWN = 200  # lines shown


class DatasetList(OptionList):
    """Datasets that match the search."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take('all')", "use parts of it", id="dataset.all",
                tooltip="Train, validate and test on parts of it"),
        Binding("t", "take('train')", "train on it", id="dataset.train"),
        Binding("v", "take('validation')", "validate", id="dataset.validation"),
        Binding("x", "take('test')", "test", id="dataset.test", tooltip="Add it to the test datasets"),
        Binding("j", "cursor_down", "down", show=False, id="dataset.down"),
        Binding("k", "cursor_up", "up", show=False, id="dataset.up"),
    ]  # fmt: skip

    def action_take(self, part: str) -> None:
        """Report which dataset is wanted, for which part."""
        search = next(ancestor for ancestor in self.ancestors if isinstance(ancestor, DatasetSearch))
        search.take(self.highlighted, part)

    def action_select(self) -> None:
        """Choose all three parts of the dataset that was clicked."""
        self.action_take("all")


class DatasetSearch(Vertical):
    """A line to type words in, and the datasets that have them."""

    DEFAULT_CSS = """
    DatasetSearch { height: 1fr; min-height: 6; margin-top: 1; }
    DatasetSearch .heading { height: 1; }
    DatasetSearch DatasetList { height: 1fr; min-height: 2; border: none; background: $background; padding: 0;
                          text-wrap: nowrap; text-overflow: ellipsis; }
    DatasetSearch DatasetList:focus { border: none; }
    DatasetSearch DatasetList > .option-list--option { padding: 0 1; }
    DatasetSearch DatasetList > .option-list--option-highlighted,
    DatasetSearch DatasetList:focus > .option-list--option-highlighted { background: $primary 25%; color: $foreground;
                                                                   text-style: none; }
    """

    class Selected(Message):
        """A dataset is wanted for "train", "validation", "test" or "all"."""

        def __init__(self, part: str, name: str) -> None:
            super().__init__()
            self.part = part
            self.name = name

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id)
        self._results: tuple[DatasetEntry, ...] = ()
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the line and the list."""
        yield Static(content("Find a dataset"), classes="heading")
        yield LineInput(placeholder="words of an ir_datasets id, pydocs, or a folder's path", id="words")
        yield DatasetList(id="found", markup=False)

    def start(self) -> None:
        """Show what there is before anything is typed."""
        if not self._results:
            self.search()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search once the typing pauses."""
        event.stop()
        if self._timer:
            self._timer.stop()
        self._timer = self.set_timer(TYPING_PAUSE, self.search)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go to what was found."""
        event.stop()
        self.query_one(DatasetList).focus()

    def search(self) -> None:
        """Look for what is typed now."""
        text = self.query_one(LineInput).value

        def look() -> tuple[DatasetEntry, ...] | CerankError:
            try:
                return drafts.datasets_like(text)
            except CerankError as error:
                return error

        self._show_note("searching …")
        cast("LabApp", self.app).run_in_thread(look, self._see, group="datasets", node=self)

    def _show_note(self, text: str) -> None:
        dataset_list = self.query_one(DatasetList)
        dataset_list.clear_options()
        dataset_list.add_option(Option(content(text, "dim"), disabled=True))

    def _see(self, entries: tuple[DatasetEntry, ...] | CerankError) -> None:
        self._results = () if isinstance(entries, CerankError) else entries[:MOST_SHOWN]
        if isinstance(entries, CerankError):
            self._show_note(f"✖ {one_line(entries)}")
        elif not entries:
            self._show_note("No dataset matches. A folder must start with ./ ~ or /")
        else:
            dataset_list = self.query_one(DatasetList)
            dataset_list.clear_options()
            dataset_list.add_options(
                Option(joined(f"{result.name}  ", (result.description, "dim"), limit=200)) for result in self._results
            )
            dataset_list.highlighted = 0

    def take(self, at: int | None, part: str) -> None:
        """Pass on that the dataset in line `at` is wanted."""
        if at is not None and at < len(self._results):
            self.post_message(self.Selected(part, self._results[at].name))
