"""The signs and short words that command line and dashboard share."""

from __future__ import annotations

GLYPHS = {
    "waiting": "·",
    "queued": "○",
    "running": "▶",
    "stopping": "◑",
    "paused": "‖",
    "finished": "✔",
    "failed": "✖",
    "lost": "?",
    "damaged": "!",
}


def clock(seconds: float) -> str:
    """Return a duration such as 0:42, 12:07 or 3:12:07; "" below half a second."""
    total = round(seconds)
    if total < 1:
        return ""
    hours, rest = divmod(total, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def short(value: float) -> str:
    """Return a measure as tables show it: .641, 1.00, -.012."""
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else f"{value:.2f}"


def count(value: float) -> str:
    """Return a count or rate in at most five characters: 412, 61.2k, 1.3M."""
    if abs(value) < 1000:
        return f"{value:.0f}"
    size, unit = next((s, u) for s, u in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(value) >= s)
    return f"{value / size:.3g}{unit}"
