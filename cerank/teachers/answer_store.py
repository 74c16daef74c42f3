"""Calls to a model and the answers to them; an answer is on disk before anything is made of it.

Invariant: a key stands for one request to one server, byte for byte; what was answered once is never asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType

import msgspec

from cerank.files import disk, journal
from cerank.files.hashing import sha256_json
from cerank.files.journal import Journal
from cerank.files.lease import Lease
from cerank.recipes.sections.teacher_specs import Kind
from cerank.teachers.prompts import Message


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a model: its prompt and parameters, under which the answer is stored."""

    kind: Kind
    messages: tuple[Message, ...]
    size: int  # passages that it shows
    max_output: int  # tokens of the answer at most
    expected_output: int = 1  # tokens of an answer in its usual form
    answer_start: str = ""  # the answer is made to begin with this
    identifiers: tuple[str, ...] = ()  # tokens whose log-probabilities decide; none: the text of the answer does
    sample: int = 0  # which of several answers to the same prompt


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The raw answer of a model with its tokens and time; a row of the store."""

    key: str
    model: str
    parameters: dict[str, object] = {}  # the request without its prompt
    query: str = ""
    text: str = ""
    reasoning: str = ""  # thinking that the server returns apart
    refusal: str = ""
    finish: str = ""  # "stop", "length", "content_filter" ... as the server says
    tokens: list[list[tuple[str, float]]] = []  # first places of the answer: tokens and their log-probabilities
    input_tokens: int = 0
    output_tokens: int = 0
    tokens_are_estimated: bool = False  # the server said nothing of them
    seconds: float = 0.0
    time: str = ""  # UTC, ISO 8601
    attempts: int = 1
    failure: str = ""  # why there is no answer, where the server gave none
    detail: str = ""  # the server's own words on that


def key_of(server: str, request: Mapping[str, object], sample: int) -> str:
    """Return the key of a request: a SHA-256 over the server, everything that is sent, and the sample's number."""
    return sha256_json([server, dict(request), sample])


class AnswerStore:
    """The answers of one model on one server, kept for good.

    Opening it takes a lease: one process at a time asks that server for that model.

    Raises:
        HeldError: another process holds it.
        DamagedError: a row was changed.
    """

    def __init__(self, path: Path, now: datetime) -> None:
        disk.make_folder(path.parent)
        self._lease = Lease.take(path.with_suffix(".lease"), now)
        try:
            self._journal: Journal[ModelAnswer] = Journal(path, ModelAnswer)
            self._answers = read_answers(path)
        except BaseException:
            self._lease.release()
            raise

    def get(self, key: str) -> ModelAnswer | None:
        """Return the newest answer under a key, if there is one."""
        return self._answers.get(key)

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, answer: ModelAnswer) -> None:
        """Keep an answer; when this returns, it survives a power cut."""
        self._journal.append(answer)
        self._journal.sync()
        self._answers[answer.key] = answer

    def close(self) -> None:
        """Close the file and let other processes have it."""
        try:
            self._journal.close()
        finally:
            self._lease.release()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_answers(path: Path) -> dict[str, ModelAnswer]:
    """Return key -> the newest answer in a store's file; nothing where there is no file."""
    return {answer.key: answer for answer in journal.read(path, ModelAnswer)}
