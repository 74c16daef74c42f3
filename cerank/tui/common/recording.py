"""A recording of the dashboard as an asciicast file (version 2), which `asciinema play` shows and web players embed.

Invariant: the file is a whole recording after every frame; a frame holds only the lines that changed.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from textual._compositor import LayoutUpdate

from cerank.errors import UsageError
from cerank.files import disk

if TYPE_CHECKING:
    from textual.app import App

FRAME_SECONDS = 0.25  # between two frames
_LONGEST_PAUSE = 2.0  # seconds; players shorten what is longer, such as waiting for a step


class Recording:
    """A file that is being recorded; `take_frame` is called several times a second."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        """Make the file and write its header.

        Raises:
            UsageError: the file exists.
            RunFailedError: the disk refuses.
        """
        if path.exists():
            raise UsageError("the file exists", where=str(path), code="file-exists")
        self.path = path
        self._size = size
        self._lines: list[str] = []  # as the player shows them now
        self._started = time.monotonic()
        self._file = disk.open_append(path)
        header = {
            "version": 2,
            "width": size[0],
            "height": size[1],
            "timestamp": int(time.time()),
            "idle_time_limit": _LONGEST_PAUSE,
            "title": "cerank tui",
            "env": {"TERM": "xterm-256color"},
        }
        self._write(header)

    def take_frame(self, lines: list[str], size: tuple[int, int]) -> None:
        """Write the lines that changed.

        Args:
            lines: the screen's lines, with escape sequences for their colors and none that move the cursor.
            size: columns and rows of the terminal now.

        Raises:
            RunFailedError: the disk refuses.
        """
        if size != self._size:
            self._event("r", f"{size[0]}x{size[1]}")
        data = ""
        if size != self._size or not self._lines:
            self._size, self._lines = size, []
            data = "\x1b[?25l\x1b[0m\x1b[2J"
        changed = (place for place, line in enumerate(lines) if self._lines[place : place + 1] != [line])
        data += "".join(f"\x1b[{place + 1};1H{lines[place]}\x1b[0m" for place in changed)
        self._lines = lines
        if data:
            self._event("o", data)

    def finish(self) -> None:
        """Show the cursor below the last frame, and close the file."""
        try:
            self._event("o", f"\x1b[0m\x1b[{self._size[1]};1H\x1b[?25h\r\n")
        finally:
            disk.close(self._file)

    def _event(self, kind: str, data: str) -> None:
        self._write([round(time.monotonic() - self._started, 3), kind, data])

    def _write(self, record: object) -> None:
        disk.append(self._file, json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n")


def lines_of(app: App[Any]) -> list[str]:
    """Return the lines of the screen in front, and of what is seen below it, as text for a terminal of 24-bit color."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", legacy_windows=False)
    # as Textual's own `export_screenshot` does
    drawn = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    strips = cast("LayoutUpdate", drawn).strips
    return ["".join(strip.render(console) for strip in cast("Iterable[Any]", line)) for line in strips]
