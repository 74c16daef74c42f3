"""The errors that a user can cause and correct: each says what is wrong, where, and what to do about it.

This module does not show errors: the command line prints them, and the worker writes them to the run directory.
"""

from __future__ import annotations

import itertools
import os
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

_MOST_FILES = 5000  # most files of a folder that are searched for similar names


class ExitCode(IntEnum):
    """Exit codes of cerank's processes, documented in `cerank guide output` and stable across releases."""

    OK = 0
    FAILED = 1  # the work was started and failed; see the run's failure.json and log.txt
    USAGE = 2  # the request cannot be carried out as given: a bad recipe, file, name or option
    MISSING = 3  # data or a model that is not on this machine and could not be fetched
    HELD = 4  # another process holds the run
    PAUSED = 75  # stopped at a checkpoint and can be resumed (EX_TEMPFAIL)
    INTERRUPTED = 130


class CerankError(Exception):
    """An error that is shown to the user as text: what is wrong, where, and a hint.

    Args:
        what: one sentence in lower case that states the problem, without a full stop.
        where: the place of the problem: `file:line`, a key path such as `stages.distill.loss`, or a name; may be "".
        hint: what the user can do about it; "" if nothing helps.
        code: a short name for this error that does not change with its wording, such as "run-not-found"; without it,
            the code of the class.

    Example:
        >>> str(UsageError("no dataset has this name", where="data.test", hint="did you mean 'vaswani'?"))
        "data.test: no dataset has this name (did you mean 'vaswani'?)"
    """

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE
    class_code: ClassVar[str] = "error"

    def __init__(self, what: str, *, where: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.code = code or self.class_code

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f" ({self.hint})" if self.hint else "")


class UsageError(CerankError):
    """An option, a name or a combination of them that cerank cannot carry out."""

    class_code = "usage"


class FormatError(CerankError):
    """A file whose content does not follow its format; `where` is file:line."""

    class_code = "format"


class RecipeError(CerankError):
    """A recipe with errors; `what` lists all of them, one per line."""

    class_code = "recipe"


class MissingError(CerankError):
    """Data or a model that is not on this machine and could not be fetched."""

    exit_code = ExitCode.MISSING
    class_code = "missing"


class HeldError(CerankError):
    """Another live process holds the run or the file."""

    exit_code = ExitCode.HELD
    class_code = "held"


class RunFailedError(CerankError):
    """Work that was started and cannot continue: a non-finite loss, a full disk, inputs that changed."""

    exit_code = ExitCode.FAILED
    class_code = "failed"


def os_reason(error: OSError) -> str:
    """Return the operating system's message for an error, such as "permission denied"."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason[:1].lower() + reason[1:]


def near_files(path: Path) -> str:
    """Return a hint for a file that does not exist: up to three files of its folder with a similar name, or ""."""
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MOST_FILES)]
    except ValueError:  # a zero byte
        return ""
    except OSError:
        missing = next((folder for folder in reversed(path.parents) if not folder.exists()), None)
        return f"there is no folder {missing}" if missing else ""
    close = get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(str(path.with_name(name))) for name in close)}?" if close else ""


def os_error(
    error: OSError, path: object, kind: type[CerankError] | None = None, *, doing: str = "cannot read the file"
) -> CerankError:
    """Return the error that the user sees when the operating system refuses to read or write a file.

    Args:
        error: what the operating system raised.
        path: the file or folder, which becomes the error's `where`.
        kind: the class of the new error; without it, a missing file is a MissingError and anything else a UsageError.
        doing: what cerank could not do, such as "cannot write the file".
    """
    if kind is None and isinstance(error, FileNotFoundError):
        return MissingError("no such file", where=str(path), hint=near_files(Path(str(path))), code="file-not-found")
    return (kind or UsageError)(f"{doing}: {os_reason(error)}", where=str(path), code="file-access")
