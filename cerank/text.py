"""The one place where text from outside (queries, ids, file names, errors) is made safe to show.

Invariant: what `shown` returns holds no character that a terminal acts upon.
"""

from __future__ import annotations

import unicodedata

_KEPT_FORMAT = {"\u200c", "\u200d"}  # ZWNJ and ZWJ join letters and emoji in honest text
_LINE_SEPARATORS = {"\u2028", "\u2029"}


def _is_dangerous(char: str) -> bool:
    if char in _KEPT_FORMAT:
        return False
    return char in _LINE_SEPARATORS or unicodedata.category(char).startswith("C")


def shown(text: object, limit: int = 2000, *, lines: bool = False) -> str:
    """`text` with control, format, private and unassigned characters as visible marks, clipped to `limit` characters.

    With `lines`, line feeds and tabs are kept; otherwise they become single spaces.
    """
    raw = str(text)
    clipped = raw[:limit]
    kept = {"\n", "\t"}
    out = []
    for char in clipped:
        if char in kept:
            out.append(char if lines else " ")
        elif _is_dangerous(char):
            out.append(f"⟨{ord(char):04x}⟩")
        else:
            out.append(char)
    return "".join(out) + ("…" if len(raw) > limit else "")
