"""The references that a paragraph on methods may cite, from `references.bib`; only those that were used are written.

Invariant: an entry is what its publisher prints; nothing here is computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

_FILE = resources.files(__package__).joinpath("references.bib").read_text(encoding="utf8")
ENTRIES = {re.split(r"[{,]", entry)[1]: entry for entry in _FILE.strip().split("\n\n")}  # key -> entry
CERANK = """@misc{{cerank,
  key = {{cerank}}, title = {{cerank {version}}}, note = {{Fine-tuning cross-encoder re-rankers in stages}}
}}"""


def bibtex(keys: Sequence[str], version: str) -> str:
    """Return the entries of these keys, and cerank's own, in the order in which they are first cited."""
    entries = [CERANK.format(version=version), *(ENTRIES[key] for key in dict.fromkeys(keys) if key != "cerank")]
    return "\n\n".join(entries) + "\n"


def cited_as(key: str, version: str) -> str:
    """Return a reference as plain text names it: surname of the first author, and year."""
    if key == "cerank":
        return f"cerank {version}"
    entry = ENTRIES[key]
    author = entry.partition("author = {")[2].partition(",")[0].replace('{\\"a}', "ä").replace("{\\'a}", "á")
    is_alone = " and " not in entry.partition("author = {")[2].partition("title =")[0]
    year = entry.rpartition("year = {")[2].partition("}")[0]
    return f"{author} {year}" if is_alone else f"{author} et al. {year}"
