"""What the work on a teacher needs of a server or a model, whatever it is."""

from __future__ import annotations

from typing import Protocol

import msgspec

from cerank.errors import CerankError, ExitCode
from cerank.teachers.answer_store import Call, ModelAnswer


class StopTeachingError(CerankError):
    """The work stops at a checkpoint and can be continued: a cap, a signal, a server that asks to come back later."""

    exit_code = ExitCode.PAUSED


class ServerError(CerankError):
    """The server refuses every call: a wrong key, an unknown model, an endpoint that is not there."""

    exit_code = ExitCode.FAILED


class Usage(msgspec.Struct, frozen=True):
    """Tokens of calls."""

    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """Return the sum of both."""
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


class Engine(Protocol):
    """Answers calls, one after the other or several at once."""

    @property
    def place(self) -> str:
        """Where the model runs: the server's address, or "in process"; part of each answer's key."""

    def request(self, call: Call) -> dict[str, object]:
        """Return all that is sent for a call, without secrets; it decides the answer's key."""

    async def ask(self, call: Call, key: str) -> ModelAnswer:
        """Return the answer to a call, or one with `failure` set if there will be none.

        Raises:
            ServerError: no call will be answered.
            StopTeachingError: the server asks to come back later.
        """

    def forms(self, call: Call) -> int:
        """Return in how many forms a call may be sent; the first that is answered is used."""

    def use_form(self, form: int) -> None:
        """Send calls in that form, from 0, from here on."""

    def check_probe(self, call: Call, answer: ModelAnswer) -> None:
        """Check that the answer to a small call has what the teacher needs.

        Raises:
            UsageError: it cannot give that; ServerError: it answers no request.
        """

    def input_tokens(self, call: Call) -> tuple[int, bool]:
        """Return how many tokens a call's prompt has, and whether that is exact."""

    async def close(self) -> None:
        """Let go of connections and memory."""
