"""The last line of every screen: the main keys."""

from __future__ import annotations

from textual.screen import Screen
from textual.widgets import Footer


class KeyFooter(Footer):
    """Textual's footer, which is made anew only when the keys that it shows are others.

    Textual's own is made anew whenever the focus moves: some 20 ms, twice when a line of input closes.
    """

    def __init__(self) -> None:
        super().__init__(compact=True, show_command_palette=False)
        self._shown_keys: list[tuple[str, str, str, bool, str]] = []

    def bindings_changed(self, screen: Screen[object]) -> None:
        """Show the keys of the screen as they are now."""
        keys = [
            (self.app.get_key_display(binding), binding.description, binding.action, is_enabled, tooltip)
            for _, binding, is_enabled, tooltip in screen.active_bindings.values()
            if binding.show
        ]
        if keys == self._shown_keys or not self.app.app_focus:
            return
        self._shown_keys = keys
        super().bindings_changed(screen)
