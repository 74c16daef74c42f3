"""Whether an answer has the form that the request's parameters ask for: servers pass over parameters they do not know.

Invariant: what cannot be told, such as a grammar, or a pattern of an answer that was cut off, counts as kept to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

_JSON_STARTS = '{["-0123456789tfn'


def ignored(parameters: Mapping[str, object], text: str, *, is_cut: bool) -> str:
    """Return the first of a request's parameters whose form an answer does not have; "" if there is none.

    Args:
        parameters: further members of the request, as a teacher declares them.
        text: answer to it.
        is_cut: whether the answer was cut off at its largest number of tokens.
    """
    for name, form, required in _forms(parameters):
        if not any(_has_form(form, required, answer, is_cut=is_cut) for answer in (text, text.strip())):
            return name
    return ""


def _forms(parameters: Mapping[str, object]) -> list[tuple[str, str, object]]:
    """Return each parameter with its form, "json", "choice" or "regex", and what it asks for; names of all servers."""
    forms = []
    for name, value in parameters.items():
        if name == "structured_outputs" and isinstance(value, Mapping):
            forms += [(f"{name}.{key}", key, inner) for key, inner in value.items()]
        elif name.startswith("guided_"):
            forms.append((name, name.removeprefix("guided_"), value))
        elif name == "json_schema" or (name == "response_format" and "json" in str(value)):
            forms.append((name, "json", value))
    return forms


def _has_form(form: str, required: object, text: str, *, is_cut: bool) -> bool:
    if form == "json":
        return text[:1] in _JSON_STARTS if is_cut else _is_json(text)
    if form == "choice" and isinstance(required, Sequence):
        choices = {spelling for choice in required for spelling in (str(choice), str(choice).strip())}
        return any(choice.startswith(text) if is_cut else choice == text for choice in choices)
    if form == "regex" and isinstance(required, str) and not is_cut:
        try:
            return re.fullmatch(required, text) is not None
        except re.error:  # of another dialect
            return True
    return True


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
