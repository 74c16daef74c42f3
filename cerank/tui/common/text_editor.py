"""Text edited in the user's own editor, for which the dashboard steps aside.

Invariant: no text is lost: the file stays where it is until what it says was taken over; a later edit puts it aside as
NAME.before.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from cerank.errors import CerankError, UsageError
from cerank.files import disk
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common.form_fields import ERROR_SIGN
from cerank.tui.common.lab_screen import LabScreen

Take = Callable[[str], Sequence[str]]  # takes the text over, or returns every mistake in it


def editor_command(environ: Mapping[str, str]) -> list[str]:
    """Return the user's editor: VISUAL, else EDITOR, else vi.

    Raises:
        UsageError: the variable is no command.
    """
    for name in ("VISUAL", "EDITOR"):
        text = environ.get(name, "").strip()
        if text:
            try:
                return shlex.split(text)
            except ValueError as error:
                raise UsageError(f"{error}: {text}", where=name, hint=f"set {name} to a command") from error
    return ["vi"]


class MistakesDialog(ModalScreen[bool]):
    """Every mistake of an edited text; dismissed with True to edit it again."""

    CSS = """
    MistakesDialog { align: center middle; }
    MistakesDialog > VerticalScroll { width: 90; max-width: 96%; height: auto; max-height: 90%; padding: 1 2;
                                      background: $panel; border: round $error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e,enter", "answer(True)", "edit again", id="mistakes.again"),
        Binding("escape", "answer(False)", "leave", id="mistakes.leave"),
    ]

    def __init__(self, mistakes: Sequence[str], path: Path) -> None:
        super().__init__()
        self._mistakes = tuple(mistakes)
        self._path = path

    def compose(self) -> ComposeResult:
        """Lay out the mistakes, and what the keys do."""
        rows = [joined((f"{ERROR_SIGN} ", "bold $error"), mistake) for mistake in self._mistakes]
        keys = joined(("e", "bold $primary"), " edits it again   ", ("esc", "bold $primary"), " changes nothing")
        where = content(f"Your text stays in {self._path}", "dim")
        with VerticalScroll():
            yield Static(stacked(content("The text was not taken over.", "bold"), content(""), *rows))
            yield Static(stacked(content(""), keys, where))

    def action_answer(self, is_again: bool) -> None:
        """Answer by key."""
        self.dismiss(is_again)


def edit_text(screen: LabScreen, text: str, path: Path, take: Take) -> None:
    """Open `text` in the user's editor, and have it taken over when the editor ends.

    Args:
        screen: shown again afterwards.
        text: what to start from.
        path: the file to edit; it is removed once its text was taken over.
        take: takes the new text over, or returns every mistake in it; then the user may edit it again.
    """
    try:
        disk.make_folder(path.parent)
        if path.exists():  # left by an editor that failed, or with mistakes in it
            disk.rename(path, path.with_name(f"{path.name}.before"))
        disk.write(path=path, data=text.encode())
        command = editor_command(os.environ)
    except CerankError as error:
        screen.lab_app.show_error(error)
        return
    _edit(screen, command, text, path, take)


def _edit(screen: LabScreen, command: Sequence[str], before: str, path: Path, take: Take) -> None:
    lab_app = screen.lab_app
    try:
        with screen.app.suspend():
            code = subprocess.run([*command, str(path)], check=False).returncode
        after = path.read_text(encoding="utf8")
    except SuspendNotSupported:
        lab_app.show_message("This terminal cannot be handed to an editor.", "error")
        return
    except (OSError, UnicodeDecodeError) as error:
        lab_app.show_message(
            f"{command[0]}: {error}. Set VISUAL or EDITOR to your editor. Nothing was changed.", "error"
        )
        return
    if code:
        lab_app.show_message(
            f"{command[0]} ended with code {code}: nothing was changed. The text is in {path}", "error"
        )
        return
    if after == before:
        lab_app.show_message("The text was not changed.")
        return
    mistakes = take(after)
    if not mistakes:
        path.unlink(missing_ok=True)
        return

    def answered(is_again: bool | None) -> None:
        if is_again:
            screen.call_later(_edit, screen, command, before, path, take)

    screen.app.push_screen(MistakesDialog(mistakes, path), answered)
