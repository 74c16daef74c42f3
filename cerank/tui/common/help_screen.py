"""Help for the screen in front, made from its bindings; the palette's commands come from the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from cerank.tui.cells import content, joined, stacked

_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "plus": "+",
    "minus": "-",
    "escape": "esc",
    "comma": ",",
    "full_stop": ".",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "equals_sign": "=",
    "ctrl+p": "^p",
}


_MOVES = ("list.", "table.", "bars.", "log.down", "log.up", "rankings.down", "rankings.up", "marks.", "field.")


def bindings_of(screen: Screen[Any]) -> list[Binding]:
    """Return the bindings that act on a screen now, one for each action, the screen's own first."""
    by_id: dict[str, Binding] = {}
    keys: dict[str, list[str]] = {}
    for _, bindings in reversed(screen._binding_chain):
        for key, binding in bindings:
            if not binding.id or not binding.description:
                continue
            by_id.setdefault(binding.id, binding)
            keys.setdefault(binding.id, []).append(binding.key_display or _NAMES.get(key, key))
    ordered = sorted(by_id, key=lambda name: (name.startswith("app."), name.startswith("list.")))
    return [_with_keys(by_id[name], keys[name]) for name in ordered]


def _with_keys(binding: Binding, keys: list[str]) -> Binding:
    return dataclasses.replace(binding, key_display=" ".join(dict.fromkeys(keys)))


def commands_of(screen: Screen[Any]) -> Iterable[tuple[str, str, Callable[[], Any]]]:
    """Yield title, text and action of each binding, for the palette; keys that only move are left out."""
    for binding in bindings_of(screen):
        if (binding.id or "").startswith(_MOVES) or binding.id in {"app.next", "app.before", "app.interrupt"}:
            continue
        action = binding.action

        async def run(action: str = action) -> None:
            await screen.run_action(action)

        yield binding.description.capitalize(), f"{binding.key_display}  {binding.tooltip}".strip(), run


class HelpScreen(ModalScreen[None]):
    """Every key of the screen below, with what it does."""

    CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > VerticalScroll { width: 76; max-width: 96%; height: auto; max-height: 94%; padding: 1 2;
                                  background: $panel; border: round $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss(None)", "close", id="help.close")
    ]

    def __init__(self, about: Screen[Any]) -> None:
        super().__init__()
        self._about = about

    def compose(self) -> ComposeResult:
        """Lay out the table of keys."""
        title = getattr(self._about, "HELP_TITLE", "this screen")
        text = getattr(self._about, "HELP_TEXT", "")
        rows = [joined((f"Keys of {title}", "bold")), content("")]
        for binding in bindings_of(self._about):
            more = f": {binding.tooltip}" if binding.tooltip else ""
            rows.append(
                joined((f"{binding.key_display or '':>14}  ", "bold $primary"), binding.description, (more, "dim"))
            )
        rows.append(
            joined(
                (f"{': ^p':>14}  ", "bold $primary"),
                "palette",
                (": find a command, a run or a recipe by name, and change the theme", "dim"),
            )
        )
        if text:
            rows += [content(""), content(text, lines=True)]
        with VerticalScroll():
            yield Static(stacked(*rows))
