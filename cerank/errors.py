"""The errors a person can cause and mend; each says what is wrong, where, and how to go on.

Nothing here knows how an error is shown: the command line prints it, the worker writes it to the run directory.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a cerank process ends with; documented in `cerank guide output`, stable across releases."""

    OK = 0
    FAILED = 1  # the work was started and failed: see the run's failure.json and log
    USAGE = 2  # the request cannot be carried out as given: a bad recipe, file, name or option
    MISSING = 3  # data or a model that is not on this machine and could not be fetched
    HELD = 4  # another worker holds the run
    PAUSED = 75  # stopped at a checkpoint and can go on (EX_TEMPFAIL)
    INTERRUPTED = 130


class CerankError(Exception):
    """What is wrong, where, and a hint: the only exception that reaches a person as its text.

    Args:
        what: one sentence, lower case, without a full stop.
        where: `file:line`, a key path such as `stages.distill.loss`, or a name; "" where there is none.
        hint: what to do about it; "" where nothing helps.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f" ({self.hint})" if self.hint else "")


class UsageError(CerankError):
    """An option, name or combination that cannot be carried out."""


class FormatError(CerankError):
    """A file that does not hold what its format asks for; `where` is file:line."""


class RecipeError(CerankError):
    """A recipe with one or more mistakes, all of them in `what`, a line each."""


class MissingError(CerankError):
    """Data or a model that is not here and could not be fetched."""

    exit_code = ExitCode.MISSING


class HeldError(CerankError):
    """The run belongs to another live worker."""

    exit_code = ExitCode.HELD


class RunFailedError(CerankError):
    """Work that was started and cannot go on: a non-finite loss, a full disk, inputs that changed."""

    exit_code = ExitCode.FAILED
