"""Colors: the themes, a state's color, and curves that the color-blind can tell apart.

The eight colors are Okabe and Ito's (2008), some lightened for dark grounds. Color alone shows nothing: states have
a sign and a word, curves a letter.
"""

from __future__ import annotations

from collections.abc import Mapping

from textual.theme import BUILTIN_THEMES, Theme

DARK = Theme(
    name="cerank",
    primary="#56B4E9",
    secondary="#CC79A7",
    accent="#E69F00",
    success="#2CC295",
    warning="#F0E442",
    error="#FF7A45",
    foreground="#E4E7EB",
    background="#10141A",
    surface="#151B23",
    panel="#1E2732",
    dark=True,
    variables={"footer-key-foreground": "#56B4E9", "footer-background": "#1E2732", "block-cursor-text-style": "none"},
)
LIGHT = Theme(
    name="cerank-light",
    primary="#0072B2",
    secondary="#A14D7F",
    accent="#B35C00",
    success="#00795A",
    warning="#7A6A00",
    error="#C04A00",
    foreground="#16202B",
    background="#FBFBF8",
    surface="#F2F2EE",
    panel="#E3E6E8",
    dark=False,
    variables={"block-cursor-text-style": "none"},
)
HIGH_CONTRAST = Theme(
    name="cerank-high-contrast",
    primary="#7FD4FF",
    secondary="#FFB0E0",
    accent="#FFC74D",
    success="#5CFFC4",
    warning="#FFFF66",
    error="#FF9B73",
    foreground="#FFFFFF",
    background="#000000",
    surface="#000000",
    panel="#202020",
    dark=True,
    variables={
        "footer-key-foreground": "#FFFF66",
        "footer-background": "#202020",
        "text-muted": "#E0E0E0",
        "text-disabled": "#C8C8C8",
        "block-cursor-text-style": "none",
    },
)
WITHOUT_COLOR = "ansi-dark"  # with it Textual drops every color under NO_COLOR; with others it draws in grays

ON_DARK = ("#56B4E9", "#E69F00", "#2CC295", "#CC79A7", "#F0E442", "#FF7A45", "#8FA8FF", "#C8CDD3")
ON_LIGHT = ("#0072B2", "#B35C00", "#00795A", "#A14D7F", "#7A6A00", "#C04A00", "#3A4FB8", "#4A5560")

_STATES = {
    "running": "$primary",
    "stopping": "$accent",
    "queued": "$text-muted",
    "waiting": "$text-muted",
    "paused": "$warning",
    "finished": "$success",
    "failed": "$error",
    "lost": "$accent",
    "damaged": "$error",
}


def chosen(saved: str, environ: Mapping[str, str]) -> str:
    """Return the name of the theme to start with: CERANK_THEME, else the saved one, else what fits the terminal.

    Many terminals say their background in COLORFGBG: "0;15" is black on white.
    """
    if named := environ.get("CERANK_THEME") or saved:
        return named if named in {DARK.name, LIGHT.name, HIGH_CONTRAST.name, *BUILTIN_THEMES} else DARK.name
    background = environ.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT.name if background in {"7", "15"} else DARK.name


def palette(*, is_dark: bool) -> tuple[str, ...]:
    """Return colors of curves, the first for the run in focus."""
    return ON_DARK if is_dark else ON_LIGHT


def state_color(state: str, *, is_dark: bool) -> str:
    """Return the color of a state's sign and word, as hex."""
    theme = DARK if is_dark else LIGHT
    named = {"$primary": theme.primary, "$accent": theme.accent, "$warning": theme.warning, "$success": theme.success}
    named |= {"$error": theme.error, "$text-muted": "#8A94A0" if is_dark else "#5A6470"}
    return named[_STATES[state]] or ""
