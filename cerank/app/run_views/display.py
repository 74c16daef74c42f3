"""The signs and short words that command line and dashboard share."""

from __future__ import annotations

from datetime import UTC, datetime

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


def now() -> datetime:
    """Return the clock, by which ages are told."""
    return datetime.now(UTC)


def age(created: str, until: datetime) -> str:
    """Return how long ago a time was: "5 d", "3 h", "12 min", "now"; "" for what is no time.

    Args:
        created: ISO 8601, with its zone.
        until: the clock, with its zone.
    """
    try:
        seconds = (until - datetime.fromisoformat(created)).total_seconds()
    except (ValueError, TypeError):
        return ""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "now"


def local_time(text: str) -> str:
    """Return a time as a user's calendar has it: "23 Nov 2026 11:00"; the text itself where it is no time."""
    try:
        return f"{datetime.fromisoformat(text).astimezone():%d %b %Y %H:%M}".lstrip("0")
    except ValueError:
        return text


def at_words(text: str, limit: int) -> str:
    """Return the words that fit `limit` characters, with "…" where some are left out; a lone long word is cut."""
    if len(text) <= limit:
        return text
    words = text[: limit - 1].rpartition(" ")[0].rstrip(" ,;:(")
    return f"{words} …"[:limit] if len(words) >= limit // 2 else f"{text[: limit - 1]}…"
