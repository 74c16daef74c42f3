"""Queries that a model wrote, out of what it says around them."""

from __future__ import annotations

import re

MOST_WORDS = 40  # of a query; a longer text is an explanation or the passage itself
_LABEL = re.compile(
    r"^\W*(?:(?:sure|certainly|of course)\W+)?(?:here(?:['’]s| is) (?:a|the) )?(?:(?:search|relevant) )*"
    r"(?:query|question)(?: \d+)?\W*:\s*",
    re.IGNORECASE,
)
# Verbs of what was asked for: "I can't sleep after coffee" and "sorry symptoms" are queries.
_REFUSAL = re.compile(
    r"^(?:(?:i['’]?m |i am )?(?:very |so )?sorry(?:\W*$|, but\b)"
    r"|(?:(?:i['’]?m |i am )?(?:very |so )?sorry\W+|unfortunately\W+)?(?:but )?(?:as an ai\b[^,]*,\s*)?"
    r"i (?:cannot|can not|can['’]?t|am unable to|am not able to|won['’]t|will not) "
    r"(?:write|generate|create|provide|produce|fulfill|comply|assist|do (?:that|this)|help(?= you| with|\W*$))\b"
    r"|i['’]m (?:unable|not able) to (?:write|generate|create|provide|produce|fulfill|comply|assist|help)\b"
    r"|as an ai (?:language )?(?:model|assistant)\b)",
    re.IGNORECASE,
)
_ANNOUNCEMENT = re.compile(r"^(?:sure|certainly|of course|here(?: is|['’]s))\b.*:$", re.IGNORECASE)
_MARKS = "\"'“”‘’`*_ \t"


def read_query(text: str) -> str:
    """Return the first line that is a query, without label, quotation marks or list marks; "" if there is none.

    Example:
        >>> read_query('<think>caffeine ...</think>\\nSure, here is a query:\\n1. "is coffee safe in pregnancy"')
        'is coffee safe in pregnancy'
        >>> read_query("I cannot write that.")
        ''
    """
    text = text.rpartition("</think>")[2]
    for raw in text.splitlines():
        line = re.sub(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+", "", raw).strip(_MARKS)
        line = _LABEL.sub("", line).strip(_MARKS)
        line = " ".join(line.split())
        if not re.search(r"\w", line) or _ANNOUNCEMENT.match(line) or line.startswith("```"):
            continue
        if _REFUSAL.match(line) or len(line.split()) > MOST_WORDS:
            return ""
        return line
    return ""
