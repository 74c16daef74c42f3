"""Outside text made safe for each format a table is written in.

Invariant: what a function here returns cannot end its field, start a command of its format, or act upon a terminal.
"""

from __future__ import annotations

import re
import sys
import unicodedata

from cerank.text.safe_text import shown

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a row's end or a rule, LaTeX would take it for an option
    "*": "{*}",
}


def tsv(text: str) -> str:
    """Return `text` as one field: a tab or line feed in it becomes a visible mark, as every control character does.

    Nothing is quoted. A field that starts with `=` or `@` stays as it is: a TSV reader computes nothing, and a
    spreadsheet that would must be told to take the column as text.
    """
    return shown(text.replace("\t", "⟨0009⟩").replace("\n", "⟨000a⟩"), sys.maxsize)


def csv(text: str) -> str:
    """Return `text` as one quoted field; what a spreadsheet would take for a formula gets an apostrophe in front.

    A formula starts with `=`, `+`, `-` or `@`, full-width or not, after any blanks (OWASP, CSV injection).
    """
    safe = shown(text, sys.maxsize)
    if unicodedata.normalize("NFKC", safe).lstrip()[:1] in {"=", "+", "-", "@"}:
        safe = "'" + safe
    return '"' + safe.replace('"', '""') + '"'


def latex(text: str) -> str:
    """Return `text` as LaTeX that typesets it, on one line."""
    return "".join(_LATEX.get(char, char) for char in shown(text))


def markdown(text: str) -> str:
    """Return `text` as the literal content of a cell in a GitHub table, on one line."""
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", shown(text))


def html(text: str) -> str:
    """Return `text` as the literal content of an element or a quoted attribute of HTML or SVG."""
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(char, entity)
    return shown(text, sys.maxsize)


def json_text(value: object, indent: int | None = None) -> str:
    """`value` as JSON; characters that a terminal may act upon stand as escapes, so the data stay exact and harmless.

    Raises:
        ValueError: a number is not finite.
    """
    import json

    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return re.sub(r"[^\n -~]", lambda match: _json_character(match.group()), text)


def _json_character(char: str) -> str:
    if shown(char) == char:
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
