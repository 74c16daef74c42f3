"""The first line of every screen: the lab, the devices, how many runs are in which state."""

from __future__ import annotations

from pathlib import Path

from textual.widgets import Static

from cerank.tui.cells import joined


class StatusBar(Static):
    """One line; drawn again only when what it says changes."""

    DEFAULT_CSS = """
    StatusBar { dock: top; height: 1; background: $panel; color: $foreground; padding: 0 1; text-wrap: nowrap;
          text-overflow: ellipsis; }
    """

    def __init__(self, lab: Path) -> None:
        super().__init__(joined(("cerank ", "bold"), str(lab)))
        self._lab = _at_home(lab)
        self._shown: tuple[str, ...] = ()

    def show(self, counts: str, devices: str = "", title: str = "") -> None:
        """Show how many runs are in each state, the devices where they are known, and what the screen is about."""
        if self._shown == (counts, devices, title):
            return
        self._shown = (counts, devices, title)
        parts = [part for part in (title, devices, counts) if part]
        self.update(joined(("cerank ", "bold"), self._lab, *(f"  │  {part}" for part in parts)))


def _at_home(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)
