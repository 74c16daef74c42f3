"""Queries that a model wrote, out of what it says around them."""

from __future__ import annotations

import re

MOST_WORDS = 40  # of a query; a longer text is an explanation or the passage itself
_LABEL = re.compile(
    r"^\W*(?:(?:sure|certainly|of course)\W+)?(?:here(?:['’]s| is) (?:a|the) )?(?:(?:search|relevant) )*"
    r"(?:query|question)(?: \d+)?\W*:\s*",
    re.IGNORECASE,
)
_INABILITY = (
    r"(?:i (?:cannot|can not|can['’]?t|could not|couldn['’]t|won['’]t|will not|am unable to|am not able to)"
    r"|i['’]m (?:unable|not able) to)"
)
_TASK_VERB = r"(?:write|generate|create|provide|produce|formulate|make|give|come up with|do|help|assist|answer)"
_GIVEN = r"(?:passage|text|document|content|context|request|prompt|task|input|material|topic|schema|information)"
_ASKED = r"(?:quer(?:y|ies)|questions?)"
_NO_QUERY_BEGINS_SO = re.compile(
    rf"^(?:i(?:['’]m| am)? )?(?:very |so )?sorry(?:\W*$|,? but\b|\W+there is no\b"
    rf"|\W+{_INABILITY} (?:{_TASK_VERB}\b|fulfil|comply))"
    rf"|^unfortunately\W+(?:{_INABILITY}|(?:the|this) {_GIVEN}|there is no)\b"
    r"|^i (?:do )?apologi[sz]e\b"
    r"|^as an ai (?:language )?(?:model|assistant)\b|^as an ai\b[^,]*, i\b|^as a (?:large )?language model\b"
    r"|^i (?:do not|don['’]t) (?:have (?:enough|sufficient) (?:information|context)|feel comfortable)\b"
    r"|^there (?:is|isn['’]t) (?:not )?(?:enough|sufficient) (?:information|context|content)\b"
    rf"|^it is(?: not|n['’]t) (?:appropriate|possible|ethical) (?:for me )?to {_TASK_VERB}\b"
    rf"|^(?:n/?a|none|not applicable|no (?:relevant |suitable )?{_ASKED})\W*$"
    rf"|^{_INABILITY} (?:fulfil|comply|assist)"
    r"|^i (?:won['’]t|will not) (?:write|generate|create|provide|produce|help with)\b"
    rf"|^{_INABILITY} (?:provide|produce|formulate)(?: \w+){{0,3}} {_ASKED}\b"
    r"|^i(?:['’]m| am| must| have to| will)? declin(?:e|ing) (?:this|that|your|the|to)\b"
    rf"|^(?:the|this) (?:provided |given )?{_GIVEN} (?:provided |given )?"
    r"(?:does not|doesn['’]t|is empty|has no|lacks)\b"
    rf"|^(?:there is )?no {_GIVEN} (?:was|is|has been)?\W*(?:provided|given)\b"
    rf"|^please (?:provide|give|share)\b.*\b{_GIVEN}\b",
    re.IGNORECASE,
)
_UNABLE = re.compile(
    rf"^(?:but )?(?:{_INABILITY}|unable to|cannot|can not|can['’]t) {_TASK_VERB}\b(?P<rest>.*)$", re.IGNORECASE
)
# What it cannot do: what was asked for, or nothing else. "I can't create a new folder" is a query.
_OF_THE_TASK = re.compile(
    r"^(?:\W*$"
    r"| (?:you )?(?:with )?(?:that|this|it|one)\b(?: for you\b| because\b|\W*$|\W*[.,;:!—–])"
    r"| (?:this|that)(?: \w+){1,2} for you\b"
    rf"|(?: \w+){{0,3}} {_ASKED}(?:\W*$| (?:right now|at (?:this|the) (?:time|moment)|for you)\b)"
    rf"|(?: \w+){{0,3}} {_ASKED} (?:for|about|from|on|to|based on|without) (?:this|that|it)\b"
    rf"|.*\b(?:this|that|your) (?:{_GIVEN}|{_ASKED})\b|.*\bthe (?:passage|request)\b"
    rf"|.*\bthe (?:provided|given)(?: \w+){{0,2}} (?:{_GIVEN}|{_ASKED})\b"
    r"|(?: \w+){0,2} content (?:that|of|which)\b"
    r"| (?:\w+ )?(?:advice|instructions|guidance|assistance) (?:on|for|about|with|in)\b"
    r"| (?:\w+ )?(?:advice|instructions|guidance|assistance|information)\W*$"
    r"|.*[.!;—–].*\b(?:i won['’]t|i will not|i['’]d be (?:happy|glad)|i can (?:help|assist)|anything else"
    r"|please (?:provide|consult|refrain))\b)",
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
        if _is_refusal(line) or len(line.split()) > MOST_WORDS:
            return ""
        return line
    return ""


def _is_refusal(line: str) -> bool:
    """Return whether a line says that there will be no query.

    The first words do not tell: people search for "I can't create a new project". A refusal begins as no query does, or
    what it cannot do is what it was asked for.
    """
    if _NO_QUERY_BEGINS_SO.match(line):
        return True
    unable = _UNABLE.match(line)
    return unable is not None and _OF_THE_TASK.match(unable["rest"]) is not None
