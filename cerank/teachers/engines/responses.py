"""Responses of OpenAI-compatible servers, read with suspicion: HTTP 200 may hold an error, half an answer, or a key.

Invariant: whatever the bytes, the result is an answer's fields or a `BadResponseError`; nothing else is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import msgspec

MOST_POSITIONS = 4  # places of an answer whose tokens are kept: more than any kind reads


class BadResponseError(Exception):
    """A response that holds no answer; the text says why."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """The text, tokens and log probabilities in a server's response."""

    text: str
    reasoning: str = ""
    refusal: str = ""
    finish: str = ""
    tokens: list[list[tuple[str, float]]] = []
    input_tokens: int | None = None
    output_tokens: int | None = None
    model: str = ""


def parse(data: bytes) -> Response:
    """Return what a response to a chat or completions request holds.

    Raises:
        BadResponseError: no JSON, an error, no choice, or fields of wrong types.
    """
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadResponseError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadResponseError("not a JSON object")
    if value.get("error"):
        raise BadResponseError(f"an error in place of an answer: {error_text(value)}")
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise BadResponseError("no choices")
    message = choice.get("message")
    if message is None and isinstance(choice.get("text"), str):
        message = {"content": choice["text"]}
    if not isinstance(message, dict):
        raise BadResponseError("a choice without a message")
    content = message.get("content")
    if isinstance(content, list):  # content parts
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if content is not None and not isinstance(content, str):
        raise BadResponseError("a message whose content is no text")
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Response(
        text=content or "",
        reasoning=_text(message.get("reasoning_content") or message.get("reasoning")),
        refusal=_text(message.get("refusal")),
        finish=_text(choice.get("finish_reason")),
        tokens=_tokens(choice.get("logprobs")),
        input_tokens=_count(usage, "prompt_tokens", "input_tokens"),
        output_tokens=_count(usage, "completion_tokens", "output_tokens"),
        model=_text(value.get("model")),
    )


def error_text(value: object) -> str:
    """Return the message of an error in its many forms: {"error": {"message"}}, {"error": "..."}, {"detail": [...]}."""
    if isinstance(value, Mapping):
        for key in ("error", "message", "detail", "object"):
            inner = value.get(key)
            if inner:
                return error_text(inner)
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (error_text(_named(entry)) for entry in value[:3])))
    return str(value)[:500]


def error_code(data: bytes) -> str:
    """Return the code of an error, such as "insufficient_quota"; "" if there is none."""
    try:
        error = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    error = error.get("error") if isinstance(error, dict) else None
    return _text(error.get("code") or error.get("type")) if isinstance(error, dict) else ""


def error_of(data: bytes) -> str:
    """Return the message of an error response, whatever its form, on one line."""
    try:
        text = error_text(msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        text = data[:500].decode("utf-8", "replace")
    return " ".join(text.split())


def _named(entry: object) -> object:
    return entry.get("msg", entry) if isinstance(entry, dict) else entry


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def _tokens(logprobs: object) -> list[list[tuple[str, float]]]:
    """Return tokens with their log-probabilities for the first places, in both of OpenAI's forms."""
    if not isinstance(logprobs, dict):
        return []
    content = logprobs.get("content")
    if isinstance(content, list):
        return [_alternatives(entry) for entry in content[:MOST_POSITIONS]]
    top = logprobs.get("top_logprobs")
    if isinstance(top, list):  # a completions endpoint: for each place, token -> log-probability
        tables = [entry for entry in top[:MOST_POSITIONS] if isinstance(entry, dict)]
        return [[(token, float(value)) for token, value in table.items() if _is_number(value)] for table in tables]
    return []


def _alternatives(entry: object) -> list[tuple[str, float]]:
    if not isinstance(entry, dict):
        return []
    listed = entry.get("top_logprobs")
    rows = [*(listed if isinstance(listed, list) else []), entry]
    alternatives: dict[str, float] = {}
    for row in rows:
        token, value = (row.get("token"), row.get("logprob")) if isinstance(row, dict) else (None, None)
        if isinstance(token, str) and _is_number(value):
            alternatives[token] = max(float(value), alternatives.get(token, float("-inf")))
    return list(alternatives.items())


def _is_number(value: object) -> TypeGuard[int | float]:
    """Return whether it is a finite number of a sensible size; -9999 is how some servers write "never"."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e6 < value <= 1.0
