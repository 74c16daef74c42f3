"""The text of a query as it is compared with others."""

from __future__ import annotations

import re
import unicodedata


def normalized(text: str) -> str:
    """Return the text in lower case without punctuation, words separated by one space; equal results mean one query."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
