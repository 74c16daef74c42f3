"""The one place where text from outside (queries, ids, file names, errors) is made safe to show and to keep.

Invariant: what `shown` returns holds no control characters, and no access token.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata

_KEPT_FORMAT = {"\u200c", "\u200d"}  # ZWNJ and ZWJ join letters and emoji in honest text
_LINE_SEPARATORS = {"\u2028", "\u2029"}

REDACTED = "[token]"
_SHORTEST = 16  # characters of a variable's value that is taken for a token; shorter ones may be words
_LONGEST = 4096  # characters of a token
_SECRET_NAME = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|JWT|CREDENTIALS?)$", re.IGNORECASE)
_SHAPES = re.compile(
    r"hf_[A-Za-z0-9]{20,}"  # Hugging Face: the user's
    r"|api_org_[A-Za-z0-9]{20,}"  # and an organization's
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}"
    r"|glpat-[\w-]{20,}"
    r"|sk-(?:proj-|ant-)?[\w-]{32,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{20,}"
    r"|(?<![A-Z0-9])AKIA[A-Z0-9]{16}(?![A-Z0-9])"
    r"|(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"  # a JSON web token
    r"|(?<=://)[^\s/@:]{1,256}:[^\s/@]{1,256}(?=@)",  # a name and password in an address
    re.ASCII,
)


@functools.lru_cache(maxsize=1)
def secret_values() -> tuple[str, ...]:
    """Return the tokens that this process was given in its environment, the longest first."""
    tokens = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    return tuple(sorted(tokens, key=len, reverse=True))


def redacted(text: str) -> str:
    """Return `text` with each access token in it as `[token]`.

    A token is the value of a variable of the environment whose name ends like a token's (HF_TOKEN, WANDB_API_KEY), or
    text of a known token's shape. Others cannot be told from honest text.
    """
    for value in secret_values():
        text = text.replace(value, REDACTED)
    return _SHAPES.sub(REDACTED, text)


def token_at(text: str) -> int:
    """Return where the first access token in `text` starts; -1 where there is none."""
    places = [text.find(value) for value in secret_values()]
    match = _SHAPES.search(text)
    return min((place for place in (*places, match.start() if match else -1) if place >= 0), default=-1)


_PLURALS = {"query": "queries", "entry": "entries", "copy": "copies", "directory": "directories"}
_PLURALS |= {"batch": "batches", "hash": "hashes", "process": "processes", "loss": "losses", "match": "matches"}


def counted(number: float, noun: str, form: str = ",") -> str:
    """Return a number and the noun that it counts: "1 query", "2 queries", "0 runs", "1,200 training pairs".

    Args:
        noun: noun in the singular; if it has several words, the last one becomes plural.
        form: how the number is written, as `format` has it.
    """
    return f"{number:{form}} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a noun; of several words, the last one changes."""
    before, space, last = noun.rpartition(" ")
    return before + space + _PLURALS.get(last, last + "s")


def _is_dangerous(char: str) -> bool:
    if char in _KEPT_FORMAT:
        return False
    return char in _LINE_SEPARATORS or unicodedata.category(char).startswith("C")


def shown(text: object, limit: int = 2000, *, lines: bool = False) -> str:
    """`text` with control, format, private and unassigned characters as visible marks, clipped to `limit` characters.

    With `lines`, line feeds and tabs are kept; otherwise they become single spaces. Access tokens are `redacted`.
    """
    raw = str(text)
    clipped = redacted(raw[: limit + _LONGEST])[:limit]  # before the cut, or half a token might stand at the end
    allowed = {"\n", "\t"}
    out = []
    for char in clipped:
        if char in allowed:
            out.append(char if lines else " ")
        elif _is_dangerous(char):
            out.append(f"⟨{ord(char):04x}⟩")
        else:
            out.append(char)
    return "".join(out) + ("…" if len(raw) > limit else "")
